"""Rows that belong to edges: what a step gathers from children, and the gradients that it sends back to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx

from ..graph.simplify import ALL_SLOTS
from ..scheduler import EdgeLists, Schedule
from .ragged import EdgeOrder, edge_order_on


class Step(NamedTuple):
    """Rows [start, stop). Where they read consecutive rows of a state, the first of these, and where they are read at
    consecutive edges, the first of those; else -1. With edge lists, their edges [edge_start, edge_stop)."""

    start: int
    stop: int
    reads_from: int = -1
    read_at: int = -1
    edge_start: int = 0
    edge_stop: int = 0


@dataclass(frozen=True)
class Order:
    """A schedule as the executor uses it, index arrays on the device (int32). Rows [0, num_leaves) have no children; the
    rows of external vertices, which have been computed before, follow the others.
    """

    num_rows: int
    num_external: int
    num_leaves: int
    num_slots: int
    steps: list[Step]  # in the order of execution
    vertex: Tensor  # [num_rows]: the vertex of each row
    row: Tensor  # [num_rows]: the row of each vertex
    child_rows: Tensor  # [(num_rows - num_leaves) * num_slots]: row of each child; num_rows + num_external: none
    parent_edges: Tensor  # the edges (positions in child_rows) that read each row, row by row
    parent_offset: Tensor | None  # [num_rows + num_external + 1] into parent_edges; None in a forest: one edge a row
    parent_bounds: np.ndarray[Any, np.dtype[np.int32]] | None  # the same on the host
    edges: EdgeOrder | None  # for vertex functions that read all children


def order_on(
    schedule: Schedule, device: torch.device, arrays: Tensor | None = None, lists: EdgeLists | None = None
) -> Order:
    """Bring a schedule to a device, in one piece; `arrays` are its arrays where they are there already."""
    if arrays is None:
        arrays = torch.from_numpy(schedule.arrays).to(device, non_blocking=True)
    rows, total = schedule.num_vertices, schedule.num_vertices + schedule.num_external
    sizes = [rows, rows, schedule.num_positions]
    rest = len(arrays) - sum(sizes)
    sizes += [0, rest] if schedule.is_tree else [total + 1, rest - total - 1]
    vertex, row, child_rows, parent_offset, parent_edges = torch.split(arrays, sizes)
    return Order(
        num_rows=rows,
        num_external=schedule.num_external,
        num_leaves=schedule.num_leaves,
        num_slots=schedule.num_slots,
        steps=_steps(schedule, lists),
        vertex=vertex,
        row=row,
        child_rows=child_rows,
        parent_edges=parent_edges,
        parent_offset=None if schedule.is_tree else parent_offset,
        parent_bounds=schedule.parent_offset,
        edges=None if lists is None else edge_order_on(lists, schedule, device),
    )


def _steps(schedule: Schedule, lists: EdgeLists | None) -> list[Step]:
    if lists is None:
        return [Step._make((*line, 0, 0)) for line in schedule.table.tolist()]
    bounds = lists.offset[np.maximum(schedule.steps - schedule.num_leaves, 0)]
    return [Step._make(line) for line in np.concatenate((schedule.table, bounds), axis=1).tolist()]


@dataclass(frozen=True)
class EdgeRows:
    """`num_slots` rows side by side for each inner row; `nodes` are the values that are columns of it."""

    data: Tensor  # [count * num_slots, *shape]
    nodes: dict[fx.Node, int]  # the slot of each value, or ALL_SLOTS
    order: Order
    shape: tuple[int, ...]
    base: int  # the row that `data` begins with; -1: it holds one step at a time

    @classmethod
    def for_states(
        cls, nodes: dict[fx.Node, int], order: Order, shape: tuple[int, ...], kept: bool, leaves: bool
    ) -> EdgeRows:
        """A buffer for gathered states; with `leaves`, their rows are there too, and zero."""
        base = -1 if not kept else 0 if leaves else order.num_leaves
        gathered = [step.stop - step.start for step in order.steps if step.reads_from < 0]
        count = max(gathered, default=0) if base < 0 else order.num_rows - base
        data = _rows(nodes, count * order.num_slots, shape)
        if leaves:
            data[: order.num_leaves * order.num_slots].zero_()
        return cls(data, nodes, order, shape, base)

    @classmethod
    def for_gradients(cls, nodes: dict[fx.Node, int], order: Order, shape: tuple[int, ...]) -> EdgeRows:
        """A buffer for the gradients sent to children, with one row of zeros more for those who have no parent."""
        data = _rows(nodes, (order.num_rows - order.num_leaves) * order.num_slots + 1, shape)
        slots = set(nodes.values())
        if slots == {ALL_SLOTS} or len(slots) == order.num_slots:
            data[-1].zero_()
        else:
            data.zero_()  # nothing is sent through some slots
        return cls(data, nodes, order, shape, order.num_leaves)

    def read(self, state: Tensor, step: Step) -> dict[fx.Node, Tensor]:
        """The children's rows of `state`: gathered, or a slice of it where they are one."""
        if step.reads_from >= 0:
            count = (step.stop - step.start) * self.order.num_slots
            return self._columns(state[step.reads_from : step.reads_from + count], step.stop - step.start)
        self._gather(state, step.start, step.stop)
        return self.views(step.start, step.stop)

    def fill(self, state: Tensor) -> None:
        """Gather what steps have read as slices, where somebody reads it later."""
        if self.base < 0:
            return
        runs: list[tuple[int, int]] = []
        for step in self.order.steps:
            if step.reads_from >= 0:
                joins = bool(runs) and runs[-1][1] == step.start
                runs.append((runs.pop()[0] if joins else step.start, step.stop))
        for start, stop in runs:
            self._gather(state, start, stop)

    def _gather(self, state: Tensor, start: int, stop: int) -> None:
        first, slots = self.order.num_leaves, self.order.num_slots
        index = self.order.child_rows[(start - first) * slots : (stop - first) * slots]
        torch.index_select(state, 0, index, out=self._part(start, stop))

    def views(self, start: int, stop: int) -> dict[fx.Node, Tensor]:
        """The columns of rows [start, stop)."""
        return self._columns(self._part(start, stop), stop - start)

    def kept_views(self, is_whole: Callable[[fx.Node], bool]) -> dict[fx.Node, Tensor]:
        """The columns of all rows, for each value from the first row that it is kept for."""
        if self.base < 0:
            return {}
        views = {}
        for node in self.nodes:
            start = 0 if is_whole(node) else self.order.num_leaves
            views[node] = replace(self, nodes={node: self.nodes[node]}).views(start, self.order.num_rows)[node]
        return views

    def _part(self, start: int, stop: int) -> Tensor:
        slots = self.order.num_slots
        if self.base < 0:
            return self.data[: (stop - start) * slots]
        return self.data[(start - self.base) * slots : (stop - self.base) * slots]

    def _columns(self, part: Tensor, rows: int) -> dict[fx.Node, Tensor]:
        slots = self.order.num_slots
        columns = {}
        for node, slot in self.nodes.items():
            if slot == ALL_SLOTS:
                columns[node] = part.view(rows, slots * self.shape[0])
            else:
                columns[node] = part if slots == 1 else part.view(rows, slots, *self.shape)[:, slot]
        return columns


def sum_over_parents(sent: Tensor | None, order: Order, start: int, stop: int, out: Tensor) -> None:
    """The gradient of the state of rows [start, stop): what their parents sent, summed in a fixed order.

    In a forest every row has one parent at most, and this is a copy; else it is a segment sum without atomics.
    """
    if sent is None:
        out.zero_()
    elif order.parent_offset is None:
        torch.index_select(sent, 0, order.parent_edges[start:stop], out=out)
    else:
        assert order.parent_bounds is not None
        first, end = int(order.parent_bounds[start]), int(order.parent_bounds[stop])
        rows = sent.index_select(0, order.parent_edges[first:end])
        offsets = order.parent_offset[start : stop + 1] - first
        out.copy_(torch.segment_reduce(rows, "sum", offsets=offsets, axis=0, initial=0))


def _rows(nodes: dict[fx.Node, int], count: int, shape: tuple[int, ...]) -> Tensor:
    value = next(iter(nodes)).meta["val"]
    return torch.empty((count, *shape), dtype=value.dtype, device=value.device)
