"""Building blocks of special functions: polynomials and sums of tensors, unrolled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
from torch import Tensor


def in_double(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function computed in float64 whatever the dtype, for functions that lose many digits."""
    return lambda x: function(x.to(torch.float64)).to(torch.result_type(x, 1.0))


def in_floats(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function computed in the operand's dtype; for integers, in the default dtype."""
    return lambda x: function(x.to(torch.result_type(x, 1.0)))


def series(x: Tensor, coefficients: Sequence[float | Fraction]) -> Tensor:
    """The sum of `coefficients[k] * x**k`."""
    *rest, total = map(float, coefficients)
    result = torch.full_like(x, total)
    for coefficient in reversed(rest):
        result = result * x + coefficient
    return result


def quotient(x: Tensor, numerator: Sequence[float], denominator: Sequence[float]) -> Tensor:
    """The quotient of two polynomials."""
    return series(x, numerator) / series(x, denominator)


def chebyshev(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """The sum of `coefficients[k] * T_k(x / 2)`, with half of the first coefficient, for `x` in [-2, 2] (Clenshaw).

    Coefficients that the dtype would round away are left out: no Chebyshev polynomial is larger than 1 there.
    """
    significant = [value for value in coefficients if abs(value) > torch.finfo(x.dtype).eps / 16]
    second_last = result = torch.zeros_like(x)
    last = result
    for coefficient in reversed(significant):
        second_last, last = last, result
        result = x * last - second_last + coefficient
    return 0.5 * (result - second_last)


def total(terms: Sequence[Tensor]) -> Tensor:
    """The sum of tensors, from the first on."""
    return sum(terms[1:], terms[0])
