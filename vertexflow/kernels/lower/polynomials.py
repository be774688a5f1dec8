"""Orthogonal polynomials: by their recurrences (DLMF 18.9), which are operations of their own, as PyTorch computes them.

An operation of `RECURRENCES` takes a place, the polynomial of degree 1 there, and the degree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from .scalar import Expression, apply, constant

aten = torch.ops.aten

Entry = Callable[..., Expression]

RECURRENCES = ("chebyshev", "hermite_h", "hermite_he", "laguerre", "legendre")


def _of(name: str, first: Callable[[Expression], Expression]) -> Entry:
    """Of degrees that are cut to whole numbers: zero for those below none, and for what is no degree."""

    def entry(x: Expression, degree: Expression) -> Expression:
        n = _whole(degree)
        found = apply(name, x, first(x), n)
        if name.startswith("hermite"):  # PyTorch gives none of more
            is_high = apply("gt", n, _like(n, 128 if x.dtype == torch.float32 else 512))
            found = apply("where", is_high, _like(x, math.nan), found)
        return _of_degree(n, found)

    return entry


def _chebyshev(shift: float | None, wave: Callable[..., Expression], least: int, is_shifted: bool) -> Entry:
    """`shift`: what is added to `2 * x` in degree 1; None: degree 1 is x. Above degree `least`, between -1 and 1, `wave`."""

    def entry(x: Expression, degree: Expression) -> Expression:
        n = _whole(degree)
        x = apply("sub", apply("add", x, x), _like(x, 1)) if is_shifted else x
        first = x if shift is None else _plus(apply("add", x, x), shift)
        is_inside = apply("lt", apply("abs", x), _like(x, 1))
        is_wave = apply("bitwise_and", is_inside, apply("gt", n, _like(n, least)))
        angle = apply("acos", x)
        found = apply("where", is_wave, wave(x, n, angle, is_shifted), apply("chebyshev", x, first, n))
        return _of_degree(n, found)

    return entry


def _wave_t(x: Expression, n: Expression, angle: Expression, is_shifted: bool) -> Expression:
    return apply("cos", apply("mul", n, angle))


def _wave_u(x: Expression, n: Expression, angle: Expression, is_shifted: bool) -> Expression:
    next_angle, sine = apply("mul", _plus(n, 1), angle), apply("sin", angle)
    at_end = apply("div", apply("mul", _plus(n, 1), apply("cos", next_angle)), x)
    is_end = apply("eq", sine, _like(x, 0))
    return apply("where", is_end, at_end, apply("div", apply("sin", next_angle), sine))


def _wave_v(x: Expression, n: Expression, angle: Expression, is_shifted: bool) -> Expression:
    half = apply("div", angle, _like(x, 2))
    quotient = apply("div", apply("cos", apply("mul", _plus(n, 0.5), angle)), apply("cos", half))
    at_end = apply("mul", _sign(n), _plus(apply("add", n, n), 1))
    return apply("where", apply("eq", apply("sin", half), _like(x, 1)), at_end, quotient)


def _wave_w(x: Expression, n: Expression, angle: Expression, is_shifted: bool) -> Expression:
    half = apply("div", angle, _like(x, 2))
    quotient = apply("div", apply("sin", apply("mul", _plus(n, 0.5), angle)), apply("sin", half))
    at_end = _sign(n)
    if not is_shifted:
        is_right = apply("gt", x, _like(x, 0))
        at_end = apply("where", is_right, _plus(apply("add", n, n), 1), at_end)
    return apply("where", apply("eq", apply("cos", half), _like(x, 1)), at_end, quotient)


def _whole(degree: Expression) -> Expression:
    is_degree = apply("lt", apply("abs", degree), _like(degree, 2.0**63))
    return apply("where", is_degree, apply("trunc", degree), _like(degree, -1))


def _of_degree(n: Expression, found: Expression) -> Expression:
    return apply("where", apply("lt", n, _like(n, 0)), _like(found, 0), found)


def _sign(n: Expression) -> Expression:
    """1 for even degrees, -1 for odd ones."""
    return apply("sub", _like(n, 1), apply("mul", _like(n, 2), apply("fmod", n, _like(n, 2))))


def _plus(x: Expression, value: float) -> Expression:
    return apply("add", x, _like(x, value)) if value else x


def _like(x: Expression, value: float) -> Expression:
    return constant(value, x.dtype)


def _doubled(x: Expression) -> Expression:
    return apply("add", x, x)


def _from_one(x: Expression) -> Expression:
    return apply("sub", _like(x, 1), x)


_CHEBYSHEV: dict[str, tuple[float | None, Callable[..., Expression], int, int]] = {
    "t": (None, _wave_t, 6, 6),
    "u": (0, _wave_u, 8, 6),
    "v": (-1, _wave_v, 8, 6),
    "w": (1, _wave_w, 8, 4),
}
_BY_NAME: dict[str, Entry] = {
    "hermite_polynomial_h": _of("hermite_h", _doubled),
    "hermite_polynomial_he": _of("hermite_he", lambda x: x),
    "laguerre_polynomial_l": _of("laguerre", _from_one),
    "legendre_polynomial_p": _of("legendre", lambda x: x),
    **{f"chebyshev_polynomial_{one}": _chebyshev(s, wave, n, False) for one, (s, wave, n, _) in _CHEBYSHEV.items()},
    **{f"shifted_chebyshev_polynomial_{one}": _chebyshev(s, w, n, True) for one, (s, w, _, n) in _CHEBYSHEV.items()},
}
POLYNOMIALS: dict[Any, Entry] = {
    getattr(getattr(aten, f"special_{name}"), overload): entry
    for name, entry in _BY_NAME.items()
    for overload in ("default", "x_scalar", "n_scalar")
}
