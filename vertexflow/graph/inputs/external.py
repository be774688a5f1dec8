"""Batches that read vertices outside them: the initial states of their own vertices without children."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .arcs import refuse_arcs

if TYPE_CHECKING:
    from .pack import GraphBatch


def reading_external(batch: GraphBatch) -> dict[str, Any]:
    """The arrays of the batch in which every vertex without children reads an external vertex in slot 0.

    Raises:
        GraphError: the batch has arcs of several children, of which slot 0 would be one.
    """
    refuse_arcs(batch, "given initial states; give vertices without children a kind, or an input, of their own")
    leaves = np.flatnonzero(batch.offset[1:] == batch.offset[:-1])
    external = np.arange(len(leaves), dtype=np.int32)
    edges_added = np.zeros(batch.num_vertices + 1, np.int32)
    edges_added[leaves + 1] = 1
    is_new = np.zeros(batch.num_edges + len(leaves), np.bool_)
    is_new[batch.offset[leaves] + external] = True
    child, slot, edge = np.zeros((3, len(is_new)), np.int32)
    child[is_new], edge[is_new] = external + batch.num_vertices, external + batch.num_edges
    np.logical_not(is_new, out=is_new)
    child[is_new], slot[is_new] = batch.child, batch.slot
    edge[is_new] = np.arange(batch.num_edges) if batch.edge is None else batch.edge
    return {
        "child": child,
        "slot": slot,
        "edge": edge,
        "offset": batch.offset + np.cumsum(edges_added, dtype=np.int32),
        "num_slots": max(batch.num_slots, 1),
        "num_external": len(leaves),
    }
