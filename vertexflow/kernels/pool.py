"""Large pieces of CPU memory that are used again.

The C library gives large pieces back to the system when they are freed, and the system fills fresh ones with zeros, page by
page: in a training step of a large batch that takes as long as a third of the products. A piece comes back here when the
last tensor in it is gone, whoever had it.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGE = 4 << 20  # bytes from which on a piece is kept; smaller ones the C library keeps by itself
KEPT = 1 << 30  # bytes that wait to be used again, at most

_Bytes = np.ndarray[Any, np.dtype[np.uint8]]
_free: list[_Bytes] = []


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
    _free.clear()


def _take(size: int) -> _Bytes:
    """The smallest piece that fits without wasting more than it holds, or a new one."""
    fitting = [piece for piece in _free if size <= piece.nbytes <= 2 * size]
    for piece in sorted(fitting, key=lambda piece: piece.nbytes):
        for at, other in enumerate(_free):
            if other is piece:
                return _free.pop(at)
    return np.empty(size + size // 8, np.uint8)  # the next batch may be a little larger


def _give_back(piece: _Bytes) -> None:
    _free.append(piece)
    while sum(each.nbytes for each in _free) > KEPT:
        _free.pop(0)
