"""The memory that a state shares with what is kept and what is sent: its rows, then values that are kept, window by window.

So what a window has kept lies in one piece, which is free when the backward pass has left the window.
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
from .sent_rows import LastReads, Occupied, Rows, SentRows, place_blocks, sent_by
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
    """The memory of one state, or of what no state has room for."""

    size: int  # bytes
    values: list[PlacedValue]
    stride: int = 0  # bytes of a row that is sent
    has_state: bool = False  # the rows of the state come first


@dataclass(frozen=True, eq=False)
class Rooms:
    """The room of each state that is sent, and of all other values that are kept of groups in several windows."""

    of_states: dict[str, Room]
    others: Room
    sent: SentRows
    keys: list[SentByAll]  # what is sent

    def sent_location(self, key: SentByAll, room: Location) -> Location:
        """Where rows of what is sent lie, in the room of the state."""
        return room._replace(stride=self.of_states[key.state].stride, num_rows=self.sent.num_rows)


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
    shares: dict[str | None, dict[int, dict[fx.Node, Place]]] = {name: {} for name in (*widest, None)}
    for number, (each, of_group) in enumerate(zip(compiled, windows, strict=True)):
        if of_group.are_several:
            layout, _ = each.forward_layouts(of_group.group, of_group.extent)
            for name, places in _shares(layout, widest).items():
                shares[name][number] = places
    rooms, occupied = {}, []
    for name, stride in strides.items():
        first, until = 0, []
        if name in kept and name in shares:
            num_rows = order.num_rows_in(name) if state_rows is None else state_rows.num_rows_in(name)
            first = _aligned((num_rows + 1) * _size_of_state(programs, name))
            until = list(_state_bytes(programs, windows, name, reads, state_rows))
        values, end, of_values = _by_window(shares.get(name, {}), windows, first, reads)
        rooms[name] = Room(end, values, stride, has_state=first > 0)
        in_rows = [Rows(-(-rows.start // stride), rows.stop // stride, rows.last) for rows in (*until, *of_values)]
        occupied.append(Occupied(-(-end // stride), [rows for rows in in_rows if rows.start < rows.stop]))
    rows = place_blocks(order, windows, reads, occupied)
    for name, room in rooms.items():
        rooms[name] = replace(room, size=max(room.size, rows.num_rows * room.stride))
    values, end, _ = _by_window(shares[None], windows, 0, reads)
    keys = [SentByAll(name, by) for name, bys in sent.items() for by in By if by in bys]
    return Rooms(rooms, Room(end, values), rows, keys)


def _shares(layout: Layout, names: Sequence[str]) -> dict[str | None, dict[fx.Node, Place]]:
    """Values dealt out to the rooms of states, so that all of these have as many of each size; None has what is left."""
    alike: dict[tuple[object, int], list[fx.Node]] = {}
    for node, place in layout.places.items():
        assert isinstance(node, fx.Node), node
        alike.setdefault((place.along, _row_size(place)), []).append(node)
    shares: dict[str | None, dict[fx.Node, Place]] = {name: {} for name in (*names, None)}
    for nodes in alike.values():
        of_each = len(nodes) // len(names)
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
