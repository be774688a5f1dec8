"""Large pieces of CPU memory that are used again.

The C library gives large pieces back to the system when they are freed, and the system fills fresh ones with zeros, page by
page: in a training step of a large batch that takes as long as a third of the products. A piece comes back here when the
last tensor in it is gone, whoever had it.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGE = 4 << 20  # bytes from which on a piece is kept; smaller ones the C library keeps by itself
KEPT = 1 << 30  # bytes that wait to be used again, at most

_Bytes = np.ndarray[Any, np.dtype[np.uint8]]
_free: list[_Bytes] = []
_returned: SimpleQueue[_Bytes] = SimpleQueue()  # a finalizer may run anywhere, also while this thread holds the lock
_lock = Lock()


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """As `torch.empty`."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < LARGE:
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    piece = _take(size)
    used = piece[:size]
    weakref.finalize(used, _give_back, piece).atexit = False
    return torch.from_numpy(used).view(dtype).view(tuple(shape))


def clear() -> None:
    """Give everything that waits back to the system."""
    with _lock:
        _collect()
        _free.clear()


def _take(size: int) -> _Bytes:
    """The smallest piece that fits without wasting more than it holds, or a new one."""
    with _lock:
        _collect()
        fitting = [at for at, piece in enumerate(_free) if size <= piece.nbytes <= 2 * size]
        if fitting:
            return _free.pop(min(fitting, key=lambda at: _free[at].nbytes))
    return np.empty(size + size // 8, np.uint8)  # the next batch may be a little larger


def _give_back(piece: _Bytes) -> None:
    _returned.put(piece)
    if _lock.acquire(blocking=False):
        try:
            _collect()
        finally:
            _lock.release()


def _collect() -> None:
    """Let what came back wait, as much as may; the lock is held."""
    while True:
        try:
            _free.append(_returned.get_nowait())
        except Empty:
            break
    while sum(each.nbytes for each in _free) > KEPT:
        _free.pop(0)


def _renew() -> None:
    """In a forked process: another thread may have held the lock."""
    global _lock
    _lock = Lock()


os.register_at_fork(after_in_child=_renew)
