"""A schedule, brought to a device as the executor uses it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..scheduler import EdgeLists, Schedule
from .order import EdgeSlice, Ints, Order, Parents, RowGroup, Step


def order_on(
    schedule: Schedule, device: torch.device, arrays: Tensor | None = None, lists: EdgeLists | None = None
) -> Order:
    """Bring a schedule to a device in one copy, or take its `arrays` if they are there already."""
    with torch.inference_mode(False):  # orders are kept, and used where gradients are wanted
        return _order_on(schedule, device, arrays, lists)


def _order_on(schedule: Schedule, device: torch.device, arrays: Tensor | None, lists: EdgeLists | None) -> Order:
    if arrays is None:
        arrays = torch.from_numpy(schedule.arrays).to(device, non_blocking=True)
    rows, total = schedule.num_vertices, schedule.num_vertices + schedule.num_external
    sizes = [rows, rows, schedule.num_positions]
    size_of_parents = len(arrays) - sum(sizes)
    sizes += [0, size_of_parents] if schedule.is_tree else [total + 1, size_of_parents - total - 1]
    vertex, row, child_rows, parent_offset, parent_places = torch.split(arrays, sizes)
    table, edge_parents = _table(schedule, lists), None
    steps = [Step._make(line) for line in table.tolist()]
    edges: list[EdgeSlice | None] = [None] * len(schedule.groups)
    if lists is not None:
        edges, edge_parents = _edges_on(lists, schedule, device)
    groups = [
        RowGroup(
            start=group.start,
            num_rows=group.stop - group.start,
            num_leaves=group.inner - group.start,
            num_slots=group.slots,
            position=group.position,
            child_rows=child_rows[group.position : group.position + (group.stop - group.inner) * group.slots],
            steps=[step for step in steps if step.group == number],
            edges=edges[number],
        )
        for number, group in enumerate(schedule.groups)
    ]
    return Order(
        num_rows=rows,
        num_external=schedule.num_external,
        num_positions=schedule.num_positions,
        num_edges=0 if lists is None else len(lists.edge),
        num_edge_positions=0 if lists is None else len(lists.child_row),
        steps=steps,
        table=table,
        groups=groups,
        vertex=vertex,
        row=row,
        parents=Parents(parent_places, None if schedule.is_tree else parent_offset, schedule.parent_offset),
        edge_parents=edge_parents,
        schedule=schedule,
        lists=lists,
    )


def _table(schedule: Schedule, lists: EdgeLists | None) -> Ints:
    """The steps, one in a line with the fields of `Step`; rows and edges are counted within the group."""
    first, inner = np.array([[group.start, group.inner] for group in schedule.groups], np.int32).T
    leaves = np.cumsum(inner - first, dtype=np.int32)[schedule.step_kinds]  # in this group and those before it
    table = np.zeros((len(schedule.table), 7), np.int32)
    table[:, :5] = schedule.table
    table[:, :2] -= first[schedule.step_kinds, None]
    if lists is not None:
        is_inner = schedule.steps[:, :1] >= inner[schedule.step_kinds, None]
        bounds = lists.offset[np.where(is_inner, schedule.steps - leaves[:, None], 0)]
        starts = lists.offset[inner - np.cumsum(inner - first)][schedule.step_kinds, None]
        table[:, 5:] = np.where(is_inner, bounds - starts, 0)
    return table


def _edges_on(lists: EdgeLists, schedule: Schedule, device: torch.device) -> tuple[list[EdgeSlice | None], Parents]:
    """Bring edge lists to a device in one copy: the slice of each group, and the edges over which each row is read."""
    arrays = torch.from_numpy(lists.arrays).to(device, non_blocking=True)
    on_host = (lists.offset, lists.edge, lists.child_row, lists.parent_offset, lists.parent_edge)
    offset, _, child_rows, parent_offset, parent_edges = torch.split(arrays, list(map(len, on_host)))
    counts = (offset[1:] - offset[:-1]).long()
    num_children = counts
    if lists.num_children is not None:
        num_children = torch.from_numpy(lists.num_children).long().to(device, non_blocking=True)
    edges: list[EdgeSlice | None] = []
    first, position = 0, 0  # row with children of this group, and child of an edge, counted over all groups
    for group, side_by_side in zip(schedule.groups, lists.side_by_side or [1] * len(schedule.groups), strict=True):
        end = first + group.stop - group.inner
        start, stop = int(lists.offset[first]), int(lists.offset[end])
        counts_of_group = torch.zeros(group.stop - group.start, dtype=torch.int64, device=device)
        counts_of_group[group.inner - group.start :] = counts[first:end]
        all_counts = counts_of_group
        if lists.num_children is not None:
            all_counts = torch.zeros_like(counts_of_group)
            all_counts[group.inner - group.start :] = num_children[first:end]
        rows = np.arange(group.inner - group.start, group.stop - group.start, dtype=np.int32)
        owner = np.repeat(rows, np.diff(lists.offset[first : end + 1]))
        edges.append(
            EdgeSlice(
                start,
                stop - start,
                child_rows[position : position + (stop - start) * side_by_side],
                counts_of_group,
                offset[first : end + 1],
                torch.from_numpy(owner).to(device, non_blocking=True),
                all_counts,
                lists.slot[start:stop],
                position,
                side_by_side,
            )
        )
        first, position = end, position + (stop - start) * side_by_side
    return edges, Parents(parent_edges, parent_offset, lists.parent_offset)
