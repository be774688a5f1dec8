"""A program as loops, each of which computes a part of it over steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from ..graph.symbolic.program import BACKWARD, FORWARD, Program
from .memory import Arena, Buffers, Layout, backward_layout, forward_layouts
from .order import Extent, Ints, RowGroup
from .run import Run


class Loop(Protocol):
    """A part as code of a backend that runs over steps; a core is one together with its variant for leaves."""

    @property
    def in_arenas(self) -> bool:
        """Whether all that it makes, and has rows, is written to its place in an arena; else it makes new tensors."""

    @property
    def keeps(self) -> bool:
        """Whether it keeps, where others read it later, what comes to its rows: gathered states, received gradients."""

    @property
    def text(self) -> str:
        """The generated code."""

    def describe(self, part: str) -> str:
        """In a few words, how that part runs, which is the one it was made of or its variant for leaves."""

    def scratch(self, group: RowGroup, extent: Extent) -> Buffers:
        """The further buffers that one run needs; no more than `extent` is computed at a time."""

    def bind(self, run: Run) -> Any:
        """The arguments of one run."""

    def run(self, arguments: Any, steps: Ints) -> None:
        """Compute these steps, lines as in `Step`, one after the other."""


class NoSteps:
    """The core of a program in which nothing is to be computed step by step."""

    in_arenas, keeps, text = True, False, ""

    def describe(self, part: str) -> str:
        return "nothing"

    def scratch(self, group: RowGroup, extent: Extent) -> Buffers:
        return {}

    def bind(self, run: Run) -> None:
        pass

    def run(self, arguments: None, steps: Ints) -> None:
        pass


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program, and a loop for each of its parts; there is one for both cores in any case."""

    program: Program
    loops: Mapping[str, Loop]
    reasons: Mapping[str, str] = field(default_factory=dict)  # why parts are not code of the backend that was asked for
    # Where values lie, for each group of rows that there is.
    _forward: WeakKeyDictionary[RowGroup, tuple[Layout, Layout]] = field(default_factory=WeakKeyDictionary)
    _backward: WeakKeyDictionary[RowGroup, Layout] = field(default_factory=WeakKeyDictionary)

    def forward_arenas(self, group: RowGroup) -> list[Arena]:
        """Memory for one forward pass: for what the backward pass reads, and for the rest."""
        return [layout.allocate() for layout in self.forward_layouts(group)]

    def backward_arena(self, group: RowGroup) -> Arena:
        """Memory for one backward pass."""
        return self.backward_layout(group).allocate()

    def forward_layouts(self, group: RowGroup, window: Extent | None = None) -> tuple[Layout, Layout]:
        """Where values of the forward pass lie that the backward pass reads, and the rest, for which there may be room for a
        window of so many rows."""
        layouts = self._forward.get(group) if window is None else None
        if layouts is None:
            parts = self._in_arenas(FORWARD)
            scratch = self._scratch(parts, group, window or group.extent)
            layouts = forward_layouts(self.program, group, parts, scratch, window)
            if window is None:
                self._forward[group] = layouts
        return layouts

    def backward_layout(self, group: RowGroup, window: Extent | None = None) -> Layout:
        """Where values of the backward pass lie, for which there may be room for a window."""
        layout = self._backward.get(group) if window is None else None
        if layout is None:
            parts = self._in_arenas(BACKWARD)
            scratch = self._scratch(parts, group, window or group.extent)
            layout = backward_layout(self.program, group, parts, scratch, window)
            if window is None:
                self._backward[group] = layout
        return layout

    def _in_arenas(self, stages: Iterable[str]) -> list[str]:
        """The parts of these stages that write to arenas."""
        names = [name for stage in stages for name in (stage, f"{stage}_inner")]
        return [name for name in names if name in self.loops and self.loops[name].in_arenas]

    def _scratch(self, parts: Iterable[str], group: RowGroup, extent: Extent) -> Buffers:
        return {key: size for name in parts for key, size in self.loops[name].scratch(group, extent).items()}
