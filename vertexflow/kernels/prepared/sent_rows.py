"""Where gradients that are sent to children lie: in memory that the backward pass has read to the end.

A window of rows sends into a block of rows, which is needed until the windows of the children have received. Blocks lie where the
values of windows were that are behind, and on top of these where that is not enough. This overwrites what the forward pass has
kept, and is for a backward pass after which nobody reads that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ...graph.symbolic.program import Program
from ...graph.symbolic.roles import is_over_edges
from ..arguments import By
from ..order import Ints, Order, Parents, RowGroup
from .windows import Window, Windows, visits_back

Key = tuple[int, int]  # a group and one of its windows


class Rows(NamedTuple):
    """Rows [start, stop) of some memory, and the visit of the backward pass after which nobody reads what is in them."""

    start: int
    stop: int
    last: int


@dataclass(frozen=True, eq=False)
class SentRows:
    """Blocks of rows of a state that is sent, or of several that have the same rows.

    Positions in the `child_rows` of all groups, or edges, from `starts[i]` on are the rows that are `shifts[i]` further on.
    """

    num_rows: int
    zeros: int  # the row that those receive whom nobody reads
    blocks: dict[By, dict[Key, int]]  # the first row of each
    starts: dict[By, Ints]
    shifts: dict[By, Ints]

    def parents(self, by: By, of_order: Parents) -> Parents:
        """Where each row of a state is read, as rows of the blocks."""
        places = of_order.places.numpy()
        with torch.inference_mode(False):
            return Parents(torch.from_numpy(places + self.shifts[by][self._block(by, places)]), of_order.offset, None)

    def steps(self, steps: Ints) -> Ints:
        """Steps whose `read_at` are rows of the blocks, and -1 where these are not consecutive."""
        if By.SLOT not in self.starts:
            return steps
        moved: Ints = steps.copy()
        first = steps[:, 3]
        block, end = (self._block(By.SLOT, at) for at in (first, first + steps[:, 1] - steps[:, 0] - 1))
        moved[:, 3] = np.where((first >= 0) & (block == end), first + self.shifts[By.SLOT][block], -1)
        return moved

    def _block(self, by: By, positions: Ints) -> Ints:
        block: Ints = (np.searchsorted(self.starts[by], positions, "right") - 1).astype(np.int32)
        return block


def sent_by(programs: Iterable[Program]) -> dict[str, set[By]]:
    """The states whose gradients are sent to children, and how."""
    sent: dict[str, set[By]] = {}
    for program in programs:
        for name, slot in program.gather_grads:
            sent.setdefault(name, set()).add(By.EDGE if is_over_edges(slot) else By.SLOT)
    return sent


def receiving(programs: Sequence[Program], order: Order) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether the gradient that a row of a state receives is read; false for a child that is missing."""
    is_read = np.ones(order.num_rows + order.num_external + 1, np.bool_)
    is_read[-1] = False
    for program, group in zip(programs, order.groups, strict=True):
        if not program.receives_at_leaves:
            is_read[group.start : group.start + group.num_leaves] = False
    return is_read


@dataclass(frozen=True, eq=False)
class LastReads:
    """The visits of the backward pass, counted, between which memory is in use."""

    first: dict[Key, int]  # of a window
    last: dict[Key, int]
    states: dict[Key, int]  # of the states of its rows, which the windows of parents read as well
    sent: dict[By, dict[Key, int]]  # of what it sends: when the children have received

    @classmethod
    def find(
        cls, programs: Sequence[Program], order: Order, windows: Sequence[Windows], bys: Iterable[By]
    ) -> LastReads:
        first: dict[Key, int] = {}
        last: dict[Key, int] = {}
        for number, visit in enumerate(visits_back(order, windows)):
            key = visit.group, visit.window
            first.setdefault(key, number)
            last[key] = number
        by_row = np.zeros(order.num_rows + 1, np.int32)
        for (group, window), visit_number in last.items():
            by_row[rows_of_window(windows[group], window)] = visit_number
        read, received = by_row.copy(), np.where(receiving(programs, order), by_row, 0)
        sent: dict[By, dict[Key, int]] = {by: {} for by in bys}
        for (group, window), visit_number in last.items():
            of_group, of_window = windows[group].group, windows[group].all[window]
            for by in By:
                children = children_of(of_group, of_window, by)
                if len(children):
                    read[children] = np.maximum(read[children], visit_number)
                if by in sent:
                    until = int(received[children].max(initial=0))
                    sent[by][group, window] = max(visit_number, until)
        states = {key: int(read[rows_of_window(windows[key[0]], key[1])].max(initial=last[key])) for key in last}
        return cls(first, last, states, sent)


class Occupied(NamedTuple):
    """Memory of `num_rows` rows: which of these become free, and when. The others never do."""

    num_rows: int
    until: list[Rows]


def place_blocks(
    order: Order,
    windows: Sequence[Windows],
    reads: LastReads,
    free: Free,
    waiting: list[Rows],
    sizes: Sequence[int],
) -> list[SentRows]:
    """A block for each window, for rows of each of these sizes: in parts that are `free`, or `waiting` to be."""
    blocks_of_sizes = [{by: dict[Key, int]() for by in reads.sent} for _ in sizes]
    zeros = [free.take(size, size) // size for size in sizes]
    for number, key in sorted((number, key) for key, number in reads.first.items()):
        for rows in waiting:
            if rows.last < number:
                free.give(rows.start, rows.stop)
        waiting = [rows for rows in waiting if rows.last >= number]
        for blocks_of_size, size in zip(blocks_of_sizes, sizes, strict=True):
            for by, blocks in blocks_of_size.items():
                _, count = places_of(windows[key[0]].group, windows[key[0]].all[key[1]], by)
                start = free.take(count * size, size) if count else 0
                blocks[key] = start // size
                waiting.append(Rows(start, start + count * size, reads.sent[by][key]))
    return [
        _sent_rows(order, windows, blocks, free.end // size, row)
        for blocks, size, row in zip(blocks_of_sizes, sizes, zeros, strict=True)
    ]


def _sent_rows(
    order: Order, windows: Sequence[Windows], first_rows: dict[By, dict[Key, int]], num_rows: int, zeros: int
) -> SentRows:
    starts, shifts = {}, {}
    for by, blocks in first_rows.items():
        ranges = [(*places_of(windows[key[0]].group, windows[key[0]].all[key[1]], by), key) for key in blocks]
        bounds = sorted((start, blocks[key]) for start, count, key in ranges if count)
        bounds.append((order.num_positions if by is By.SLOT else order.num_edge_positions, zeros))
        starts[by], to = np.array(bounds, np.int32).T.copy()
        shifts[by] = to - starts[by]
    return SentRows(num_rows, zeros, first_rows, starts, shifts)


class Free:
    """The free parts of rows [0, end); `end` grows."""

    def __init__(self, end: int) -> None:
        self.end = end
        self._parts: list[tuple[int, int]] = []  # ascending, with gaps between them

    def give(self, start: int, stop: int) -> None:
        if start == stop:
            return
        merged: list[tuple[int, int]] = []
        for part in sorted([*self._parts, (start, stop)]):
            if merged and merged[-1][1] == part[0]:
                merged[-1] = merged[-1][0], part[1]
            else:
                merged.append(part)
        self._parts = merged

    def take(self, count: int, aligned: int = 1) -> int:
        """The first of so many rows, a multiple of `aligned`: in the smallest part that has them, else at the end."""
        fitting = [part for part in self._parts if part[1] - _up(part[0], aligned) >= count]
        if fitting:
            part = min(fitting, key=lambda part: part[1] - part[0])
        elif self._parts and self._parts[-1][1] == self.end:
            part = self._parts[-1]
        else:
            part = self.end, self.end
        start = _up(part[0], aligned)
        self._parts = [other for other in self._parts if other != part]
        self.give(part[0], start)
        self.give(start + count, max(start + count, part[1]))
        self.end = max(self.end, start + count)
        return start


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def common(occupied: Sequence[Occupied]) -> list[Rows]:
    """The rows that become free in all of these."""
    never = 2**31 - 1
    sizes = {memory.num_rows for memory in occupied}
    bounds = np.array(  # by hand: the first `np.unique` of a process takes a megabyte
        sorted({0, *sizes, *(bound for memory in occupied for rows in memory.until for bound in rows[:2])})
    )
    last = np.full(len(bounds) - 1, -1)
    for memory in occupied:
        until = np.where(bounds[:-1] < memory.num_rows, never, -1)
        for rows in memory.until:
            until[np.searchsorted(bounds, rows.start) : np.searchsorted(bounds, rows.stop)] = rows.last
        last = np.maximum(last, until)
    bounds_and_last = zip(bounds[:-1].tolist(), bounds[1:].tolist(), last.tolist(), strict=True)
    return [Rows(*rows) for rows in bounds_and_last if rows[2] < never]


def rows_of_window(windows: Windows, number: int) -> slice:
    """The rows of a window in a state."""
    window, first = windows.all[number], windows.group.start
    return slice(first + window.start, first + window.stop)


def places_of(group: RowGroup, window: Window, by: By) -> tuple[int, int]:
    """Where the edges of a window begin, among the positions in `child_rows` of all groups or all edges, and how many."""
    if by is By.SLOT:
        slots = group.num_slots
        return group.position + window.inner * slots, (window.inner_stop - window.inner) * slots
    if group.edges is None:
        return 0, 0
    columns = group.edges.side_by_side
    return group.edges.position + window.edge_start * columns, (window.edge_stop - window.edge_start) * columns


def children_of(group: RowGroup, window: Window, by: By) -> Ints:
    """The rows of a state that a window reads."""
    children: Ints
    if by is By.SLOT:
        children = group.child_rows[window.inner * group.num_slots : window.inner_stop * group.num_slots].numpy()
    elif group.edges is None:
        children = np.zeros(0, np.int32)
    else:
        columns = group.edges.side_by_side
        children = group.edges.child_rows[window.edge_start * columns : window.edge_stop * columns].numpy()
    return children
