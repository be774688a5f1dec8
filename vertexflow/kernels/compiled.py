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
        """Whether it writes outputs that have rows to their places in an arena; else they are new tensors."""

    @property
    def keeps(self) -> bool:
        """Whether it writes the states that it gathers, and the gradients that it receives, to buffers that later parts read."""

    @property
    def text(self) -> str:
        """The generated code."""

    def describe(self, part: str) -> str:
        """In a few words, how its part, or the variant of that for leaves, runs."""

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
    """A program, and a loop for each of its parts; both cores have one even if the program has no such part."""

    program: Program
    loops: Mapping[str, Loop]
    reasons: Mapping[str, str] = field(
        default_factory=dict
    )  # why the backend that was asked for has no code for a part
    # The layouts of each group of rows.
    _forward: WeakKeyDictionary[RowGroup, tuple[Layout, Layout]] = field(default_factory=WeakKeyDictionary)
    _backward: WeakKeyDictionary[RowGroup, Layout] = field(default_factory=WeakKeyDictionary)

    def forward_arenas(self, group: RowGroup) -> list[Arena]:
        """Memory for one forward pass: what the backward pass reads, and what is temporary."""
        return [layout.allocate() for layout in self.forward_layouts(group)]

    def backward_arena(self, group: RowGroup) -> Arena:
        """Memory for one backward pass."""
        return self.backward_layout(group).allocate()

    def forward_layouts(self, group: RowGroup, window: Extent | None = None) -> tuple[Layout, Layout]:
        """The layouts of the forward pass, see `memory.forward_layouts`; those without a window are kept."""
        layouts = self._forward.get(group) if window is None else None
        if layouts is None:
            parts = self._in_arenas(FORWARD)
            scratch = self._scratch(parts, group, window or group.extent)
            layouts = forward_layouts(self.program, group, parts, scratch, window)
            if window is None:
                self._forward[group] = layouts
        return layouts

    def backward_layout(self, group: RowGroup, window: Extent | None = None) -> Layout:
        """The layout of the backward pass, see `memory.backward_layout`; the one without a window is kept."""
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
