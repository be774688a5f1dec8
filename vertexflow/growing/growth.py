"""What is added to a run that grows, and in which order it is computed: orders are kept for other additions of the same shape."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import _core, log
from ..call.kinds import group_by_method, methods_in
from ..call.orders import AddedOrder, Orders, Reads
from ..errors import GraphError, InputTypeError
from ..graph.inputs.arcs import refuse_arcs
from ..kernels.order import Order
from ..kernels.order_on_device import order_on
from ..scheduler import Policy, edge_lists, schedule
from .groups import Groups, Kept, groups_of

if TYPE_CHECKING:
    from ..graph.inputs.pack import GraphBatch
    from ..scheduler.policies import Ints

Array = np.ndarray[Any, Any]
Wide = np.ndarray[Any, np.dtype[np.int64]]

MOST_ORDERS = 512  # that are kept; the least recently used go first


@dataclass(frozen=True)
class Growth:
    """The structure of vertices that are added to a run: what `vf.schedule` takes."""

    start: int
    num_vertices: int
    num_external: int
    num_slots: int
    child: Ints
    slot: Ints
    offset: Ints
    edge: Ints | None = None
    graph_offset: None = None
    kinds: tuple[str, ...] | None = None  # the methods that compute them, if there are several
    kind_index: Ints | None = None

    def locate(self, vertex: int) -> str:
        return f"row {vertex} of `children` (vertex {self.start + vertex})"

    @property
    def shape(self) -> Hashable:
        """The same for structures that are scheduled alike."""
        arrays = (self.child, self.slot, self.offset, self.edge, self.kind_index)
        return (self.num_vertices, self.num_external, *(None if array is None else array.tobytes() for array in arrays))


class Addition(NamedTuple):
    """Vertices to be added, and the children of each: a table [n, slots] of vertex numbers, -1 where there is none; or, of
    graphs with which a run begins, their structure. `methods` compute them; with several, `method_index` says which."""

    start: int
    num_vertices: int
    table: Wide
    methods: tuple[str, ...]
    method_index: Ints | None = None
    graphs: Growth | None = None
    last: int = -1  # the last vertex in the table
    groups: Groups | None = None  # of what no graphs are
    on_device: Tensor | None = None  # the table, where it is known on a device alone; `table` has no rows then

    @classmethod
    def of_graphs(cls, batch: GraphBatch, methods: Mapping[Any, str]) -> Addition:
        """All vertices of a batch, with which a run begins; `methods` by kind."""
        refuse_arcs(batch, "the beginning of a run that grows; call the model on whole graphs")
        grouped, names = group_by_method(batch, methods_in(batch, methods))
        arrays = grouped.child, grouped.slot, grouped.offset, grouped.edge
        kinds = names if grouped.kind_index is not None and len(names) > 1 else None
        index = grouped.kind_index if kinds else None
        growth = Growth(0, batch.num_vertices, 0, batch.num_slots, *arrays, kinds=kinds, kind_index=index)
        return cls(0, batch.num_vertices, np.zeros((0, 0), np.int64), names if kinds else names[:1], index, growth)

    @classmethod
    def of(cls, table: Array, start: int, kind: Any, methods: Mapping[Any, str], kept: Kept) -> Addition:
        """New vertices with these children, and of these kinds; refuses what are no numbers of vertices. `methods` by kind;
        `kept` as of `groups_of`."""
        table, last = known_children(table, start)
        groups = groups_of(kind, len(table), methods, kept)
        return cls(start, len(table), table, groups.methods, groups.numbers, last=last, groups=groups)

    @classmethod
    def of_device(cls, children: Tensor, start: int, kind: Any, methods: Mapping[Any, str], kept: Kept) -> Addition:
        """The same with a table on the device of a run, which nothing waits for: whether its numbers are those of vertices, the
        device finds out."""
        if children.dim() != 2:
            raise GraphError(
                f"children must be a table [new vertices, slots], not an array of shape {tuple(children.shape)}"
            )
        dtype = children.dtype
        if (dtype.is_floating_point or dtype.is_complex or dtype is torch.bool) and children.numel():
            raise InputTypeError(f"children must be integers, not {str(dtype)[6:]}")
        groups, nowhere = groups_of(kind, len(children), methods, kept), np.zeros((0, 0), np.int64)
        return cls(start, len(children), nowhere, groups.methods, groups.numbers, groups=groups, on_device=children)

    def on_host(self) -> Addition:
        """The same with a table in memory."""
        if self.on_device is None:
            return self
        table, last = known_children(table_of(self.on_device), self.start)
        return self._replace(table=table, last=last, on_device=None)

    @property
    def num_edges(self) -> int:
        """How many children all of them have."""
        if self.on_device is not None:
            return self.on_host().num_edges
        return len(self.graphs.child) if self.graphs is not None else int((self.table >= 0).sum())

    def count_of(self, method: str, with_children: bool = True) -> tuple[int, int]:
        """How many vertices this method computes, and how many children these have. Without these, which only a device may know,
        nothing waits for it."""
        if method not in self.methods:
            return 0, 0
        if not with_children and self.on_device is not None and self.method_index is None:
            return self.num_vertices, 0
        if self.method_index is None:
            return self.num_vertices, self.num_edges
        is_of_method = self.method_index == self.methods.index(method)
        sizes = np.diff(self.graphs.offset) if self.graphs is not None else (self.table >= 0).sum(1)
        return int(is_of_method.sum()), int(sizes[is_of_method].sum())

    def counts(self, with_children: bool = True) -> dict[str, tuple[int, int]]:
        """`count_of` each method."""
        return {method: self.count_of(method, with_children) for method in self.methods}

    def growth(self) -> tuple[Growth, Wide]:
        """The structure, and the earlier vertices that are read, one for each edge to such a vertex."""
        if self.graphs is not None:
            return self.graphs, np.zeros(0, np.int64)
        count, slots = self.table.shape
        present = self.table >= 0
        child = self.table[present]
        is_earlier = child < self.start
        external = child[is_earlier]
        child[~is_earlier] -= self.start
        child[is_earlier] = count + np.arange(len(external))
        offset = np.zeros(count + 1, np.int32)
        np.cumsum(present.sum(1), out=offset[1:])
        slot = np.nonzero(present)[1].astype(np.int32)
        kinds = None if self.method_index is None else self.methods
        growth = Growth(
            self.start, count, len(external), slots, child.astype(np.int32), slot, offset,
            kinds=kinds, kind_index=self.method_index,
        )  # fmt: skip
        return growth, external

    def read_slots(self, num_slots: int) -> Wide | None:
        """The child in each slot that is read of each vertex, if all children came earlier and there are any; else None."""
        table = self.table
        if self.graphs is not None or self.method_index is not None or not 0 <= self.last < self.start:
            return None
        if table.shape[1] == num_slots:
            return table
        if table.shape[1] > num_slots and table[:, num_slots:].max() >= 0:
            return None  # which is refused when it is scheduled
        padded = np.full((len(table), num_slots), -1)
        padded[:, : table.shape[1]] = table[:, :num_slots]
        return padded


def known_children(table: Array, start: int) -> tuple[Wide, int]:
    """The children of vertices from number `start` on, and the last one among them; refuses what are no numbers of vertices."""
    if table.ndim != 2:
        raise GraphError(f"children must be a table [new vertices, slots], not an array of shape {table.shape}")
    if table.dtype.kind not in "iu" and table.size:
        raise InputTypeError(f"children must be integers, not {table.dtype}")
    if table.dtype != np.int64:
        table = table.astype(np.int64)
    least, last = _core.bounds_of(table)
    stop = start + len(table)
    if not least >= -1 or last >= stop:
        row, slot = np.argwhere((table < -1) | (table >= stop))[0].tolist()
        raise GraphError(
            f"row {row} of `children` names vertex {table[row, slot]} in slot {slot}; there are vertices 0 to {start - 1} "
            f"and the new ones, {start} to {stop - 1}; -1 means that there is none"
        )
    return table, last


def is_on_device(value: Tensor, device: torch.device) -> bool:
    """Whether only the device of a run knows this, so that whoever reads it here waits for that device."""
    return value.device == device and device.type != "cpu"


def table_of(children: Any) -> Array:
    """The children that a user gives, as an array in memory; they may not be numbers of vertices."""
    try:
        return np.asarray(children.detach().cpu() if isinstance(children, Tensor) else children)
    except ValueError as error:
        raise GraphError(
            "children must be a table [new vertices, slots], with as many slots in each row; -1 where there is no child"
        ) from error


def order_of(
    addition: Addition, reads: tuple[Reads, ...], policy: str | Policy, device: torch.device, orders: Orders
) -> tuple[Order, Tensor]:
    """The order in which new vertices are computed, and the earlier vertices whose states it reads, int32, counted from 1: 0
    stands for a child that is missing. `reads` tells how each method reads children.

    Where all children of new vertices came earlier, every slot reads an earlier vertex, or none: then the number of vertices
    alone decides the order. Otherwise the structure does.
    """
    table = earlier_children(addition, reads)
    key: Hashable
    if table is not None:
        order, external = order_of_rows(len(table), reads, policy, device, orders), table.reshape(-1)
    else:
        growth, external = addition.growth()
        key = (reads, device, policy if isinstance(policy, str) else id(policy), growth.shape)
        order = _kept(orders, key, policy, lambda: _make(growth, reads, policy, device))
    rows = torch.from_numpy((external + 1).astype(np.int32))
    return order, rows if device.type == "cpu" else rows.to(device, non_blocking=True)


def earlier_children(addition: Addition, reads: tuple[Reads, ...]) -> Wide | None:
    """The child in each slot that is read of each vertex, if all children came earlier and there are any; else None."""
    return addition.read_slots(reads[0].num_slots) if reads[0].num_slots and not reads[0].ragged else None


def order_of_rows(
    count: int, reads: tuple[Reads, ...], policy: str | Policy, device: torch.device, orders: Orders
) -> Order:
    """The order of so many vertices, each slot of which reads an earlier vertex, or none."""
    key, slots = (reads, device, count), reads[0].num_slots
    return _kept(orders, key, policy, lambda: _make(_all_earlier(count, slots), reads, "depth", device))


def order_on_device(
    children: Tensor, start: int, reads: Reads, policy: str | Policy, device: torch.device, orders: Orders
) -> tuple[Order, Tensor]:
    """`order_of` vertices of one method that reads children by slots, with a table [n, slots] that the device alone knows: it
    finds out whether all are earlier vertices, or -1, and stops if not."""
    (count, given), slots = children.shape, reads.num_slots
    table = children.long()
    torch._assert_async(
        ((table >= -1) & (table < start)).all(),
        "vertexflow: `children` on a device must be vertices that the run had before, or -1; if some are new, give it on the CPU",
    )
    if given > slots:
        torch._assert_async(
            (table[:, slots:] == -1).all(), "vertexflow: `children` has more slots than the vertex function gathers"
        )
        table = table[:, :slots]
    elif given < slots:
        table = torch.nn.functional.pad(table, (0, slots - given), value=-1)
    return order_of_rows(count, (reads,), policy, device, orders), (table + 1).int().reshape(-1)


def _all_earlier(count: int, slots: int) -> Growth:
    """So many vertices, each slot of which reads an earlier vertex of its own."""
    child = count + np.arange(count * slots, dtype=np.int32)
    slot = np.tile(np.arange(slots, dtype=np.int32), count)
    return Growth(0, count, count * slots, slots, child, slot, np.arange(count + 1, dtype=np.int32) * np.int32(slots))


def _make(growth: Growth, reads: tuple[Reads, ...], policy: str | Policy, device: torch.device) -> Order:
    ragged = [each.ragged for each in reads]
    growth_schedule = schedule(growth, policy, [each.num_slots for each in reads], ragged)
    log.show("schedule", growth_schedule)
    lists = edge_lists(growth, growth_schedule, [each.first_slot for each in reads]) if any(ragged) else None
    return order_on(growth_schedule, device, lists=lists)


def _kept(orders: Orders, key: Hashable, policy: str | Policy, make: Callable[[], Order]) -> Order:
    """The order of this key, which is made if it is not there."""
    kept = orders.pop(key, None)
    if kept is None:
        kept = AddedOrder(make(), policy)
    orders[key] = kept  # the last one now
    while len(orders) > MOST_ORDERS:
        try:
            orders.popitem(last=False)
        except KeyError:  # another thread was faster
            break
    return kept.order
