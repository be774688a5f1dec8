"""Edges in the order of a schedule: for vertex functions that read any number of children."""

from __future__ import annotations

from collections.abc import Sequence
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
        slot: [E], the slot of each entry; of an arc, its number among those of its vertex.
        total: how many edges the batch has.
        skipped, skipped_group: the numbers that the user gave edges that have no entry, because their slot comes before the first
            that is read, and the kind of the vertex that each belongs to. Then E above counts the entries, and
        num_children: [V - L], how many children each of the rows with children has; None where all have an entry.
        arrays: the memory that these are views of.
        side_by_side: for the vertices of each kind, how many children an entry has, side by side in `child_row`; None: one.
            Where entries are arcs, `child_row` has the children at so many positions of each, V + X where one is missing, and
            `parent_edge` has places in `child_row`.
    """

    offset: Ints
    edge: Ints
    child_row: Ints
    parent_offset: Ints
    parent_edge: Ints
    slot: Ints
    total: int
    skipped: Ints
    skipped_group: Ints
    num_children: Ints | None
    arrays: Ints = field(repr=False)
    side_by_side: tuple[int, ...] | None = None


def edge_lists(
    batch: Structure,
    schedule: Schedule,
    first_slots: Sequence[int] = (),
    num_initial: int = 0,
    arity: int = 1,
    side_by_side: Sequence[int] = (),
) -> EdgeLists:
    """The edges of a batch in the order of its schedule.

    `first_slots`: of each kind, the first slot whose edges have an entry; without, all have. The last `num_initial` edges are of
    initial states, which the user gave no number. With `side_by_side`, how many children of each arc the vertices of each kind
    read, an entry is an arc of `arity` children.

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
    none = np.zeros(0, np.int32)
    slot = batch.slot[edge]
    if batch.edge is not None:
        by_number = np.empty_like(batch.slot)
        by_number[batch.edge] = batch.slot
        slot = by_number[edge]
    lists = EdgeLists(offset, edge, child_row, parent_offset, parent_edge, slot, edges, none, none, None, arrays)
    if any(first_slots):
        lists = _from_slots(lists, schedule, first_slots, edges - num_initial)
    if arity > 1 or any(count > 1 for count in side_by_side):
        lists = _in_arcs(lists, schedule, rows, arity, tuple(side_by_side) or (1,) * len(schedule.groups))
    return lists


def _group_of_entries(offset: Ints, schedule: Schedule) -> Ints:
    """The group of the parent of each entry."""
    sizes = [group.stop - group.inner for group in schedule.groups]
    return np.repeat(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes), np.diff(offset))


def _in_arcs(
    lists: EdgeLists, schedule: Schedule, missing: int, arity: int, side_by_side: tuple[int, ...]
) -> EdgeLists:
    """The lists with an entry for each arc; `missing` is the row of a missing child."""
    number, position = lists.slot // arity, lists.slot % arity
    is_first = np.ones(len(number), np.bool_)
    is_first[1:] = number[1:] != number[:-1]
    is_first[lists.offset[:-1]] = True  # every row here has children
    arc, before = np.cumsum(is_first) - 1, np.concatenate([[0], np.cumsum(is_first)]).astype(np.int32)
    offset, numbers = before[lists.offset], np.zeros(lists.total, np.int32)
    numbers[lists.edge] = is_first
    numbers = np.cumsum(numbers, dtype=np.int32) - 1  # of the arc of each edge, as arcs were given
    edge, total = (numbers[lists.edge[is_first]], int(before[-1])) if arity > 1 else (lists.edge, lists.total)
    width = np.array(side_by_side)[_group_of_entries(offset, schedule)]
    place = (np.cumsum(width) - width)[arc] + position
    stays = position < width[arc]
    child_row = np.full(int(width.sum()), missing, np.int32)
    child_row[place[stays]] = lists.child_row[stays]
    stays_above = stays[lists.parent_edge]
    above = np.concatenate([[0], np.cumsum(stays_above)])
    parent_edge = place[lists.parent_edge[stays_above]]
    arrays = [offset, edge, child_row, above[lists.parent_offset], parent_edge]
    joined = np.concatenate(arrays).astype(np.int32)
    offset, edge, child_row, parent_offset, parent_edge = np.split(
        joined, np.cumsum([len(part) for part in arrays])[:-1]
    )
    num_children = np.diff(lists.offset) if lists.num_children is None else lists.num_children
    return EdgeLists(
        offset, edge, child_row, parent_offset, parent_edge, number[is_first], total, lists.skipped, lists.skipped_group,
        num_children, joined, side_by_side,
    )  # fmt: skip


def _from_slots(lists: EdgeLists, schedule: Schedule, first_slots: Sequence[int], num_given: int) -> EdgeLists:
    """The lists without the edges in slots before the first that each kind reads."""
    num_children, group = np.diff(lists.offset), _group_of_entries(lists.offset, schedule)
    stays = lists.slot >= np.array(first_slots)[group]
    number = np.concatenate([[0], np.cumsum(stays)]).astype(np.int32)  # of the entries that stay, how many come before
    stays_above = stays[lists.parent_edge]
    above = np.concatenate([[0], np.cumsum(stays_above)]).astype(np.int32)
    arrays = [
        number[lists.offset],
        lists.edge[stays],
        lists.child_row[stays],
        above[lists.parent_offset],
        number[lists.parent_edge[stays_above]],
    ]
    joined = np.concatenate(arrays)
    offset, edge, child_row, parent_offset, parent_edge = np.split(
        joined, np.cumsum([len(part) for part in arrays])[:-1]
    )
    skipped = ~stays & (lists.edge < num_given)
    return EdgeLists(
        offset, edge, child_row, parent_offset, parent_edge, lists.slot[stays], lists.total,
        lists.edge[skipped], group[skipped], num_children, joined,
    )  # fmt: skip
