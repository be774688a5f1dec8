"""Special functions that are taken apart, against numbers of 40 digits."""

from __future__ import annotations

import mpmath
import pytest
import torch
from mpmath import mpf

from vertexflow.kernels.lower.exponents import EXPONENTS
from vertexflow.kernels.lower.special import SPECIAL

aten = torch.ops.aten

BESSEL = [1e-300, 1e-5, 0.1, 1, 2, 5, 8, 10, 15, 19.9, 20, 20.1, 25, 30, 50, 100, 700, -3, -19, -30]
POSITIVE = [1e-300, 1e-9, 0.1, 0.7, 1, 1.7, 1.9999, 2, 2.0001, 3, 5, 8, 20, 100, 600]
ACCURATE = [1e-9, 0.1, 0.5, 1, 1.3, 60, 100]  # elsewhere these are not exact, as PyTorch's are not
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
    aten.special_ndtri.default: (
        lambda x: -mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * x),
        [1e-20, 1e-14, 1e-13, 1e-5, 0.1, 0.135, 0.1354, 0.3, 0.4999, 0.6, 0.864, 0.865, 0.99, 1 - 1e-9],
        8,
    ),
    aten.i0.default: (lambda x: mpmath.besseli(0, x), BESSEL, 8),
    aten.special_i0e.default: (lambda x: mpmath.besseli(0, x) * mpmath.exp(-abs(x)), [*BESSEL, 1e5, 1e9], 8),
    aten.special_i1.default: (lambda x: mpmath.besseli(1, x), BESSEL, 8),
    aten.special_i1e.default: (lambda x: mpmath.besseli(1, x) * mpmath.exp(-abs(x)), [*BESSEL, 1e5, 1e9], 8),
    aten.special_modified_bessel_k0.default: (lambda x: mpmath.besselk(0, x), POSITIVE, 20),
    aten.special_modified_bessel_k1.default: (lambda x: mpmath.besselk(1, x), POSITIVE, 20),
    aten.special_scaled_modified_bessel_k0.default: (lambda x: mpmath.besselk(0, x) * mpmath.exp(x), POSITIVE, 20),
    aten.special_scaled_modified_bessel_k1.default: (lambda x: mpmath.besselk(1, x) * mpmath.exp(x), POSITIVE, 20),
    aten.special_bessel_j0.default: (lambda x: mpmath.besselj(0, x), ACCURATE, 200),
    aten.special_bessel_j1.default: (lambda x: mpmath.besselj(1, x), ACCURATE, 200),
    aten.special_bessel_y0.default: (lambda x: mpmath.bessely(0, x), ACCURATE, 200),
    aten.special_bessel_y1.default: (lambda x: mpmath.bessely(1, x), ACCURATE, 200),
    aten.special_spherical_bessel_j0.default: (mpmath.sinc, [-20, -0.3, 1e-20, 0.1, 0.4999, 0.5, 2, 30], 4),
    aten.special_airy_ai.default: (
        mpmath.airyai,
        [-25.3, -12.5, -2, -1.1, -1e-9, 1e-300, 0.3, 1, 2.08, 2.1, 5, 8.4, 20, 100],
        1000,  # of the exponent, of which it has the exponential
    ),
}


@pytest.mark.parametrize("target", FUNCTIONS, ids=str)
def test_digits(target):
    exact, places, allowed = FUNCTIONS[target]
    x = torch.tensor(places, dtype=torch.float64)
    results = SPECIAL[target](x)
    with mpmath.workdps(40):
        wanted = [exact(mpf(place)) for place in x.tolist()]
        off = [float(abs(mpf(one) / other - 1)) * 2**52 for one, other in zip(results.tolist(), wanted, strict=True)]
    wrong = {place: units for place, units in zip(places, off, strict=True) if units > allowed}
    assert not wrong


ORDERS = [2, 3, 4, 7, 30, 1.5, 1.001, 60]


@pytest.mark.parametrize("x", ORDERS)
@pytest.mark.cases(1)
def test_digits_of_zeta(x):
    """Also on the left of zero, where the order must be a whole number; errors are relative to the largest term of the sum."""
    places = [1e-3, 0.3, 0.7, 1, 2.5, 8, 9.5, 30, 1e3]
    places += [-0.3, -0.5, -1.7, -9.2, -30.6] if x == int(x) else []
    results = SPECIAL[aten.special_zeta.default](float(x), torch.tensor(places, dtype=torch.float64))
    wrong = {}
    with mpmath.workdps(200):
        for place, one in zip(places, results.tolist(), strict=True):
            steps = max(0, -int(mpmath.floor(place)))
            terms = [mpmath.power(mpf(place) + k, -int(x)) for k in range(steps)]
            terms.append(mpmath.zeta(mpf(float(x)), mpf(place) + steps))
            units = float(abs(mpf(one) - sum(terms)) / max(map(abs, terms))) * 2**52
            if units > 20 + 4 * x:
                wrong[place] = units
    assert not wrong


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float64, torch.int64), (torch.float32, torch.int32)])
def test_neighbours_and_exponents_of_any_numbers(dtype, bits):
    """Exactly, with the signs of zeros."""
    drawn = torch.Generator().manual_seed(0)
    limits, info = torch.iinfo(bits), torch.finfo(dtype)
    any_bits = torch.randint(limits.min, limits.max, (20_000,), dtype=bits, generator=drawn).view(dtype)
    powers = 2.0 ** torch.arange(-1074, 1024, dtype=torch.float64).to(dtype)
    least = info.tiny * info.eps
    edges = [0.0, -0.0, float("inf"), float("nan"), info.max, *(k * info.tiny for k in (1, 2, 4)), least, 2 * least]
    x = torch.cat([any_bits, powers, torch.tensor([*edges, *(-edge for edge in edges)], dtype=dtype)])
    for other in (x.flip(0), torch.zeros_like(x), torch.full_like(x, float("inf")), -x, -0.0 * x):
        assert_identical(EXPONENTS[aten.nextafter.default](x, other), torch.nextafter(x, other))
    for actual, expected in zip(EXPONENTS[aten.frexp.Tensor](x), torch.frexp(x), strict=True):
        assert_identical(actual, expected)


def assert_identical(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)
    assert not expected.is_floating_point() or torch.equal(
        actual.nan_to_num().signbit(), expected.nan_to_num().signbit()
    )
