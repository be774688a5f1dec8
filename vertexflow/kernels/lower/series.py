"""What special functions are made of: polynomials of tensors, without loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
from torch import Tensor


def in_double(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """In float64, whatever the dtype is: of what would not leave enough digits otherwise."""
    return lambda x: function(x.to(torch.float64)).to(torch.result_type(x, 1.0))


def in_floats(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """In the dtype itself; of whole numbers, in the default one."""
    return lambda x: function(x.to(torch.result_type(x, 1.0)))


def series(x: Tensor, coefficients: Sequence[float | Fraction]) -> Tensor:
    """The sum of `coefficients[k] * x**k`."""
    *rest, total = map(float, coefficients)
    result = torch.full_like(x, total)
    for coefficient in reversed(rest):
        result = result * x + coefficient
    return result


def quotient(x: Tensor, above: Sequence[float], below: Sequence[float]) -> Tensor:
    """The quotient of two polynomials."""
    return series(x, above) / series(x, below)


def chebyshev(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """The sum of `coefficients[k]` times Chebyshev's polynomial k of `x / 2`, half of the first; `x` in [-2, 2] (Clenshaw).

    What the dtype would round away is left out: none of these polynomials is larger than 1.
    """
    kept = [one for one in coefficients if abs(one) > torch.finfo(x.dtype).eps / 16]
    before = result = torch.zeros_like(x)
    last = result
    for coefficient in reversed(kept):
        before, last = last, result
        result = x * last - before + coefficient
    return 0.5 * (result - before)


def total(terms: Sequence[Tensor]) -> Tensor:
    """The sum of tensors, from the first on."""
    return sum(terms[1:], terms[0])
