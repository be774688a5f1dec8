"""Rows of states that do not lie in the order of the schedule.

In a pass after which nobody reads the states, those of a window of rows go when the last window that reads them is done: each
window has a block of rows, in memory that others have left. And leaves whose state is an input as it is have no rows of their
own: what a core reads of them is copied from the input to rows that all windows share, in front of the steps that read it.

So a row of a state is another row here: children, and steps that read consecutive ones, are numbered anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx

from ...graph.symbolic.program import Program
from ...graph.symbolic.roles import is_over_edges
from ..arguments import By
from ..memory.partial_states import rows_in_state
from ..order import Ints, Order, RowGroup
from .leaf_states import LeafStates, leaf_states_of
from .sent_rows import Free, Key, children_of, rows_of_window
from .windows import Visit, Windows, visits

PAYS = 2  # from so many times the memory of shared rows on, leaves have no rows of their own

Flags = np.ndarray[Any, np.dtype[np.bool_]]


class Staged(NamedTuple):
    """Children of one visit that are leaves without rows: where they are among `child_rows` of the group, and the rows that they
    would have in the order of the schedule. They are copied to shared rows, from the `first` on."""

    by: By
    first: int
    positions: Ints
    rows: Ints


class Blocks(NamedTuple):
    """Where the rows of a state lie: the first row of each window, and the row behind all of them."""

    first: dict[Key, int]
    end: int

    def rows(self, order: Order, windows: Sequence[Windows], missing: int, other: int) -> Ints:
        """Which row each row of the groups is, that of a `missing` child, and `other` for rows that have none."""
        row = np.full(order.num_rows + 1, other, np.int32)
        for (group, window), start in self.first.items():
            rows = rows_of_window(windows[group], window)
            row[rows] = np.arange(start, start + rows.stop - rows.start, dtype=np.int32)
        row[-1] = missing
        return row


@dataclass(frozen=True, eq=False)
class StateRows:
    """An order whose children are rows of blocks, its windows, and the blocks: of states that all groups have, and of others.

    The groups of the windows have the children of the order that was given. The last row is that of a missing child.
    """

    order: Order
    windows: list[Windows]
    shared: range  # the rows to which leaves without rows are copied
    blocks: Blocks
    partial: dict[str, Blocks]
    leaf_states: dict[int, LeafStates]  # of the groups whose leaves have no rows
    row: Ints  # of each row of a state that all groups have; -1 where it has none
    row_in: dict[str, Ints]  # the same of other states, the last row where it has none
    staged: list[list[Staged]]  # for each visit

    def num_rows_in(self, state: str) -> int:
        """The rows of a state, without the last."""
        return self.partial[state].end if state in self.partial else self.shared.stop

    def blocks_of(self, state: str) -> Blocks:
        """The blocks of a state."""
        return self.partial.get(state, self.blocks)

    def rows_of(self, state: str) -> Ints:
        """The row in a state of each row of the order that was given."""
        return self.row_in.get(state, self.row)

    def steps(self, steps: Ints) -> Ints:
        """Steps of one visit in the order that was given; those that read consecutive rows here no longer gather them."""
        moved: Ints = steps.copy()
        reading = np.flatnonzero(steps[:, 2] >= 0)
        if len(reading):
            number = int(steps[0, 4])  # steps of one visit
            group, run = self.order.groups[number], self._runs[number]
            first, end = (steps[reading, :2].T - group.num_leaves) * group.num_slots
            moved[reading, 2] = np.where(run[first] == run[end - 1], group.child_rows.numpy()[first], -1)
        return moved

    def leaf_windows(self, group: int) -> range:
        """The windows of a group whose rows are leaves that have no rows here."""
        return self._leaf_windows[group]

    @cached_property
    def _leaf_windows(self) -> list[range]:
        ranges = []
        for number, windows in enumerate(self.windows):
            leaves = windows.group.num_leaves if number in self.leaf_states else 0
            ranges.append(range(sum(window.stop <= leaves for window in windows.all)))
        return ranges

    @cached_property
    def _runs(self) -> list[Ints]:
        """For each group, the same number for positions in `child_rows` whose rows are consecutive."""
        return [
            np.concatenate([[0], np.cumsum(np.diff(group.child_rows.numpy()) != 1)]).astype(np.int32)
            for group in self.order.groups
        ]


def state_rows(programs: Sequence[Program], order: Order, windows: Sequence[Windows], passes: bool) -> StateRows | None:
    """Rows of the states, which go with their readers if this `passes`; None: they lie in the order of the schedule."""
    if not any(of_group.are_several for of_group in windows):
        return None
    leaf_states = {
        number: states
        for number, (program, of_group) in enumerate(zip(programs, windows, strict=True))
        if of_group.are_several and (states := leaf_states_of(program))
    }
    of_visits = visits(order, windows)
    reads = [_reads(program) for program in programs]
    staged, count = _stage(of_visits, windows, reads, _leaves(order, windows, leaf_states))
    if not _pays(programs, windows, leaf_states, count):
        leaf_states, count, staged = {}, 0, [[] for _ in of_visits]
    if not (passes or leaf_states):
        return None
    keys = [
        (number, at)
        for number, of_group in enumerate(windows)
        for at, window in enumerate(of_group.all)
        if number not in leaf_states or window.stop > of_group.group.num_leaves
    ]
    until = _until(of_visits, windows, order.num_rows) if passes else None
    blocks = _staying(windows, keys) if until is None else _passing(of_visits, windows, keys, until)
    partial = {}
    for name in order.num_partial_rows:
        assert until is not None  # such models have no leaf states
        having = [key for key in keys if order.groups[key[0]].start_in(name) is not None]
        partial[name] = _passing(of_visits, windows, having, until)
    end = blocks.end
    row = blocks.rows(order, windows, missing=end + count, other=-1)
    row_in = {name: each.rows(order, windows, each.end, each.end) for name, each in partial.items()}
    with torch.inference_mode(False):
        groups = [_renumbered(group, row, row_in) for group in order.groups]
    for visit, of_visit in zip(of_visits, staged, strict=True):
        for each in of_visit:
            _child_rows(groups[visit.group], each.by).numpy()[each.positions] = np.arange(
                end + each.first, end + each.first + len(each.positions), dtype=np.int32
            )
    windows_here = [
        Windows(replace(group, steps=[step._replace(reads_from=-1) for step in group.steps]), each.all)
        for group, each in zip(order.groups, windows, strict=True)
    ]
    shared = range(end, end + count)
    return StateRows(
        replace(order, groups=groups), windows_here, shared, blocks, partial, leaf_states, row, row_in, staged
    )


def _reads(program: Program) -> set[By]:
    """How a program reads states of children."""
    return {By.EDGE if is_over_edges(slot) else By.SLOT for _, slot in program.gathers}


def _leaves(order: Order, windows: Sequence[Windows], groups: Iterable[int]) -> Flags:
    """Which rows of a state are leaves of these groups."""
    are_leaves = np.zeros(order.num_rows + 1, np.bool_)
    for number in groups:
        group = windows[number].group
        are_leaves[group.start : group.start + group.num_leaves] = True
    return are_leaves


def _stage(
    of_visits: Sequence[Visit], windows: Sequence[Windows], reads: Sequence[set[By]], are_leaves: Flags
) -> tuple[list[list[Staged]], int]:
    """What each visit reads of these leaves, and the most rows that one visit needs for that."""
    staged, most = [], 0
    for visit in of_visits:
        of_visit, count, group = [], 0, windows[visit.group].group
        for by in By:
            if by not in reads[visit.group]:
                continue
            children = _child_rows(group, by).numpy()
            positions = _positions(group, visit.steps, by)
            positions = positions[are_leaves[children[positions]]]
            if len(positions):
                of_visit.append(Staged(by, count, positions, children[positions]))
                count += len(positions)
        staged.append(of_visit)
        most = max(most, count)
    return staged, most


def _positions(group: RowGroup, steps: Ints, by: By) -> Ints:
    """The positions in `child_rows` of a group, or of its edges, that steps read."""
    if by is By.SLOT:
        bounds = np.maximum(0, steps[:, :2] - group.num_leaves) * group.num_slots
    else:
        bounds = steps[:, 5:] * (0 if group.edges is None else group.edges.side_by_side)
    ranges = [np.arange(start, stop, dtype=np.int32) for start, stop in bounds.tolist()]
    return np.concatenate(ranges) if ranges else np.zeros(0, np.int32)


def _child_rows(group: RowGroup, by: By) -> Tensor:
    if by is By.SLOT:
        return group.child_rows
    return group.child_rows[:0] if group.edges is None else group.edges.child_rows


def _pays(
    programs: Sequence[Program], windows: Sequence[Windows], leaf_states: Mapping[int, LeafStates], count: int
) -> bool:
    """Whether rows of leaves take so much more memory than `count` rows that are shared."""
    size = sum(map(_row_size, programs[0].trace.scatters.values()))
    saved = 0
    for number, states in leaf_states.items():
        scatters = programs[number].trace.scatters
        saved += windows[number].group.num_leaves * sum(_row_size(scatters[name]) for name in states)
    return saved > PAYS * count * size


def _row_size(node: fx.Node) -> int:
    value = node.meta["val"]
    return math.prod(map(int, value.shape[1:])) * int(value.dtype.itemsize)


def _staying(windows: Sequence[Windows], keys: Sequence[Key]) -> Blocks:
    """The windows, one after the other."""
    blocks, end = {}, 0
    for number, at in keys:
        window = windows[number].all[at]
        blocks[number, at] = end
        end += window.stop - window.start
    return Blocks(blocks, end)


def _until(of_visits: Sequence[Visit], windows: Sequence[Windows], num_rows: int) -> Ints:
    """The visit after which nobody reads each row."""
    last = {(visit.group, visit.window): number for number, visit in enumerate(of_visits)}
    until = np.zeros(num_rows + 1, np.int32)
    for (group, window), number in last.items():
        until[rows_of_window(windows[group], window)] = number
    for (group, window), number in last.items():
        for by in By:
            children = children_of(windows[group].group, windows[group].all[window], by)
            until[children] = np.maximum(until[children], number)
    return until


def _passing(of_visits: Sequence[Visit], windows: Sequence[Windows], keys: Sequence[Key], until: Ints) -> Blocks:
    """A block for each of these windows, which is needed from its first visit until the last of its readers has run."""
    first: dict[Key, int] = {}
    for number, visit in enumerate(of_visits):
        first.setdefault((visit.group, visit.window), number)
    blocks: dict[Key, int] = {}
    waiting: list[tuple[int, int, int]] = []
    free = Free(0)
    for number, key in sorted((first[key], key) for key in keys):
        for _, start, stop in (block for block in waiting if block[0] < number):
            free.give(start, stop)
        waiting = [block for block in waiting if block[0] >= number]
        rows = rows_of_window(windows[key[0]], key[1])
        start = blocks[key] = free.take(rows.stop - rows.start)
        waiting.append((int(until[rows].max(initial=number)), start, start + rows.stop - rows.start))
    return Blocks(blocks, free.end)


def _renumbered(group: RowGroup, row: Ints, row_in: Mapping[str, Ints]) -> RowGroup:
    """The group with its children's rows here."""
    edges = group.edges
    partial = {
        name: rows_in_state(group, group.start_in(name), torch.from_numpy(of_state))
        for name, of_state in row_in.items()
    }
    if edges is not None:
        edges = replace(edges, child_rows=torch.from_numpy(row[edges.child_rows.numpy()]))
    child_rows = torch.from_numpy(row[group.child_rows.numpy()])
    return replace(group, child_rows=child_rows, edges=edges, partial=partial)
