"""A schedule as the executor uses it: steps, the group of rows of each kind, and index arrays on the device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..scheduler import EdgeLists, Schedule
from .arguments import By
from .memory import rehearsal

MOST_SELECTIONS = 8  # of vertices whose outputs are returned, kept with an order

Ints = np.ndarray[Any, np.dtype[np.int32]]
Rows = TypeVar("Rows", Tensor, Ints)
Wide = np.ndarray[Any, np.dtype[np.int64]]
Some = TypeVar("Some")


class LackedState(NamedTuple):
    """A state that some groups of rows lack: the groups that do, that gather it by slots, and that send its gradients."""

    name: str
    lacking: tuple[int, ...]
    gathering: tuple[int, ...]
    sending: tuple[tuple[By, tuple[int, ...]], ...]


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


@dataclass(frozen=True, eq=False)
class RowsInState:
    """Where the rows of a group, and those of its children, lie in a state that has rows for some groups only."""

    start: int | None  # the first row of the group; None: it has none
    child_rows: Tensor  # as in `RowGroup`
    edge_rows: Tensor | None  # as `child_rows` in `EdgeSlice`
    # Where the gradients that the group sends to its children begin in those of all groups; nothing where it sends none.
    sent_at: Mapping[By, int] = field(default_factory=dict)


class Extent(NamedTuple):
    """A number of rows, how many of these have children, how many edges lead to those, and how many have none."""

    rows: int
    inner: int
    edges: int
    leaves: int


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
    partial: Mapping[str, RowsInState] = field(default_factory=dict)  # states that have rows for some groups only

    def start_in(self, state: str) -> int | None:
        """The first row of the group in a state; None: it has none there, and is zero."""
        return self.partial[state].start if state in self.partial else self.start

    def child_rows_in(self, state: str) -> Tensor:
        """`child_rows` in a state."""
        return self.partial[state].child_rows if state in self.partial else self.child_rows

    def edge_rows_in(self, state: str) -> Tensor:
        """The row in a state of each child of an edge, or arc."""
        assert self.edges is not None
        rows = self.partial[state].edge_rows if state in self.partial else None
        return self.edges.child_rows if rows is None else rows

    def sent_at(self, state: str, by: By) -> int | None:
        """Where the gradients of a state begin that the group sends to its children, in those of all groups; None: it sends none
        and has no place there."""
        if state in self.partial:
            return self.partial[state].sent_at.get(by)
        return self.position if by is By.SLOT or self.edges is None else self.edges.position

    @property
    def num_inner(self) -> int:
        return self.num_rows - self.num_leaves

    @property
    def num_edges(self) -> int:
        return 0 if self.edges is None else self.edges.num_edges

    def of(self, rows: Rows) -> Rows:
        """Its part of what has a row for each row of all groups."""
        return rows[self.start : self.start + self.num_rows]

    @property
    def extent(self) -> Extent:
        """Its size."""
        return Extent(self.num_rows, self.num_inner, self.num_edges, self.num_leaves)

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


@dataclass(frozen=True)
class PartialSent:
    """What is sent to a state that some groups lack, by the groups that send any: so many rows, and one of zeros."""

    num_rows: int
    parents: Parents


class OutputRows(NamedTuple):
    """Row `rows[i]` of a group, or, without `rows`, row i, is row `batch_rows[i]` of an output; `rows` ascend."""

    rows: Tensor | None  # int32, as is the other
    batch_rows: Tensor


@dataclass(frozen=True, eq=False)
class OfOutputs(Generic[Some]):
    """The vertices that outputs have a row for: those of some outputs, and those of all others; None: all vertices."""

    by_output: Mapping[str, Some]
    others: Some | None

    def vertices_of(self, output: str) -> Some | None:
        """The vertices of an output; None: all."""
        return self.by_output.get(output, self.others)


Selected = OfOutputs[Wide]  # in ascending order
ALL_VERTICES = Selected({}, None)


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
    partial_sent: Mapping[tuple[str, By], PartialSent] = field(default_factory=dict)
    # An order of the same vertices in which those with children are computed as late as possible, if there is a way to make one.
    make_late: Callable[[], Order] | None = None
    selected: Selected = ALL_VERTICES
    num_partial_rows: Mapping[str, int] = field(default_factory=dict)  # of states that have rows for some groups only
    _batch_rows: dict[tuple[bool, tuple[int, ...]], list[Tensor]] = field(default_factory=dict)
    _other_edges: dict[tuple[int, ...], Tensor] = field(default_factory=dict)
    _selecting: dict[Hashable, Order] = field(default_factory=dict)
    _selected_index: dict[tuple[str, tuple[int, ...]], Tensor] = field(default_factory=dict)
    _partial: dict[tuple[LackedState, ...], Order] = field(default_factory=dict)  # `partial_states`

    def num_rows_in(self, state: str) -> int:
        """How many vertices, external ones among them, have a row in a state; behind these is the row of a missing child."""
        return self.num_partial_rows.get(state, self.num_rows + self.num_external)

    def num_sent(self, state: str, by: By) -> int:
        """How many rows of gradients of a state all groups send to children, with a row of zeros if there is one."""
        if (state, by) in self.partial_sent:
            return self.partial_sent[state, by].num_rows + 1
        return self.num_positions + 1 if by is By.SLOT else self.num_edge_positions

    def row_of_zeros(self, state: str, by: By) -> int | None:
        """The row of these that children receive to whom nothing is sent; None: there is none."""
        if by is By.EDGE and (state, by) not in self.partial_sent:
            return None
        return self.num_sent(state, by) - 1

    @property
    def partial_parents(self) -> dict[tuple[str, By], Parents]:
        """The rows that are sent to each row of a state that some groups lack."""
        return {key: sent.parents for key, sent in self.partial_sent.items()}

    @cached_property
    def runs(self) -> list[tuple[int, int, int]]:
        """Runs of consecutive steps [first, end) of the same group, as (group, first, end)."""
        bounds = [0, *(np.flatnonzero(np.diff(self.table[:, 4])) + 1).tolist(), len(self.table)]
        return [(int(self.table[first, 4]), first, end) for first, end in itertools.pairwise(bounds)]

    @cached_property
    def backwards(self) -> Ints:
        """`table` from the last step to the first."""
        return np.ascontiguousarray(self.table[::-1])

    def selecting(self, selected: Selected, num_batches: int = 1) -> Order:
        """This order with `selected`; those of the last few selections of each batch that has this order are kept."""
        if selected is self.selected:
            return self
        by_output = {name: vertices.tobytes() for name, vertices in selected.by_output.items()}
        key = (*by_output.items(), None if selected.others is None else selected.others.tobytes())
        if key not in self._selecting:
            if len(self._selecting) >= MOST_SELECTIONS * num_batches:
                self._selecting.pop(next(iter(list(self._selecting))), None)  # which another thread may have done
            self._selecting[key] = replace(self, selected=selected, _selecting={}, _selected_index={})
        return self._selecting[key]

    def selected_rows(self, output: str, groups: Sequence[int]) -> Wide | None:
        """Where the rows that an output of vertices of these groups has are among those that it would have of all of them; None:
        it has them all."""
        selected = self.selected.vertices_of(output)
        if selected is None or len(groups) == len(self.groups):
            return selected
        is_in_groups = np.zeros(self.num_rows, np.int64)
        for group in groups:
            is_in_groups[self._vertices(group)] = 1
        positions: Wide = (np.cumsum(is_in_groups) - 1)[selected[is_in_groups[selected] == 1]]
        return positions

    def selected_index(self, output: str, groups: Sequence[int]) -> Tensor | None:
        """`selected_rows` on the device, where they stay for the next step."""
        if self.selected.vertices_of(output) is None:
            return None
        key = (output, tuple(groups))
        if key not in self._selected_index:
            with torch.inference_mode(False), rehearsal.interrupted():
                index = torch.from_numpy(self.selected_rows(output, groups))
                self._selected_index[key] = index.to(self.vertex.device, non_blocking=True)
        return self._selected_index[key]

    def output_rows(
        self, output: str, groups: Sequence[int], of_edges: bool = False, of_all: bool = False
    ) -> list[OutputRows]:
        """Which row, or edge, of a group is which row of an output that these groups push (`of_all`: that has a row for every
        vertex)."""
        if of_all:
            return [OutputRows(None, self.groups[group].of(self.vertex)) for group in groups]
        batch_rows = self.batch_rows(groups, of_edges)
        positions = None if of_edges else self.selected_rows(output, groups)
        if positions is None:
            return [OutputRows(None, index) for index in batch_rows]
        output_at = np.full(sum(map(len, batch_rows)), -1, np.int32)
        output_at[positions] = np.arange(len(positions), dtype=np.int32)
        rows_of_groups = []
        with torch.inference_mode(False):
            for index in batch_rows:
                outputs = output_at[index.numpy()]
                rows = np.flatnonzero(outputs >= 0).astype(np.int32)
                rows_of_groups.append(OutputRows(torch.from_numpy(rows), torch.from_numpy(outputs[rows])))
        return rows_of_groups

    def num_outputs(self, output: str, groups: Sequence[int], of_edges: bool = False) -> int:
        """How many rows an output has that these groups push."""
        positions = None if of_edges else self.selected_rows(output, groups)
        return self.num_batch_rows(groups, of_edges) if positions is None else len(positions)

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
