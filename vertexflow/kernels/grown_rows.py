"""Rows of a run that grows, in calls that compute further vertices: earlier states that these read, and where theirs are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import fx

from .arguments import Outside, SentByAll
from .calls import Location, Region, Writer
from .group_memory import GroupMemory
from .order import Order
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
        writer.copy(rows, self.all_rows[name], None, self.earlier)

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
                writer.add(self.all_rows[name], self.earlier, dtype, order.num_rows, order.num_external, sent_to_state)


def _is_in_order(order: Order) -> bool:
    """Whether the rows are the vertices in their order."""
    return bool((np.diff(order.schedule.order) == 1).all())
