"""Rows that move: from the order of a batch to that of its schedule and back, and between vertices and their children."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fx

from ..graph.symbolic.program import Program
from ..graph.symbolic.roles import ALL_SLOTS, CHILDREN
from .arguments import By, Gathered, Received, Sent, SentByAll, State
from .bound import Bound
from .calls import At, Piece, Unprepared, Writer
from .memory import Along, first_gathered, first_row, gathered_by, slots_of
from .order import Order, RowGroup
from .rooms import Rooms

New = tuple[tuple[int, ...], torch.dtype]  # a tensor that a run makes for whoever called it


class InBatch(NamedTuple):
    """A value of a group in the order of a batch: row `rows[i]` of what is `there` is of row, or edge, i of the group."""

    node: fx.Node | None  # None: zeros
    there: At
    rows: Tensor
    along: Along


def along_of(bound: Bound, name: str) -> Along:
    """What an input has rows for."""
    return Along.EDGES if bound.is_edge_input(name) else Along.ROWS


def among(bound: Bound, order: Order, name: str) -> list[Tensor]:
    """Of an input, the rows of each group that pulls it."""
    groups = bound.pulls[name]
    return order.edges_among(groups) if bound.is_edge_input(name) else order.vertices_among(groups)


def inputs(writer: Writer, group: int) -> list[InBatch]:
    """The inputs that a group pulls, of those whose addresses are known."""
    found, bound = [], writer.bound
    for name, node in bound.compiled[group].program.trace.pulls.items():
        address = writer.known(("input", name))
        if address is not None:
            index = among(bound, writer.order, name)[bound.pulls[name].index(group)]
            found.append(InBatch(node, At(address, 0, size_of_row(node), 0), index, along_of(bound, name)))
    return found


def made_of(
    address: int, among: Sequence[Tensor], nodes: Mapping[int, fx.Node | None], along: Along
) -> tuple[New, dict[int, InBatch]]:
    """A tensor in the order of the batch that is made of values of some groups."""
    like = next(filter(None, nodes.values()))
    value, rows = like.meta["val"], sum(map(len, among))
    to = At(address, 0, size_of_row(like), rows)
    parts = {number: InBatch(nodes[number], to, index, along) for number, index in zip(nodes, among, strict=True)}
    return ((rows, *map(int, value.shape[1:])), value.dtype), parts


def take(writer: Writer, rooms: Rooms, number: int, what: Sequence[InBatch]) -> None:
    """Bring rows of a window from the order of the batch."""
    for node, there, index, along in what:
        first, count = rooms.windows.all[number].range(along)
        writer.take(rooms.of_window[number][node].part(first, count), there, index[first : first + count])


def put(writer: Writer, rooms: Rooms, number: int, what: Sequence[InBatch]) -> None:
    """Bring rows of a window into the order of the batch."""
    for node, there, index, along in what:
        first, count = rooms.windows.all[number].range(along)
        if node is None:
            writer.zero(there, index[first : first + count])
            continue
        layout, source = node.meta["rows"], rooms.of_window[number].get(node)
        if source is None or layout.dim or layout.per_vertex != 1:
            raise Unprepared(f"{node.name} does not lie in rows")
        assert source.rows == len(index), f"{node.name} has not as many rows as vertices"
        writer.put(there, source.part(first, count), index[first : first + count])


def zero_leaves(writer: Writer, program: Program, rooms: Rooms, number: int) -> None:
    """What leaves have gathered, where they have rows for that."""
    group, window = rooms.windows.group, rooms.windows.all[number]
    count = (min(window.stop, group.num_leaves) - window.start) * group.num_slots
    for name in program.trace.state if count > 0 else ():
        key = Gathered(name, By.SLOT)
        if key in rooms.of_window[number] and first_gathered(program, group, slots_of(program.gathers, name)) == 0:
            writer.zero(rooms.of_window[number][key].part(window.start * group.num_slots, count))


def gather(writer: Writer, program: Program, rooms: Rooms, number: int, what: Sequence[tuple[str, By]]) -> None:
    """Gather states for the rows of a window, where others than a core read them."""
    group, window, places = rooms.windows.group, rooms.windows.all[number], rooms.of_window[number]
    for name, by in what:
        base = first_gathered(program, group, gathered_by(program, name, by))
        if base >= 0 and by is By.SLOT:
            first, end = (at * group.num_slots for at in (window.inner, window.inner_stop))
            to = places[Gathered(name, by)].part((group.num_leaves - base) * group.num_slots + first, end - first)
            writer.take(to, places[State(name)], group.child_rows[first:end])
        elif base >= 0:
            assert group.edges is not None
            first, count = window.range(Along.EDGES)
            index = group.edges.child_rows[first : first + count]
            writer.take(places[Gathered(name, by)].part(first, count), places[State(name)], index)


def receive(writer: Writer, program: Program, rooms: Rooms, number: int, sent: Mapping[SentByAll, At]) -> None:
    """Receive what others than a core read, where no core does."""
    group, window = rooms.windows.group, rooms.windows.all[number]
    for name, node in program.state_grads.items():
        if node in program.kept:
            first, count = window.range(Along.ROWS if program.is_whole(node) else Along.INNER)
            mine = {each.by: at for each, at in sent.items() if each.state == name}
            to = rooms.of_window[number][Received(name)].part(first, count)
            first += group.start + first_row(program, group, node)
            writer.receive(to, node.meta["val"].dtype, first, mine)


def room_for_sent(writer: Writer, rest: Piece, programs: Sequence[Program], order: Order) -> dict[SentByAll, At]:
    """Room for the gradients that all groups send to their children."""
    sent: dict[SentByAll, At] = {}
    for program in programs:
        for (name, slot), node in program.gather_grads.items():
            argument = SentByAll(name, By.EDGE if slot == CHILDREN else By.SLOT)
            if argument not in sent:
                size = math.prod(program.trace.state[name]) * node.meta["val"].dtype.itemsize
                rows = order.num_edges if slot == CHILDREN else order.num_positions + 1
                sent[argument] = rest.room(rows, size)
                if slot != CHILDREN:
                    writer.zero(sent[argument].part(rows - 1, 1))  # what comes to those that nobody reads
    return sent


def give_sent(writer: Writer, program: Program, group: RowGroup, sent: Mapping[SentByAll, At], rooms: Rooms) -> None:
    """The places of a group among all that is sent; zeros where it sends nothing."""
    for each, at in sent.items():
        rooms.set(each, at)
        if each.by is By.SLOT:
            nodes = slots_of(program.gather_grads, each.state)
            mine, slots = at.part(group.position, group.num_inner * group.num_slots), set(nodes.values())
            if slots != {ALL_SLOTS} and len(slots) < group.num_slots:
                writer.zero(mine)
        else:
            assert group.edges is not None
            every = program.gather_grads.get((each.state, CHILDREN))
            mine, nodes = at.part(group.edges.start, group.edges.num_edges), {} if every is None else {every: CHILDREN}
            if every is None:
                writer.zero(mine)
        rooms.set(Sent(each.state, each.by), mine)
        if any(program.made_by[node] == "grad_eager" for node in nodes):
            raise Unprepared("gradients that are sent before the steps")


def size_of_row(node: fx.Node) -> int:
    """Bytes."""
    value = node.meta["val"]
    return math.prod(map(int, value.shape[1:])) * int(value.dtype.itemsize)
