"""Which rows each step sends to which later step: for runs whose states are not written to one memory.

Under autograd, a selection of some rows of all states has a gradient of the size of all states, in each step. So the rows of a
step are sent on at once, each to the step that reads it, and what they send takes a time linear in what is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from ..arguments import By
from ..memory import rehearsal
from ..order import Order

Wide = np.ndarray[Any, np.dtype[np.int64]]
EXTERNAL = 0  # the sender that stands for external vertices; step s is sender s + 1


@dataclass(frozen=True)
class Sending:
    """What a step sends: rows `index` of it (None: all, in order), so many to each of these steps."""

    index: Tensor | None
    counts: list[int]
    readers: list[int]


@dataclass(frozen=True)
class Reading:
    """What a step reads: `count` rows, the last `missing` of them zeros, put in order by `index` (None: they are)."""

    count: int
    missing: int
    index: Tensor | None


@dataclass(frozen=True)
class Routes:
    """What each sender sends, and each step reads; those that read no children are left out."""

    sending: dict[int, Sending]
    reading: dict[int, Reading]


_kept: WeakKeyDictionary[Order, dict[By, Routes]] = WeakKeyDictionary()
_late: WeakKeyDictionary[Order, Order | None] = WeakKeyDictionary()  # None: the order itself


def order_of_few_routes(order: Order) -> Order:
    """The order of the same vertices to send states in: a late one where steps of this one send to many others, as in trees,
    whose leaves have parents of any depth."""
    if order not in _late:
        late, chosen = None, order
        if order.make_late is not None and _num_routes(order) > 2 * len(order.steps):
            with torch.inference_mode(False), rehearsal.interrupted():
                late = order.make_late()
        if late is not None and _num_routes(late) < _num_routes(order):
            chosen = late.selecting(order.selected)
        _late[order] = None if chosen is order else chosen
    return _late[order] or order


def _num_routes(order: Order) -> int:
    return sum(len(sending.readers) for routes in routes_of(order).values() for sending in routes.sending.values())


def routes_of(order: Order) -> dict[By, Routes]:
    """The routes of the states that steps read by slots, and of those that they read over edges."""
    routes = _kept.get(order)
    if routes is None:
        routes = _kept[order] = {by: _routes(order, rows) for by, rows in _rows_read(order).items()}
    return routes


def _rows_read(order: Order) -> dict[By, list[Wide]]:
    """The rows of states that each step reads, a row for each slot of each vertex, or for each child of each edge."""
    by_slot, by_edge = [], []
    for step in order.steps:
        group = order.groups[step.group]
        is_inner = step.start >= group.num_leaves
        first = group.position + (step.start - group.num_leaves) * group.num_slots
        count = (step.stop - step.start) * group.num_slots if is_inner else 0
        by_slot.append(order.schedule.child_rows[first : first + count].astype(np.int64))
        edges = slice(0, 0)
        if group.edges is not None and is_inner:
            width, position = group.edges.side_by_side, group.edges.position
            edges = slice(position + step.edge_start * width, position + step.edge_stop * width)
        none = np.empty(0, np.int64)
        by_edge.append(none if order.lists is None else order.lists.child_row[edges].astype(np.int64))
    return {By.SLOT: by_slot, By.EDGE: by_edge}


def _routes(order: Order, rows_read: Sequence[Wide]) -> Routes:
    sizes = np.array([len(rows) for rows in rows_read], np.int64)
    reads, reader = np.concatenate(rows_read), np.repeat(np.arange(len(sizes)), sizes)
    sender_of_row = np.full(order.num_rows + order.num_external + 1, EXTERNAL, np.int64)
    place = np.zeros_like(sender_of_row)  # of each row among those of its sender
    lengths = {EXTERNAL: order.num_external}
    for number, step in enumerate(order.steps):
        first = order.groups[step.group].start
        sender_of_row[first + step.start : first + step.stop] = number + 1
        place[first + step.start : first + step.stop] = np.arange(step.stop - step.start)
        lengths[number + 1] = step.stop - step.start
    place[order.num_rows : -1] = np.arange(order.num_external)
    sender_of_row[-1] = missing = len(order.steps) + 1  # after all others
    sender = sender_of_row[reads]
    device = order.vertex.device

    sending = {}
    by_sender = np.lexsort((reader, sender))
    senders, firsts = np.unique(sender[by_sender], return_index=True)
    for number, chosen in zip(senders.tolist(), np.split(by_sender, firsts)[1:], strict=True):
        if number != missing:
            readers, counts = np.unique(reader[chosen], return_counts=True)
            sending[number] = Sending(
                _index(place[reads[chosen]], lengths[number], device), counts.tolist(), readers.tolist()
            )

    reading = {}
    by_reader = np.lexsort((sender, reader))
    arrival = np.empty_like(by_reader)
    arrival[by_reader] = np.arange(len(by_reader))
    num_missing = np.bincount(reader[sender == missing], minlength=len(sizes))
    start = 0
    for number, count in enumerate(sizes.tolist()):
        if count:
            index = _index(arrival[start : start + count] - start, count, device)
            reading[number] = Reading(count, int(num_missing[number]), index)
        start += count
    return Routes(sending, reading)


def _index(rows: Wide, count: int, device: torch.device) -> Tensor | None:
    """An index of rows on the device; None where it says all of `count` rows in their order."""
    if len(rows) == count and bool((rows == np.arange(count)).all()):
        return None
    with torch.inference_mode(False):  # it is kept, and used where gradients are wanted
        return torch.from_numpy(np.ascontiguousarray(rows)).to(device, non_blocking=True)
