"""A schedule as the executor uses it: steps, the group of rows of each kind, and index arrays on the device."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..scheduler import EdgeLists, Schedule
from . import rehearsal

MOST_SELECTIONS = 8  # of vertices whose outputs are returned, kept with an order

Ints = np.ndarray[Any, np.dtype[np.int32]]
Wide = np.ndarray[Any, np.dtype[np.int64]]


class Step(NamedTuple):
    """Rows [start, stop) of a group, which do not depend on each other, and the group's edges [edge_start, edge_stop) to their
    children, if there are edge lists.
    """

    start: int
    stop: int
    reads_from: int = -1  # the children are consecutive rows of a state, from this one on; -1: they are not
    read_at: int = -1  # the rows are read at consecutive positions of `child_rows`, from this one on; -1: they are not
    group: int = 0
    edge_start: int = 0
    edge_stop: int = 0


@dataclass(frozen=True)
class EdgeSlice:
    """The edges from the rows of one group to their children: a slice of all edges, which are sorted by row."""

    start: int
    num_edges: int
    child_rows: Tensor  # int32 [num_edges * side_by_side]: the row in a state of each child of an edge, or arc
    counts: Tensor  # int64 [num_rows]: the number of children of each row
    offset: Tensor  # int32 [num_inner + 1]: where the edges of each row with children begin, among all
    owner: Tensor  # int32 [num_edges]: the row of the group that the edge begins at
    num_children: Tensor  # int64 [num_rows]: the number of all children of each row, with an edge here or not
    slot: Ints  # [num_edges]: the slot of each edge
    position: int  # where its `child_rows` begin in those of all groups
    side_by_side: int  # how many children an edge has: one, but for arcs

    @cached_property
    def slots(self) -> Tensor:
        """int64 [num_edges]: the slot of each edge, on the device."""
        with rehearsal.interrupted(), torch.inference_mode(False):
            return torch.from_numpy(self.slot.astype(np.int64)).to(self.child_rows.device, non_blocking=True)


class Extent(NamedTuple):
    """A number of rows, how many of these have children, and how many edges lead to those."""

    rows: int
    inner: int
    edges: int


@dataclass(frozen=True, eq=False)
class RowGroup:
    """The rows of one kind, numbered from 0: rows [start, start + num_rows) of a state, first the leaves."""

    start: int
    num_rows: int
    num_leaves: int
    num_slots: int
    position: int  # where its `child_rows` begin in those of all groups
    child_rows: (
        Tensor  # [num_inner * num_slots]: the row of each child in a state; where a child is missing, the last row
    )
    steps: list[Step]  # those of this group
    edges: EdgeSlice | None  # only for vertex functions that read all children

    @property
    def num_inner(self) -> int:
        return self.num_rows - self.num_leaves

    @property
    def num_edges(self) -> int:
        return 0 if self.edges is None else self.edges.num_edges

    def of(self, rows: Tensor) -> Tensor:
        """Its part of what has a row for each row of a state."""
        return rows[self.start : self.start + self.num_rows]

    @property
    def extent(self) -> Extent:
        """Its size."""
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
    """Where each row of a state is read: row r at `places[offset[r]:offset[r + 1]]`, or, without `offset`, at `places[r]` alone.

    A place is a position in the `child_rows` of all groups, by slots or of edges.
    """

    places: Tensor  # int32
    offset: Tensor | None  # int32 [num_rows + num_external + 1]
    bounds: Ints | None  # `offset` on the host


class OutputRows(NamedTuple):
    """Row `rows[i]` of a group, or, without `rows`, row i, is row `batch_rows[i]` of an output; `rows` ascend."""

    rows: Tensor | None  # int32, as is the other
    batch_rows: Tensor


@dataclass(frozen=True, eq=False)
class Order:
    """A schedule on a device, where its index arrays are int32.

    In a state, the rows of external vertices, which were computed before, follow those of all groups.
    """

    num_rows: int
    num_external: int
    num_positions: int
    num_edges: int
    num_edge_positions: int  # of the children of all edges
    steps: list[Step]  # in the order of execution
    table: Ints  # [len(steps), 7]: the same steps as an array
    groups: list[RowGroup]
    vertex: Tensor  # [num_rows]: the vertex of each row
    row: Tensor  # [num_rows]: the row of each vertex
    parents: Parents  # whose places are positions in `child_rows`
    edge_parents: Parents | None  # whose places are positions in `child_rows` of edges
    schedule: Schedule
    lists: EdgeLists | None
    selected: Wide | None = None  # the vertices that outputs have a row for, ascending; None: all
    _batch_rows: dict[tuple[bool, tuple[int, ...]], list[Tensor]] = field(default_factory=dict)
    _other_edges: dict[tuple[int, ...], Tensor] = field(default_factory=dict)
    _selecting: dict[bytes, Order] = field(default_factory=dict)
    _selected_index: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """The size of all index arrays."""
        arrays = [self.schedule.arrays, self.schedule.table, self.table]
        arrays += [] if self.lists is None else [self.lists.arrays]
        edges = (group.edges for group in self.groups if group.edges is not None)
        tensors = [tensor for of_group in edges for tensor in (of_group.counts, of_group.owner)]
        return sum(array.nbytes for array in arrays) + sum(tensor.nbytes for tensor in tensors)

    @cached_property
    def runs(self) -> list[tuple[int, int, int]]:
        """Runs of consecutive steps [first, end) of the same group, as (group, first, end)."""
        bounds = [0, *(np.flatnonzero(np.diff(self.table[:, 4])) + 1).tolist(), len(self.table)]
        return [(int(self.table[first, 4]), first, end) for first, end in itertools.pairwise(bounds)]

    @cached_property
    def backwards(self) -> Ints:
        """`table` from the last step to the first."""
        return np.ascontiguousarray(self.table[::-1])

    def selecting(self, vertices: Wide) -> Order:
        """This order with `selected`; those of the last few selections are kept."""
        key = vertices.tobytes()
        if key not in self._selecting:
            if len(self._selecting) == MOST_SELECTIONS:
                self._selecting.pop(next(iter(list(self._selecting))), None)  # which another thread may have done
            self._selecting[key] = replace(self, selected=vertices, _selecting={}, _selected_index={})
        return self._selecting[key]

    def selected_outputs(self, groups: Sequence[int]) -> Wide:
        """Where the rows that outputs have are among those that outputs of all vertices of these groups would have."""
        assert self.selected is not None
        if len(groups) == len(self.groups):
            return self.selected
        is_in_groups = np.zeros(self.num_rows, np.int64)
        for group in groups:
            is_in_groups[self._vertices(group)] = 1
        positions: Wide = (np.cumsum(is_in_groups) - 1)[self.selected[is_in_groups[self.selected] == 1]]
        return positions

    def selected_index(self, groups: Sequence[int]) -> Tensor:
        """`selected_outputs` on the device, where it stays for the next step."""
        key = tuple(groups)
        if key not in self._selected_index:
            with torch.inference_mode(False), rehearsal.interrupted():
                index = torch.from_numpy(self.selected_outputs(groups))
                self._selected_index[key] = index.to(self.vertex.device, non_blocking=True)
        return self._selected_index[key]

    def output_rows(self, groups: Sequence[int], of_edges: bool = False, of_all: bool = False) -> list[OutputRows]:
        """Which row, or edge, of a group is which row of the outputs (`of_all`: that have a row for every vertex)."""
        if of_all:
            return [OutputRows(None, self.groups[group].of(self.vertex)) for group in groups]
        batch_rows = self.batch_rows(groups, of_edges)
        if self.selected is None or of_edges:
            return [OutputRows(None, index) for index in batch_rows]
        positions = self.selected_outputs(groups)
        output_at = np.full(sum(map(len, batch_rows)), -1, np.int32)
        output_at[positions] = np.arange(len(positions), dtype=np.int32)
        rows_of_groups = []
        with torch.inference_mode(False):
            for index in batch_rows:
                outputs = output_at[index.numpy()]
                rows = np.flatnonzero(outputs >= 0).astype(np.int32)
                rows_of_groups.append(OutputRows(torch.from_numpy(rows), torch.from_numpy(outputs[rows])))
        return rows_of_groups

    def num_outputs(self, groups: Sequence[int], of_edges: bool = False) -> int:
        """How many rows an output has that these groups push."""
        if self.selected is not None and not of_edges:
            return len(self.selected_outputs(groups))
        return self.num_batch_rows(groups, of_edges)

    def _vertices(self, group: int) -> Ints:
        first = self.groups[group].start
        vertices: Ints = self.schedule.order[first : first + self.groups[group].num_rows]
        return vertices

    def vertices_of(self, groups: Sequence[int]) -> Tensor | None:
        """The vertices of these groups, ascending; None: they are all vertices."""
        if len(groups) == len(self.groups):
            return None
        vertices = np.sort(np.concatenate([self._vertices(group) for group in groups]))
        return torch.from_numpy(vertices).to(self.vertex.device, non_blocking=True)

    def batch_rows(self, groups: Sequence[int], of_edges: bool = False) -> list[Tensor]:
        """Indices into a tensor in the batch's order: of each of these groups, entry i is the row of its i-th row, or edge.

        The tensor has a row for each vertex of these groups, or for each edge to their children, and no other rows.
        """
        key = (of_edges, tuple(groups))
        if key not in self._batch_rows:
            with rehearsal.interrupted():
                self._batch_rows[key] = self._find_batch_rows(groups, of_edges)
        return self._batch_rows[key]

    def other_edges(self, groups: Sequence[int]) -> Tensor | None:
        """The rows of a tensor with a row for each edge of these groups whose edges they do not read; None: they read all."""
        if self.lists is None or not len(self.lists.skipped):
            return None
        self.batch_rows(groups, True)
        return self._other_edges[tuple(groups)]

    def num_batch_rows(self, groups: Sequence[int], of_edges: bool) -> int:
        """How many rows a tensor in the batch's order has, with a row for each vertex of these groups, or for each edge."""
        others = self.other_edges(groups) if of_edges and groups else None
        return sum(map(len, self.batch_rows(groups, of_edges))) + (0 if others is None else len(others))

    def _find_batch_rows(self, groups: Sequence[int], of_edges: bool) -> list[Tensor]:
        if not of_edges and len(groups) == len(self.groups) == 1:
            return [self.vertex]
        if of_edges:
            assert self.lists is not None
            numbers = self.lists.edge
            slices = [group.edges for group in self.groups if group.edges is not None]
            bounds = [(edges.start, edges.start + edges.num_edges) for edges in slices]
            numbers_of_groups = [numbers[slice(*bounds[group])] for group in groups]
        else:
            numbers = self.schedule.order
            numbers_of_groups = [self._vertices(group) for group in groups]
        total = len(numbers)
        if of_edges and self.lists is not None:
            total = self.lists.total
            numbers_of_groups.append(
                np.concatenate([self.lists.skipped[self.lists.skipped_group == group] for group in groups])
            )
        if len(groups) < len(self.groups):  # count without the vertices, or edges, of other groups
            rank = np.zeros(total + 1, np.int32)
            for numbers_of_group in numbers_of_groups:
                rank[numbers_of_group] = 1
            np.cumsum(rank, out=rank)
            numbers_of_groups = [rank[numbers_of_group] - 1 for numbers_of_group in numbers_of_groups]
        with torch.inference_mode(False):  # they are kept, and used where gradients are wanted
            joined = torch.from_numpy(np.concatenate(numbers_of_groups)).to(self.vertex.device, non_blocking=True)
            rows = list(torch.split(joined, [len(numbers_of_group) for numbers_of_group in numbers_of_groups]))
        if of_edges:
            self._other_edges[tuple(groups)] = rows.pop()
        return rows


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
    num_children = counts if lists.num_children is None else torch.from_numpy(lists.num_children).long().to(device)
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
