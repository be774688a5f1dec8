"""Error functions, and derivatives of the gamma function, by exponentials and series, right to some units in the last place.

Coefficients are those of the series themselves, cut off where the remaining terms are below rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from .bessel import BESSEL
from .series import in_double, in_floats, quotient, series, total

aten = torch.ops.aten


# The error function: scaled, and its inverse


def _erfcx(x: Tensor) -> Tensor:
    """`exp(x * x) * erfc(x)`; far to the right, where both are out of range, its asymptotic series (DLMF 7.12.1)."""
    near = torch.exp(x * x) * torch.erfc(x)
    far = torch.clamp(x, min=8.0)
    terms = [Fraction((-1) ** k * math.prod(range(1, 2 * k, 2))) for k in range(17)]
    return torch.where(x < 8.0, near, series(0.5 / (far * far), terms) / (far * math.sqrt(math.pi)))


# erfinv(x) / x by w = -log(1 - x * x): of w - 2.5 below 5 and of sqrt(w) - 3 below 16 (Giles, "Approximating the erfinv
# function", 2012), above that of sqrt(w) - 5, which is fitted at Chebyshev's points.
_NEAR = (1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-6, -3.5233877e-6, 3.43273939e-7,
         2.81022636e-8)  # fmt: skip
_FAR = (2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773, -0.00367342844, 0.00134934322, 0.000100950558,
        -0.000200214257)  # fmt: skip
_FARTHER = (4.84990639842, 1.01030045676, -0.000138629632, -0.000214977476, 7.55802706e-5, -1.97232880e-5, 5.12016905e-6,
            -1.07898936e-6)  # fmt: skip


def _erfinv(x: Tensor) -> Tensor:
    """To seven digits; for float64 with one of Halley's steps, which triples the number of digits."""
    size = torch.abs(x)
    rest = 1.0 - size
    w = -torch.log(rest * (1.0 + size))
    root = torch.sqrt(w)
    ratio = torch.where(w < 5.0, series(w - 2.5, _NEAR), series(root - 3.0, _FAR))
    if x.dtype == torch.float64:
        y = torch.where(w < 16.0, ratio, series(root - 5.0, _FARTHER)) * size
        off = torch.where(size < 0.5, torch.erf(y) - size, rest - torch.erfc(y))
        step = off * torch.exp(y * y) * (0.5 * math.sqrt(math.pi))
        y = y - step / (1.0 + y * step)
    else:
        y = ratio * size
    return torch.copysign(torch.where(rest == 0.0, torch.full_like(y, math.inf), y), x)


# The quantiles of the normal distribution (tables of Cephes (Moshier), `ndtri.c`, the constant first)

_MIDDLE = (
    (-1.2391658386738125, 13.931260938727968, -56.67628574690703, 98.00107541859997, -59.96335010141079),
    (-1.1833162112133, 15.90562251262117, -82.03722561683334, 200.26021238006066, -225.46268785411937, 86.36024213908905,
     4.676279128988815, 1.9544885833814176, 1.0),
)  # fmt: skip
_OUTSIDE = (
    (-0.0008574567851546854, -0.03504246268278482, -0.1402560791713545, 2.1866330685079025, 14.684956192885803,
     44.08050738932008, 57.16281922464213, 31.525109459989388, 4.0554489230596245),
    (-0.0009332594808954574, -0.03808064076915783, -0.14218292285478779, 2.504649462083094, 15.04253856929075,
     41.3172038254672, 45.39076351288792, 15.779988325646675, 1.0),
)  # fmt: skip
_FAR_OUTSIDE = (
    (6.239745391849833e-09, 2.6580697468673755e-06, 0.00030158155350823543, 0.012371663481782003, 0.20148538954917908,
     1.3330346081580755, 3.9388102529247444, 6.915228890689842, 3.2377489177694603),
    (6.790194080099813e-09, 2.8924786474538068e-06, 0.00032801446468212774, 0.013420400608854318, 0.21623699359449663,
     1.3770209948908132, 3.6798356385616087, 6.02427039364742, 1.0),
)  # fmt: skip


def _ndtri(x: Tensor) -> Tensor:
    end = math.exp(-2.0)
    is_right = x > 1.0 - end
    rest = torch.where(is_right, 1.0 - x, x)
    off = rest - 0.5
    square = off * off
    middle = (off + off * (square * quotient(square, *_MIDDLE))) * math.sqrt(2.0 * math.pi)
    size = torch.sqrt(-2.0 * torch.log(rest))
    inverse = 1.0 / size
    ratio = torch.where(size < 8.0, quotient(inverse, *_OUTSIDE), quotient(inverse, *_FAR_OUTSIDE))
    outside = size - torch.log(size) / size - inverse * ratio
    value = torch.where(rest > end, middle, torch.where(is_right, outside, -outside))
    value = torch.where(x == 0.0, -math.inf, torch.where(x == 1.0, math.inf, value))
    return torch.where((x < 0.0) | (x > 1.0), math.nan, value)


# Gamma function: derivatives of its logarithm


_BERNOULLI = [Fraction(*number) for number in (
    (1, 6), (-1, 30), (1, 42), (-1, 30), (5, 66), (-691, 2730), (7, 6), (-3617, 510), (43867, 798), (-174611, 330),
    (854513, 138), (-236364091, 2730),
)]  # his numbers 2, 4, 6, ... (DLMF 24.2)  # fmt: skip


def _digamma(x: Tensor) -> Tensor:
    """By reflection to the right (DLMF 5.5.4), recurrence beyond 10 (5.5.2), and there the asymptotic series (5.11.2)."""
    right = torch.where(x < 0.0, 1.0 - x, x)
    is_near = right < 10.0
    moved = torch.where(is_near, right + 10.0, right)
    skipped = total([1.0 / (right + float(k)) for k in range(10)])
    inverse = 1.0 / moved
    square = inverse * inverse
    tail = series(square, [number / (2 * k) for k, number in enumerate(_BERNOULLI[:7], 1)]) * square
    value = torch.log(moved) - 0.5 * inverse - tail
    value = torch.where(is_near, value - skipped, value)
    fraction = x - torch.trunc(x)
    mirrored = math.pi / torch.tan(math.pi * fraction.to(torch.float64))  # which may cancel, near a zero
    value = torch.where(x < 0.0, value - mirrored.to(x.dtype), value)
    value = torch.where((x < 0.0) & (fraction == 0.0), torch.full_like(x, math.nan), value)
    return torch.where(x == 0.0, torch.copysign(torch.full_like(x, math.inf), -x), value)


def _trigamma(x: Tensor) -> Tensor:
    """As in PyTorch: moved by 6, and the series (DLMF 5.15.8) cut off after four terms, which gives nine digits."""
    is_left = x < 0.5
    right = torch.where(is_left, 1.0 - x, x)
    skipped = total([1.0 / ((right + float(k)) * (right + float(k))) for k in range(6)])
    moved = right + 6.0
    square = 1.0 / (moved * moved)
    tail = square * (1 / 6 - square * (1 / 30 - square * (1 / 42)))
    value = skipped + (1.0 + 1.0 / (2.0 * moved) + tail) / moved
    sine = torch.sin(math.pi * x)
    return torch.where(is_left, (math.pi * math.pi) / (sine * sine) - value, value)


def _polygamma(order: int, x: Tensor) -> Tensor:
    """The derivative of this order of `digamma` (DLMF 5.15.1, 25.11.12)."""
    if order < 2:
        return in_floats(_trigamma if order else _digamma)(x)
    return -float((-1) ** order * math.factorial(order)) * _zeta(order + 1, x)


# Hurwitz's zeta function


def _zeta(x: Tensor | float, q: Tensor | float) -> Tensor:
    """The sum of `(q + k) ** -x` over k = 0, 1, ... (DLMF 25.11.1); for negative `q`, as in PyTorch, only for integer `x`.

    For negative `q` it is the sum over all integers k, which is two sums over positive numbers, without the terms left of `q`.
    """
    dtype = torch.result_type(x, q)
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    device = next(number.device for number in (x, q) if isinstance(number, Tensor))
    x, q = (
        number.to(dtype) if isinstance(number, Tensor) else torch.full((), number, dtype=dtype, device=device)
        for number in (x, q)
    )
    floor = torch.floor(q)
    is_left = q < 0.0
    three = torch.stack([torch.where(is_left, q - floor, q), torch.ceil(q) - q, 1.0 - q], -1)
    value, mirrored, outside = _zeta_right(x.unsqueeze(-1), three).unbind(-1)
    sign = torch.where(torch.fmod(x, 2.0) == 0.0, torch.ones_like(x), -1.0)
    left = (value + sign * mirrored) - sign * outside  # the first two may cancel
    left = torch.where(torch.isinf(x), math.inf, torch.where(x == torch.floor(x), left, math.nan))
    value = torch.where(is_left, left, value)
    value = torch.where((q <= 0.0) & (q == floor), math.inf, value)
    return torch.where(x < 1.0, math.nan, torch.where(x == 1.0, math.inf, value))


def _zeta_right(x: Tensor, q: Tensor) -> Tensor:
    """For positive `q`: ten terms, and the rest of them by Euler and Maclaurin's formula (DLMF 25.11.7)."""
    terms = [torch.pow(q + float(k), -x) for k in range(10)]
    value, end = total(terms), q + 9.0
    square = 1.0 / (end * end)
    numbers = [float(number / math.factorial(2 * k)) for k, number in enumerate(_BERNOULLI, 1)]
    bend = torch.full_like(end, numbers[-1])
    for k in range(len(numbers) - 1, 0, -1):
        bend = numbers[k - 1] + (x + float(2 * k - 1)) * (x + float(2 * k)) * square * bend
    rest = terms[-1] * end / (x - 1.0) + terms[-1] * (x / end * bend - 0.5)
    return torch.where(terms[-1] < 2.0**-53 * value, value, value + rest)  # not infinity minus infinity


SPECIAL: dict[Any, Callable[..., Tensor]] = {
    **BESSEL,
    aten.erfinv.default: in_floats(_erfinv),
    aten.special_erfcx.default: in_double(_erfcx),
    aten.special_ndtri.default: in_floats(_ndtri),
    aten.digamma.default: in_floats(_digamma),
    aten.polygamma.default: _polygamma,
    **dict.fromkeys((aten.special_zeta.default, aten.special_zeta.self_scalar, aten.special_zeta.other_scalar), _zeta),
}
