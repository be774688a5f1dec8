"""Special functions by exponentials, error functions and series: to some units in the last place of float64.

Coefficients are those of the series themselves, cut where what is left out is below rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def _in_double(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """In float64, whatever the dtype is: so that one series serves all, and what cancels leaves enough digits."""
    return lambda x: function(x.to(torch.float64)).to(torch.result_type(x, 1.0))


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


def _of_error(size: Tensor, rest: Tensor) -> Tensor:
    """The number whose error function is `size`, which is not negative; `rest` is 1 - size, perhaps with more digits.

    Two of Halley's steps from a formula that is right to three digits (Winitzki, "A handy approximation for the error function
    and its inverse", 2008), or very near 1 from what `erfc` is there (DLMF 7.12.1). Beyond 0.5 what is left of the error function
    is compared, times `exp(y * y)`: that is never small.
    """
    log = torch.log(rest)
    half = 0.5 * torch.log(rest * (1.0 + size))
    shift = half + 2.0 / (math.pi * 0.147)
    squared = half * (-2.0 / 0.147)
    squared = squared / (torch.sqrt(shift * shift + squared) + shift)
    y = torch.sqrt(torch.where(log < -10.0, -log - 0.5 * torch.log(-math.pi * log), squared))
    for _ in range(2):
        square = y * y
        near = (torch.erf(y) - size) * torch.exp(square)
        far = torch.exp(square + log) - _erfcx(y)
        step = torch.where(size < 0.5, near, far) * (0.5 * math.sqrt(math.pi))
        y = y - step / (1.0 + y * step)
    y = torch.where(rest == 0.0, torch.full_like(y, math.inf), y)
    return torch.where(rest < 0.0, torch.full_like(y, math.nan), y)


def _erfinv(x: Tensor) -> Tensor:
    size = torch.abs(x)
    return torch.copysign(_of_error(size, 1.0 - size), x)


def _ndtri(p: Tensor) -> Tensor:
    """The quantiles of the normal distribution."""
    is_low = p < 0.5
    rest = 2.0 * torch.where(is_low, p, 1.0 - p)
    size = math.sqrt(2.0) * _of_error(1.0 - rest, rest)
    return torch.where(is_low, -size, size)


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
    found = torch.where(x < 0.0, found - math.pi / torch.tan(math.pi * fraction), found)
    found = torch.where((x < 0.0) & (fraction == 0.0), torch.full_like(x, math.nan), found)
    return torch.where(x == 0.0, torch.copysign(torch.full_like(x, math.inf), -x), found)


def _polygamma(order: int, x: Tensor) -> Tensor:
    if order == 0:
        return _in_double(_digamma)(x)
    if order > 1:
        raise NotImplementedError("further derivatives")
    return _trigamma(x.to(torch.result_type(x, 1.0)))


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

_FAR = 20.0  # from where on the asymptotic series is right to rounding


def _bessel(order: int, is_scaled: bool) -> Callable[[Tensor], Tensor]:
    """I of order 0 or 1, perhaps times `exp(-|x|)`: by its series (DLMF 10.25.2), all terms of which have one sign, and far
    from zero by the asymptotic one (10.40.1)."""
    powers = [Fraction(1, math.factorial(k) * math.factorial(k + order)) for k in range(46)]
    terms = [Fraction(1)]
    for k in range(1, 24):
        terms.append(terms[-1] * ((2 * k - 1) ** 2 - 4 * order * order) / (8 * k))

    def bessel(x: Tensor) -> Tensor:
        size = torch.abs(x)
        half = torch.clamp(size, max=_FAR) * 0.5
        near = _series(half * half, powers)
        near = near * half if order else near
        far_size = torch.clamp(size, min=_FAR)
        far = _series(1.0 / far_size, terms) / torch.sqrt(far_size * (2.0 * math.pi))
        if is_scaled:
            near = near * torch.exp(-size)
        else:
            far = far * torch.exp(size)
        found = torch.where(size < _FAR, near, far)
        return torch.where(x < 0.0, -found, found) if order else found

    return bessel


SPECIAL: dict[Any, Callable[..., Tensor]] = {
    aten.erfinv.default: _in_double(_erfinv), aten.special_ndtri.default: _in_double(_ndtri),
    aten.special_erfcx.default: _in_double(_erfcx), aten.digamma.default: _in_double(_digamma),
    aten.polygamma.default: _polygamma,
    aten.i0.default: _in_double(_bessel(0, False)), aten.special_i0e.default: _in_double(_bessel(0, True)),
    aten.special_i1.default: _in_double(_bessel(1, False)), aten.special_i1e.default: _in_double(_bessel(1, True)),
}  # fmt: skip
