"""Rows that move: from the order of a batch to that of its schedule and back, and between vertices and their children."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import fx

from ...graph.symbolic.program import Program
from ...graph.symbolic.roles import ALL_SLOTS, is_over_edges
from ..arguments import By, Gathered, Outside, Received, Sent, SentByAll
from ..memory.layout import Along, first_gathered, first_row, slots_of
from ..order import Order, OutputRows
from .calls import Location, Region, Unprepared, Writer
from .group_memory import GroupMemory
from .sent_rows import SentRows, places_of

TensorSpec = tuple[tuple[int, ...], torch.dtype]  # shape and dtype of a tensor that a run makes for its caller


class Sending(NamedTuple):
    """Where the gradients lie that groups send to their children."""

    rows: dict[str, SentRows] | None  # of each state; None: at the positions in `child_rows` of all groups, or edges
    locations: dict[SentByAll, Location]


class Transfer(NamedTuple):
    """A copy between a value of a group and a tensor in the order of the batch.

    `rows` tell which row of the tensor belongs to which row, or edge, of the group.
    """

    node: fx.Node | None  # None: zeros
    tensor: Location
    rows: OutputRows
    along: Along

    def part(self, first: int, count: int) -> OutputRows:
        """`rows` for `count` rows of the group from `first` on, and counted from there."""
        rows, batch_rows = self.rows
        if rows is None:
            return OutputRows(None, batch_rows[first : first + count])
        start, stop = np.searchsorted(rows.numpy(), (first, first + count))
        return OutputRows(rows[start:stop] - first, batch_rows[start:stop])


def along_of(program: Program, name: str) -> Along:
    """What an input is read for: edges, vertices without children alone, or all vertices."""
    if program.trace.is_edge_input(name):
        return Along.EDGES
    return Along.LEAVES if program.trace.pulls[name] in program.leaf_inputs else Along.ROWS


def inputs(writer: Writer, group: int) -> list[Transfer]:
    """The transfers of the inputs that a group pulls, of those whose addresses are known."""
    transfers, bound = [], writer.bound
    program = bound.compiled[group].program
    for name, node in program.trace.pulls.items():
        address = writer.known_address(("input", name))
        if address is not None:
            groups = bound.pulls[name]
            rows = writer.order.batch_rows(groups, bound.is_edge_input(name))[groups.index(group)]
            tensor = Location(address, 0, size_of_row(node), 0)
            transfers.append(Transfer(node, tensor, OutputRows(None, rows), along_of(program, name)))
    return transfers


def joined(
    writer: Writer,
    address: int,
    groups: Sequence[int],
    rows_of_groups: Sequence[OutputRows],
    nodes: Mapping[int, fx.Node | None],
    along: Along,
) -> tuple[TensorSpec, dict[int, Transfer]]:
    """A tensor in the order of the batch, joined from values of these groups, and the transfer from each group; rows of edges
    that the groups do not read are zeros."""
    like = next(filter(None, nodes.values()))
    value, num_rows = like.meta["val"], sum(len(rows.batch_rows) for rows in rows_of_groups)
    others = writer.order.other_edges(groups) if along is Along.EDGES else None
    num_rows += 0 if others is None else len(others)
    tensor = Location(address, 0, size_of_row(like), num_rows)
    if others is not None:
        writer.zero(tensor, others)
    transfers = {
        group: Transfer(nodes[group], tensor, rows, along) for group, rows in zip(nodes, rows_of_groups, strict=True)
    }
    return ((num_rows, *map(int, value.shape[1:])), value.dtype), transfers


def take(writer: Writer, memory: GroupMemory, number: int, transfers: Sequence[Transfer]) -> None:
    """Copy the rows of a window from the order of the batch; rows that the tensor has none for become zero."""
    for transfer in transfers:
        first, count = memory.windows.all[number].range(transfer.along)
        to, (rows, batch_rows) = memory.in_window[number][transfer.node].part(first, count), transfer.part(first, count)
        if rows is not None and not len(rows):
            zeros = writer.row_of_zeros(to.stride, memory.windows.group.num_rows)
            memory.in_window[number][transfer.node] = zeros
            continue
        if rows is not None:
            writer.zero(to)
        writer.copy(to, transfer.tensor, rows, batch_rows)


def put(writer: Writer, memory: GroupMemory, number: int, transfers: Sequence[Transfer]) -> None:
    """Copy the rows of a window into the order of the batch."""
    for transfer in transfers:
        node, tensor = transfer.node, transfer.tensor
        first, count = memory.windows.all[number].range(transfer.along)
        rows, batch_rows = transfer.part(first, count)
        if node is None:
            writer.zero(tensor, batch_rows)
            continue
        layout, source = node.meta["rows"], memory.in_window[number].get(node)
        if source is None or layout.dim or layout.per_vertex != 1:
            raise Unprepared(f"{node.name} does not lie in rows")
        assert source.num_rows == transfer.along.count(memory.windows.group.extent), f"{node.name} lacks rows"
        writer.copy(tensor, source.part(first, count), batch_rows, rows)


def zero_leaves(writer: Writer, program: Program, memory: GroupMemory, number: int) -> None:
    """Zero what the leaves of a window have gathered, where they have rows for that."""
    group, window = memory.windows.group, memory.windows.all[number]
    count = (min(window.stop, group.num_leaves) - window.start) * group.num_slots
    for name in program.trace.state if count > 0 else ():
        key = Gathered(name, By.SLOT)
        if key in memory.in_window[number] and first_gathered(program, group, slots_of(program.gathers, name)) == 0:
            writer.zero(memory.in_window[number][key].part(window.start * group.num_slots, count))


def receive(
    writer: Writer, program: Program, memory: GroupMemory, number: int, sent: Mapping[SentByAll, Location]
) -> None:
    """Receive the gradients of states for the rows of a window, where no core does and other parts read them."""
    group, window = memory.windows.group, memory.windows.all[number]
    for name, node in program.state_grads.items():
        if node in program.buffered:
            first, count = window.range(Along.ROWS if program.has_leaf_rows(node) else Along.INNER)
            to = memory.in_window[number][Received(name)].part(first, count)
            first += group.start + first_row(program, group, node)
            sent_to_state = {key.by: location for key, location in sent.items() if key.state == name}
            dtype, outside = node.meta["val"].dtype, memory.in_window[number].get(Outside(name))
            if outside is None:
                writer.receive(to, dtype, first, name, sent_to_state)
            else:
                writer.copy(to, outside.part(first, count), None, None)
                writer.add(to, None, dtype, (first, count), name, sent_to_state)


def allocate_sent(region: Region, programs: Sequence[Program], order: Order) -> Sending:
    """Allocate the gradients that all groups send to their children."""
    sent: dict[SentByAll, Location] = {}
    for program in programs:
        for (name, slot), node in program.gather_grads.items():
            key = SentByAll(name, By.EDGE if is_over_edges(slot) else By.SLOT)
            if key not in sent:
                size = math.prod(program.trace.state[name]) * node.meta["val"].dtype.itemsize
                sent[key] = region.allocate(order.num_sent(name, key.by), size)
    return Sending(None, sent)


def zero_unread(writer: Writer, sending: Sending, order: Order) -> None:
    """Zero what rows receive that nobody reads."""
    for key, location in sending.locations.items():
        row = order.row_of_zeros(key.state, key.by)
        if row is not None:
            writer.zero(location.part(row if sending.rows is None else sending.rows[key.state].zeros, 1))


def locate_sent(program: Program, number: int, sending: Sending, memory: GroupMemory) -> None:
    """Locate what a group sends, in each of its windows, within what all groups send."""
    group = memory.windows.group
    for key, location in sending.locations.items():
        memory.set(key, location)
        for at, window in enumerate(memory.windows.all):
            start, _ = places_of(group, window, key.by)
            first, count = places_of(group, memory.windows.whole, key.by)
            row = group.sent_at(key.state, key.by)
            if sending.rows is not None:
                row = sending.rows[key.state].blocks[key.by][number, at] - (start - first)
            if row is not None:
                memory.in_window[at][Sent(key.state, key.by)] = location.part(row, count)
        if any(program.stage_of[node] == "grad_eager" for node in _sent_to(program, key)):
            raise Unprepared("gradients that are sent before the steps")


def zero_gaps(writer: Writer, program: Program, memory: GroupMemory, number: int, sending: Sending) -> None:
    """Zero what a window sends of states, or through slots, that its group sends nothing through."""
    group, window = memory.windows.group, memory.windows.all[number]
    for key in sending.locations:
        slots, edges = set(_sent_to(program, key).values()), group.edges
        columns = group.num_slots if key.by is By.SLOT else 0 if edges is None else edges.side_by_side
        if ALL_SLOTS in slots or len(slots) == columns or Sent(key.state, key.by) not in memory.in_window[number]:
            continue
        (start, count), (first, _) = (places_of(group, rows, key.by) for rows in (window, memory.windows.whole))
        writer.zero(memory.in_window[number][Sent(key.state, key.by)].part(start - first, count))


def _sent_to(program: Program, key: SentByAll) -> dict[fx.Node, int]:
    """The gradients of a state that a group sends, and through which slots."""
    return {
        node: slot
        for (name, slot), node in program.gather_grads.items()
        if name == key.state and is_over_edges(slot) == (key.by is By.EDGE)
    }


def size_of_row(node: fx.Node) -> int:
    """The size of a row of a value, in bytes."""
    value = node.meta["val"]
    return math.prod(map(int, value.shape[1:])) * int(value.dtype.itemsize)
