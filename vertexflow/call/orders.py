"""The order in which a batch is computed on a device, kept with the batch for all models that read children alike."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .. import log
from ..graph.inputs.derived import Derived
from ..graph.inputs.pack import GraphBatch, replaced
from ..graph.symbolic.trace import Trace
from ..kernels.order import Order
from ..kernels.order_on_device import order_on
from ..scheduler import LATE, Policy, Schedule, cached_schedule, edge_lists
from .kinds import group_by_method


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


@dataclass(frozen=True)
class AddedOrder:
    """The order of what was added to a run that grows, and what must live as long as its key names it."""

    order: Order
    policy: str | Policy


Orders = OrderedDict[Hashable, AddedOrder]


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
    structure, batch_schedule, arrays = batch, ahead, None
    if batch_schedule is None:
        structure, methods = group_by_method(batch, methods)
    elif batch.device == device:
        arrays = batch.schedule_indices
    group_reads = [reads[name] for name in methods]
    if batch_schedule is None:
        batch_schedule = _scheduled(structure, group_reads, policy)
    # A copy, which does not hold on to what is kept with the batch, this order among it.
    make_late = functools.partial(_late, replaced(structure, derived=Derived()), group_reads, device)
    order = _on_device(structure, batch_schedule, group_reads, device, arrays)
    return KeptOrder(replace(order, make_late=make_late), methods, policy)


def _scheduled(structure: GraphBatch, reads: Sequence[Reads], policy: str | Policy) -> Schedule:
    slots, ragged = tuple(each.num_slots for each in reads), tuple(each.ragged for each in reads)
    schedule = cached_schedule(structure, policy, slots, ragged)
    log.show("schedule", schedule)
    return schedule


def _on_device(
    structure: GraphBatch,
    schedule: Schedule,
    reads: Sequence[Reads],
    device: torch.device,
    arrays: Tensor | None = None,
) -> Order:
    lists = None
    if any(each.ragged for each in reads):
        lists = edge_lists(
            structure, schedule, [each.first_slot for each in reads], structure.num_external, structure.arity,
            [each.side_by_side for each in reads],
        )  # fmt: skip
    return order_on(schedule, device, arrays, lists)


def _late(structure: GraphBatch, reads: Sequence[Reads], device: torch.device) -> Order:
    """The order of a structure by the policy `Late`."""
    return _on_device(structure, _scheduled(structure, reads, LATE), reads, device)
