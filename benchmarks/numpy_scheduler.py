"""Packing and scheduling by depth in NumPy, as vertexflow did before its native core: the yardstick of `scheduler.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]
Graph = tuple[Ints, Ints, Ints]  # child, slot, offset


def pack_and_schedule(graphs: Sequence[Graph], num_slots: int) -> tuple[Ints, ...]:
    """The order of vertices, their rows, the steps, the rows of children, and where each row is read; for forests."""
    child, slot, offset = _pack(graphs)
    num_vertices, counts = len(offset) - 1, np.diff(offset)
    parent = np.repeat(np.arange(num_vertices), counts)
    step = _depth(num_vertices, child, parent)
    inner = counts > 0
    num_leaves = num_vertices - int(inner.sum())
    order = np.lexsort([step, inner])
    row = np.empty_like(order)
    row[order] = np.arange(num_vertices)
    child_rows = np.full((num_vertices - num_leaves) * num_slots, num_vertices)
    position = (row[parent] - num_leaves) * num_slots + slot
    child_row = row[child]
    child_rows[position] = child_row
    read_at = np.full(num_vertices, len(child_rows))
    read_at[child_row] = position
    changes = (np.diff(step[order]) != 0) | (np.diff(inner[order]) != 0)
    cuts = np.flatnonzero(changes) + 1
    steps = np.stack([np.concatenate(([0], cuts)), np.concatenate((cuts, [num_vertices]))], axis=1)
    return order, row, steps, child_rows, read_at


def _pack(graphs: Sequence[Graph]) -> Graph:
    sizes = np.array([len(offset) - 1 for _, _, offset in graphs])
    edges = np.array([len(child) for child, _, _ in graphs])
    first = np.cumsum(sizes) - sizes
    first_edge = np.cumsum(edges) - edges
    child = np.concatenate([child for child, _, _ in graphs]) + np.repeat(first, edges)
    offset = np.concatenate([offset[:-1] for _, _, offset in graphs]) + np.repeat(first_edge, sizes)
    return child, np.concatenate([slot for _, slot, _ in graphs]), np.append(offset, edges.sum())


def _depth(num_vertices: int, child: Ints, parent: Ints) -> Ints:
    """Pointer jumping: after k passes each vertex knows the longest path down of less than 2**k edges."""
    ancestor = np.full(num_vertices + 1, num_vertices)  # V is above the roots
    ancestor[child] = parent
    step = np.zeros(num_vertices + 1, np.int64)
    below, stride = child, 1
    while len(below):
        above = ancestor[below]
        np.maximum.at(step, above, step[below] + stride)
        further = ancestor[above]
        ancestor[below] = further
        below = below[further < num_vertices]
        stride *= 2
    return step[:-1]
