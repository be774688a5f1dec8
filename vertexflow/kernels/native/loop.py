"""Native cores, compiled and ready to be run over the steps of a batch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ...graph.program import Program
from .build import address_of, load
from .plan import Unsupported
from .source import Source, cores_of, preamble, products_source, write_core

Resolve = Callable[[str, Any], "Tensor | int"]


@dataclass(frozen=True)
class Arguments:
    """The numbers and addresses that a native core is called with, and the tensors that they point into."""

    numbers: np.ndarray[Any, np.dtype[np.int64]]
    alive: list[Tensor]


@dataclass(frozen=True)
class Loop:
    """A core as a native function."""

    source: Source
    function: Callable[..., None]
    products: Mapping[str, int]  # the functions "product" and "pack", by address

    def bind(self, resolve: Resolve) -> Arguments:
        """The arguments for one batch; `resolve` gives each by its role, a tensor for its address."""
        numbers, alive = np.empty(len(self.source.arguments), np.int64), []
        for at, (role, what) in enumerate(self.source.arguments):
            if role in self.products:
                numbers[at] = self.products[role]
                continue
            found = resolve(role, self.source.scratch[what] if role == "scratch" else what)
            if isinstance(found, Tensor):
                alive.append(found)
                found = found.data_ptr()
            numbers[at] = found
        return Arguments(numbers, alive)

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
