"""A schedule as the executor uses it: steps, the rows of each kind, and index arrays on the device."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..scheduler import EdgeLists, Schedule

Ints = np.ndarray[Any, np.dtype[np.int32]]


class Step(NamedTuple):
    """Rows [start, stop) of a group. Where they read consecutive rows of a state, the first of these, and where they are
    read at consecutive positions, the first of those; else -1. With edge lists, the group's edges [edge_start, edge_stop).
    """

    start: int
    stop: int
    reads_from: int = -1
    read_at: int = -1
    group: int = 0
    edge_start: int = 0
    edge_stop: int = 0


@dataclass(frozen=True)
class EdgeSlice:
    """The edges to the children of one group, a slice of all edges in the order of rows."""

    start: int
    num_edges: int
    child_rows: Tensor  # int32 [num_edges]
    counts: Tensor  # int64 [rows of the group]: how many children each row has
    offset: Tensor  # int32 [rows with children + 1]: where the edges of each begin, among all edges
    owner: Tensor  # int32 [num_edges]: the row of the group that each edge is of


class Extent(NamedTuple):
    """How many rows there is room for: of all that a value has rows for, of those with children, and of edges."""

    rows: int
    inner: int
    edges: int


@dataclass(frozen=True, eq=False)
class RowGroup:
    """The rows of one kind, numbered from 0: rows [start, start + num_rows) of a state. The first have no children."""

    start: int
    num_rows: int
    num_leaves: int
    num_slots: int
    position: int  # the first of its places in the `child_rows` of all groups
    child_rows: Tensor  # [(num_rows - num_leaves) * num_slots]: row of each child in a state; the last row: none
    steps: list[Step]  # those of this group
    edges: EdgeSlice | None  # for vertex functions that read all children

    @property
    def num_inner(self) -> int:
        return self.num_rows - self.num_leaves

    @property
    def num_edges(self) -> int:
        return 0 if self.edges is None else self.edges.num_edges

    @property
    def extent(self) -> Extent:
        """All of its rows."""
        return Extent(self.num_rows, self.num_inner, self.num_edges)

    @cached_property
    def all_rows(self) -> Ints:
        """All rows as one step."""
        return np.array([Step(0, self.num_rows, edge_stop=self.num_edges)], np.int32)

    @cached_property
    def inner_rows(self) -> Ints:
        """All rows with children as one step."""
        return np.array([Step(self.num_leaves, self.num_rows, edge_stop=self.num_edges)], np.int32)


@dataclass(frozen=True)
class Parents:
    """Who reads each row: `places[offset[r]:offset[r + 1]]`; with offset None, the one place `places[r]`."""

    places: Tensor  # int32
    offset: Tensor | None  # int32 [rows + external + 1]
    bounds: Ints | None  # the same on the host


@dataclass(frozen=True, eq=False)
class Order:
    """Index arrays are int32, on the device. The rows of external vertices, computed before, follow those of all groups."""

    num_rows: int
    num_external: int
    num_positions: int
    num_edges: int
    steps: list[Step]  # in the order of execution
    table: Ints  # [S, 7], the same as an array
    groups: list[RowGroup]
    vertex: Tensor  # [num_rows]: the vertex of each row
    row: Tensor  # [num_rows]: the row of each vertex
    parents: Parents  # by place in the `child_rows` of all groups
    edge_parents: Parents | None  # by edge
    schedule: Schedule
    lists: EdgeLists | None
    # By groups: what `vertices_among` and `edges_among` have answered.
    of_vertices: dict[tuple[int, ...], list[Tensor]] = field(default_factory=dict)
    of_edges: dict[tuple[int, ...], list[Tensor]] = field(default_factory=dict)

    @cached_property
    def runs(self) -> list[tuple[int, int, int]]:
        """Steps of one group in a row: the group, the first of them, and the end."""
        bounds = [0, *(np.flatnonzero(np.diff(self.table[:, 4])) + 1).tolist(), len(self.table)]
        return [(int(self.table[first, 4]), first, end) for first, end in itertools.pairwise(bounds)]

    @cached_property
    def backwards(self) -> Ints:
        """`table` from the last step to the first."""
        return np.ascontiguousarray(self.table[::-1])

    def vertices_among(self, groups: Sequence[int]) -> list[Tensor]:
        """For tensors of one row for each vertex of these groups, in the batch's order: the row of that of each row of
        each of these groups."""
        if tuple(groups) not in self.of_vertices:
            bounds = [(group.start, group.start + group.num_rows) for group in self.groups]
            self.of_vertices[tuple(groups)] = self._among(groups, self.schedule.order, bounds)
        return self.of_vertices[tuple(groups)]

    def edges_among(self, groups: Sequence[int]) -> list[Tensor]:
        """For tensors of one row for each edge to the children of these groups, in the order in which edges were given: the
        row of that of each edge of each of these groups."""
        if tuple(groups) not in self.of_edges:
            assert self.lists is not None
            edges = [group.edges for group in self.groups if group.edges is not None]
            bounds = [(part.start, part.start + part.num_edges) for part in edges]
            self.of_edges[tuple(groups)] = self._among(groups, self.lists.edge, bounds)
        return self.of_edges[tuple(groups)]

    def _among(self, groups: Sequence[int], numbers: Ints, bounds: list[tuple[int, int]]) -> list[Tensor]:
        """Of `numbers`, all vertices or edges in the order of rows, those within the bounds of each of these groups, counted
        among them alone."""
        parts = [numbers[slice(*bounds[group])] for group in groups]
        if len(groups) < len(self.groups):
            rank = np.zeros(len(numbers) + 1, np.int32)
            for part in parts:
                rank[part] = 1
            np.cumsum(rank, out=rank)
            parts = [rank[part] - 1 for part in parts]
        with torch.inference_mode(False):  # they are kept, and used where gradients are wanted
            joined = torch.from_numpy(np.concatenate(parts)).to(self.vertex.device, non_blocking=True)
            return list(torch.split(joined, [len(part) for part in parts]))


def order_on(
    schedule: Schedule, device: torch.device, arrays: Tensor | None = None, lists: EdgeLists | None = None
) -> Order:
    """Bring a schedule to a device, in one piece; `arrays` are its arrays where they are there already."""
    with torch.inference_mode(False):  # orders are kept, and used where gradients are wanted
        return _order_on(schedule, device, arrays, lists)


def _order_on(schedule: Schedule, device: torch.device, arrays: Tensor | None, lists: EdgeLists | None) -> Order:
    if arrays is None:
        arrays = torch.from_numpy(schedule.arrays).to(device, non_blocking=True)
    rows, total = schedule.num_vertices, schedule.num_vertices + schedule.num_external
    sizes = [rows, rows, schedule.num_positions]
    rest = len(arrays) - sum(sizes)
    sizes += [0, rest] if schedule.is_tree else [total + 1, rest - total - 1]
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
        steps=steps,
        table=table,
        groups=groups,
        vertex=vertex,
        row=row,
        parents=Parents(parent_places, None if schedule.is_tree else parent_offset, schedule.parent_offset),
        edge_parents=edge_parents,
        schedule=schedule,
        lists=lists,
        of_vertices={(0,): [vertex]} if len(groups) == 1 else {},
    )


def _table(schedule: Schedule, lists: EdgeLists | None) -> Ints:
    """The steps, a line each as in `Step`, with rows and edges as their group counts them."""
    first, inner = np.array([[group.start, group.inner] for group in schedule.groups], np.int32).T
    leaves = np.cumsum(inner - first, dtype=np.int32)[schedule.step_kinds]  # up to and with this group
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
    """Bring edge lists to a device, in one piece: the slice of each group, and who reads each row."""
    arrays = torch.from_numpy(lists.arrays).to(device, non_blocking=True)
    parts = (lists.offset, lists.edge, lists.child_row, lists.parent_offset, lists.parent_edge)
    offset, _, child_rows, parent_offset, parent_edges = torch.split(arrays, [len(part) for part in parts])
    counts = (offset[1:] - offset[:-1]).long()
    edges: list[EdgeSlice | None] = []
    at = 0  # among the rows with children
    for group in schedule.groups:
        end = at + group.stop - group.inner
        start, stop = int(lists.offset[at]), int(lists.offset[end])
        of_rows = torch.zeros(group.stop - group.start, dtype=torch.int64, device=device)
        of_rows[group.inner - group.start :] = counts[at:end]
        owner = np.repeat(np.arange(group.inner, group.stop, dtype=np.int32), np.diff(lists.offset[at : end + 1]))
        owner_on = torch.from_numpy(owner - np.int32(group.start)).to(device, non_blocking=True)
        edges.append(EdgeSlice(start, stop - start, child_rows[start:stop], of_rows, offset[at : end + 1], owner_on))
        at = end
    return edges, Parents(parent_edges, parent_offset, lists.parent_offset)
