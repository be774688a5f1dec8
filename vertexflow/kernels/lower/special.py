"""Special functions by exponentials, error functions and series: to some units in the last place.

Coefficients are those of the series themselves, cut where what is left out is below rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def _in_double(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """In float64, whatever the dtype is: of what would not leave enough digits otherwise."""
    return lambda x: function(x.to(torch.float64)).to(torch.result_type(x, 1.0))


def _in_floats(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """In the dtype itself; of whole numbers, in the default one."""
    return lambda x: function(x.to(torch.result_type(x, 1.0)))


def _series(x: Tensor, coefficients: Sequence[float | Fraction]) -> Tensor:
    """The sum of `coefficients[k] * x**k`."""
    *rest, total = map(float, coefficients)
    result = torch.full_like(x, total)
    for coefficient in reversed(rest):
        result = result * x + coefficient
    return result


# The error function: scaled, and from its value


def _erfcx(x: Tensor) -> Tensor:
    """`exp(x * x) * erfc(x)`; far to the right, where both are out of range, its asymptotic series (DLMF 7.12.1)."""
    near = torch.exp(x * x) * torch.erfc(x)
    far = torch.clamp(x, min=8.0)
    terms = [Fraction((-1) ** k * math.prod(range(1, 2 * k, 2))) for k in range(17)]
    return torch.where(x < 8.0, near, _series(0.5 / (far * far), terms) / (far * math.sqrt(math.pi)))


# erfinv(x) / x by w = -log(1 - x * x): of w - 2.5 below 5 and of sqrt(w) - 3 below 16 (Giles, "Approximating the erfinv
# function", 2012), above that of sqrt(w) - 5, which is fitted at Chebyshev's points.
_NEAR = (1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-6, -3.5233877e-6, 3.43273939e-7,
         2.81022636e-8)  # fmt: skip
_FAR = (2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773, -0.00367342844, 0.00134934322, 0.000100950558,
        -0.000200214257)  # fmt: skip
_FARTHER = (4.84990639842, 1.01030045676, -0.000138629632, -0.000214977476, 7.55802706e-5, -1.97232880e-5, 5.12016905e-6,
            -1.07898936e-6)  # fmt: skip


def _erfinv(x: Tensor) -> Tensor:
    """To seven digits, and for float64 with one of Halley's steps, which makes them three times as many."""
    size = torch.abs(x)
    rest = 1.0 - size
    w = -torch.log(rest * (1.0 + size))
    root = torch.sqrt(w)
    ratio = torch.where(w < 5.0, _series(w - 2.5, _NEAR), _series(root - 3.0, _FAR))
    if x.dtype == torch.float64:
        y = torch.where(w < 16.0, ratio, _series(root - 5.0, _FARTHER)) * size
        off = torch.where(size < 0.5, torch.erf(y) - size, rest - torch.erfc(y))
        step = off * torch.exp(y * y) * (0.5 * math.sqrt(math.pi))
        y = y - step / (1.0 + y * step)
    else:
        y = ratio * size
    return torch.copysign(torch.where(rest == 0.0, torch.full_like(y, math.inf), y), x)


# Gamma function: derivatives of its logarithm


def _digamma(x: Tensor) -> Tensor:
    """Reflected to the right (DLMF 5.5.4), moved beyond 10 (5.5.2); there the asymptotic series (5.11.2)."""
    right = torch.where(x < 0.0, 1.0 - x, x)
    is_near = right < 10.0
    moved = torch.where(is_near, right + 10.0, right)
    before = _sum([1.0 / (right + float(k)) for k in range(10)])
    inverse = 1.0 / moved
    square = inverse * inverse
    numbers = [Fraction(1, 6), Fraction(-1, 30), Fraction(1, 42), Fraction(-1, 30), Fraction(5, 66),
               Fraction(-691, 2730), Fraction(7, 6)]  # of Bernoulli, the even ones  # fmt: skip
    tail = _series(square, [number / (2 * k) for k, number in enumerate(numbers, 1)]) * square
    found = torch.log(moved) - 0.5 * inverse - tail
    found = torch.where(is_near, found - before, found)
    fraction = x - torch.trunc(x)
    mirrored = math.pi / torch.tan(math.pi * fraction.to(torch.float64))  # which may cancel, near a zero
    found = torch.where(x < 0.0, found - mirrored.to(x.dtype), found)
    found = torch.where((x < 0.0) & (fraction == 0.0), torch.full_like(x, math.nan), found)
    return torch.where(x == 0.0, torch.copysign(torch.full_like(x, math.inf), -x), found)


def _polygamma(order: int, x: Tensor) -> Tensor:
    if order == 0:
        return _in_floats(_digamma)(x)
    if order > 1:
        raise NotImplementedError("further derivatives")
    return _in_floats(_trigamma)(x)


def _trigamma(x: Tensor) -> Tensor:
    """As PyTorch has it: moved by 6, and its series (DLMF 5.15.8) cut after four terms, which are right to nine digits."""
    is_left = x < 0.5
    right = torch.where(is_left, 1.0 - x, x)
    before = _sum([1.0 / ((right + float(k)) * (right + float(k))) for k in range(6)])
    moved = right + 6.0
    square = 1.0 / (moved * moved)
    tail = square * (1 / 6 - square * (1 / 30 - square * (1 / 42)))
    found = before + (1.0 + 1.0 / (2.0 * moved) + tail) / moved
    sine = torch.sin(math.pi * x)
    return torch.where(is_left, (math.pi * math.pi) / (sine * sine) - found, found)


def _sum(terms: list[Tensor]) -> Tensor:
    return sum(terms[1:], terms[0])


# Modified Bessel functions


def _bessel(order: int, is_scaled: bool) -> Callable[[Tensor], Tensor]:
    """I of order 0 or 1, perhaps times `exp(-|x|)`: by its series (DLMF 10.25.2), all terms of which have one sign, and far
    from zero by the asymptotic one (10.40.1)."""

    def bessel(x: Tensor) -> Tensor:
        end, powers, terms = _bessel_terms(order, torch.finfo(x.dtype).eps)
        size = torch.abs(x)
        half = torch.clamp(size, max=end) * 0.5
        near = _series(half * half, powers)
        near = near * half if order else near
        far_size = torch.clamp(size, min=end)
        far = _series(1.0 / far_size, terms) / (torch.sqrt(far_size) * math.sqrt(2.0 * math.pi))
        if is_scaled:
            near = near * torch.exp(-size)
        else:
            far = far * torch.exp(size)
        found = torch.where(size < end, near, far)
        return torch.where(x < 0.0, -found, found) if order else found

    return bessel


@cache
def _bessel_terms(order: int, eps: float) -> tuple[float, list[Fraction], list[Fraction]]:
    """From where on the asymptotic series serves, which comes as near as `exp(-2 * x)`, and the coefficients of both series:
    there, what is left out of them is below rounding."""
    end = math.ceil(-math.log(eps / 4) / 2)
    powers, terms = [Fraction(1)], [Fraction(1)]
    while powers[-1] * Fraction(end, 2) ** (2 * len(powers) - 2) > math.exp(end) / 8 * eps / 8:
        powers.append(powers[-1] / (len(powers) * (len(powers) + order)))
    while abs(terms[-1]) > Fraction(end) ** (len(terms) - 1) * eps / 8:
        terms.append(terms[-1] * ((2 * len(terms) - 1) ** 2 - 4 * order * order) / (8 * len(terms)))
    return float(end), powers, terms


SPECIAL: dict[Any, Callable[..., Tensor]] = {
    aten.erfinv.default: _in_floats(_erfinv), aten.special_erfcx.default: _in_double(_erfcx),
    aten.digamma.default: _in_floats(_digamma), aten.polygamma.default: _polygamma,
    aten.i0.default: _in_floats(_bessel(0, False)), aten.special_i0e.default: _in_floats(_bessel(0, True)),
    aten.special_i1.default: _in_floats(_bessel(1, False)), aten.special_i1e.default: _in_floats(_bessel(1, True)),
}  # fmt: skip
