"""Edges as they were given: the one place that turns entries sorted by parent and slot back into the user's order."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import GraphError

Ints = np.ndarray[Any, np.dtype[np.int32]]
Wide = np.ndarray[Any, np.dtype[np.int64]]


def edge_index_of(child: Ints, offset: Ints, edge: Ints | None) -> Wide:
    """int64 [2, E]: the child and the parent of each edge, in the order in which edges were given.

    `edge` is the user's number of the edge of each entry of `child`; None: the entries are in the user's order.

    Raises:
        GraphError: `edge` does not have each of 0 .. E - 1 once.
    """
    index = np.full((2, len(child)), -1, np.int64)
    where: Any = slice(None) if edge is None else edge
    if edge is not None:
        counts = np.bincount(edge, minlength=len(child)) if len(edge) and edge.min() >= 0 else np.zeros(0)
        if len(edge) != len(child) or len(counts) != len(child) or not (counts == 1).all():
            raise GraphError(
                f"the structure's arrays are inconsistent: edge must have each of 0 to {len(child) - 1} once"
            )
    index[0, where] = child
    index[1, where] = np.repeat(np.arange(len(offset) - 1), np.diff(offset))
    return index
