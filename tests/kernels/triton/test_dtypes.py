"""Numbers of several dtypes in one core: rounded where PyTorch rounds them, and bits that are made of single numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vertexflow as vf

from ...models import FromCode
from ...reference import run_reference

pytestmark = pytest.mark.usefixtures("interpreter")

SIZE = 6
EDGES = [(0, 2, 0), (1, 2, 1), (2, 4, 0), (3, 4, 1), (4, 5, 1)]
HALF = [torch.float16, torch.bfloat16]
GIVEN = [torch.float32, *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in (torch.float64, *HALF))]


class Cell(vf.VertexFunction):
    """Applies a function of itself, of the children's sum and of the input."""

    def __init__(self, function, dtype, state_dtype=None):
        super().__init__(state={"h": SIZE}, state_dtype=state_dtype)
        torch.manual_seed(0)
        self.function, self.linear = function, nn.Linear(SIZE, SIZE)
        self.register_buffer("third", torch.tensor(1 / 3))
        self.register_buffer("nought", torch.tensor(0.0))
        self.register_buffer("ones", torch.ones(1, 1))
        self.to(dtype)
        for name, value in (("count", 2), ("byte", 1), ("yes", True), ("no", [False])):
            kind = {"byte": torch.uint8}.get(name)
            self.register_buffer(name, torch.tensor(value, dtype=kind))

    def vertex(self, v):
        result = self.function(self, v.gather(0).h + v.gather(1).h, v.pull("x"))
        v.push(result=result)
        v.scatter(h=torch.tanh(result.to(torch.float64)).to(self.linear.weight.dtype))


def both(function, dtype):
    """What the kernels give, and plain PyTorch for each vertex: the result, and gradients of the input and of a weight."""
    results = []
    for run in (kernels, plain):
        model = Cell(function, dtype)
        x = torch.randn(6, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        x = x.to(dtype).requires_grad_()
        result = run(model, x)
        leaves = [x, model.linear.weight]
        grads = torch.autograd.grad(result.double().square().sum(), leaves, allow_unused=True)
        results.append(
            [result, *(g if g is not None else torch.zeros_like(x) for x, g in zip(leaves, grads, strict=True))]
        )
    return results


def by_triton(model, x):
    model.backend = "triton"
    graph = vf.graph(6, [edge[:2] for edge in EDGES], slots=[edge[2] for edge in EDGES])
    return model(vf.pack([graph]), x=x)


def kernels(model, x):
    result = by_triton(model, x).result
    assert "core: Triton kernels" in model.explain(), model.explain()
    return result


def plain(model, x):
    return run_reference(model, 6, EDGES, {"x": x})["result"]


def through(dtype):
    """Operations that are rounded right, in this dtype."""

    def function(cell, h, x):
        a, b = h.to(dtype), (x * 3).to(dtype)
        c = torch.where(b > 0.25, a * b + b, b / 3 - a)
        d = torch.cat([c[:, :2] * 1.37, torch.maximum(a, c)[:, 2:]], -1) / (1.5 + b * b)
        return torch.cat(d.chunk(2, -1)[::-1], -1) + d.float()

    return function


@pytest.mark.parametrize("dtype", GIVEN, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("inner", HALF, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.cases(1)
def test_each_operation_in_half_precision_is_rounded(inner, dtype):
    """To the same bits, where PyTorch's own are certain."""
    actual, expected = both(through(inner), dtype)
    assert actual[0].dtype == expected[0].dtype
    assert torch.equal(actual[0], expected[0])
    close = 1e-2 if dtype in HALF else 1e-4
    torch.testing.assert_close(actual[1], expected[1], rtol=close, atol=close)


@pytest.mark.parametrize("given", [torch.float32, torch.float64], ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("inner", HALF, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.cases(1)
def test_a_cast_to_half_precision_rounds_to_the_nearest_of_two_the_even_one(inner, given):
    step = torch.finfo(inner).eps
    x = torch.tensor([1 + step / 2, 1 + 1.5 * step, 1 + step / 2 * 1.01, 3e38, 1e-30, float("nan")], dtype=given)
    model = Cell(lambda cell, h, x: (x + 0 * h).to(inner), given)
    actual, expected = kernels(model, x.expand(6, SIZE)), x.to(inner).expand(6, SIZE)
    assert actual.dtype == inner
    assert torch.equal(actual[:2, :5], expected[:2, :5])
    assert actual[:, 5].isnan().all()


TAKEN_APART = {
    "softmax": lambda cell, h, x: F.softmax(h + x, -1),
    "log softmax": lambda cell, h, x: F.log_softmax(h + x, -1),
    "layer norm": lambda cell, h, x: F.layer_norm(h + x, [SIZE]),
    "group norm": lambda cell, h, x: F.group_norm(h + x, 2),
    "mean": lambda cell, h, x: (h + x).mean(-1, keepdim=True) + 0 * x,
    "deviation": lambda cell, h, x: (h + x).std(-1, keepdim=True) + 0 * x,
    "gelu": lambda cell, h, x: F.gelu(h + x),
    "mish": lambda cell, h, x: F.mish(h + x),
    "sum so far": lambda cell, h, x: (h + x).cumsum(-1),
}
SLOW, ALIKE = pytest.mark.slow, {"log softmax", "group norm", "deviation", "mish"}  # others say the same


@pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float16, marks=pytest.mark.slow), torch.bfloat16], ids=lambda dtype: str(dtype)[6:]
)
@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW if name in ALIKE else ()) for name in TAKEN_APART])
@pytest.mark.cases(1)
def test_what_is_taken_apart_is_rounded_once(name, dtype):
    """All of it is in float32, as it is inside of PyTorch's kernels."""
    actual, expected = both(TAKEN_APART[name], dtype)
    unit = torch.finfo(dtype).eps
    assert actual[0].dtype == dtype
    torch.testing.assert_close(actual[0], expected[0], rtol=unit, atol=unit / 4)
    for one, other in zip(actual[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=8 * unit, atol=8 * unit)


WIDER = {
    "float32 in half": lambda cell, h, x: cell.linear((h.float() * 1.001 + 1).sum(-1, keepdim=True).to(x.dtype) + x),
    "a float32 value that a product of float32 reads": lambda cell, h, x: (
        F.linear(torch.sin(h.float() + x).float(), cell.linear.weight.float()) * 0.5
    ),
    "float64 in less": lambda cell, h, x: (h.double() * 1.0000001 + x).sum(-1, keepdim=True) + x / 3,
    "less in float64": lambda cell, h, x: (h.float() / 3).double() + (x.float() * h.float()).mean(-1, keepdim=True),
    "softmax": lambda cell, h, x: F.softmax(h.float() + 1, -1) + F.softmax(x, -1, dtype=torch.float64),
    "joined": lambda cell, h, x: torch.cat([h.float()[:, :2] / 3, x.double()[:, 2:]], -1) / 3,
    "single numbers": lambda cell, h, x: (h + x) * cell.third.double() + h * cell.third.float(),
    "bits": lambda cell, h, x: (h > 0).to(x.dtype) / 3 + (x > cell.third.double()) * x + (h > 0).float(),
}


CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.mark.parametrize(
    "dtype",
    [
        *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in (torch.float32, torch.float64, torch.float16)),
        torch.bfloat16,
    ],
    ids=lambda dtype: str(dtype)[6:],
)
@pytest.mark.parametrize("name", WIDER)
@pytest.mark.cases(2)
def test_wider_and_narrower_values_beside_each_other(name, dtype):
    actual, expected = both(WIDER[name], dtype)
    assert actual[0].dtype == expected[0].dtype
    for one, other in zip(actual, expected, strict=True):
        # The results have the digits of their own dtype, though float32 may have been on the way to them; of gradients, the
        # dtype of the states is on the way, too.
        close = max(CLOSE[kind] for kind in (one.dtype, torch.float32, *([dtype] if one is not actual[0] else [])))
        torch.testing.assert_close(one, other, rtol=close, atol=close)


SINGLE = ("third", "nought", "ones", "count", "byte", "yes", "no")
BITS = {
    "of numbers": lambda cell, h, x: [
        operation(h, getattr(cell, name)) for operation in (torch.logical_and, torch.logical_or) for name in SINGLE
    ],
    "of bits": lambda cell, h, x: [
        operation(h > 0, getattr(cell, name))
        for operation in (torch.logical_and, torch.eq, torch.gt, torch.bitwise_and, torch.mul, torch.maximum)
        for name in ("yes", "no")
    ],
    "compared": lambda cell, h, x: [
        operation(value, getattr(cell, name)) for operation in (torch.eq, torch.ge) for name in SINGLE for value in (h, h > 0)
    ],
    "arithmetic": lambda cell, h, x: [
        operation(h, getattr(cell, name)) for operation in (torch.add, torch.mul, torch.maximum) for name in SINGLE
    ],
    "without a kernel": lambda cell, h, x: [
        operation(h > 0, getattr(cell, name))
        for operation in (torch.logical_xor, torch.bitwise_xor, torch.bitwise_or, torch.mul)
        for name in ("yes", "no", "count", "byte")
    ],
    "not": lambda cell, h, x: [torch.logical_not(h) | torch.logical_not(cell.nought), ~(h > 0) & cell.yes],
    "of two single numbers": lambda cell, h, x: [(h > 0) & ((cell.third > 0) & (cell.count < 3))],
    "choices": lambda cell, h, x: [
        torch.where(cell.yes, h, cell.third), torch.where(h > 0, cell.third, cell.count),
        torch.where(torch.logical_or(cell.no, h > 0), cell.third, h), h.masked_fill(cell.no, 2.0),
        x.masked_fill(h > cell.third, 0.5),
    ],
    "Python's": lambda cell, h, x: [(h > 0) == True, (h > 0) > 0.5, h.bool() ^ True, (h > 0) & 1],  # noqa: E712
    "sums of bits": lambda cell, h, x: [(h > 0).sum(-1, keepdim=True) + x, (h > 0).any(-1, keepdim=True) + x],
    "the largest bit": lambda cell, h, x: [(h > 0).amax(-1, keepdim=True) | (h > 0)],
}  # fmt: skip


class Bits(Cell):
    """Pushes each of the results of a function, and scatters something else."""

    def vertex(self, v):
        h, x = v.gather(0).h + v.gather(1).h, v.pull("x")
        for number, result in enumerate(self.function(self, h, x)):
            v.push(**{f"result{number}": result})
        v.scatter(h=torch.tanh(h + x) + sum(result.to(x.dtype) for result in self.function(self, h, x)) / 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", BITS)
def test_bits_and_integers_with_single_numbers(name):
    model, x = Bits(BITS[name], torch.float64), torch.randn(6, SIZE, dtype=torch.float64)
    actual, expected = by_triton(model, x), run_reference(model, 6, EDGES, {"x": x})
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-12, atol=1e-12)


def test_states_of_integers_and_booleans_are_exact():
    """Beside one of real numbers; by slots and over edges."""

    def vertex(self, v):
        left, kids = v.gather(0), v.children
        n = v.pull("n") + left.n * 3 + v.gather(1).n // 2
        byte = (left.byte - 7) ^ v.pull("n").to(torch.uint8)
        deep = left.deep | (v.pull("x") > 0)
        h = torch.where(deep, left.h, v.pull("x")) + n.remainder(5).to(self.scale.dtype) * self.scale
        v.scatter(h=h, n=n, byte=byte, deep=deep)
        v.push(h=h, n=n, byte=byte, deep=deep, most=v.sum(kids.n) + v.max(kids.n), any=v.max(kids.deep))

    state = {"h": SIZE, "n": SIZE, "byte": SIZE, "deep": SIZE}
    x = torch.randn(6, SIZE, dtype=torch.float64, requires_grad=True)
    n = torch.arange(6 * SIZE).view(6, SIZE) + 2**60
    graph = vf.graph(6, [edge[:2] for edge in EDGES], slots=[edge[2] for edge in EDGES])
    results = {}
    for backend in ("eager", "triton"):
        model = FromCode(vertex, state, scale=nn.Parameter(torch.full((), 0.5, dtype=torch.float64)))
        model.state_dtype = {"h": torch.float64, "n": torch.int64, "byte": torch.uint8, "deep": torch.bool}
        model.backend = backend
        out = model(vf.pack([graph]), x=x, n=n)
        results[backend] = [*out.values(), *torch.autograd.grad(out.h.square().sum(), [x, model.scale])]
    assert "core: calls of PyTorch" not in model.explain(), model.explain()
    for one, other in zip(results["triton"], results["eager"], strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
