"""What is taken apart into operations that loops know: values and gradients are PyTorch's, and PyTorch is not called for it."""

from __future__ import annotations

import warnings

import pytest
import torch

import vertexflow as vf
from vertexflow.kernels.native.source import MOST_CUMULATED

from ..models import FromCode
from .test_special_values import POLYNOMIALS

INF, NAN = float("inf"), float("nan")
ROWS = [
    [1.0, 2.0, NAN, -1.0, 0.0, 2.0], [NAN, -INF, INF, 3.0, -3.0, NAN], [NAN] * 6, [-INF] * 6, [INF] * 6,
    [INF, 1.0, 2.0, -1.0, 0.5, INF], [1.0, -INF, -0.0, 0.0, 2.0, 2.0], [-INF, INF, 0.0, 1.0, 2.0, INF],
    [3e38, 3e38, 1.0, -3e38, 0.0, -3e38], [-0.0, 0.0, -0.0, 0.0, -1.0, -0.0], [0.0, -0.0, 0.0, -0.0, 1.0, -0.0],
    [-2.0, -1.5, -2.5, -1.5, -3.0, -2.25], [0.1, 0.2, 0.3, 0.3, 0.2, 0.1],
    [0.9, 0.99, 0.999999, 1e-5, 1e-30, 1.0 - 2**-24], [7.5, 9.9, 19.0, 25.0, 100.0, 700.0],
    [-0.9, -7.7, -20.3, -30.0, -0.6, -1e-7],
]  # fmt: skip


def numbers(h):
    """Whole numbers, some of them negative or the same."""
    return h.nan_to_num().clamp(-9, 9).int()


# Of rows of six numbers.
POSITIONS = {
    "argmax": lambda h: h.argmax(-1, keepdim=True),
    "argmax of whole numbers": lambda h: numbers(h).argmax(-1),
    "argmin": lambda h: h.argmin(-1),
    "argmin in front": lambda h: h.view(-1, 2, 3).argmin(1),
    "max": lambda h: h.max(-1, keepdim=True).values,
    "max indices": lambda h: h.max(-1).indices,
    "max of booleans": lambda h: (h > 0).max(-1).values,
    "max index of booleans": lambda h: (h > 0).max(-1).indices,
    "max of whole numbers": lambda h: numbers(h).to(torch.int8).max(-1).values,
    "min": lambda h: h.view(-1, 2, 3).min(1).values,
    "min indices": lambda h: h.view(-1, 2, 3).min(1).indices,
    "min of bytes": lambda h: numbers(h).clamp(0).to(torch.uint8).min(-1).values,
    "cummax": lambda h: h.cummax(-1).values,
    "cummax indices": lambda h: h.cummax(-1).indices,
    "cummin": lambda h: h.view(-1, 2, 3).cummin(1).values,
    "cummin indices": lambda h: h.cummin(-1).indices,
    "cummin of whole numbers": lambda h: numbers(h).cummin(-1).indices,
    "cummax of booleans": lambda h: (h > 0).cummax(-1).indices,
    "gather": lambda h: (2 * h).gather(-1, h.argmin(-1, keepdim=True)),
    "gather several": lambda h: h.gather(-1, (-h).cummax(-1).indices),
    "scatter": lambda h: (h * 2).scatter(-1, h.argmin(-1, keepdim=True), h[:, 2:3]),
    "scatter a number": lambda h: h.scatter(-1, h.view(-1, 2, 3).argmax(-1), 7.0),
    "scatter and add": lambda h: (h / 4).scatter_add(-1, h.view(-1, 3, 2).argmax(-1), h[:, 1:4] / 4 + 1),
    "one hot": lambda h: torch.zeros_like(h).scatter(-1, h.argmax(-1, keepdim=True), 1.0),
}
SHIFTS = torch.tensor([-1, 0, 1, 7, 8, 40])
VIEWS_AND_BITS = {
    "windows": lambda h: h.unfold(-1, 3, 2) * 2,
    "windows that overlap": lambda h: h.view(-1, 2, 3).unfold(2, 2, 1).unfold(1, 2, 1).exp().nan_to_num(1, 2, 3).clamp(-9, 9),
    "windows of a sum": lambda h: (h * 0.5).unfold(-1, 2, 1).sum(-1),
    "windows with gaps": lambda h: (h * 0.5).unfold(-1, 2, 4),
    "diagonal": lambda h: h.view(-1, 2, 3).diagonal_scatter(h[:, 2:4], 0, 1, 2),
    "diagonal below": lambda h: h.view(-1, 3, 2).diagonal_scatter(h[:, 2:4], -1, 1, 2),
    "diagonal above": lambda h: h.view(-1, 3, 2).diagonal_scatter(h[:, 2:3], 1, -2, -1),
    "angle": lambda h: h.angle(),
    "angle of whole numbers": lambda h: numbers(h).angle(),
    "rounded": lambda h: (h * 0.777).round(decimals=1),
    "rounded to tens": lambda h: (h * 7.77).round(decimals=-1),
    "sign of another": lambda h: torch.copysign(h, h.flip(-1)),
    "sign of a number": lambda h: torch.copysign(h, -0.0),
    "size of a number": lambda h: torch.copysign(torch.full_like(h, 2), h.detach()),
    "sign of whole numbers": lambda h: torch.copysign(numbers(h), numbers(h).flip(-1)),
    "shifted left": lambda h: numbers(h) << 2,
    "shifted right": lambda h: numbers(h) >> 1,
    "shifted in place": lambda h: numbers(h).clone().bitwise_left_shift_(3),
    **{
        f"shifted {side} by tensors of {dtype}": lambda h, side=side, dtype=dtype: getattr(torch, f"bitwise_{side}_shift")(
            numbers(h).to(dtype), SHIFTS.to(dtype)
        )
        for side in ("left", "right")
        for dtype in (torch.int64, torch.int8, torch.uint8)
    },
    "mantissa": lambda h: torch.frexp(h).mantissa,
    "exponent": lambda h: torch.frexp(h.detach()).exponent,
    "next number": lambda h: torch.nextafter(h, h.flip(-1)),
    "next small number": lambda h: torch.nextafter(h * torch.finfo(h.dtype).tiny, h.flip(-1) * 2),
    "number before": lambda h: torch.nextafter(h.detach(), torch.zeros(())),
    **{
        f"{name} of {dtype}": lambda h, name=name, dtype=dtype: getattr(torch, name)(
            (numbers(h) * 14).to(dtype), (numbers(h).flip(-1) * 6).to(dtype)
        )
        for name in ("gcd", "lcm")
        for dtype in (torch.int64, torch.int32, torch.int8, torch.uint8)
    },
    "gcd of the least": lambda h: torch.gcd(numbers(h) << 31, 2 * numbers(h).flip(-1)),
    "number shifted": lambda h: torch.bitwise_left_shift(3, numbers(h)),
}  # fmt: skip
special = torch.special
SPECIAL = {
    "erfinv": torch.erfinv,
    "ndtr": special.ndtr,
    "log_ndtr": special.log_ndtr,
    "ndtri": lambda h: special.ndtri(torch.where(h.abs() < 2, h, 0.3)),
    "erfcx": special.erfcx,
    "sgn": torch.sgn,
    "sgn of whole numbers": lambda h: numbers(h).sgn_(),
}
GAMMA_AND_ZETA = {
    "digamma": torch.digamma,
    "trigamma": lambda h: torch.polygamma(1, h.detach()),
    "digamma of order 0": lambda h: torch.polygamma(0, h.detach()),
    "digamma of whole numbers": lambda h: torch.digamma(numbers(h)),
    "derivatives of digamma": lambda h: torch.polygamma(2, h),
    "zeta": lambda h: special.zeta(((4 * h.detach()).round() / 2).clamp(max=9), h.flip(-1)),
    "zeta of a number": lambda h: special.zeta(3.0, h.detach()),
    "zeta at a number": lambda h: special.zeta(h.detach().abs(), 0.7),
    "zeta of whole numbers": lambda h: special.zeta(numbers(h), numbers(h).flip(-1)),
}
NOT_DIFFERENTIABLE = [
    "modified_bessel_i0", "modified_bessel_i1", "modified_bessel_k0", "modified_bessel_k1", "scaled_modified_bessel_k0",
    "scaled_modified_bessel_k1", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "spherical_bessel_j0", "airy_ai",
]  # fmt: skip
BESSEL = {
    "i0": torch.i0,
    "i0e": special.i0e,
    "i1": special.i1,
    "i1e": special.i1e,
    "bessel_j1": lambda h: special.bessel_j1(h.detach()),
    "airy_ai": lambda h: special.airy_ai(h.detach()),
}
MORE_BESSEL = {
    **{
        name: lambda h, name=name: getattr(special, name)(h.detach())
        for name in NOT_DIFFERENTIABLE
        if name not in BESSEL
    },
    "bessel_j0 of whole numbers": lambda h: special.bessel_j0(numbers(h)),
}
# Not of NaN, for which PyTorch returns what was in memory.
POLYNOMIALS = {
    name: lambda h, name=name: getattr(special, name)(0.7 * h.detach().nan_to_num().clamp(-2, 2), h.detach().flip(-1))
    for name in POLYNOMIALS.split()
} | {
    "chebyshev_polynomial_t of whole numbers": lambda h: special.chebyshev_polynomial_t(
        numbers(h), numbers(h).flip(-1)
    ),
    "of a degree too high for steps": lambda h: special.chebyshev_polynomial_w(
        h.detach().nan_to_num().clamp(-1, 1).round(), 1e9
    ),
    "of a high degree at ends": lambda h: special.legendre_polynomial_p(torch.where(h > 0, 1.0, -1.0).to(h.dtype), 1e5),
    "of a high degree at zero": lambda h: special.laguerre_polynomial_l(0 * h.detach().nan_to_num(), 1e5),
    "of too high a degree": lambda h: special.hermite_polynomial_he(h.detach(), 1e5),
    "degree of a number": lambda h: special.legendre_polynomial_p(0.3, h.detach()),
    "of one degree": lambda h: h * special.laguerre_polynomial_l(h.detach().nan_to_num().clamp(-9, 9), 3),
}
# What is left to PyTorch, which rounds it to half precision several times, or does not have it or its derivative.
NOT_IN_HALF = {
    "rounded", "rounded to tens", "next number", "next small number", "number before", "i1", "i1e", "log_ndtr", "erfcx", "ndtri",
    "zeta", "zeta of a number", "zeta at a number", *NOT_DIFFERENTIABLE, *POLYNOMIALS,
}  # fmt: skip
GROUPS = {
    "positions": POSITIONS, "views and bits": VIEWS_AND_BITS, "special functions": SPECIAL | POLYNOMIALS,
    "gamma and zeta": GAMMA_AND_ZETA, "Bessel functions": BESSEL, "more Bessel functions": MORE_BESSEL,
}  # fmt: skip


DTYPES = [("native", torch.float64), ("native", torch.float32), ("triton", torch.float32), ("triton", torch.bfloat16)]


@pytest.mark.parametrize(
    ("group", "backend", "dtype"),
    [
        pytest.param(
            group, *chosen, marks=() if chosen == DTYPES[0] and group != "more Bessel functions" else pytest.mark.slow
        )
        for group in GROUPS
        for chosen in DTYPES
    ],
)
@pytest.mark.cases(2)
@pytest.mark.slow
def test_values_and_gradients_are_those_of_pytorch(group, backend, dtype, request):
    if backend == "triton":
        request.getfixturevalue("interpreter")
    if group == "views and bits" and torch.__version__ < (2, 13):
        pytest.skip("before PyTorch 2.13, one of these has no derivative that a trace shows: refused")
    left_out = NOT_IN_HALF if dtype == torch.bfloat16 else ()
    functions = {name: function for name, function in GROUPS[group].items() if name not in left_out}
    rows = torch.tensor(ROWS, dtype=torch.float64).to(dtype)
    model = Apply(list(functions.values()), rows.shape[1]).to(dtype)
    model.backend = backend
    x = rows.repeat_interleave(2, 0)[:, None].repeat(1, len(functions), 1).requires_grad_()
    out = model([vf.chain(2)] * len(rows), x=x)
    explained = [line for line in model.explain().splitlines() if "core" in line]
    assert not [line for line in explained if "calls of PyTorch" in line]
    actual = [out[f"y{at}"][1::2] for at in range(len(functions))]
    given = [rows.clone().requires_grad_() for _ in functions]
    wanted = [function(one).reshape(len(rows), -1) for function, one in zip(functions.values(), given, strict=True)]
    for name, ours, theirs in zip(functions, actual, wanted, strict=True):
        assert_same(name, ours, theirs)
    if not any(one.requires_grad for one in wanted):  # PyTorch has no derivative of any
        assert not any(one.requires_grad for one in actual)
        return
    weighted(actual).backward()
    weighted(wanted).backward()
    for at, (name, one) in enumerate(zip(functions, given, strict=True)):
        if one.grad is not None:
            assert_same(f"gradient of {name}", x.grad[::2, at], one.grad)


class Apply(vf.VertexFunction):
    """The second vertex of a chain applies each function to numbers of its own in the state of the first: in its core."""

    def __init__(self, functions, width):
        sizes = [function(torch.zeros(1, width)).numel() for function in functions]
        super().__init__(state={"h": (len(functions), width), "results": sum(sizes)})
        self.functions = functions

    def vertex(self, v):
        h = v.gather(0).h
        results = [function(h[:, at]).reshape(h.shape[0], -1) for at, function in enumerate(self.functions)]
        v.scatter(h=v.pull("x"), results=torch.cat([result.to(h.dtype) for result in results], -1))
        v.push(**{f"y{at}": result for at, result in enumerate(results)})


def weighted(values):
    """A sum of all that has a gradient."""
    return sum((y * torch.linspace(0.5, 1.5, y.shape[1]).to(y.dtype)).sum() for y in values if y.requires_grad)


def assert_same(name, actual, expected):
    """To rounding, and zeros with their signs."""
    tolerances = {torch.float64: (1e-12, 1e-14), torch.float32: (1e-5, 1e-5)}
    close = dict(zip(("rtol", "atol"), tolerances.get(expected.dtype, ()), strict=False))
    torch.testing.assert_close(actual, expected, equal_nan=True, msg=lambda text: f"{name}: {text}", **close)
    if actual.is_floating_point():
        zeros = (expected == 0) & (actual.signbit() != expected.signbit())
        assert not zeros.any(), f"{name}: the sign of zero"


@pytest.mark.parametrize("backend", ["native", "triton"])
@pytest.mark.cases(1)
def test_positions_that_may_not_be_there_are_looked_up_by_pytorch(backend, request):
    """Which raises an error."""
    if backend == "triton":
        request.getfixturevalue("interpreter")

    def vertex(self, v):
        h = v.gather(0).h + v.pull("x")
        at = torch.cat([h, v.pull("more")], -1).argmax(-1, keepdim=True)
        v.scatter(h=torch.sigmoid(h) * torch.exp(-h) + h.gather(-1, at))
        v.push(h=h)

    model = FromCode(vertex, {"h": 2})
    model.backend = backend
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    model([vf.chain(2)], x=x, more=torch.zeros(2, 1))
    assert "calls of PyTorch in each step (aten.gather.default)" in model.explain()
    with pytest.raises(vf.VertexFlowError, match=r"index 2 is out of bounds(.|\n)*h\.gather\(-1, at\)"):
        model([vf.chain(2)], x=x, more=torch.full((2, 1), 100.0))


QUADRATIC = {
    "cumsum": lambda h: h.cumsum(-1),
    "cumprod": lambda h: h.cumprod(-1),
    "cummin": lambda h: h.cummin(-1).values,
    "gather": lambda h: h.gather(-1, h.argmax(-1, keepdim=True).expand(-1, h.shape[1])),
}


@pytest.mark.parametrize(("width", "are_called"), [(MOST_CUMULATED, False), (MOST_CUMULATED + 1, True)])
@pytest.mark.slow
def test_what_is_quadratic_in_loops_is_left_to_pytorch_where_it_is_wide(width, are_called):
    def vertex(self, v):
        h = torch.tanh(v.gather(0).h + v.pull("x"))
        v.scatter(h=torch.sigmoid(h) * torch.exp(-h) + sum(function(h) for function in QUADRATIC.values()))
        v.push(h=h)

    model = FromCode(vertex, {"h": width})
    model.backend = "native"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model([vf.chain(2)], x=torch.randn(2, width))
    (core,) = (line for line in model.explain().splitlines() if "core:" in line)
    assert [f"aten.{name}" in core for name in QUADRATIC] == [are_called] * len(QUADRATIC), core
    assert ("with calls of PyTorch in each step" in core) == are_called
