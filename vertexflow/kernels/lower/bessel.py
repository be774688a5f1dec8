"""Bessel functions, spherical Bessel functions, and the Airy function.

Numbers without a source are coefficients of the series themselves. Tables are those of Cephes (Moshier, `j0.c`, `j1.c`, `k0.c`,
`k1.c`, `airy.c`, the constant first), as PyTorch reads them: it leaves out the highest coefficient of some denominators, a 1 that
Cephes does not tabulate, so that its J and Y near 5 are right to six digits only. These functions agree with PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .series import chebyshev, in_floats, quotient, series

aten = torch.ops.aten

Table = tuple[float, ...]


# Of the first kind and the second: a quotient of polynomials up to 5, beyond it amplitude and phase (DLMF 10.17.3)

_AMPLITUDE: tuple[tuple[Table, Table], ...] = (  # of order 0 and 1
    ((1.0, 5.303240382353949, 8.74716500199817, 5.447250030587687, 1.239533716464143, 0.08283523921074408,
      0.0007969367292973471),
     (1.0, 5.306052882353947, 8.761908832370695, 5.470977403304171, 1.2535274390105895, 0.08562884743544745,
      0.0009244088105588637)),
    ((1.0, 5.214515986823615, 8.424045901417724, 5.112079511468076, 1.1271960812968493, 0.07313970569409176,
      0.0007621256162081731),
     (1.0, 5.209828486823619, 8.399855543276042, 5.073863861286015, 1.105142326340617, 0.06884559087544954,
      0.0005713231280725487)),
)  # fmt: skip
_PHASE: tuple[tuple[Table, Table], ...] = (
    ((-6.050143506007285, -51.41053267665993, -147.07750515495118, -177.68116798048806, -93.20601521237683,
      -19.553954425773597, -1.2825271867050931, -0.011366383889846916),
     (242.0057402402914, 2062.0933166032783, 5930.727011873169, 7240.467741956525, 3882.4018360540163, 856.4300259769806,
      64.3178256118178)),
    ((25.207020585802372, 211.68875710057213, 597.4896124006136, 710.8563049989261, 366.7796093601508, 75.82382841325453,
      4.982138729512334, 0.05108625947501766),
     (336.0936078106983, 2826.1927851763908, 7997.041604473507, 9562.318924047562, 4986.410583376536, 1056.4488603826283,
      74.23732770356752)),
)  # fmt: skip
_FIRST: tuple[tuple[Table, Table], ...] = (
    ((9708622510473064.0, -249248344360967.72, 1956174919465.5657, -4794432209.782018),
     (1.7108629408104315e18, 3.1812195594320496e16, 310518229857422.56, 2112775201154.892, 11185553704.535683,
      48440965.83399621, 173785.4016763747, 499.563147152651)),
    ((3682957328638529.0, -72749424522181.83, 452228297998.19403, -899971225.7055594),
     (5.322786203326801e18, 8.952223361846274e16, 784369607876235.9, 4749141220799.914, 22151159547.97925, 83514679.14319493,
      256987.25675774884, 620.8364781180543)),
)  # fmt: skip
_SQUARED_ZEROS = (
    (5.783185962946784521, 30.47126234366208640),
    (14.68197064212389326, 49.21845632169460367),
)  # the two least zeros of J_0 and of J_1
_SECOND: tuple[tuple[Table, Table], ...] = (
    ((-1.8495080043698668e16, 4.4273326857256984e16, -3466283033847297.0, 87590639439536.7, -982136065717.9115,
      5435264770.518765, -14663929.59039716, 15592.436785523574),
     (2.5059625617265306e17, 3171577528429750.5, 20297961275010.555, 86400248710.3935, 268919633.39381415, 626107.330137135,
      1041.2835366425984)),
    ((-7.788771962659501e17, 2.024394757135949e17, -8127702555013251.0, 114509511541823.73, -647355876379.1603,
      1263204747.9017804),
     (3.9727060811656064e18, 6.871410873553005e16, 620557727146953.8, 3882312774962.3857, 18760131610.870617,
      73481194.44597217, 235564.09294306856, 594.3015923461282)),
)  # fmt: skip


def _first(order: int) -> Callable[[Tensor], Tensor]:
    def first(x: Tensor) -> Tensor:
        size = torch.abs(x)
        far = _far(order, size, torch.cos, torch.sin, -1.0)
        far = torch.where(x < 0.0, -far, far) if order else far
        return torch.where(size <= 5.0, _near(order, x), far)

    return first


def _second(order: int) -> Callable[[Tensor], Tensor]:
    def second(x: Tensor) -> Tensor:
        ratio = quotient(x * x, *_SECOND[order])
        if order:
            near = x * ratio + (2 / math.pi) * (_near(1, x) * torch.log(x) - 1.0 / x)
        else:
            near = ratio + (2 / math.pi) * torch.log(x) * _near(0, x)
        value = torch.where(x <= 5.0, near, _far(order, x, torch.sin, torch.cos, 1.0))
        return torch.where(x == 0.0, -math.inf, value)

    return second


def _near(order: int, x: Tensor) -> Tensor:
    square = x * x
    zeros = (square - _SQUARED_ZEROS[order][0]) * (square - _SQUARED_ZEROS[order][1])
    value = zeros * quotient(square, *_FIRST[order])
    return x * value if order else value


def _far(order: int, x: Tensor, main: Callable[..., Tensor], other: Callable[..., Tensor], sign: float) -> Tensor:
    inverse = 5.0 / x
    square = inverse * inverse
    turned = x - (2 * order + 1) * math.pi / 4
    amplitude = quotient(square, *_AMPLITUDE[order]) * main(turned)
    phase = inverse * quotient(square, *_PHASE[order]) * other(turned)
    return (amplitude + sign * phase) * math.sqrt(2 / math.pi) / torch.sqrt(x)


def _spherical(x: Tensor) -> Tensor:
    """`sin(x) / x`, near zero by its series (DLMF 10.53.1)."""
    near = series(x * x, [Fraction((-1) ** k, math.factorial(2 * k + 1)) for k in range(7)])
    value = torch.where(torch.abs(x) < 0.5, near, torch.sin(x) / x)
    return torch.where(torch.isinf(x), 0.0, value)


# Modified, of the first kind


def _modified(order: int, is_scaled: bool) -> Callable[[Tensor], Tensor]:
    """I of order 0 or 1, perhaps times `exp(-|x|)`: by its series (DLMF 10.25.2), all terms of which have one sign, and far
    from zero by the asymptotic one (10.40.1)."""

    def modified(x: Tensor) -> Tensor:
        end, powers, terms = _modified_terms(order, torch.finfo(x.dtype).eps)
        size = torch.abs(x)
        half = torch.clamp(size, max=end) * 0.5
        near = series(half * half, powers)
        near = near * half if order else near
        far_size = torch.clamp(size, min=end)
        far = series(1.0 / far_size, terms) / (torch.sqrt(far_size) * math.sqrt(2.0 * math.pi))
        if is_scaled:
            near = near * torch.exp(-size)
        else:
            far = far * torch.exp(size)
        value = torch.where(size < end, near, far)
        return torch.where(x < 0.0, -value, value) if order else value

    return modified


@cache
def _modified_terms(order: int, eps: float) -> tuple[float, list[Fraction], list[Fraction]]:
    """The x from which the asymptotic series is used (its best accuracy is `exp(-2 * x)`), and the coefficients of both series,
    cut off where the remaining terms at that x are below rounding."""
    end = math.ceil(-math.log(eps / 4) / 2)
    powers, terms = [Fraction(1)], [Fraction(1)]
    while powers[-1] * Fraction(end, 2) ** (2 * len(powers) - 2) > math.exp(end) / 8 * eps / 8:
        powers.append(powers[-1] / (len(powers) * (len(powers) + order)))
    while abs(terms[-1]) > Fraction(end) ** (len(terms) - 1) * eps / 8:
        terms.append(terms[-1] * ((2 * len(terms) - 1) ** 2 - 4 * order * order) / (8 * len(terms)))
    return float(end), powers, terms


# Modified, of the second kind

_DECAY: tuple[Table, Table] = (  # of order 0 and 1, times exp(x) * sqrt(x), by Chebyshev's polynomials of 8 / x - 2
    (2.4403030820659555, -0.0314481013119645, 0.0015698838857300533, -0.00012849549581627802, 1.39498137188765e-05,
     -1.8317555227191195e-06, 2.766813639445015e-07, -4.660489897687948e-08, 8.574034017414225e-09, -1.69753450938906e-09,
     3.577397281400301e-10, -7.957489244477107e-11, 1.8559491149547177e-11, -4.514597883373944e-12, 1.140340588208475e-12,
     -2.9800969231727303e-13, 8.032890775363575e-14, -2.2275133269916698e-14, 6.3400764774050706e-15, -1.848593377343779e-15,
     5.512055978524319e-16, -1.678231096805412e-16, 5.2103915050390274e-17, -1.6475804301524212e-17, 5.300433772686263e-18),
    (2.7206261904844427, 0.10392373657681724, -0.002857816859622779, 0.00019521551847135162, -1.936197974166083e-05,
     2.406484947837217e-06, -3.5019606030878126e-07, 5.7410841254500495e-08, -1.0345762465678097e-08, 2.015049755197033e-09,
     -4.1903547593418965e-10, 9.218315187605006e-11, -2.1299678384275683e-11, 5.13963967348173e-12, -1.2891739609510289e-12,
     3.3484196660784293e-13, -8.976705182324994e-14, 2.4771544244813043e-14, -7.019837090418314e-15, 2.038703165624334e-15,
     -6.057047248373319e-16, 1.838093544366639e-16, -5.689462558442859e-17, 1.7940508731475592e-17, -5.756744483665017e-18),
)  # fmt: skip
_EULER = 0.57721566490153286061


def _decaying(order: int, is_scaled: bool) -> Callable[[Tensor], Tensor]:
    """K of order 0 or 1, perhaps times `exp(x)`: up to 2 by its series with logarithms (DLMF 10.31.1)."""

    def decaying(x: Tensor) -> Tensor:
        half = 0.5 * x
        square, log = half * half, torch.log(half)
        powers = [Fraction(1, math.factorial(k) * math.factorial(k + order)) for k in range(12)]
        means = [(_harmonic(k) + _harmonic(k + order)) / 2 for k in range(12)]
        grown = [float(power * mean) - _EULER * float(power) for power, mean in zip(powers, means, strict=True)]
        if order:
            near = 1.0 / x + half * (log * series(square, powers) - series(square, grown))
        else:
            near = series(square, grown) - log * series(square, powers)
        far = chebyshev(8.0 / x - 2.0, _DECAY[order]) / torch.sqrt(x)
        if is_scaled:
            near = near * torch.exp(x)
        else:
            far = far * torch.exp(-x)
        value = torch.where(x <= 2.0, near, far)
        return torch.where(x == 0.0, math.inf, value) if order else value

    return decaying


def _harmonic(count: int) -> Fraction:
    return sum((Fraction(1, k) for k in range(1, count + 1)), Fraction(0))


# Airy's function

_AIRY_RIGHT: tuple[Table, Table] = (
    (1.0, 14.026469116338967, 70.53609068404442, 159.75639135016442, 168.08922493463058, 76.27960536152345,
     12.007595273964581, 0.346538101525629),
    (1.0, 14.095913560783403, 71.47784008255756, 164.2346928715297, 177.31808814540045, 84.51389701414746,
     14.75625625848472, 0.5675945326387702),
)  # fmt: skip
_AIRY_SINE: tuple[Table, Table] = (
    (-1.6778769848911465e-08, -2.776491081552329e-06, -0.0001592764962392621, -0.004062659235948854, -0.04919001326095003,
     -0.2797799815451191, -0.6931580360369335, -0.6264565444319123, -0.1316963234183318),
    (4.5185009297058035e-07, 7.547203482874142e-05, 0.004402916416152112, 0.11568717379518804, 1.4752914677166642,
     9.187074029072596, 26.736704094149957, 32.682503279522464, 13.356042070655324),
)  # fmt: skip
_AIRY_COSINE: tuple[Table, Table] = (
    (3.415517847659236e-10, 8.117892395543892e-08, 6.98793669997261e-06, 0.000282851600836737, 0.005858041130483885,
     0.06338889196289255, 0.35146565610554764, 0.9391692298166502, 1.0657989759959559, 0.39110302961568827,
     0.01973399320916857),
    (4.9183457006293e-09, 1.1716673321441352e-06, 0.00010125908511650914, 0.004126565238242226, 0.08645808263523921,
     0.9542936116189619, 5.476860694229755, 15.564662893286462, 19.835292871831214, 9.30892908077442),
)  # fmt: skip


def _airy(x: Tensor) -> Tensor:
    """Ai: between -2.09 and 2.09 by its series (DLMF 9.4.1), to the right decaying, to the left a wave."""
    size = torch.abs(x)
    root = torch.sqrt(size)
    zeta = 2.0 * size * root / 3.0
    scale = 1 / (math.sqrt(math.pi) * torch.sqrt(root))
    inverse = 1.0 / zeta
    right = 0.5 * scale * quotient(inverse, *_AIRY_RIGHT) / torch.exp(zeta)
    square = inverse * inverse
    sine = torch.sin(zeta + math.pi / 4) * (1.0 + square * quotient(square, *_AIRY_SINE))
    left = scale * (sine - torch.cos(zeta + math.pi / 4) * inverse * quotient(square, *_AIRY_COSINE))
    even, odd = _airy_terms(Fraction(0)), _airy_terms(Fraction(1))
    cube = x * x * x
    near = 0.355028053887817239260 * series(cube, even) - 0.258819403792806798405 * x * series(cube, odd)
    value = torch.where(x < -2.09, left, torch.where(x < 2.09, near, right))
    value = torch.where(x > 103.892, 0.0, value)
    return torch.where(torch.isinf(x), math.nan, value)


def _airy_terms(start: Fraction) -> list[Fraction]:
    terms = [Fraction(1)]
    for k in range(12):
        terms.append(terms[-1] / ((3 * k + 2 + start) * (3 * k + 3 + start)))
    return terms


BESSEL: dict[Any, Callable[..., Tensor]] = {
    target: in_floats(function)
    for target, function in {
        aten.i0.default: _modified(0, False),
        aten.special_i0e.default: _modified(0, True),
        aten.special_i1.default: _modified(1, False),
        aten.special_i1e.default: _modified(1, True),
        aten.special_modified_bessel_i0.default: _modified(0, False),
        aten.special_modified_bessel_i1.default: _modified(1, False),
        aten.special_modified_bessel_k0.default: _decaying(0, False),
        aten.special_modified_bessel_k1.default: _decaying(1, False),
        aten.special_scaled_modified_bessel_k0.default: _decaying(0, True),
        aten.special_scaled_modified_bessel_k1.default: _decaying(1, True),
        aten.special_bessel_j0.default: _first(0),
        aten.special_bessel_j1.default: _first(1),
        aten.special_bessel_y0.default: _second(0),
        aten.special_bessel_y1.default: _second(1),
        aten.special_spherical_bessel_j0.default: _spherical,
        aten.special_airy_ai.default: _airy,
    }.items()
}
