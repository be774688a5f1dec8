"""Generated code at the edges of floating point: zeros with signs, infinities, NaN, the smallest and the largest numbers."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F

import vertexflow as vf
from vertexflow.kernels.lower.pointwise import POINTWISE
from vertexflow.kernels.triton import is_available

from ..models import FromCode


@pytest.fixture(autouse=True)
def optimised(monkeypatch):
    """Code as users get it."""
    monkeypatch.delenv("VERTEXFLOW_CXXFLAGS", raising=False)


INF, NAN = float("inf"), float("nan")

# Of a number, and of another one.
FUNCTIONS = {
    "add": lambda a, b: a + b,
    "add alpha": lambda a, b: torch.add(a, b, alpha=-1),
    "sub": lambda a, b: a - b,
    "rsub": lambda a, b: 2 - a,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "scalars": lambda a, b: (a + 2) / 3,
    "neg": lambda a, b: -a,
    "reciprocal": lambda a, b: a.reciprocal(),
    **{f"pow {e}": lambda a, b, e=e: a**e for e in (-3, -2, -1, -0.5, 0.5, 1.5, 2, 3, 5, 13)},
    "sqrt": lambda a, b: a.sqrt(),
    "root of nothing": lambda a, b: (a * b - b * a).sqrt(),
    "rsqrt": lambda a, b: a.rsqrt(),
    "abs": lambda a, b: a.abs(),
    "exp": lambda a, b: a.exp(),
    "log": lambda a, b: a.log(),
    "sin": lambda a, b: a.sin(),
    "cos": lambda a, b: a.cos(),
    "erf": lambda a, b: a.erf(),
    "sigmoid": lambda a, b: a.sigmoid(),
    "tanh": lambda a, b: a.tanh(),
    "relu": lambda a, b: a.relu(),
    "silu": lambda a, b: F.silu(a),
    "maximum": lambda a, b: torch.maximum(a, b),
    "minimum": lambda a, b: torch.minimum(a, b),
    "clamp": lambda a, b: a.clamp(-2, 3),
    "clamp crossed": lambda a, b: a.clamp(3, -2),
    "clamp nan": lambda a, b: a.clamp(NAN, 3),
    "clamp least": lambda a, b: a.clamp(min=-0.5),
    "clamp most": lambda a, b: a.clamp(max=0.5),
    "clamp infinite": lambda a, b: a.clamp(-INF, INF),
    "masked": lambda a, b: a.masked_fill(b > 1, -INF),
    "where": lambda a, b: torch.where((a > b) | ~(a <= b), a, b),
    "where scalar": lambda a, b: torch.where((a >= 0) & (b < 1), a, -INF),
    "compared": lambda a, b: ((a == b) | (a != 1)).to(a.dtype) + (a != b).to(a.dtype) * 2,
    "logical": lambda a, b: torch.where(a.logical_not() | torch.logical_and(a, b) | torch.logical_or(a, b), b, a),
    "mask of nan": lambda a, b: a.to(torch.bool).to(a.dtype),
}  # fmt: skip


def _no_nan(a):
    """PyTorch's kernels have no rule for the gradient at NaN."""
    return torch.where(a.isnan(), 0.5, a)


def _not_tiny(b):
    return torch.where((b == 0) | ~(b.abs() < 1e-30), b, 0.7)


POLYNOMIALS = """chebyshev_polynomial_t chebyshev_polynomial_u chebyshev_polynomial_v chebyshev_polynomial_w
shifted_chebyshev_polynomial_t shifted_chebyshev_polynomial_u shifted_chebyshev_polynomial_v shifted_chebyshev_polynomial_w
hermite_polynomial_h hermite_polynomial_he laguerre_polynomial_l legendre_polynomial_p"""
_UNARY = (
    "exp2 expm1 log2 log10 log1p tan asin acos atan asinh acosh atanh erfc floor ceil trunc round sign "
    "isnan isinf signbit"
)
MORE_FUNCTIONS = {
    **{name: lambda a, b, name=name: getattr(torch, name)(a).to(a.dtype) for name in _UNARY.split()},
    # PyTorch's own numbers are wrong for hyperbolic functions beyond 88, remainders of the smallest numbers, GELU far below 0.
    "sinh": lambda a, b: torch.sinh(a.clamp(-88, 88)),
    "cosh": lambda a, b: torch.cosh(a.clamp(-88, 88)),
    "gelu": lambda a, b: F.gelu(a.clamp(-0.5, 1e3)),
    "gelu tanh": lambda a, b: F.gelu(a.clamp(-0.5, 1e3), approximate="tanh"),
    "pow": lambda a, b: torch.pow(a.clamp(0.1, 9.0), b.clamp(-3, 3)),
    "power of two": lambda a, b: 2**a,
    "atan2": lambda a, b: torch.atan2(a, b),
    "hypot": lambda a, b: torch.hypot(a, b),
    "copysign": lambda a, b: torch.copysign(a, b),
    "fmod": lambda a, b: torch.fmod(a.clamp(-50, 50), _not_tiny(b)),
    "fmod of a number": lambda a, b: torch.fmod(a.clamp(-50, 50), 0.3),
    "remainder": lambda a, b: torch.remainder(a.clamp(-50, 50), _not_tiny(b)),
    "remainder of a number": lambda a, b: a.clamp(-50, 50) % 0.75,
    "floor of a quotient": lambda a, b: torch.div(a.clamp(-50, 50), _not_tiny(b).detach(), rounding_mode="floor"),
    "quotient cut": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "bounds of tensors": lambda a, b: torch.clamp(a, b, b + 1),
    "bits": lambda a, b: ((a > 1) ^ (b > 1)).to(a.dtype) + ((a > b) & True).to(a.dtype) * 2,
    "exclusive": lambda a, b: torch.logical_xor(a, b).to(a.dtype),
    "gcd": lambda a, b: torch.gcd((a * 8).clamp(-99, 99).nan_to_num().int(), b.clamp(-12, 12).nan_to_num().int()).to(
        a.dtype
    ),
    "lcm": lambda a, b: torch.lcm((a * 8).clamp(-99, 99).nan_to_num().int(), b.clamp(-12, 12).nan_to_num().int()).to(
        a.dtype
    ),
    **{
        name: lambda a, b, name=name: getattr(torch.special, name)(
            a.detach().nan_to_num().clamp(-3, 3).round(), 2 * b.detach()
        )
        for name in POLYNOMIALS.split()
    },
    "whole numbers": lambda a, b: ((a.clamp(-9, 9).nan_to_num().int() & 6) | 1).to(a.dtype),
    "shifts": lambda a, b: (
        ((a.clamp(-9, 9).nan_to_num().int() << 2) >> 1).bitwise_left_shift(1).bitwise_right_shift(2).to(a.dtype)
    ),
    "leaky": lambda a, b: F.leaky_relu(a, 0.1),
    "elu": lambda a, b: F.elu(_no_nan(a)),
    "selu": lambda a, b: F.selu(_no_nan(a)),
    "softplus": lambda a, b: F.softplus(a),
    "hardswish": lambda a, b: F.hardswish(_no_nan(a)),
    "hardsigmoid": lambda a, b: F.hardsigmoid(a),
    "hardtanh": lambda a, b: F.hardtanh(_no_nan(a)),
    "logsigmoid": lambda a, b: F.logsigmoid(a),
    "softsign": lambda a, b: F.softsign(a),
    "hardshrink": lambda a, b: F.hardshrink(_no_nan(a)),
    "mish": lambda a, b: F.mish(a),
    "lgamma": lambda a, b: torch.lgamma(a.detach()),
    "lerp": lambda a, b: torch.lerp(a, b, 0.25),
    "addcmul": lambda a, b: torch.addcmul(a, b.clamp(-9, 9), b.clamp(-9, 9), value=0.5),
}


@pytest.fixture(autouse=True)
def _without_onednn():
    """PyTorch's own kernels are compared with: oneDNN's GELU of small numbers loses the sign of zero on CPUs without AVX512."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32")  # of GPUs that are not there
        with torch.backends.mkldnn.flags(enabled=False):
            yield


# Of two masks.
MASKS = {
    "number": lambda m, n: m.float() * 2 + m.float(),
    "sum": lambda m, n: (m.float() + m.float()) + (m + n).float(),
    "scaled": lambda m, n: m * 3.0 - n * 0.5,
    "product": lambda m, n: (m * n).float(),
    "quotient": lambda m, n: m / (n + 1.0),
    "by zero": lambda m, n: m / n,
    "inverted": lambda m, n: (~m).float() + m.logical_not().float(),
    "compared": lambda m, n: (m > n).float() + 2 * (m == n).float() + 4 * (m <= n).float() + 8 * (m != True).float(),  # noqa: E712
    "larger": lambda m, n: torch.maximum(m, n).float() + 2 * torch.minimum(m, n).float(),
    "chosen": lambda m, n: torch.where(m, 2.0, 3.0) + torch.where(m, n, ~n).float() + torch.where(n, m, 0.5),
    "functions": lambda m, n: m.exp() + n.sigmoid() + m.sqrt(),
    "logical": lambda m, n: torch.logical_or(m, n).float() * 2 + torch.logical_and(m.float(), n.float()).float(),
    "count": lambda m, n: m.float().sum(-1, keepdim=True) + m.float(),
}


def special(dtype: torch.dtype) -> torch.Tensor:
    info = torch.finfo(dtype)
    smallest = torch.nextafter(torch.zeros((), dtype=dtype), torch.ones((), dtype=dtype)).item()
    overflow = [88.0, 88.5, 89.0, 103.5, 104.5] if dtype == torch.float32 else [709.0, 710.0, 745.0, 746.0]
    sizes = [
        0.0,
        INF,
        info.max,
        info.tiny,
        info.tiny / 4,
        smallest,
        *overflow,
        1e-38,
        1e38,
        1e-20,
        0.3,
        0.5,
        0.7,
        1,
        3,
        10,
    ]
    return torch.tensor([NAN, *sizes, *(-size for size in sizes)], dtype=dtype)


def assert_same(
    ours: torch.Tensor, pytorch: torch.Tensor, exact: torch.Tensor, allowed: float, names: list[str]
) -> None:
    """NaN where PyTorch has NaN, the same infinities and zeros, else `allowed` units in the last place from PyTorch's number,
    or from the exact one."""
    unit, tiny = torch.finfo(ours.dtype).eps, torch.finfo(ours.dtype).tiny

    def near(wanted: torch.Tensor) -> torch.Tensor:
        wanted = wanted.double()
        return (ours.double() - wanted).abs() <= allowed * unit * wanted.abs() + tiny

    same = (ours.isnan() & pytorch.isnan()) | (ours == pytorch) | (near(pytorch) | near(exact)) & pytorch.isfinite()
    same &= (ours != 0) | (pytorch != 0) | (ours.signbit() == pytorch.signbit())
    wrong = [(names[at], row, ours[row, at].item(), pytorch[row, at].item()) for row, at in (~same).nonzero().tolist()]
    assert not wrong, f"(function, row, ours, PyTorch's): {len(wrong)} of {ours.numel()}, such as {wrong[:40]}"


class Apply(vf.VertexFunction):
    """The second vertex of each chain applies each function to numbers of its own in the state of the first: in its core."""

    def __init__(self, functions, backend):
        super().__init__(state={"numbers": 2 * len(functions), "results": len(functions)}, backend=backend)
        self.functions = functions

    def vertex(self, v):
        numbers = v.gather(0).numbers.split(1, -1)
        results = torch.cat([function(*numbers[2 * at : 2 * at + 2]) for at, function in enumerate(self.functions)], -1)
        v.scatter(numbers=v.pull("numbers"), results=results)
        v.push(results=results)


def pairs(dtype):
    others = torch.tensor(
        [NAN, INF, -INF, 0.0, -0.0, torch.finfo(dtype).max, -torch.finfo(dtype).tiny, -1.5, 3.0], dtype=dtype
    )
    return torch.cartesian_prod(special(dtype), others)


def by_pytorch(functions, x, upstream):
    """The values of all functions of pairs of numbers, and their gradients times `upstream`, by autograd."""
    values, slopes = [], []
    for function, grad in zip(functions, upstream, strict=True):
        a, b = (x[:, at : at + 1].clone().requires_grad_() for at in range(2))
        value = function(a, b)
        values.append(value.detach())
        grads = (
            torch.autograd.grad(value, (a, b), grad.expand_as(value), allow_unused=True) if value.requires_grad else ()
        )
        slopes += [torch.zeros_like(a) if grad is None else grad for grad in grads or (None, None)]
    return torch.cat(values, 1), torch.cat(slopes, 1)


BACKENDS = [("native", torch.float32), ("native", torch.float64), ("triton", torch.float32)]


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "dtype"), BACKENDS)
def test_functions_and_their_gradients_are_those_of_pytorch(backend, dtype):
    if backend == "triton" and not is_available():
        pytest.skip("no Triton")
    functions = FUNCTIONS | MORE_FUNCTIONS
    names = list(functions)
    x = pairs(dtype)
    given = torch.zeros(2 * len(x), 2 * len(names), dtype=dtype)
    given[::2] = x.repeat(1, len(names))
    given.requires_grad_()
    model = Apply(list(functions.values()), backend)
    results = model([vf.chain(2)] * len(x), numbers=given).results[1::2]
    assert "core: calls of PyTorch" not in model.explain()
    upstream = torch.linspace(0.5, 1.5, len(names), dtype=dtype)
    (grads,) = torch.autograd.grad((results * upstream).sum(), given)
    expected, slopes = by_pytorch(functions.values(), x, upstream)
    exact, exact_slopes = by_pytorch(functions.values(), x.double(), upstream.double())
    allowed = 8 if backend == "native" else 32  # the interpreter has no fused products
    assert_same(results.detach(), expected, exact, allowed, names)
    assert_same(grads[::2], slopes, exact_slopes, allowed, [f"gradient of {name}" for name in names for _ in range(2)])
    seen = {node.target for node in model.symbolic_graph.programs["vertex"].trace.graph.nodes}
    packets = {operator.overloadpacket for operator in seen if hasattr(operator, "overloadpacket")}
    missing = {operator.overloadpacket for operator in POINTWISE} - packets - {torch.ops.aten.square}  # a power
    assert not missing, sorted(map(str, missing))


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "dtype"), [BACKENDS[0], BACKENDS[2], ("triton", torch.float64)])
def test_booleans_become_numbers_and_count_as_such(backend, dtype):
    if backend == "triton" and not is_available():
        pytest.skip("no Triton")

    def vertex(self, v):
        a, b = v.gather(0).pair.split(1, -1)
        results = torch.cat([function(a > 0, b > 0).to(a.dtype) for function in MASKS.values()], -1)
        v.scatter(pair=v.pull("pair"), results=results, masks=torch.cat([a > 0, b > 0], -1).to(a.dtype))
        v.push(results=results, both=(a > 0) & (b > 0))

    pair = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=dtype)
    given = torch.zeros(8, 2, dtype=dtype)
    given[::2] = pair
    model = FromCode(vertex, {"pair": 2, "results": len(MASKS), "masks": 2})
    model.backend = backend
    with torch.no_grad():
        out = model([vf.chain(2)] * 4, pair=given)
    m, n = pair[:, :1] > 0, pair[:, 1:] > 0
    expected = torch.cat([function(m, n).to(dtype) for function in MASKS.values()], 1)
    torch.testing.assert_close(out.results[1::2], expected, equal_nan=True)
    assert torch.equal(out.both[1::2], m & n)
    assert "core: calls of PyTorch" not in model.explain()


ROWS = [
    [1.0, 2.0, NAN, -1.0, 0.0], [NAN, -INF, INF, 3.0, -3.0], [NAN] * 5, [-INF] * 5, [INF, 1.0, 2.0, -1.0, 0.5],
    [1.0, -INF, -0.0, 0.0, 2.0], [-INF, INF, 0.0, 1.0, 2.0], [3e38, 3e38, 1.0, -3e38, 0.0],
]  # fmt: skip


@pytest.mark.parametrize("width", [5, 3, 300])  # in registers, one by one, in several pieces
@pytest.mark.slow
def test_reductions_over_a_row_of_infinities_and_nan(width):

    def reduced(h):
        masks = [(h > 0).any(-1, keepdim=True).to(h.dtype), (h < 3).all(-1, keepdim=True).to(h.dtype)]
        totals = [f(-1, keepdim=True) for f in (h.amax, h.amin, h.sum, h.prod, h.mean, h.logsumexp)]
        return torch.cat([*totals, *masks, h.softmax(-1)[:, :3], h.log_softmax(-1)[:, :3]], -1)

    def vertex(self, v):
        results = reduced(v.gather(0).h)
        v.scatter(h=v.pull("x"), results=results)
        v.push(results=results)

    rows = torch.tensor(ROWS)
    x = torch.cat([rows, rows[:, :1].expand(-1, max(width - 5, 0))], 1)[:, :width].flip(1).contiguous()
    model = FromCode(vertex, {"h": width, "results": 14})
    for model.backend in ("native", "triton") if is_available() else ("native",):
        actual = model([vf.chain(2)] * len(x), x=x.repeat_interleave(2, 0)).results[1::2]
        assert "core: calls of PyTorch" not in model.explain(), model.explain()
        torch.testing.assert_close(actual, reduced(x), equal_nan=True, msg=lambda text: f"{model.backend}: {text}")


@pytest.mark.parametrize("backend", ["torch", "native", "triton"])
@pytest.mark.cases(2)
def test_reductions_over_children_of_infinities_and_nan(backend):
    """What is not a number stays in its sample, and the rest is as over one tensor of all children."""
    if backend == "triton" and not is_available():
        pytest.skip("no Triton")

    def vertex(self, v):
        kids = v.children
        results = torch.cat([v.max(kids.h), v.sum(kids.h), v.mean(kids.h), v.sum(v.softmax(kids.h) * kids.b)], -1)
        v.scatter(h=v.pull("x"), b=v.pull("b"), results=results)
        v.push(results=results)

    families = [[1.0, -INF, 2.0], [-INF, -INF], [NAN, 1.0], [INF, 1.0], [INF, -INF], [0.5, 0.5], [3.0e38, 3.0e38], []]
    graphs = [vf.graph(len(kids) + 1, [(at, len(kids)) for at in range(len(kids))]) for kids in families]
    x = torch.tensor([[value] for kids in families for value in [*kids, 0.0]], requires_grad=True)
    b = torch.linspace(1, 2, len(x)).unsqueeze(-1)
    model = FromCode(vertex, {"h": 1, "b": 1, "results": 4})
    model.backend = backend
    batch = vf.pack(graphs)
    actual = model(batch, x=x, b=b).results[batch.roots]
    expected, start = [], 0
    for kids in families:
        h, beside = x[start : start + len(kids)], b[start : start + len(kids)]
        start += len(kids) + 1
        each = [h.amax(0), h.sum(0), h.mean(0), (h.softmax(0) * beside).sum(0)] if kids else [torch.zeros(1)] * 4
        expected.append(torch.cat(each))
    torch.testing.assert_close(actual, torch.stack(expected), equal_nan=True)
    ours, wanted = (torch.autograd.grad(y.sum(), x)[0] for y in (actual, torch.stack(expected)))
    torch.testing.assert_close(ours, wanted, equal_nan=True)


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_the_zeros_of_missing_children_meet_infinities_as_pytorch_does(backend):
    def results(h, x):
        sums = [
            h * INF,
            h * NAN,
            h / 0,
            torch.mul(h, -INF),
            h.masked_fill(h == 0, INF),
            (h + x) * 0,
            h * x,
            h - INF,
            h**-1,
        ]
        return torch.cat(
            [*sums, h.log(), 0 * h.log(), h.softmax(-1), (h + 1).reciprocal(), torch.where(h == 0, 1.0, x * 0)], -1
        )

    def vertex(self, v):
        r = results(v.gather(0).h, v.pull("x"))
        v.scatter(h=v.pull("x"), r=r)
        v.push(r=r)

    x = torch.tensor([[INF], [NAN], [2.0]])
    model = FromCode(vertex, {"h": 1, "r": 14})
    model.backend = backend
    actual = model([vf.chain(1)] * 3, x=x).r
    torch.testing.assert_close(actual, results(torch.zeros(3, 1), x), equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "native", "eager"])
def test_the_gradient_of_a_maximum_that_is_nan_is_nan(backend):
    """As `Tensor.amax` has it, for the children of that vertex only."""

    def vertex(self, v):
        h = v.pull("x") + v.max(v.children.h)
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 2})
    model.backend = backend
    x = torch.tensor([[NAN, 1], [NAN, NAN], [2, 2], [3, 2], [0, 0], [0, 0]], dtype=torch.float64, requires_grad=True)
    batch = vf.pack([vf.graph(6, [(0, 4), (1, 4), (2, 5), (3, 5)])])
    (grad,) = torch.autograd.grad(model(batch, x=x).h[batch.roots].sum(), x)
    expected = [torch.autograd.grad(x[some].amax(0).sum(), x)[0][some] for some in ([0, 1], [2, 3])]
    torch.testing.assert_close(grad, torch.cat([*expected, torch.ones(2, 2).double()]), equal_nan=True)
    values = x.detach()[:4].clone().requires_grad_()
    readout = vf.pack([vf.graph(2, []), vf.graph(2, [])]).max(values)
    torch.testing.assert_close(torch.autograd.grad(readout.sum(), values)[0], torch.cat(expected), equal_nan=True)
