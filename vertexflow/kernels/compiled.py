"""A program as loops, each of which computes a part of it over steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from torch import fx

from ..graph.symbolic.program import BACKWARD, FORWARD, Program
from .binding import AddressedLoop
from .memory.layout import Arena, Buffers, Layout, Taken, backward_layout, forward_layouts
from .order import Extent, Ints, RowGroup
from .run import Run

Laid = TypeVar("Laid", Layout, tuple[Layout, Layout])


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


@runtime_checkable
class RunsTogether(Protocol):
    """A loop that can compute its steps together with those of other kinds."""

    def run_together(self, kinds: Mapping[int, tuple[Loop, Callable[[], Any]]], steps: Ints) -> bool:
        """Compute steps of several kinds, lines as in `Step`, one after the other; False if nothing was done. `kinds` has, by the
        number of their groups, which lines name, their loops, and functions that bind these to the run's arguments."""


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
    # Why the backend that was asked for has no code for a part.
    reasons: Mapping[str, str] = field(default_factory=dict)
    # The layouts of each group of rows.
    _forward: WeakKeyDictionary[RowGroup, tuple[Layout, Layout]] = field(default_factory=WeakKeyDictionary)
    _backward: WeakKeyDictionary[RowGroup, Layout] = field(default_factory=WeakKeyDictionary)

    def forward_arenas(self, group: RowGroup) -> list[Arena]:
        """Memory for one forward pass: what the backward pass reads, and what is temporary."""
        return [layout.allocate() for layout in self.forward_layouts(group)]

    def backward_arena(self, group: RowGroup) -> Arena:
        """Memory for one backward pass."""
        return self.backward_layout(group).allocate()

    def forward_layouts(
        self, group: RowGroup, window: Extent | None = None, taken: Sequence[Taken] = ()
    ) -> tuple[Layout, Layout]:
        """The layouts of the forward pass, see `memory.forward_layouts`; those without a window are kept."""
        if window is not None:
            return self._lay_out(forward_layouts, FORWARD, group, window, taken)
        if group not in self._forward:
            self._forward[group] = self._lay_out(forward_layouts, FORWARD, group, None, ())
        return self._forward[group]

    def backward_layout(self, group: RowGroup, window: Extent | None = None, taken: Sequence[Taken] = ()) -> Layout:
        """The layout of the backward pass, see `memory.backward_layout`; the one without a window is kept."""
        if window is not None:
            return self._lay_out(backward_layout, BACKWARD, group, window, taken)
        if group not in self._backward:
            self._backward[group] = self._lay_out(backward_layout, BACKWARD, group, None, ())
        return self._backward[group]

    def layouts_of(self, group: RowGroup) -> list[object]:
        """The layouts of a group of rows that are kept."""
        return [self._forward.get(group), self._backward.get(group)]

    def _lay_out(
        self,
        lay_out: Callable[..., Laid],
        stages: Iterable[str],
        group: RowGroup,
        window: Extent | None,
        taken: Sequence[Taken],
    ) -> Laid:
        """Lay out the parts of these stages that write to arenas, and their scratch memory."""
        names = [name for stage in stages for name in (stage, f"{stage}_inner")]
        parts = [name for name in names if name in self.loops and self.loops[name].in_arenas]
        extent = window or group.extent
        scratch = {key: size for name in parts for key, size in self.loops[name].scratch(group, extent).items()}
        return lay_out(self.program, group, parts, scratch, window, taken)


def results_of(
    compiled: Compiled, stages: Iterable[str]
) -> Iterator[tuple[fx.Node, tuple[tuple[int, ...], torch.dtype]]]:
    """The values without rows that native loops of these stages compute, with their shapes and dtypes."""
    for stage in stages:
        for part in (stage, f"{stage}_inner"):
            loop = compiled.loops.get(part)
            if isinstance(loop, AddressedLoop):
                yield from ((node, (shape, node.meta["val"].dtype)) for node, shape in loop.results)
