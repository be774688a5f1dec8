"""Functions that generated kernels call. They compute in the precision of the operands, in float32 at least."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import triton
import triton.language as tl

from ..lower.spellings import NUMPY

IS_INTERPRETED = triton.knobs.runtime.interpret  # which runs kernels on the CPU, as Python
INTERPRETED = tl.constexpr(IS_INTERPRETED)


def by_numpy(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """A function that Triton's interpreter lacks, by NumPy."""
    from triton.runtime.interpreter import TensorHandle

    def call(*operands: Any) -> Any:
        with np.errstate(all="ignore"):
            data = np.asarray(function(*(x.handle.data for x in operands), **options), operands[0].handle.data.dtype)
        dtype = operands[0].dtype.scalar
        return tl.tensor(TensorHandle(data, dtype), tl.block_type(dtype, list(data.shape)))

    return call


@triton.jit
def larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def smaller(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def product(a, b):
    return a * b


if IS_INTERPRETED:
    libdevice = SimpleNamespace(
        **{name: by_numpy(function) for name, function in NUMPY.items()}, rint=by_numpy(np.rint)
    )
    largest, least, product_of_row = (by_numpy(reduce, axis=1, keepdims=True) for reduce in (np.max, np.min, np.prod))
else:
    from triton.language.extra import libdevice

    @triton.jit
    def largest(x):
        return tl.reduce(x, 1, larger, keep_dims=True)

    @triton.jit
    def least(x):
        return tl.reduce(x, 1, smaller, keep_dims=True)

    @triton.jit
    def product_of_row(x):
        return tl.reduce(x, 1, product, keep_dims=True)


@triton.jit
def isinf(x):
    return tl.abs(x) == float("inf")


@triton.jit
def signbit(x):
    if x.dtype.primitive_bitwidth == 64:
        return x.to(tl.int64, bitcast=True) < 0
    else:
        return x.to(tl.int32, bitcast=True) < 0


@triton.jit
def sign_of(x):
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


@triton.jit
def remainder_of(a, b):
    rest = libdevice.fmod(a, b)
    return tl.where((rest != 0) & ((rest < 0) ^ (b < 0)), rest + b, rest)


@triton.jit
def floor_divided(a, b):
    rest = libdevice.fmod(a, b)
    whole = (a - rest) / b
    whole = tl.where((rest != 0) & ((rest < 0) ^ (b < 0)), whole - 1.0, whole)
    below = tl.floor(whole)
    near = tl.where(whole - below > 0.5, below + 1.0, below)
    near = tl.where(whole == 0, libdevice.copysign(whole, a / b), near)
    return tl.where(b == 0, a / b, near)


@triton.jit
def whole_remainder(a, b):
    rest = a % b
    return tl.where((rest != 0) & ((rest < 0) ^ (b < 0)), rest + b, rest)


@triton.jit
def whole_divided(a, b):
    rest = a % b
    return a // b - ((rest != 0) & ((rest < 0) ^ (b < 0))).to(a.dtype)


@triton.jit
def gcd_of(a, b):
    a, b = tl.broadcast(tl.abs(a), tl.abs(b))
    while tl.max((a != 0).to(tl.int32)) > 0:
        rest = tl.where(a == 0, 0, b % tl.where(a == 0, 1, a)).to(a.dtype)
        b = tl.where(a == 0, b, a)
        a = rest
    return b


@triton.jit
def polynomial(x, first, degree, name: tl.constexpr):
    """An orthogonal polynomial, `first` being that of degree 1, by its recurrence."""
    x, degree = tl.broadcast(x, degree)
    x, first = tl.broadcast(x, first)
    before = tl.full(x.shape, 1.0, x.dtype)
    last = tl.where(degree < 1.0, before, first)
    goes_on = (degree > 1.0) & (last == last)
    k = 1
    while tl.max(goes_on.to(tl.int32)) > 0:
        if name == "chebyshev":
            following = (x + x) * last - before
        elif name == "hermite_h":
            following = (x + x) * last - before * (2 * k)
        elif name == "hermite_he":
            following = x * last - before * k
        elif name == "laguerre":
            following = ((1.0 - x + 2 * k) * last - before * k) / (k + 1)
        else:
            following = (x * (2 * k + 1) * last - before * k) / (k + 1)
        before = tl.where(goes_on, last, before)
        last = tl.where(goes_on, following, last)
        k += 1
        goes_on = (degree > k) & (last == last)
    return last


@triton.jit
def shifted_left(a, by):
    inside = (by >= 0) & (by < a.dtype.primitive_bitwidth)
    return tl.where(inside, a << tl.where(inside, by, 0).to(a.dtype), 0).to(a.dtype)


@triton.jit
def shifted_right(a, by):
    inside = (by >= 0) & (by < a.dtype.primitive_bitwidth)
    return tl.where(inside, a >> tl.where(inside, by, 0).to(a.dtype), tl.where(a < 0, -1, 0)).to(a.dtype)


@triton.jit
def relu(x):
    return tl.where(x < 0, 0.0, x)


@triton.jit
def silu(x):
    return x / (1.0 + tl.exp(-x))


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    """Near zero by Lambert's continued fraction, cut after its seventh term, else by the exponential."""
    size = tl.abs(x)
    s = tl.minimum(x * x, 0.25)
    near = x * (135135.0 + s * (17325.0 + s * (378.0 + s))) / (135135.0 + s * (62370.0 + s * (3150.0 + s * 28.0)))
    far = 1.0 - 2.0 / (tl.exp(2.0 * size) + 1.0)
    return tl.where(size < 0.5, near, tl.where(x < 0, -far, far))


@triton.jit
def mixed(x):
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def uniform(seed, stream: tl.constexpr, row, column, dtype: tl.constexpr):
    """Random numbers in [0, 1) of 24 bits, the same as in native code (native/runtime.hpp)."""
    seeds = tl.full((1, 1), seed, tl.int64)
    of_stream = mixed(tl.full((1, 1), stream, tl.uint32) ^ seeds.to(tl.uint32))
    of_row = mixed(row.to(tl.uint32) + of_stream) ^ (seeds >> 32).to(tl.uint32)
    return (mixed(column.to(tl.uint32) + of_row) >> 8).to(tl.int32).to(dtype) * 5.9604644775390625e-8


@triton.jit
def wide(x):
    """Half precision is for memory and for products."""
    if x.dtype.primitive_bitwidth == 16:
        return x.to(tl.float32)
    else:
        return x


@triton.jit
def add_product(total, a, b, precision: tl.constexpr):
    """`total + a @ b`, in the precision of `total`."""
    if INTERPRETED and a.dtype == tl.bfloat16:  # as float32 the products are the same
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=precision, out_dtype=total.dtype)


@triton.jit
def sent_by_parents(sent, places, offset, row, column, in_rows, mask, width: tl.constexpr):
    """What the parents of rows sent them: the places of row r are `offset[r] .. offset[r + 1] - 1`, or without `offset` the
    one place r. Sums are in the order of places."""
    if offset is None:
        place = tl.load(places + row, mask=in_rows, other=0).to(tl.int64)
        total = wide(tl.load(sent + place * width + column, mask=mask, other=0.0))
    else:
        first = tl.load(offset + row, mask=in_rows, other=0)
        count = tl.load(offset + row + 1, mask=in_rows, other=0) - first
        total = wide(tl.zeros(mask.shape, dtype=sent.dtype.element_ty))
        number, most = 0, tl.max(count)
        while number < most:
            more = number < count
            place = tl.load(places + first + number, mask=more, other=0).to(tl.int64)
            total += wide(tl.load(sent + place * width + column, mask=mask & more, other=0.0))
            number += 1
    return total


@triton.jit
def received(
    placed_sent, placed_places, placed_offset, listed_sent, listed_places, listed_offset, outside,
    row, column, in_rows, mask, width: tl.constexpr, dtype: tl.constexpr,
):  # fmt: skip
    """The gradient of a state: what parents sent by slot and by edge, and what comes from outside; each may be missing."""
    if placed_sent is not None:
        total = sent_by_parents(placed_sent, placed_places, placed_offset, row, column, in_rows, mask, width)
        if listed_sent is not None:
            total += sent_by_parents(listed_sent, listed_places, listed_offset, row, column, in_rows, mask, width)
    elif listed_sent is not None:
        total = sent_by_parents(listed_sent, listed_places, listed_offset, row, column, in_rows, mask, width)
    else:
        total = tl.zeros(mask.shape, dtype=dtype)
    if outside is not None:
        total += wide(tl.load(outside + row * width + column, mask=mask, other=0.0))
    return total
