"""Edges in the order of a schedule: for vertex functions that read any number of children."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .. import _core
from ..errors import GraphError
from .policies import Ints, Structure
from .schedule import Schedule


@dataclass(frozen=True, eq=False)
class EdgeLists:
    """One entry an edge, sorted by the row of the parent and then by slot; int32.

    V vertices, X external ones, E edges, L leaves, as in `Schedule`.

    Attributes:
        offset: [V - L + 1]; the i-th of the rows with children has the entries `offset[i]:offset[i + 1]`, so that a
            step's entries are a slice, and so are a kind's.
        edge: [E], the number that the user gave each entry's edge: the row of edge inputs that belongs to it.
        child_row: [E], the row of the child.
        parent_offset, parent_edge: [V + X + 1], [E]; row r is read by the entries
            `parent_edge[parent_offset[r]:parent_offset[r + 1]]`, in ascending order.
        arrays: the memory that these are views of.
    """

    offset: Ints
    edge: Ints
    child_row: Ints
    parent_offset: Ints
    parent_edge: Ints
    arrays: Ints = field(repr=False)


def edge_lists(batch: Structure, schedule: Schedule) -> EdgeLists:
    """The edges of a batch in the order of its schedule.

    Raises:
        GraphError: the batch's `edge` does not name each edge once, or the schedule is not of this batch.
    """
    try:
        arrays = _core.edges(
            batch.child, batch.slot, batch.offset, batch.num_external, schedule.order, schedule.row, batch.edge
        )
    except _core.Malformed as error:
        if error.args[0] == "edge":
            raise GraphError(
                f"the structure's arrays are inconsistent: edge must have each of 0 to {len(batch.child) - 1} once, which is "
                f"not so at {error.args[1]}"
            ) from None
        raise GraphError(f"this schedule is not of this batch ({error.args[0]})") from None
    except (TypeError, ValueError) as error:
        raise GraphError(f"this schedule is not of this batch, or its arrays are no structure: {error}") from error
    edges, rows = len(batch.child), schedule.num_vertices + batch.num_external
    sizes = (schedule.num_vertices - schedule.num_leaves + 1, edges, edges, rows + 1)
    if len(arrays) != sum(sizes) + edges:
        raise GraphError("this schedule is not of this batch (it has another number of vertices without children)")
    offset, edge, child_row, parent_offset, parent_edge = np.split(arrays, np.cumsum(sizes))
    return EdgeLists(offset, edge, child_row, parent_offset, parent_edge, arrays)
