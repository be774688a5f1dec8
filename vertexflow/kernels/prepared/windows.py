"""Windows: consecutive rows of a group, for which all parts of a pass run before any part runs for the next window.

Values that parts pass to each other, and that are not kept for the backward pass, then need memory for the rows of one window.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...graph.symbolic.nodes import has_rows
from ...graph.symbolic.program import Program
from ..compiled import Compiled
from ..cut import Cut
from ..lower.scalar import HALVES
from ..memory.layout import Along
from ..order import Extent, Ints, Order, RowGroup, Step
from .leaf_states import leaf_states_of

WINDOW_SIZE = 2**17  # elements of the states
ONE_WINDOW = 2 * WINDOW_SIZE  # a group of at most so many elements is one window, which is faster
# Unless they would be smaller than a third of WINDOW_SIZE: memory of one is then little beside what all keep.
MIN_WINDOWS = 15
MAX_WINDOWS = 64
SIZE_OF_ROW = 2  # what a row takes in a window, beside an edge, about
HALVED = 3  # how often the last window of a group is halved
ROUNDED = 4  # different counts of rows, or edges, for which windows are laid out


class Window(NamedTuple):
    """Rows [start, stop) of a group; those of them with children are rows [inner, inner_stop) of all with children; its edges."""

    start: int
    stop: int
    inner: int
    inner_stop: int
    edge_start: int
    edge_stop: int

    @property
    def extent(self) -> Extent:
        rows, inner = self.stop - self.start, self.inner_stop - self.inner
        return Extent(rows, inner, self.edge_stop - self.edge_start, rows - inner)

    def range(self, along: Along) -> tuple[int, int]:
        """The first row, row with children, edge, or row without children, and how many there are."""
        match along:
            case Along.ROWS:
                return self.start, self.stop - self.start
            case Along.INNER:
                return self.inner, self.inner_stop - self.inner
            case Along.EDGES:
                return self.edge_start, self.edge_stop - self.edge_start
            case Along.LEAVES:
                return self.start, self.extent.leaves


@dataclass(frozen=True, eq=False)
class Windows:
    """All windows of a group, in order; if there is only one, it has all rows."""

    group: RowGroup
    all: list[Window]

    @property
    def are_several(self) -> bool:
        return len(self.all) > 1

    @property
    def whole(self) -> Window:
        """All rows of the group."""
        last = self.all[-1]
        return Window(0, last.stop, 0, last.inner_stop, 0, last.edge_stop)

    @property
    def extent(self) -> Extent | None:
        """The largest extent of a window; None if there is only one."""
        return (
            Extent(*map(max, zip(*(window.extent for window in self.all), strict=True))) if self.are_several else None
        )

    @property
    def rounded_extents(self) -> list[Extent]:
        """The extent of each window, with counts rounded up so that there are few different ones."""
        most = Extent(*map(max, zip(*(window.extent for window in self.all), strict=True)))
        parts = [max(1, -(-count // ROUNDED)) for count in most]
        return [
            Extent(
                *(
                    min(-(-count // part) * part, limit)
                    for count, part, limit in zip(window.extent, parts, most, strict=True)
                )
            )
            for window in self.all
        ]

    def all_rows(self, number: int) -> Ints:
        """The rows of a window as one step."""
        if not self.are_several:
            return self.group.all_rows
        window = self.all[number]
        step = Step(window.start, window.stop, edge_start=window.edge_start, edge_stop=window.edge_stop)
        return np.array([step], np.int32)

    def inner_rows(self, number: int) -> Ints:
        """The rows with children of a window as one step."""
        if not self.are_several:
            return self.group.inner_rows
        window, leaves = self.all[number], self.group.num_leaves
        step = Step(
            leaves + window.inner, leaves + window.inner_stop, edge_start=window.edge_start, edge_stop=window.edge_stop
        )
        return np.array([step], np.int32)


class Visit(NamedTuple):
    """Consecutive steps that are all in one window of one group."""

    group: int
    window: int
    steps: Ints
    is_first: bool  # of the visits of this window
    is_last: bool


def windows_of(compiled: Sequence[Compiled], order: Order) -> list[Windows]:
    """The windows of each group."""
    windows_of_groups = []
    for number, (function, group) in enumerate(zip(compiled, order.groups, strict=True)):
        width = sum(map(math.prod, function.program.trace.state.values()))
        rows = min(rows_of_a_window(group.num_rows, width), group.num_rows)
        pays = rows < group.num_rows and _is_in_order(order, number) and not has_rounded_sums(function.program)
        calls_pytorch = any(isinstance(loop, Cut) for loop in function.loops.values())  # which sees whole steps
        pays = pays and not calls_pytorch
        cuts = [group.num_leaves] if leaf_states_of(function.program) else []  # leaves by themselves
        windows_of_groups.append(Windows(group, _windows(group, _bounds(group, rows, cuts) if pays else [])))
    return windows_of_groups


def one_window_each(order: Order) -> list[Windows]:
    """All rows of each group in one window."""
    return [Windows(group, _windows(group, [])) for group in order.groups]


def rows_of_a_window(rows: int, width: int) -> int:
    """How many rows a window has at most, of a group with so many rows whose states have `width` elements."""
    width = max(width, 1)
    if rows * width <= ONE_WINDOW:
        return rows
    least, most = max(WINDOW_SIZE // 3 // width, -(-rows // MAX_WINDOWS)), WINDOW_SIZE // width
    return max(least, min(most, -(-rows // MIN_WINDOWS)))


def visits(order: Order, windows: Sequence[Windows]) -> list[Visit]:
    """All visits in the order of execution; windows without steps, which have no rows, come first."""
    if sorted(number for number, *_ in order.runs) == [*range(len(windows))] and not any(
        group.are_several for group in windows
    ):
        return [Visit(number, 0, order.table[start:end], True, True) for number, start, end in order.runs]
    runs: list[tuple[int, int, Ints]] = []
    for number, start, end in order.runs:
        steps = order.table[start:end]
        if windows[number].are_several:
            runs += ((number, window, part) for window, part in _cut(steps, windows[number]))
        else:
            runs.append((number, 0, steps))
    with_steps = {(number, window) for number, window, _ in runs}
    no_steps = np.zeros((0, len(Step._fields)), np.int32)
    all_windows = ((number, window) for number, group in enumerate(windows) for window in range(len(group.all)))
    runs = [*((*key, no_steps) for key in all_windows if key not in with_steps), *runs]
    last = {(number, window): at for at, (number, window, _) in enumerate(runs)}
    first: dict[tuple[int, int], int] = {}
    for at, (number, window, _) in enumerate(runs):
        first.setdefault((number, window), at)
    return [
        Visit(number, window, steps, first[number, window] == at, last[number, window] == at)
        for at, (number, window, steps) in enumerate(runs)
    ]


def visits_back(order: Order, windows: Sequence[Windows]) -> Iterator[Visit]:
    """All visits in the order of the backward pass, from the last step to the first."""
    for visit in reversed(visits(order, windows)):
        steps = np.ascontiguousarray(visit.steps[::-1])
        yield Visit(visit.group, visit.window, steps, visit.is_last, visit.is_first)


def has_rounded_sums(program: Program) -> bool:
    """Whether values without rows that are computed from rows are in half precision, so that each window would round them.

    They are all sums over rows, which windows add to: a gradient that is not is refused when it is traced.
    """
    sums = (node for node in program.stage_of if not has_rows(node) and any(map(has_rows, node.all_input_nodes)))
    return any(getattr(node.meta["val"], "dtype", None) in HALVES for node in sums)


def _is_in_order(order: Order, number: int) -> bool:
    """Whether the rows of a group are computed in their order, so that no window is left before all its rows are computed."""
    starts = order.table[order.table[:, 4] == number, 0]
    return bool((np.diff(starts) >= 0).all())


def _bounds(group: RowGroup, rows: int, cuts: Sequence[int]) -> list[int]:
    """Bounds between windows, in equal parts between these cuts: of at most so many rows, and of fewer that have many edges.

    The last part is cut again, into smaller and smaller ones: the backward pass begins with them, and what it sends to children
    lies in memory of windows that it has left, of which there are none as yet.
    """
    share = np.full(group.num_rows, 1 / rows)  # of a window, that each row takes
    if group.edges is not None:
        size = np.full(group.num_rows, SIZE_OF_ROW)
        size[group.num_leaves :] += np.diff(group.edges.offset.numpy())
        share *= np.maximum(1, size / size.mean())
    until = np.concatenate([[0], np.cumsum(share)])
    bounds: list[int] = []
    for start, stop in itertools.pairwise([0, *cuts, group.num_rows]):
        count = math.ceil(round(until[stop] - until[start], 6))
        parts = np.arange(count) / max(count, 1)
        if stop == group.num_rows:
            parts = np.concatenate([parts, 1 - 0.5 ** np.arange(1, HALVED + 1) / max(count, 1)])
        bounds += np.searchsorted(until, until[start] + (until[stop] - until[start]) * parts - 1e-9).tolist()
    return sorted(set(bounds) - {0, group.num_rows})


def _windows(group: RowGroup, bounds: Sequence[int]) -> list[Window]:
    """Windows with these rows between them."""
    offset = None
    if group.edges is not None:
        offset = group.edges.offset.numpy() - group.edges.start
    windows = []
    for start, stop in itertools.pairwise([0, *bounds, group.num_rows]):
        inner, inner_stop = (max(0, row - group.num_leaves) for row in (start, stop))
        edges = (0, 0) if offset is None else (int(offset[inner]), int(offset[inner_stop]))
        windows.append(Window(start, stop, inner, inner_stop, *edges))
    return windows


def _cut(steps: Ints, windows: Windows) -> Iterator[tuple[int, Ints]]:
    """Consecutive steps by their window; a step in several windows is cut, since its rows do not depend on each other."""
    group = windows.group
    starts, stops = np.array([(window.start, window.stop) for window in windows.all]).T
    first = np.searchsorted(stops, steps[:, 0], "right")
    last = np.maximum(first, np.searchsorted(starts, steps[:, 1], "left") - 1)
    counts = last - first + 1
    step_of_piece = np.repeat(np.arange(len(steps)), counts)
    window_of_piece = np.arange(len(step_of_piece)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    pieces = steps[step_of_piece]
    start_of_step = pieces[:, 0].copy()
    pieces[:, 0] = np.maximum(start_of_step, starts[window_of_piece])
    pieces[:, 1] = np.minimum(pieces[:, 1], stops[window_of_piece])
    skipped = pieces[:, 0] - start_of_step
    pieces[:, 2] += np.where(pieces[:, 2] >= 0, skipped * group.num_slots, 0).astype(np.int32)
    pieces[:, 3] += np.where(pieces[:, 3] >= 0, skipped, 0).astype(np.int32)
    if group.edges is not None:
        offset = group.edges.offset.numpy() - group.edges.start
        pieces[:, 5:] = offset[np.maximum(0, pieces[:, :2] - group.num_leaves)]
    bounds = [0, *(np.flatnonzero(np.diff(window_of_piece)) + 1).tolist(), len(window_of_piece)]
    for begin, end in itertools.pairwise(bounds):
        if begin < end:
            yield int(window_of_piece[begin]), np.ascontiguousarray(pieces[begin:end])
