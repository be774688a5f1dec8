"""Scalar operations in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, np.dtype[Any]]


def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """NumPy's name of a dtype."""
    return np.dtype(str(dtype)[6:])


def _elementwise(function: Callable[[float], float]) -> Callable[[Array], Array]:
    def safe(x: float) -> float:
        try:
            return function(x)
        except (OverflowError, ValueError):
            return math.inf

    return np.vectorize(safe, otypes=[float])


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _gcd(a: Array, b: Array) -> Array:
    a, b = np.abs(a), np.abs(b)
    while a.any():
        rest = np.fmod(b, np.where(a == 0, 1, a))
        a, b = np.where(a == 0, 0, rest), np.where(a == 0, b, a)
    return b


_STEPS: dict[str, Callable[..., Array]] = {  # the polynomial of degree k + 1 from those of degree k and k - 1
    "chebyshev": lambda k, x, last, second_last: (x + x) * last - second_last,
    "hermite_h": lambda k, x, last, second_last: (x + x) * last - 2 * k * second_last,
    "hermite_he": lambda k, x, last, second_last: x * last - k * second_last,
    "laguerre": lambda k, x, last, second_last: ((2 * k + (1 - x)) * last - k * second_last) / (k + 1),
    "legendre": lambda k, x, last, second_last: ((2 * k + 1) * x * last - k * second_last) / (k + 1),
}


def _polynomial(step: Callable[..., Array], x: Array, first: Array, degree: Array) -> Array:
    second_last, last, k = np.ones_like(x), np.where(degree < 1, np.ones_like(x), first), 1
    while (goes_on := (k < degree) & (last == last)).any():
        last, second_last = np.where(goes_on, step(k, x, last, second_last), last), np.where(goes_on, last, second_last)
        k += 1
    return last


NUMPY: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative, "abs": np.abs,
    "pow": np.power, "atan2": np.arctan2, "hypot": np.hypot, "copysign": np.copysign, "fmod": np.fmod,
    "remainder": np.remainder, "floor_divide": np.floor_divide, "trunc_divide": lambda a, b: np.trunc(a / b),
    "maximum": np.maximum, "minimum": np.minimum, "sign": lambda x: (x > 0).astype(x.dtype) - (x < 0),
    "gcd": _gcd, **{name: partial(_polynomial, step) for name, step in _STEPS.items()},
    "multiply_add": lambda a, b, c: a * b + c, "where": np.where, "sigmoid": _sigmoid,
    "silu": lambda x: x / (1 + np.exp(-x)), "relu": lambda x: np.where(x < 0, 0, x), "rsqrt": lambda x: 1 / np.sqrt(x),
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "erf": _elementwise(math.erf), "erfc": _elementwise(math.erfc), "lgamma": _elementwise(math.lgamma), "round": np.rint,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor, "bitwise_not": np.invert,
    "shift_left": np.left_shift, "shift_right": np.right_shift,
    **{name: getattr(np, name) for name in
       ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "floor",
        "ceil", "trunc", "isnan", "isinf", "signbit")},
}  # fmt: skip


def _mixed(x: Any) -> Any:
    """A hash of 32 bits, each of which depends on all of `x` (Wellons, "Prospecting for hash functions", 2018)."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def uniform(seed: int, stream: int, row: Array, column: Array) -> Array:
    """The random numbers of `Draw` in float64, 24 bits of each."""
    low, high = np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32 & 0xFFFFFFFF)
    stream_hash = _mixed(np.asarray(np.uint32(stream) ^ low))
    row_hash = _mixed(row.astype(np.uint32) + stream_hash) ^ high
    hashed: Array = _mixed(column.astype(np.uint32) + row_hash)
    return np.asarray((hashed >> np.uint32(8)) * 2.0**-24)
