"""Special functions that are taken apart, against numbers of 40 digits."""

from __future__ import annotations

import mpmath
import pytest
import torch
from mpmath import mpf

from vertexflow.kernels.lower.special import SPECIAL

aten = torch.ops.aten

BESSEL = [1e-300, 1e-5, 0.1, 1, 2, 5, 8, 10, 15, 19.9, 20, 20.1, 25, 30, 50, 100, 700, -3, -19, -30]
SPREAD = torch.linspace(-0.999, 0.999, 40, dtype=torch.float64).tolist()


FUNCTIONS = {  # exact, and where; how many units of 2^-52 are allowed
    aten.erfinv.default: (mpmath.erfinv, [*SPREAD, 1e-200, 1e-9, 0.49999, 0.5, 0.5001, 1 - 1e-10, -1 + 2**-53], 4),
    aten.special_erfcx.default: (
        lambda x: mpmath.exp(x * x) * mpmath.erfc(x),
        [-5, -1, -0.1, 1e-20, 0.1, 0.5, 1, 2, 3, 4, 5, 6, 7, 7.999, 8, 8.5, 10, 15, 26, 30, 100, 1e5, 1e100],
        40,  # of the square, times the square
    ),
    aten.digamma.default: (
        mpmath.digamma,
        [
            1e-10,
            1e-3,
            0.1,
            0.5,
            1,
            1.3,
            1.6,
            2,
            3,
            7.7,
            9.99,
            10,
            10.01,
            15,
            100,
            1e6,
            1e20,
            -1e-8,
            -0.1,
            -0.9,
            -2.3,
            -10.3,
        ],
        20,
    ),
    aten.i0.default: (lambda x: mpmath.besseli(0, x), BESSEL, 8),
    aten.special_i0e.default: (lambda x: mpmath.besseli(0, x) * mpmath.exp(-abs(x)), [*BESSEL, 1e5, 1e9], 8),
    aten.special_i1.default: (lambda x: mpmath.besseli(1, x), BESSEL, 8),
    aten.special_i1e.default: (lambda x: mpmath.besseli(1, x) * mpmath.exp(-abs(x)), [*BESSEL, 1e5, 1e9], 8),
}


@pytest.mark.parametrize("target", FUNCTIONS, ids=str)
def test_digits(target):
    exact, places, allowed = FUNCTIONS[target]
    x = torch.tensor(places, dtype=torch.float64)
    found = SPECIAL[target](x)
    with mpmath.workdps(40):
        wanted = [exact(mpf(place)) for place in x.tolist()]
        off = [float(abs(mpf(one) / other - 1)) * 2**52 for one, other in zip(found.tolist(), wanted, strict=True)]
    wrong = {place: units for place, units in zip(places, off, strict=True) if units > allowed}
    assert not wrong
