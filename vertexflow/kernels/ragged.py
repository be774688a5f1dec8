"""Rows of edges, for vertex functions that read any number of children: states gathered, and gradients sent back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from ..scheduler import EdgeLists, Schedule


@dataclass(frozen=True)
class EdgeOrder:
    """Edges in the order of a schedule, on the device: those of a step are a slice."""

    num_edges: int
    bounds: np.ndarray[Any, np.dtype[np.int32]]  # on the host, [rows with children + 1]: where each row's edges begin
    edge: Tensor  # int32 [E]: the number of each edge in the batch
    place: Tensor  # int64 [E]: where in this order each edge of the batch is
    child_rows: Tensor  # int32 [E]
    counts: Tensor  # int64 [rows]: how many children each row has
    parent_offset: Tensor  # int32 [rows + external + 1] into parent_edges
    parent_edges: Tensor  # int32 [E]: the edges that read each row, row by row
    parent_bounds: np.ndarray[Any, np.dtype[np.int32]]  # parent_offset on the host


def edge_order_on(lists: EdgeLists, schedule: Schedule, device: torch.device) -> EdgeOrder:
    """Bring edge lists to a device, in one piece."""
    arrays = torch.from_numpy(lists.arrays).to(device, non_blocking=True)
    parts = (lists.offset, lists.edge, lists.child_row, lists.parent_offset, lists.parent_edge)
    offset, edge, child_rows, parent_offset, parent_edges = torch.split(arrays, [len(part) for part in parts])
    place = torch.empty(len(edge), dtype=torch.int64, device=device)
    place[edge.long()] = torch.arange(len(edge), device=device)
    counts = torch.zeros(schedule.num_vertices, dtype=torch.int64, device=device)
    counts[schedule.num_leaves :] = offset[1:] - offset[:-1]
    return EdgeOrder(
        num_edges=len(edge),
        bounds=lists.offset,
        edge=edge,
        place=place,
        child_rows=child_rows,
        counts=counts,
        parent_offset=parent_offset,
        parent_edges=parent_edges,
        parent_bounds=lists.parent_offset,
    )


@dataclass(frozen=True)
class ChildRows:
    """A row for each edge, of all steps if they are kept, else of one step at a time."""

    data: Tensor
    node: fx.Node
    order: EdgeOrder
    kept: bool

    @classmethod
    def like(cls, node: fx.Node, shape: tuple[int, ...], order: EdgeOrder, widest: int, kept: bool) -> ChildRows:
        """An empty buffer for the values of `node`; `widest` is the number of edges of the largest step."""
        value = node.meta["val"]
        rows = order.num_edges if kept else widest
        return cls(torch.empty((rows, *shape), dtype=value.dtype, device=value.device), node, order, kept)

    def part(self, first: int, end: int) -> Tensor:
        """The rows of edges [first, end)."""
        return self.data[first:end] if self.kept else self.data[: end - first]

    def read(self, state: Tensor, first: int, end: int) -> Tensor:
        """Gather the children's rows of `state` for edges [first, end)."""
        return torch.index_select(state, 0, self.order.child_rows[first:end], out=self.part(first, end))

    def sum_over_parents(self, start: int, stop: int) -> Tensor:
        """What the parents of rows [start, stop) sent them, summed in a fixed order."""
        order = self.order
        first, end = int(order.parent_bounds[start]), int(order.parent_bounds[stop])
        rows = self.data.index_select(0, order.parent_edges[first:end])
        offsets = order.parent_offset[start : stop + 1] - first
        return torch.segment_reduce(rows, "sum", offsets=offsets, axis=0, initial=0)
