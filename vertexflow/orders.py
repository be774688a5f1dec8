"""The order in which a batch is computed on a device, kept with the batch for all models that read children alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from . import log
from .graph.inputs.pack import GraphBatch
from .graph.symbolic.trace import Trace
from .kernels.order import Order
from .kernels.order_on_device import order_on
from .kinds import group_by_method
from .scheduler import Policy, Schedule, cached_schedule, edge_lists


class Reads(NamedTuple):
    """How a method reads children: by slot, from how many slots; if `ragged`, also all children from `first_slot` on, however
    many there are."""

    num_slots: int
    ragged: bool
    first_slot: int = 0
    side_by_side: int = 1  # how many children of each arc

    @classmethod
    def of(cls, trace: Trace) -> Reads:
        """How the method of a trace reads children."""
        return cls(trace.num_slots, trace.reads_edges, trace.first_slot, trace.side_by_side)


class Key(NamedTuple):
    """By what the orders of a batch are kept."""

    methods: tuple[str, ...]  # by kind
    reads: tuple[Reads, ...]
    is_ahead: bool  # whether the schedule came with the batch
    device: torch.device


class KeptOrder(NamedTuple):
    """An order, the method of each group of its rows, and the policy that chose its steps."""

    order: Order
    methods: tuple[str, ...]
    policy: str | Policy


def order_of(
    batch: GraphBatch,
    methods: tuple[str, ...],
    reads: Mapping[str, Reads],
    policy: str | Policy,
    ahead: Schedule | None,
    device: torch.device,
) -> tuple[Order, tuple[str, ...]]:
    """The schedule of a batch on a device, and the method of each group of its rows.

    `methods` has the method of each kind, `reads` how each method reads children. `ahead` is a schedule that was made before;
    with None, `policy` makes one.
    """
    key = Key(methods, tuple(reads[name] for name in methods), ahead is not None, device)
    entry: KeptOrder | None = batch.derived.orders.get(key)
    if entry is None or (ahead is None and entry.policy is not policy):
        entry = batch.derived.orders[key] = _make_order(batch, methods, reads, policy, ahead, device)
    return entry.order, entry.methods


def _make_order(
    batch: GraphBatch,
    methods: tuple[str, ...],
    reads: Mapping[str, Reads],
    policy: str | Policy,
    ahead: Schedule | None,
    device: torch.device,
) -> KeptOrder:
    batch_schedule, arrays = ahead, None
    if batch_schedule is None:
        structure, methods = group_by_method(batch, methods)
        group_reads = [reads[name] for name in methods]
        batch_schedule = cached_schedule(
            structure, policy, tuple(r.num_slots for r in group_reads), tuple(r.ragged for r in group_reads)
        )
        log.show("schedule", batch_schedule)
    elif batch.device == device:
        arrays = batch.schedule_indices
    lists = None
    if any(reads[name].ragged for name in methods):
        group_reads = [reads[name] for name in methods]
        lists = edge_lists(
            batch, batch_schedule, [r.first_slot for r in group_reads], batch.num_external, batch.arity,
            [r.side_by_side for r in group_reads],
        )  # fmt: skip
    return KeptOrder(order_on(batch_schedule, device, arrays, lists), methods, policy)
