"""How many rows and edges each step of each graph has: the histogram from which the time of any share of a batch follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _core
from ..graph.inputs.pack import GraphBatch
from .cost import Floats

Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Levels:
    """The steps of all graphs of a batch by depth, an entry for each graph, depth and kind that has vertices.

    Attributes:
        graph, depth, kind: int64 [entries].
        rows, edges: float64 [entries]: vertices, and edges to their children.
        num_graphs, num_depths, num_kinds: how many there are.
    """

    graph: Integers
    depth: Integers
    kind: Integers
    rows: Floats
    edges: Floats
    num_graphs: int
    num_depths: int
    num_kinds: int

    def of_ranks(self, rank: Integers, num_ranks: int) -> tuple[Floats, Floats]:
        """The rows and the edges of each rank's steps, float64 [num_ranks, num_depths, num_kinds], where graph g is computed by
        `rank[g]`: graphs side by side share their steps."""
        shape = (num_ranks, self.num_depths, self.num_kinds)
        at = np.ravel_multi_index((rank[self.graph], self.depth, self.kind), shape)
        size = int(np.prod(shape))
        rows, edges = (np.bincount(at, amounts, size).reshape(shape) for amounts in (self.rows, self.edges))
        return rows.astype(np.float64), edges.astype(np.float64)

    def sizes(self) -> tuple[Floats, Floats]:
        """The rows, and the number of steps, of each graph; float64 [num_graphs], both."""
        rows, steps = (np.bincount(self.graph, amounts, self.num_graphs) for amounts in (self.rows, None))
        return rows.astype(np.float64), steps.astype(np.float64)


def levels_of(batch: GraphBatch) -> Levels:
    """The steps of a batch, as the policy "depth" makes them."""
    graph = np.repeat(np.arange(batch.num_graphs), np.diff(batch.graph_offset))
    depth = _core.depth(batch.child, batch.slot, batch.offset, 0).astype(np.int64)
    kind = np.zeros(len(depth), np.int64) if batch.kind_index is None else batch.kind_index.astype(np.int64)
    shape = (batch.num_graphs, int(depth.max(initial=0)) + 1, int(kind.max(initial=0)) + 1)
    at, entry = np.unique(np.ravel_multi_index((graph, depth, kind), shape), return_inverse=True)
    count = len(at)
    degree = np.diff(batch.offset)
    of_entry, at_depth, of_kind = (index.astype(np.int64) for index in np.unravel_index(at, shape))
    rows, edges = (np.bincount(entry, amounts, count).astype(np.float64) for amounts in (None, degree))
    return Levels(of_entry, at_depth, of_kind, rows, edges, *shape)
