"""States in a pass after which nobody reads them: those of a window of rows go when the last window that reads them is done.

Each window has a block of rows, in memory that others have left. So a row of a state is another row here: children, and steps
that read consecutive ones, are numbered anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..arguments import By
from ..memory.partial_states import rows_in_state
from ..order import Ints, Order, RowGroup
from .sent_rows import Free, Key, children_of, rows_of_window
from .windows import Windows, visits


class Blocks(NamedTuple):
    """Where the rows of a state lie: the first row of each window, and the row behind all of them, that of a missing child."""

    first: dict[Key, int]
    end: int

    def rows(self, order: Order, windows: Sequence[Windows]) -> Ints:
        """Which row each row of the groups is."""
        row = np.full(order.num_rows + 1, self.end, np.int32)
        for (group, window), start in self.first.items():
            rows = rows_of_window(windows[group], window)
            row[rows] = np.arange(start, start + rows.stop - rows.start, dtype=np.int32)
        return row


@dataclass(frozen=True, eq=False)
class PassingStates:
    """An order whose children are rows of blocks, its windows, and the blocks: of states that all groups have, and of others."""

    order: Order
    windows: list[Windows]
    blocks: Blocks
    partial: dict[str, Blocks]
    row: Ints  # of each row of a state
    run: Ints  # the same number for rows that are consecutive here as well

    def blocks_of(self, state: str) -> Blocks:
        """The blocks of a state."""
        return self.partial.get(state, self.blocks)

    def steps(self, steps: Ints) -> Ints:
        """Steps of the order that was given; those that read consecutive rows here no longer gather them."""
        moved: Ints = steps.copy()
        reading = np.flatnonzero(steps[:, 2] >= 0)
        if len(reading):
            start, stop, first, _, group = steps[reading, :5].T
            slots = np.array([each.num_slots for each in self.order.groups], np.int32)[group]
            are_consecutive = self.run[first] == self.run[first + (stop - start) * slots - 1]
            moved[reading, 2] = np.where(are_consecutive, self.row[first], -1)
        return moved


def passing_states(order: Order, windows: Sequence[Windows]) -> PassingStates:
    """Blocks for the windows of all groups."""
    first: dict[Key, int] = {}
    last: dict[Key, int] = {}
    for number, visit in enumerate(visits(order, windows)):
        first.setdefault((visit.group, visit.window), number)
        last[visit.group, visit.window] = number
    until = np.zeros(order.num_rows + 1, np.int32)
    for (group, window), number in last.items():
        until[rows_of_window(windows[group], window)] = number
    for (group, window), number in last.items():
        for by in By:
            children = children_of(windows[group].group, windows[group].all[window], by)
            until[children] = np.maximum(until[children], number)
    blocks = _blocks(windows, first, until)
    partial = {
        name: _blocks(
            windows, {key: at for key, at in first.items() if order.groups[key[0]].start_in(name) is not None}, until
        )
        for name in order.num_partial_rows
    }
    row = blocks.rows(order, windows)
    row_in = {name: torch.from_numpy(of_state.rows(order, windows)) for name, of_state in partial.items()}
    run = np.concatenate([[0], np.cumsum(np.diff(row) != 1)])
    with torch.inference_mode(False):
        groups = [_renumbered(group, row, row_in) for group in order.groups]
    windows_here = [Windows(group, each.all) for group, each in zip(groups, windows, strict=True)]
    return PassingStates(replace(order, groups=groups), windows_here, blocks, partial, row, run)


def _blocks(windows: Sequence[Windows], first: Mapping[Key, int], until: Ints) -> Blocks:
    """A block for each of these windows, which is needed from its first visit until the last of its readers has run."""
    blocks: dict[Key, int] = {}
    waiting: list[tuple[int, int, int]] = []
    free = Free(0)
    for number, key in sorted((number, key) for key, number in first.items()):
        for _, start, stop in (block for block in waiting if block[0] < number):
            free.give(start, stop)
        waiting = [block for block in waiting if block[0] >= number]
        rows = rows_of_window(windows[key[0]], key[1])
        start = blocks[key] = free.take(rows.stop - rows.start)
        waiting.append((int(until[rows].max(initial=number)), start, start + rows.stop - rows.start))
    return Blocks(blocks, free.end)


def _renumbered(group: RowGroup, row: Ints, row_in: Mapping[str, Tensor]) -> RowGroup:
    """The group with its children's rows here; there is room to gather in each of its steps."""
    edges, steps = group.edges, [step._replace(reads_from=-1) for step in group.steps]
    partial = {name: rows_in_state(group, group.start_in(name), of_state) for name, of_state in row_in.items()}
    if edges is not None:
        edges = replace(edges, child_rows=torch.from_numpy(row[edges.child_rows.numpy()]))
    child_rows = torch.from_numpy(row[group.child_rows.numpy()])
    return replace(group, child_rows=child_rows, edges=edges, steps=steps, partial=partial)
