"""Native cores, compiled and ready to be run over the steps of a batch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ...graph.program import Program
from .build import address_of, load
from .plan import Unsupported
from .source import OF_STRUCTURE, Source, cores_of, preamble, products_source, write_core

Resolve = Callable[[str, Any], "Tensor | int"]


@dataclass(frozen=True)
class Arguments:
    """The numbers and addresses that a native core is called with, and the tensors that they point into."""

    numbers: np.ndarray[Any, np.dtype[np.int64]]
    alive: list[Tensor]


@dataclass(frozen=True, eq=False)
class Loop:
    """A core as a native function."""

    source: Source
    function: Callable[..., None]
    products: Mapping[str, int]  # the functions "product" and "pack", by address

    def bind(self, resolve: Resolve, known: MutableMapping[Any, Arguments]) -> Arguments:
        """The arguments for one run; `resolve` gives each by its role, a tensor for its address.

        What is the same in every run over the same structure is asked for once, and kept in `known`.
        """
        if self not in known:
            known[self] = self._fixed(resolve)
        numbers, alive = known[self].numbers.copy(), []
        for at, role, what in self.source.varying:
            found = resolve(role, what)
            if isinstance(found, Tensor):
                alive.append(found)
                found = found.data_ptr()
            numbers[at] = found
        return Arguments(numbers, alive)

    def _fixed(self, resolve: Resolve) -> Arguments:
        fixed = Arguments(np.zeros(len(self.source.arguments), np.int64), [])
        for at, (role, what) in enumerate(self.source.arguments):
            found = self.products.get(role, 0)
            if role in OF_STRUCTURE:
                found = resolve(role, what)  # type: ignore[assignment]
            if isinstance(found, Tensor):
                fixed.alive.append(found)
                found = found.data_ptr()
            fixed.numbers[at] = found
        return fixed

    def run(self, arguments: Arguments, steps: np.ndarray[Any, np.dtype[np.int32]]) -> None:
        """Compute these steps, lines [n, 7] as in `Step`, one after the other."""
        self.function(arguments.numbers.ctypes.data, steps.ctypes.data, len(steps))


def loops_of(program: Program) -> tuple[dict[str, Loop], dict[str, str]]:
    """The cores of a program that can be native code, compiled; and why the others cannot."""
    sources: list[Source] = []
    reasons: dict[str, str] = {}
    for core in cores_of(program):
        try:
            sources.append(write_core(program, core))
        except Unsupported as reason:
            reasons[core] = str(reason)
    if not sources:
        return {}, reasons
    shared = load(products_source(program.trace.state_dtype))
    products = {name: address_of(shared, name) for name in ("product", "pack")}
    library = load("\n".join([preamble(program.trace.state_dtype), *(source.text for source in sources)]))
    loops = {}
    for source in sources:
        function = getattr(library, source.name)
        function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long], None
        loops[source.name] = Loop(source, function, products)
    return loops, reasons
