"""Native code of parts, compiled and ready to be run over the steps of a batch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...graph.program import CORES, Program
from ..binding import Bound, Resolve, template
from ..memory import Arena, Buffers
from ..operations import Unsupported
from ..order import Ints, RowGroup
from .build import address_of, load
from .source import Source, preamble, products_source, write_part


@dataclass(frozen=True, eq=False)
class Loop:
    """A part as a native function over steps."""

    source: Source
    function: Callable[..., None]
    products: Mapping[str, int]  # functions of the library, by address
    dtype: torch.dtype
    gathers = True

    def describe(self, part: str) -> str:
        """In a few words, how a part runs."""
        return "native code, over all steps" if self.source.name in CORES else "native code"

    def scratch(self, group: RowGroup) -> Buffers:
        """The buffers that one run needs, by (role, what) of the argument."""
        found: dict[Any, tuple[torch.dtype, int]] = {}
        for role, what in self.source.arguments:
            if role == "packed":
                found[role, what] = self.dtype, what[2]
            elif role == "scratch":
                found[role, what] = what[4], self._most(group, what[3]) * what[2]
        return found

    def _most(self, group: RowGroup, split: str) -> int:
        """How many rows, or edges, are computed at a time."""
        if split == "elements":
            return 1
        if self.source.name not in CORES:
            return group.num_rows if split == "rows" else group.edges.num_edges if group.edges else 0
        return max(
            (s.edge_stop - s.edge_start if split == "edges" else s.stop - s.start for s in group.steps), default=0
        )

    def bind(self, resolve: Resolve, arenas: Sequence[Arena], known: MutableMapping[Any, Any]) -> Bound:
        """The arguments for one run; what is the same in every run over the same structure is kept in `known`."""
        if self not in known:
            of_code = {**self.products, "packed_yet": 0}
            known[self] = template(self.source.arguments, resolve, [arena.layout for arena in arenas], of_code)
        return known[self].complete(resolve, arenas)  # type: ignore[no-any-return]

    def run(self, arguments: Bound, steps: Ints) -> None:
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
    dtype = program.trace.widest_dtype
    shared = load(products_source(dtype), contract=True)
    products = {name: address_of(shared, name) for name in ("product", "outer", "pack")}
    library = load("\n".join([preamble(dtype), *(source.text for source in sources)]))
    loops = {}
    for source in sources:
        function = getattr(library, source.name)
        function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long], None
        loops[source.name] = Loop(source, function, products, dtype)
    return loops, reasons
