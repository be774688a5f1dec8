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
_OBJECTS = 2048  # bytes that a schedule takes beside its arrays, as measured: more than the arrays of a small structure

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
    optional = (batch.kind_index, batch.graph_offset)
    arrays = (batch.offset, batch.child, batch.slot, *(array for array in optional if array is not None))
    digest = 0
    for array in arrays:
        digest = _core.hash(array, digest)
    key = (digest, policy, num_slots, ragged, batch.kinds, batch.num_external)
    with _lock:
        if key in _kept:
            known_arrays, result = _kept[key]
            if len(known_arrays) == len(arrays) and all(map(np.array_equal, known_arrays, arrays)):
                _kept.move_to_end(key)
                return result
    result = schedule(batch, policy, num_slots, ragged)
    with _lock:
        if key in _kept:
            _bytes -= _size(*_kept.pop(key))
        _kept[key] = (arrays, result)
        _bytes += _size(arrays, result)
        while _bytes > MAX_BYTES:
            _bytes -= _size(*_kept.popitem(last=False)[1])
    return result


def clear_cache() -> None:
    """Forget all schedules."""
    global _bytes
    with _lock:
        _kept.clear()
        _bytes = 0


def _size(arrays: _Arrays, result: Schedule) -> int:
    return sum(array.nbytes for array in arrays) + result.arrays.nbytes + result.table.nbytes + _OBJECTS


def _renew_lock() -> None:
    """In a forked process, the lock may be held by a thread that is not there."""
    global _lock
    _lock = Lock()


os.register_at_fork(after_in_child=_renew_lock)
