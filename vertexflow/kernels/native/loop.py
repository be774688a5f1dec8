"""Native code of parts, compiled and ready to be run over the steps of a batch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...graph.program import CORES, Program
from ..memory import Arena, Layout
from ..operations import Unsupported
from ..order import RowGroup
from .build import address_of, load
from .source import OF_STRUCTURE, Source, preamble, products_source, write_part

Resolve = Callable[[str, Any], "Tensor | int"]
Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Arguments:
    """The numbers and addresses that native code is called with, and the tensors that they point into."""

    numbers: Numbers
    alive: list[Tensor]


@dataclass(frozen=True)
class Template:
    """Arguments for all runs over a structure, and where those belong that differ."""

    numbers: Numbers
    alive: list[Tensor]
    in_arenas: list[Any]  # (arena, dtype, positions, offsets in bytes)
    varying: list[tuple[int, str, Any]]  # (position, role, what of it)


@dataclass(frozen=True, eq=False)
class Loop:
    """A part as a native function over steps."""

    source: Source
    function: Callable[..., None]
    products: Mapping[str, int]  # functions of the library, by address
    gathers = True

    def describe(self, part: str) -> str:
        """In a few words, how a part runs."""
        return "native code, over all steps" if self.source.name in CORES else "native code"

    def scratch(self, group: RowGroup) -> dict[Any, int]:
        """The buffers that one run needs, by (role, what) of the argument, and how many elements each has."""
        sizes: dict[Any, int] = {}
        for role, what in self.source.arguments:
            if role == "packed":
                sizes[role, what] = what[2]
            elif role == "scratch":
                sizes[role, what] = self._most(group, what[3]) * what[2]
        return sizes

    def _most(self, group: RowGroup, split: str) -> int:
        """How many rows, or edges, are computed at a time."""
        if split == "elements":
            return 1
        if self.source.name not in CORES:
            return group.num_rows if split == "rows" else group.edges.num_edges if group.edges else 0
        return max(
            (s.edge_stop - s.edge_start if split == "edges" else s.stop - s.start for s in group.steps), default=0
        )

    def bind(self, resolve: Resolve, arenas: Sequence[Arena], known: MutableMapping[Any, Any]) -> Arguments:
        """The arguments for one run: of values in arenas by their places, others as `resolve` gives them by their role.

        What is the same in every run over the same structure is asked for once, and kept in `known`.
        """
        if self not in known:
            known[self] = self._template(resolve, [arena.layout for arena in arenas])
        template = known[self]
        numbers, alive = template.numbers.copy(), []
        for number, dtype, at, offsets in template.in_arenas:
            numbers[at] = offsets + arenas[number].flats[dtype].data_ptr()
        for at, role, what in template.varying:
            found = resolve(role, what)
            if isinstance(found, Tensor):
                alive.append(found)
                found = found.data_ptr()
            numbers[at] = found
        return Arguments(numbers, alive)

    def _template(self, resolve: Resolve, layouts: Sequence[Layout]) -> Template:
        numbers, alive, varying = np.zeros(len(self.source.arguments), np.int64), [], []
        places: dict[tuple[int, torch.dtype], list[tuple[int, int]]] = {}
        for at, (role, what) in enumerate(self.source.arguments):
            key = what[0] if role == "value" else (role, what)
            arena = next((number for number, layout in enumerate(layouts) if key in layout.places), None)
            if arena is not None:
                place = layouts[arena].places[key]
                places.setdefault((arena, place.dtype), []).append((at, place.offset * place.dtype.itemsize))
            elif role in self.products:
                numbers[at] = self.products[role]
            elif role in OF_STRUCTURE:
                found = resolve(role, what)
                if isinstance(found, Tensor):
                    alive.append(found)
                    found = found.data_ptr()
                numbers[at] = found
            elif role != "packed_yet":  # which begins with 0
                varying.append((at, role, what))
        in_arenas = [(*key, *np.array(found, np.int64).T.copy()) for key, found in places.items()]
        return Template(numbers, alive, in_arenas, varying)

    def run(self, arguments: Arguments, steps: np.ndarray[Any, np.dtype[np.int32]]) -> None:
        """Compute these steps, lines [n, 7] as in `Step`, one after the other."""
        self.function(arguments.numbers.ctypes.data, steps.ctypes.data, len(steps))


def loops_of(program: Program) -> tuple[dict[str, Loop], dict[str, str]]:
    """The parts of a program that can be native code, compiled; and why the others cannot."""
    sources: list[Source] = []
    reasons: dict[str, str] = {}
    for name in program.parts:
        try:
            if not name.endswith("_leaf"):
                sources.append(write_part(program, name))
        except Unsupported as reason:
            reasons[name] = str(reason)
    if not sources:
        return {}, reasons
    shared = load(products_source(program.trace.widest_dtype))
    products = {name: address_of(shared, name) for name in ("product", "outer", "pack")}
    library = load("\n".join([preamble(program.trace.widest_dtype), *(source.text for source in sources)]))
    loops = {}
    for source in sources:
        function = getattr(library, source.name)
        function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long], None
        loops[source.name] = Loop(source, function, products)
    return loops, reasons
