"""Windows: consecutive rows of a group, for which all parts of a pass are run before the next ones are.

What passes from one part to another, and is not kept for the backward pass, then has room for the rows of one window.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..graph.symbolic.nodes import has_rows
from ..graph.symbolic.program import Program
from .compiled import Compiled
from .lower.scalar import HALVES
from .memory import Along
from .order import Extent, Ints, Order, RowGroup, Step

NUMBERS = 2**17  # of the states, in a window
FEW = 2 * NUMBERS  # that are not worth more than one
MOST = 64  # windows


class Window(NamedTuple):
    """Rows [start, stop) of a group; its rows with children [inner, inner_stop), counted from the first of these; its edges."""

    start: int
    stop: int
    inner: int
    inner_stop: int
    edge_start: int
    edge_stop: int

    @property
    def extent(self) -> Extent:
        return Extent(self.stop - self.start, self.inner_stop - self.inner, self.edge_stop - self.edge_start)

    def range(self, along: Along) -> tuple[int, int]:
        """The first of what something has rows for, and how many of that there are."""
        match along:
            case Along.ROWS:
                return self.start, self.stop - self.start
            case Along.INNER:
                return self.inner, self.inner_stop - self.inner
            case Along.EDGES:
                return self.edge_start, self.edge_stop - self.edge_start


@dataclass(frozen=True, eq=False)
class Windows:
    """All windows of a group, in the order in which its rows are computed."""

    group: RowGroup
    all: list[Window]

    @property
    def are_several(self) -> bool:
        return len(self.all) > 1

    @property
    def extent(self) -> Extent | None:
        """Room for each of them; None if there is one, of all rows."""
        return (
            Extent(*map(max, zip(*(window.extent for window in self.all), strict=True))) if self.are_several else None
        )

    def all_rows(self, number: int) -> Ints:
        """The rows of a window as one step."""
        if not self.are_several:
            return self.group.all_rows
        window = self.all[number]
        step = Step(window.start, window.stop, edge_start=window.edge_start, edge_stop=window.edge_stop)
        return np.array([step], np.int32)

    def inner_rows(self, number: int) -> Ints:
        """Those with children."""
        if not self.are_several:
            return self.group.inner_rows
        window, leaves = self.all[number], self.group.num_leaves
        step = Step(
            leaves + window.inner, leaves + window.inner_stop, edge_start=window.edge_start, edge_stop=window.edge_stop
        )
        return np.array([step], np.int32)


class Visit(NamedTuple):
    """Steps of a window of a group that are computed one after the other: the first of that window, the last, or others."""

    group: int
    window: int
    steps: Ints
    is_first: bool
    is_last: bool


def windows_of(compiled: Sequence[Compiled], order: Order) -> list[Windows]:
    """The windows of each group."""
    found = []
    for number, (one, group) in enumerate(zip(compiled, order.groups, strict=True)):
        width = sum(map(math.prod, one.program.trace.state.values()))
        rows = min(rows_of_a_window(group.num_rows, width), group.num_rows)
        pays = rows < group.num_rows and _is_in_order(order, number) and not has_rounded_sums(one.program)
        found.append(Windows(group, _windows(group, -(-group.num_rows // rows) if pays else 1)))
    return found


def rows_of_a_window(rows: int, width: int) -> int:
    """How many of the rows of a group, whose states have `width` numbers, a window has at most."""
    width = max(width, 1)  # of a vertex function without states
    return rows if rows * width <= FEW else max(NUMBERS // width, -(-rows // MOST))


def visits(order: Order, windows: Sequence[Windows]) -> list[Visit]:
    """What is computed, in order; windows without steps, which have no rows, come first."""
    lines: list[tuple[int, int, Ints]] = []
    for number, first, end in order.runs:
        steps = order.table[first:end]
        if windows[number].are_several:
            lines += ((number, window, some) for window, some in _cut(steps, windows[number]))
        else:
            lines.append((number, 0, steps))
    seen = {(number, window) for number, window, _ in lines}
    nothing = np.zeros((0, len(Step._fields)), np.int32)
    every = ((number, window) for number, one in enumerate(windows) for window in range(len(one.all)))
    lines = [*((*each, nothing) for each in every if each not in seen), *lines]
    lasts = {each[:2]: at for at, each in enumerate(lines)}
    firsts = {each[:2]: at for at, each in reversed([*enumerate(lines)])}
    return [Visit(*each, firsts[each[:2]] == at, lasts[each[:2]] == at) for at, each in enumerate(lines)]


def visits_back(order: Order, windows: Sequence[Windows]) -> Iterator[Visit]:
    """The same from the last step to the first."""
    for visit in reversed(visits(order, windows)):
        steps = np.ascontiguousarray(visit.steps[::-1])
        yield Visit(visit.group, visit.window, steps, visit.is_last, visit.is_first)


def has_rounded_sums(program: Program) -> bool:
    """Whether sums over rows are in half precision, so that they would be rounded once for each window. (All others can be added
    up window by window: a gradient that is no sum over the vertices is refused when it is traced.)"""
    made = (node for node in program.made_by if not has_rows(node) and any(map(has_rows, node.all_input_nodes)))
    return any(getattr(node.meta["val"], "dtype", None) in HALVES for node in made)


def _is_in_order(order: Order, number: int) -> bool:
    """Whether the rows of a group are computed in their order: else a window would be come back to."""
    starts = order.table[order.table[:, 4] == number, 0]
    return bool((np.diff(starts) >= 0).all())


def _windows(group: RowGroup, count: int) -> list[Window]:
    """So many windows of as many rows each, to within one."""
    offset = None
    if group.edges is not None:
        offset = group.edges.offset.numpy() - group.edges.start
    found = []
    for number in range(count):
        start, stop = (group.num_rows * at // count for at in (number, number + 1))
        inner, inner_stop = (max(0, at - group.num_leaves) for at in (start, stop))
        edges = (0, 0) if offset is None else (int(offset[inner]), int(offset[inner_stop]))
        found.append(Window(start, stop, inner, inner_stop, *edges))
    return found


def _cut(steps: Ints, windows: Windows) -> Iterator[tuple[int, Ints]]:
    """Steps by the windows that they are in; one that is in several is cut, since its rows do not depend on each other."""
    group = windows.group
    starts, stops = np.array([(window.start, window.stop) for window in windows.all]).T
    first = np.searchsorted(stops, steps[:, 0], "right")
    last = np.maximum(first, np.searchsorted(starts, steps[:, 1], "left") - 1)
    counts = last - first + 1
    step = np.repeat(np.arange(len(steps)), counts)
    window = np.arange(len(step)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    lines = steps[step]
    before = lines[:, 0].copy()
    lines[:, 0] = np.maximum(before, starts[window])
    lines[:, 1] = np.minimum(lines[:, 1], stops[window])
    skipped = lines[:, 0] - before
    lines[:, 2] += np.where(lines[:, 2] >= 0, skipped * group.num_slots, 0).astype(np.int32)
    lines[:, 3] += np.where(lines[:, 3] >= 0, skipped, 0).astype(np.int32)
    if group.edges is not None:
        offset = group.edges.offset.numpy() - group.edges.start
        lines[:, 5:] = offset[np.maximum(0, lines[:, :2] - group.num_leaves)]
    bounds = [0, *(np.flatnonzero(np.diff(window)) + 1).tolist(), len(window)]
    for begin, end in itertools.pairwise(bounds):
        if begin < end:
            yield int(window[begin]), np.ascontiguousarray(lines[begin:end])
