"""Rows that belong to edges: what a step gathers from children, and the gradients that it sends back to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from ..graph.simplify import ALL_SLOTS
from ..scheduler import Schedule


@dataclass(frozen=True)
class Order:
    """A schedule as the executor uses it, index arrays on the device. Rows [0, num_leaves) have no children."""

    num_rows: int
    num_leaves: int
    num_slots: int
    steps: list[tuple[int, int]]  # first row and end, in the order of execution
    vertex: Tensor  # int64 [num_rows]: the vertex of each row
    row: Tensor  # int64 [num_rows]: the row of each vertex
    child_rows: Tensor  # int64 [(num_rows - num_leaves) * num_slots]: row of each child, num_rows where there is none
    parent_edges: Tensor  # int64: the edges (positions in child_rows) that read each row, row by row
    parent_offset: Tensor | None  # int64 [num_rows + 1] into parent_edges; None in a forest: one edge for each row
    parent_bounds: np.ndarray[Any, np.dtype[np.int64]] | None  # the same on the host


def order_on(schedule: Schedule, device: torch.device) -> Order:
    """Bring a schedule to a device."""
    forest = schedule.is_tree
    edges = schedule.parent_edge_of_row if forest else schedule.parent_edge
    arrays = [schedule.order, schedule.row, schedule.child_rows.reshape(-1), edges]
    if not forest:
        arrays.append(schedule.parent_offset)
    tensors = [torch.from_numpy(array).to(device, non_blocking=True) for array in arrays]
    return Order(
        num_rows=len(schedule.order),
        num_leaves=schedule.num_leaves,
        num_slots=schedule.num_slots,
        steps=[(start, stop) for start, stop in schedule.steps.tolist()],
        vertex=tensors[0],
        row=tensors[1],
        child_rows=tensors[2],
        parent_edges=tensors[3],
        parent_offset=None if forest else tensors[4],
        parent_bounds=None if forest else schedule.parent_offset,
    )


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
        inner = [stop - start for start, stop in order.steps if start >= order.num_leaves]
        count = max(inner, default=0) if base < 0 else order.num_rows - base
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

    def read(self, state: Tensor, start: int, stop: int) -> dict[fx.Node, Tensor]:
        """Gather the children's rows of `state` for rows [start, stop)."""
        order = self.order
        index = order.child_rows[
            (start - order.num_leaves) * order.num_slots : (stop - order.num_leaves) * order.num_slots
        ]
        torch.index_select(state, 0, index, out=self._part(start, stop))
        return self.views(start, stop)

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
