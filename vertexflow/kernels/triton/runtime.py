"""What generated kernels call. Arithmetic is in the precision of the operands, float32 at least."""

from __future__ import annotations

import triton
import triton.language as tl

# Triton's interpreter, which runs kernels on the CPU, cannot multiply bfloat16; as float32 the products are the same.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def smaller(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def at_least(a, bound: tl.constexpr):
    return larger(a, tl.full((1, 1), bound, a.dtype))  # a bare number would be rounded to float32


@triton.jit
def at_most(a, bound: tl.constexpr):
    return smaller(a, tl.full((1, 1), bound, a.dtype))


@triton.jit
def not_of(a):
    return a == 0


@triton.jit
def is_true(a):
    """Whether numbers are not zero. They are compared as blocks: of the bit that comes of one number Triton's interpreter makes a
    number again."""
    return a != tl.zeros((1, 1), a.dtype)


@triton.jit
def power(a, exponent: tl.constexpr, is_whole: tl.constexpr, is_odd: tl.constexpr):
    """A power that is neither 0 nor 1. The logarithm is in double precision: an error in it grows with the exponent."""
    size = tl.exp(exponent * tl.log(tl.abs(a).to(tl.float64))).to(a.dtype)
    if is_odd:
        result = tl.where((a < 0) | (1.0 / a < 0), size * -1.0, size)  # also of -0
    elif is_whole:
        result = size
    else:
        result = tl.where((a < 0) & (a > float("-inf")), float("nan"), size)
    return result


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
def silu_backward(grad, x):
    gate = sigmoid(x)
    return grad * gate * (1.0 + x * (1.0 - gate))


@triton.jit
def gelu(x):
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def gelu_backward(grad, x):
    below = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
    return grad * (below + x * 0.3989422804014327 * tl.exp(-0.5 * x * x))


@triton.jit
def gelu_tanh(x):
    return 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


@triton.jit
def gelu_tanh_backward(grad, x):
    y = tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))
    slope = 0.7978845608028654 * (1.0 + 0.134145 * x * x)
    return grad * 0.5 * (1.0 + y + x * (1.0 - y * y) * slope)


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
    if INTERPRETED and a.dtype == tl.bfloat16:
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
