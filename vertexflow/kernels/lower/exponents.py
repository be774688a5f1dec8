"""`frexp` and `nextafter`, computed exactly by products with powers of two."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def _frexp(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mantissa, in [0.5, 1) with the sign, and the exponent."""
    largest = 512 if x.dtype == torch.float64 else 64
    steps = [largest, *(2**k for k in range(largest.bit_length() - 1, -1, -1))]
    size, exponent = torch.abs(x), torch.zeros_like(x, dtype=torch.int32)
    for step in steps:
        is_large = size >= 2.0 ** (step - 1)
        size = torch.where(is_large, size * 2.0**-step, size)
        exponent = torch.where(is_large, exponent + step, exponent)
    for step in steps:
        is_small = size < 2.0**-step
        size = torch.where(is_small, size * 2.0**step, size)
        exponent = torch.where(is_small, exponent - step, exponent)
    is_whole = torch.isnan(x) | torch.isinf(x) | (x == 0.0)
    return torch.where(is_whole, x, torch.copysign(size, x)), torch.where(is_whole, 0, exponent)


def _nextafter(x: Tensor, other: Tensor) -> Tensor:
    """The next number towards `other`: a little more than half the distance is added, so that the sum rounds to it (Rump,
    Zimmermann, Boldo and Melquiond, "Computing predecessor and successor in rounding to nearest", 2009)."""
    info = torch.finfo(x.dtype)
    unit, least = info.eps / 2, info.smallest_normal * info.eps
    size = torch.abs(x)
    is_away = (other > x) == (x > 0.0)
    scale = 2.0**512 if x.dtype == torch.float64 else 2.0**64
    is_small = size < 1 / scale  # where half the distance has fewer digits
    scaled = torch.where(is_small, size * scale, size)
    step = scaled * (unit * (1 + 2 * unit))
    moved = torch.where(is_away, scaled + step, scaled - step)
    moved = torch.where(is_small, moved / scale, moved)
    among_least = torch.where(is_away, size + least, size - least)
    moved = torch.where(size < 2 * info.smallest_normal, among_least, moved)
    moved = torch.copysign(torch.where(torch.isinf(x), info.max, moved), x)
    moved = torch.where(x == 0.0, torch.copysign(torch.full_like(other, least), other), moved)
    moved = torch.where(x == other, other, moved)
    return torch.where(torch.isnan(x) | torch.isnan(other), math.nan, moved)


EXPONENTS: dict[Any, Callable[..., Any]] = {aten.frexp.Tensor: _frexp, aten.nextafter.default: _nextafter}
