"""Functions of PyTorch that are traced in other words give what PyTorch gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vertexflow as vf

from ...models import FromCode
from ...versions import GENERATORS

GRAPHS = [vf.tree(((0, 1), 2)), vf.chain(3)]
ROWS = 8


def model_of(function, **parts):
    """A model of `function(self, h)` at each vertex."""

    def vertex(self, v):
        h = v.pull("x") + v.gather(0).h + v.gather(1).h
        h = function(self, h)
        v.scatter(h=h)
        v.push(h=h)

    return FromCode(vertex, {"h": 4}, **parts)


def run(model, backend, inputs):
    """Outputs, and gradients of the inputs and parameters."""
    model.backend = backend
    x = inputs.clone().requires_grad_()
    h = model(GRAPHS, x=x).h
    grads = torch.autograd.grad(h.square().sum(), [x, *model.parameters()], allow_unused=True)
    return [h.detach(), *grads]


def agree(function, inputs, backends=("torch", "native"), **parts):
    model = model_of(function, **parts)
    expected = run(model, "eager", inputs)
    for backend in backends:
        torch.testing.assert_close(run(model, backend, inputs), expected)


@pytest.fixture
def x():
    return torch.randn(ROWS, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "function",
    [
        lambda self, h: torch.take_along_dim(h, h.argsort(-1), dim=-1),
        lambda self, h: h + h.take_along_dim(h.argmax(1, keepdim=True), 1),
        lambda self, h: h + torch.take_along_dim(h, torch.tensor([[0, -1, 3, 2]]), 1),
        lambda self, h: h + torch.take_along_dim(self.p[None], h.argsort(-1), 1),
        lambda self, h: torch.take_along_dim(h[:, None], h.argsort(-1)[:, None].expand(-1, 3, -1), 2).sum(1),
    ],
    ids=["sorted", "largest", "constant", "of a parameter", "broadcast"],
)  # fmt: skip
@pytest.mark.cases(2)
def test_take_along_dim(function, x):
    agree(function, x, p=nn.Parameter(torch.randn(4, dtype=torch.float64)))


@pytest.mark.parametrize(
    "function",
    [
        lambda self, h: h + torch.sgn(input=h),
        lambda self, h: h * h.clone().sgn_(),
        lambda self, h: h + torch.view_as_real(torch.sgn(torch.complex(h[:, :2], h[:, 2:]))).flatten(1),
    ],
    ids=["real", "in place", "complex"],
)
@pytest.mark.cases(2)
def test_signs(function, x):
    agree(function, x)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("matrix", ["alone", "of each row"])
@pytest.mark.cases(1)
def test_solve(left, matrix, x):
    def function(self, h):
        a = self.p if matrix == "alone" else self.p + h[:, :, None] * 0.1
        if left:
            return torch.linalg.solve(a, h[:, :, None])[:, :, 0]
        return torch.linalg.solve(a, h[:, None, :], left=False)[:, 0]

    agree(function, x, p=nn.Parameter(3 * torch.eye(4, dtype=torch.float64) + 0.3))


def test_a_singular_matrix_without_rows_is_refused_with_the_line(x):
    def function(self, h):
        return torch.linalg.solve(self.p, h[:, :, None])[:, :, 0]

    with pytest.raises(vf.VertexFunctionError, match=r"singular(?s:.*)torch\.linalg\.solve\(self\.p"):
        run(model_of(function, p=nn.Parameter(torch.zeros(4, 4, dtype=torch.float64))), "torch", x)


DRAWS = {
    "rand": lambda size, g: torch.rand(size, generator=g, dtype=torch.float64),
    "rand of sizes": lambda size, g: torch.rand(size[0], 4, generator=g, dtype=torch.float64),
    "randn": lambda size, g: torch.randn(size, generator=g, dtype=torch.float64),
    "randint": lambda size, g: torch.randint(2, 9, size, generator=g).double(),
    "randint to": lambda size, g: torch.randint(high=9, size=size, generator=g).double(),
    "random_": lambda size, g: torch.empty(size, dtype=torch.float64).random_(2, 9, generator=g),
}


@GENERATORS
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.cases(1)
def test_numbers_of_a_generator(draw):
    """Those that PyTorch draws for all rows at once, as nothing is gathered; other ones in the next call."""
    generator = torch.Generator().manual_seed(3)

    def vertex(self, v):
        v.push(y=v.pull("x") + draw(v.pull("x").shape, generator))

    model, x = FromCode(vertex, {}), torch.zeros(5, 4, dtype=torch.float64)
    for model.backend in ("torch", "native"):
        generator.manual_seed(3)
        got = [model([vf.graph(5, [])], x=x).y for _ in range(2)]
        generator.manual_seed(3)
        expected = [draw(torch.Size((5, 4)), generator) for _ in range(2)]
        assert torch.equal(torch.stack(got), torch.stack(expected)), model.backend


def test_random_numbers_between_bounds():
    """`random_(from, to)`, for which Python has no word."""

    def vertex(self, v):
        v.push(y=torch.empty_like(v.pull("x")).random_(2, 5))

    y = FromCode(vertex, {})([vf.graph(50, [])], x=torch.zeros(50, 4)).y
    assert y.unique().tolist() == [2, 3, 4]


@pytest.mark.skipif(torch.__version__ < (2, 13), reason="before PyTorch 2.13, its traces know no gamma draws: refused")
def test_draws_of_gamma_distributions_have_their_derivative():
    def vertex(self, v):
        rate = v.pull("rate")
        v.push(gamma=torch.distributions.Gamma(rate, torch.ones_like(rate)).rsample())
        v.push(dirichlet=torch.distributions.Dirichlet(rate).rsample())
        v.push(beta=torch.distributions.Beta(rate, rate + 1).rsample())

    rate = torch.rand(ROWS, 4, dtype=torch.float64).add(0.5).requires_grad_()
    model = FromCode(vertex, {})
    model.backend = "torch"
    graphs = [vf.graph(ROWS, [])]
    out = model(graphs, rate=rate)
    for name, value in out.items():
        assert len(value.unique()) == value.numel(), f"{name} is one draw for all"
        assert not torch.equal(value, model(graphs, rate=rate)[name])
    (grad,) = torch.autograd.grad(out.gamma.sum(), rate, retain_graph=True)
    torch.testing.assert_close(grad, torch._standard_gamma_grad(rate.detach(), out.gamma.detach()))
    weight = torch.randn(ROWS, 4, dtype=torch.float64)
    (grad,) = torch.autograd.grad((out.dirichlet * weight).sum(), rate, retain_graph=True)
    y, total = out.dirichlet.detach(), rate.detach().sum(-1, True).expand(-1, 4)
    expected = torch._dirichlet_grad(y, rate.detach(), total) * (weight - (y * weight).sum(-1, True))
    torch.testing.assert_close(grad, expected)


def attention(self, h):
    queries = torch.zeros(h.shape[0], 3, 4, dtype=h.dtype)
    keys = torch.stack([h, 2 * h], 1)
    return self.attention(queries, keys, keys)[0].sum(1)


@pytest.mark.slow
def test_attention_of_queries_that_are_all_the_same(x):
    agree(attention, x, attention=nn.MultiheadAttention(4, 2, batch_first=True, dtype=torch.float64))
