"""Orthogonal polynomials by their recurrences (DLMF 18.9), as PyTorch computes them.

The recurrences are scalar operations (`RECURRENCES`) of x, the polynomial of degree 1 at x, and the degree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from .scalar import Expression, apply, like

aten = torch.ops.aten

Entry = Callable[..., Expression]

RECURRENCES = ("chebyshev", "hermite_h", "hermite_he", "laguerre", "legendre")


def _by_recurrence(
    name: str, x: Expression, first: Expression, n: Expression, is_known: Expression, value: Expression
) -> Expression:
    """The polynomial by its recurrence, which may take millions of steps; where `is_known`, `value` instead, without a step.
    Zero for negative degrees."""
    value_at_degree = apply("where", is_known, value, apply(name, x, first, apply("where", is_known, like(n, 0), n)))
    return apply("where", apply("lt", n, like(n, 0)), like(x, 0), value_at_degree)


def _hermite(name: str, first: Callable[[Expression], Expression]) -> Entry:
    """A Hermite polynomial; for high degrees NaN, as in PyTorch."""

    def entry(x: Expression, degree: Expression) -> Expression:
        n = _degree(degree)
        is_high = apply("gt", n, like(n, 128 if x.dtype == torch.float32 else 512))
        return _by_recurrence(name, x, first(x), n, is_high, like(x, math.nan))

    return entry


def _laguerre(x: Expression, degree: Expression) -> Expression:
    return _by_recurrence("laguerre", x, apply("sub", like(x, 1), x), _degree(degree), _is(x, 0), like(x, 1))


def _legendre(x: Expression, degree: Expression) -> Expression:
    n = _degree(degree)
    return _by_recurrence("legendre", x, x, n, _is(apply("abs", x), 1), apply("where", _is(x, 1), like(x, 1), _sign(n)))


Ends = Callable[[Expression], tuple[Expression, Expression]]  # from the degree to the values at 1 and at -1
Wave = Callable[[Expression, Expression, Expression, Expression], Expression]


def _chebyshev(
    first: Callable[[Expression], Expression], ends: Ends, wave: Wave, least: int, is_shifted: bool
) -> Entry:
    """A Chebyshev polynomial. Above degree `least`, between -1 and 1, it is `wave(x, acos(x), degree, at_end)`, where `at_end` is
    the value at the nearer of -1 and 1, to be used where the angle rounds to that end's."""

    def entry(x: Expression, degree: Expression) -> Expression:
        n = _degree(degree)
        x = _plus(_doubled(x), -1) if is_shifted else x
        size, (right, left) = apply("abs", x), ends(n)
        is_wave = apply("bitwise_and", apply("lt", size, like(x, 1)), apply("gt", n, like(n, least)))
        at_end = left if is_shifted else apply("where", apply("gt", x, like(x, 0)), right, left)
        value = apply("where", is_wave, wave(x, apply("acos", x), n, at_end), apply("where", _is(x, 1), right, left))
        is_known = apply("bitwise_or", is_wave, _is(size, 1))
        return _by_recurrence("chebyshev", x, first(x), n, is_known, value)

    return entry


def _wave_t(x: Expression, angle: Expression, n: Expression, at_end: Expression) -> Expression:
    return apply("cos", apply("mul", n, angle))


def _wave_u(x: Expression, angle: Expression, n: Expression, at_end: Expression) -> Expression:
    next_angle, sine = apply("mul", _plus(n, 1), angle), apply("sin", angle)
    at_end = apply("div", apply("mul", _plus(n, 1), apply("cos", next_angle)), x)
    return apply("where", _is(sine, 0), at_end, apply("div", apply("sin", next_angle), sine))


def _wave_v(x: Expression, angle: Expression, n: Expression, at_end: Expression) -> Expression:
    half, wave = apply("div", angle, like(x, 2)), apply("cos", apply("mul", _plus(n, 0.5), angle))
    return apply("where", _is(apply("sin", half), 1), at_end, apply("div", wave, apply("cos", half)))


def _wave_w(x: Expression, angle: Expression, n: Expression, at_end: Expression) -> Expression:
    half, wave = apply("div", angle, like(x, 2)), apply("sin", apply("mul", _plus(n, 0.5), angle))
    return apply("where", _is(apply("cos", half), 1), at_end, apply("div", wave, apply("sin", half)))


def _degree(degree: Expression) -> Expression:
    is_degree = apply("lt", apply("abs", degree), like(degree, 2.0**63))
    return apply("where", is_degree, apply("trunc", degree), like(degree, -1))


def _sign(n: Expression) -> Expression:
    """1 for even degrees, -1 for odd ones."""
    return apply("sub", like(n, 1), apply("mul", like(n, 2), apply("fmod", n, like(n, 2))))


def _plus(x: Expression, value: float) -> Expression:
    return apply("add", x, like(x, value))


def _doubled(x: Expression) -> Expression:
    return apply("add", x, x)


def _is(x: Expression, value: float) -> Expression:
    return apply("eq", x, like(x, value))


def _odd(n: Expression) -> Expression:
    return _plus(_doubled(n), 1)


# The polynomial of degree 1, the values at both ends, the wave, and the least degree for it, also of the shifted polynomial.
_CHEBYSHEV: dict[str, tuple[Callable[[Expression], Expression], Ends, Wave, int, int]] = {
    "t": (lambda x: x, lambda n: (like(n, 1), _sign(n)), _wave_t, 6, 6),
    "u": (_doubled, lambda n: (_plus(n, 1), apply("mul", _sign(n), _plus(n, 1))), _wave_u, 8, 6),
    "v": (lambda x: _plus(_doubled(x), -1), lambda n: (like(n, 1), apply("mul", _sign(n), _odd(n))), _wave_v, 8, 6),
    "w": (lambda x: _plus(_doubled(x), 1), lambda n: (_odd(n), _sign(n)), _wave_w, 8, 4),
}
_BY_NAME: dict[str, Entry] = {
    "hermite_polynomial_h": _hermite("hermite_h", _doubled),
    "hermite_polynomial_he": _hermite("hermite_he", lambda x: x),
    "laguerre_polynomial_l": _laguerre,
    "legendre_polynomial_p": _legendre,
    **{
        f"{prefix}chebyshev_polynomial_{name}": _chebyshev(first, ends, wave, least[is_shifted], is_shifted)
        for prefix, is_shifted in (("", False), ("shifted_", True))
        for name, (first, ends, wave, *least) in _CHEBYSHEV.items()
    },
}
POLYNOMIALS: dict[Any, Entry] = {
    getattr(getattr(aten, f"special_{name}"), overload): entry
    for name, entry in _BY_NAME.items()
    for overload in ("default", "x_scalar", "n_scalar")
}
