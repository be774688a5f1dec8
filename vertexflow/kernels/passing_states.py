"""States in a pass after which nobody reads them: those of a window of rows go when the last window that reads them is done.

Each window has a block of rows, in memory that others have left. So a row of a state is another row here: children, and steps
that read consecutive ones, are numbered anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from .arguments import By
from .order import Ints, Order, RowGroup
from .sent_rows import Free, Key, children_of, rows_of_window
from .windows import Windows, visits


@dataclass(frozen=True, eq=False)
class PassingStates:
    """An order whose children are rows of blocks, its windows, and the first row of each block.

    The last of `num_rows` rows is that of a missing child.
    """

    order: Order
    windows: list[Windows]
    num_rows: int
    blocks: dict[Key, int]
    row: Ints  # of each row of a state
    run: Ints  # the same number for rows that are consecutive here as well

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
    blocks, end = _blocks(windows, first, until)
    row = np.full(order.num_rows + 1, end, np.int32)
    for (group, window), start in blocks.items():
        rows = rows_of_window(windows[group], window)
        row[rows] = np.arange(start, start + rows.stop - rows.start, dtype=np.int32)
    run = np.concatenate([[0], np.cumsum(np.diff(row) != 1)])
    with torch.inference_mode(False):
        groups = [_renumbered(group, row) for group in order.groups]
    windows_here = [Windows(group, each.all) for group, each in zip(groups, windows, strict=True)]
    return PassingStates(replace(order, groups=groups), windows_here, end + 1, blocks, row, run)


def _blocks(windows: Sequence[Windows], first: dict[Key, int], until: Ints) -> tuple[dict[Key, int], int]:
    """The first row of the block of each window, which is needed from its first visit until the last of its
    readers has run, and where all blocks end."""
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
    return blocks, free.end


def _renumbered(group: RowGroup, row: Ints) -> RowGroup:
    """The group with its children's rows here; there is room to gather in each of its steps."""
    edges, steps = group.edges, [step._replace(reads_from=-1) for step in group.steps]
    if edges is not None:
        edges = replace(edges, child_rows=torch.from_numpy(row[edges.child_rows.numpy()]))
    return replace(group, child_rows=torch.from_numpy(row[group.child_rows.numpy()]), edges=edges, steps=steps)
