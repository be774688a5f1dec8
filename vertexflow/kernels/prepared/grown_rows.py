"""Rows of a run that grows, in calls that compute further vertices: earlier states that these read, and where theirs are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx

from ...graph.symbolic.roles import ALL_SLOTS, CHILDREN
from ..arguments import Outside, SentByAll
from ..order import Order
from .calls import Location, Region, Writer
from .group_memory import GroupMemory
from .transfers import size_of_row


@dataclass(frozen=True)
class GrownRows:
    """Where a run keeps its states, or their gradients: all rows of each, and those of the new vertices; and the numbers of the
    rows that the new vertices read. Addresses are in the order: these numbers, then for each state all rows, and new rows."""

    earlier: Location
    nodes: Mapping[str, fx.Node]
    all_rows: Mapping[str, Location]
    new_rows: Mapping[str, Location]

    @classmethod
    def of(cls, writer: Writer, nodes: Mapping[str, fx.Node]) -> GrownRows:
        """Rows at addresses of their own."""
        order, state = writer.order, writer.bound.states
        earlier = Location(writer.address("earlier rows"), 0, 4, order.num_external)
        all_rows, new_rows = {}, {}
        for name, node in nodes.items():
            size = size_of_row(state[name]) // state[name].meta["val"].dtype.itemsize * node.meta["val"].dtype.itemsize
            all_rows[name] = Location(writer.address(("all rows", name)), 0, size, 0)
            new_rows[name] = Location(writer.address(("new rows", name)), 0, size, order.num_rows)
        return cls(earlier, nodes, all_rows, new_rows)

    def read(self, writer: Writer, name: str, state: Location) -> None:
        """Gather the states of earlier vertices: they are external ones."""
        rows = state.part(writer.order.num_rows, writer.order.num_external)
        gathers = [compiled.program.gathers for compiled in writer.bound.compiled]
        writer.gather(rows, self.all_rows[name], self.earlier, _read_through(writer.order, name, gathers))

    def write(self, writer: Writer, states: Mapping[str, Location]) -> None:
        """Keep the states of the new vertices."""
        index = None if _is_in_order(writer.order) else writer.order.row
        for name, rows in self.new_rows.items():
            writer.copy(rows, states[name], None, index)

    def take_gradients(self, writer: Writer, region: Region, memory_of_groups: Sequence[GroupMemory]) -> None:
        """Give the gradients that later vertices sent to the new ones, in the order of rows."""
        order = writer.order
        for name, rows in self.new_rows.items():
            if not _is_in_order(order):
                ordered = region.allocate(order.num_rows, rows.stride)
                writer.copy(ordered, rows, None, order.vertex)
                rows = ordered
            for memory in memory_of_groups:
                memory.set(Outside(name), rows)

    def add_gradients(self, writer: Writer, sent: Mapping[SentByAll, Location]) -> None:
        """Add the gradients that the new vertices send to earlier ones."""
        order = writer.order
        for name, node in self.nodes.items():
            sent_to_state = {key.by: location for key, location in sent.items() if key.state == name}
            if sent_to_state:
                dtype = node.meta["val"].dtype
                bounds = order.num_rows, order.num_external
                gradients = [compiled.program.gather_grads for compiled in writer.bound.compiled]
                which = _read_through(order, name, gradients)
                writer.add(self.all_rows[name], self.earlier, dtype, bounds, name, sent_to_state, which)


def are_alike(order: Order) -> bool:
    """Whether all rows are one step, and each slot reads an external vertex of its own, row after row."""
    if len(order.groups) != 1 or len(order.steps) != 1 or not _is_in_order(order):
        return False
    (group,), (step,) = order.groups, order.steps
    is_whole = step.start == 0 and step.stop == order.num_rows > 1 and not group.num_leaves and group.edges is None
    return is_whole and step.reads_from == order.num_rows and order.num_external == order.num_rows * group.num_slots > 0


def leaves_out_gaps(order: Order) -> bool:
    """Whether gradients are added for slots alone through which they are sent, so that nobody reads the others."""
    return are_alike(order) and order.schedule.parent_edge_of_row is not None


def _is_in_order(order: Order) -> bool:
    """Whether the rows are the vertices in their order."""
    return bool((np.diff(order.schedule.order) == 1).all())


def _read_through(order: Order, state: str, nodes: Sequence[Mapping[tuple[str, int], fx.Node]]) -> Tensor | None:
    """Which of the external vertices are read, or get gradients, through slots that have a value in `nodes`, which are those of
    each group; int32. None: perhaps all."""
    slots_of_groups = [{slot for name, slot in nodes_of_group if name == state} for nodes_of_group in nodes]
    edge_of_row = order.schedule.parent_edge_of_row
    if edge_of_row is None or any(slot in slots for slots in slots_of_groups for slot in (ALL_SLOTS, CHILDREN)):
        return None
    positions = edge_of_row[order.num_rows :]
    is_read = np.zeros(order.num_positions + 1, np.bool_)
    for group, slots in zip(order.groups, slots_of_groups, strict=True):
        for slot in slots:
            is_read[group.position + slot : group.position + group.num_inner * group.num_slots : group.num_slots] = True
    which = np.flatnonzero(is_read[positions]).astype(np.int32)
    return None if len(which) == order.num_external else torch.from_numpy(which)
