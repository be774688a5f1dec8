"""The memory that states share with what is kept and what is sent: their rows, then values that are kept, window by window.

So what a window has kept lies in one piece, which is free when the backward pass has left the window. Where gradients are sent
over edges alone, there is one room for all states. What is sent through slots is read where it lies if that is one row after the
other, by the same numbers of rows for all states: each of these has a room of its own, with the same rows free.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import fx

from ...graph.symbolic.program import Program
from ..arguments import By, SentByAll
from ..compiled import Compiled
from ..memory.layout import ALIGNED, Layout, Place
from ..order import Order
from .calls import Location
from .sent_rows import Free, LastReads, Occupied, Rows, SentRows, common, place_blocks, sent_by
from .state_rows import StateRows
from .windows import Windows


class PlacedValue(NamedTuple):
    """A value of a group that is kept: where its rows of each window begin, in bytes."""

    group: int
    node: fx.Node
    place: Place
    offsets: list[int]


@dataclass(frozen=True, eq=False)
class Room:
    """Some memory, in which rows are sent, or which states that nobody sends to have left over."""

    size: int  # bytes
    values: list[PlacedValue]
    strides: dict[str, int]  # the bytes of a row that is sent here, of each state
    states: dict[str, int]  # where the rows of states begin, of those that lie here


@dataclass(frozen=True, eq=False)
class Rooms:
    """Rooms for each state that is sent, and for all other values that are kept of groups in several windows."""

    all: list[Room]
    sent: dict[str, SentRows]
    keys: list[SentByAll]  # what is sent

    def locate_states(self, locations: Sequence[Location]) -> dict[str, Location]:
        """Where the states begin that lie in the rooms, which are at these locations."""
        return {
            name: location._replace(offset=location.offset + first)
            for room, location in zip(self.all, locations, strict=True)
            for name, first in room.states.items()
        }

    def locate_sent(self, locations: Sequence[Location]) -> dict[SentByAll, Location]:
        """Where the rows lie that are sent."""
        by_state = {
            name: location._replace(stride=stride, num_rows=self.sent[name].num_rows)
            for room, location in zip(self.all, locations, strict=True)
            for name, stride in room.strides.items()
        }
        return {key: by_state[key.state] for key in self.keys}


def rooms_of(
    compiled: Sequence[Compiled],
    order: Order,
    windows: Sequence[Windows],
    kept: set[str],
    state_rows: StateRows | None = None,
) -> Rooms | None:
    """Rooms for the states, of which some are `kept`; None where nothing is sent, or all groups are one window."""
    programs = [each.program for each in compiled]
    sent = sent_by(programs)
    if not sent or not any(of_group.are_several for of_group in windows):
        return None
    reads = LastReads.find(programs, order, windows, set().union(*sent.values()))
    strides = {name: _size_sent(programs, name) for name in sent}
    widest = [
        name for name, stride in strides.items() if stride == max(strides.values())
    ]  # others have no room to speak of
    is_one = all(bys == {By.EDGE} for bys in sent.values())
    names_of_rooms = [[*strides]] if is_one else [[name] for name in strides]
    dealt: list[str] = [] if is_one else widest
    shares: dict[str | None, dict[int, dict[fx.Node, Place]]] = {name: {} for name in (*dealt, None)}
    for number, (each, of_group) in enumerate(zip(compiled, windows, strict=True)):
        if of_group.are_several:
            layout, _ = each.forward_layouts(of_group.group, of_group.extent)
            for name, places in _shares(layout, dealt).items():
                shares[name][number] = places
    rooms, until_in_rooms = [], []
    for names in names_of_rooms:
        first, until, states = 0, list[Rows](), dict[str, int]()
        for name in names:
            if name in kept and name in widest:
                num_rows = order.num_rows_in(name) if state_rows is None else state_rows.num_rows_in(name)
                until += [
                    Rows(start + first, stop + first, last)
                    for start, stop, last in _state_bytes(programs, windows, name, reads, state_rows)
                ]
                states[name] = first
                first += _aligned((num_rows + 1) * _size_of_state(programs, name))
        values, end, of_values = _by_window(shares.get(None if is_one else names[0], {}), windows, first, reads)
        rooms.append(Room(end, values, {name: strides[name] for name in names}, states))
        until_in_rooms.append([*until, *of_values])
    keys = [SentByAll(name, by) for name, bys in sent.items() for by in By if by in bys]
    if is_one:
        free, waiting = Free(rooms[0].size), until_in_rooms[0]
        rows = place_blocks(order, windows, reads, free, waiting, [*strides.values()])
        return Rooms([replace(rooms[0], size=free.end)], dict(zip(strides, rows, strict=True)), keys)
    occupied = []
    for room, of_room, stride in zip(rooms, until_in_rooms, strides.values(), strict=True):
        in_rows = [Rows(-(-rows.start // stride), rows.stop // stride, rows.last) for rows in of_room]
        occupied.append(Occupied(-(-room.size // stride), [rows for rows in in_rows if rows.start < rows.stop]))
    free = Free(max(memory.num_rows for memory in occupied))
    (same_rows,) = place_blocks(order, windows, reads, free, common(occupied), [1])
    rooms = [
        replace(room, size=max(room.size, same_rows.num_rows * stride))
        for room, stride in zip(rooms, strides.values(), strict=True)
    ]
    values, end, _ = _by_window(shares[None], windows, 0, reads)
    return Rooms([*rooms, Room(end, values, {}, {})], dict.fromkeys(strides, same_rows), keys)


def _shares(layout: Layout, names: Sequence[str]) -> dict[str | None, dict[fx.Node, Place]]:
    """Values dealt out to the rooms of states, so that all of these have as many of each size; None has what is left."""
    alike: dict[tuple[object, int], list[fx.Node]] = {}
    for node, place in layout.places.items():
        assert isinstance(node, fx.Node), node
        alike.setdefault((place.along, _row_size(place)), []).append(node)
    shares: dict[str | None, dict[fx.Node, Place]] = {name: {} for name in (*names, None)}
    for nodes in alike.values():
        of_each = len(nodes) // max(len(names), 1)
        for number, node in enumerate(nodes):
            name = names[number // of_each] if number < of_each * len(names) else None
            shares[name][node] = layout.places[node]
    return shares


def _by_window(
    values: Mapping[int, Mapping[fx.Node, Place]], windows: Sequence[Windows], first: int, reads: LastReads
) -> tuple[list[PlacedValue], int, list[Rows]]:
    """The values of each group, from `first` on, where they end, and when the bytes of a window become free."""
    placed: list[PlacedValue] = []
    until, end = [], first
    for group, places in values.items():
        of_group = [PlacedValue(group, node, place, []) for node, place in places.items()]
        for number, window in enumerate(windows[group].all):
            start = end
            for _, _, place, offsets in of_group:
                assert place.along is not None
                offsets.append(end)
                end += _aligned(window.range(place.along)[1] * _row_size(place))
            until.append(Rows(start, end, reads.last[group, number]))
        placed += of_group
    return placed, end, until


def _state_bytes(
    programs: Sequence[Program],
    windows: Sequence[Windows],
    name: str,
    reads: LastReads,
    state_rows: StateRows | None,
) -> Iterator[Rows]:
    """When the bytes of the rows of each window in a state become free."""
    size = _size_of_state(programs, name)
    for (number, at), last in reads.states.items():
        window = windows[number].all[at]
        if state_rows is None:
            start = windows[number].group.start_in(name)
            first = None if start is None else start + window.start
        else:
            first = state_rows.blocks_of(name).first.get((number, at))
        if first is not None:
            yield Rows(first * size, (first + window.stop - window.start) * size, last)
    if state_rows is not None:  # the forward pass alone reads the rows that are shared
        yield Rows(state_rows.shared.start * size, state_rows.shared.stop * size, -1)


def _size_of_state(programs: Sequence[Program], name: str) -> int:
    scattered = programs[0].trace.scatters[name].meta["val"]
    return math.prod(map(int, scattered.shape[1:])) * int(scattered.dtype.itemsize)


def _size_sent(programs: Sequence[Program], name: str) -> int:
    """The bytes of a row that is sent to a child."""
    node = next(node for program in programs for (state, _), node in program.gather_grads.items() if state == name)
    return math.prod(programs[0].trace.state[name]) * int(node.meta["val"].dtype.itemsize)


def _row_size(place: Place) -> int:
    return place.row_stride * place.dtype.itemsize


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
