"""Schedules of structures that were seen before: an epoch over the same batches schedules once."""

from __future__ import annotations

import os
from collections import OrderedDict
from threading import Lock
from typing import Any

import numpy as np

from .. import _core
from .policies import Ints, Policy, Structure
from .schedule import Schedule, schedule

MAX_BYTES = 1 << 28  # of schedules; the least recently used go first
_OBJECTS = 2048  # bytes of what stands around the arrays of one: as measured, more than the arrays of a small structure

_Arrays = tuple[Ints, ...]
_kept: OrderedDict[Any, tuple[_Arrays, Schedule]] = OrderedDict()
_bytes = 0
_lock = Lock()


def cached_schedule(
    batch: Structure,
    policy: str | Policy = "depth",
    num_slots: int | tuple[int, ...] | None = None,
    ragged: bool | tuple[bool, ...] = False,
) -> Schedule:
    """`schedule`, or what it made of a structure with the same arrays before."""
    global _bytes
    if type(policy).__hash__ is None:  # nothing tells whether it is the same policy
        return schedule(batch, policy, num_slots, ragged)
    sometimes = (batch.kind_index, batch.graph_offset)
    arrays = (batch.offset, batch.child, batch.slot, *(array for array in sometimes if array is not None))
    digest = 0
    for array in arrays:
        digest = _core.hash(array, digest)
    key = (digest, policy, num_slots, ragged, batch.kinds, batch.num_external)
    with _lock:
        if key in _kept:
            found, made = _kept[key]
            if len(found) == len(arrays) and all(map(np.array_equal, found, arrays)):
                _kept.move_to_end(key)
                return made
    made = schedule(batch, policy, num_slots, ragged)
    with _lock:
        if key in _kept:
            _bytes -= _size(*_kept.pop(key))
        _kept[key] = (arrays, made)
        _bytes += _size(arrays, made)
        while _bytes > MAX_BYTES:
            _bytes -= _size(*_kept.popitem(last=False)[1])
    return made


def clear_cache() -> None:
    """Forget all schedules."""
    global _bytes
    with _lock:
        _kept.clear()
        _bytes = 0


def _size(arrays: _Arrays, made: Schedule) -> int:
    return sum(array.nbytes for array in arrays) + made.arrays.nbytes + made.table.nbytes + _OBJECTS


def _renew() -> None:
    """In a forked process: another thread may have held the lock."""
    global _lock
    _lock = Lock()


os.register_at_fork(after_in_child=_renew)
