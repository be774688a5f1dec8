"""Schedules of batches on devices, kept with the batch for all models that read children in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from . import log
from .graph.inputs.pack import GraphBatch
from .kernels.order import Order, order_on
from .kinds import group_by_method
from .scheduler import Policy, Schedule, cached_schedule, edge_lists


class Reads(NamedTuple):
    """How a method reads children: in so many slots, and perhaps all of them, however many."""

    num_slots: int
    every: bool


class Key(NamedTuple):
    """What tells the orders of a batch from each other."""

    methods: tuple[str, ...]  # of each kind
    reads: tuple[Reads, ...]
    is_ahead: bool
    device: torch.device


class Kept(NamedTuple):
    """An order, the method of each group of its rows, and the policy that it was made by."""

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

    `methods` are those of each kind, `reads` is by method; `ahead` a schedule that is to be used, else it is made by `policy`.
    """
    key = Key(methods, tuple(reads[name] for name in methods), ahead is not None, device)
    kept: Kept | None = batch.derived.orders.get(key)
    if kept is None or (ahead is None and kept.policy is not policy):
        kept = batch.derived.orders[key] = _made(batch, methods, reads, policy, ahead, device)
    return kept.order, kept.methods


def _made(
    batch: GraphBatch,
    methods: tuple[str, ...],
    reads: Mapping[str, Reads],
    policy: str | Policy,
    ahead: Schedule | None,
    device: torch.device,
) -> Kept:
    made, arrays = ahead, None
    if made is None:
        structure, methods = group_by_method(batch, methods)
        of_groups = [reads[name] for name in methods]
        made = cached_schedule(
            structure, policy, tuple(r.num_slots for r in of_groups), tuple(r.every for r in of_groups)
        )
        log.show("schedule", made)
    elif batch.device == device:
        arrays = batch.schedule_indices
    lists = edge_lists(batch, made) if any(reads[name].every for name in methods) else None
    return Kept(order_on(made, device, arrays, lists), methods, policy)
