"""What only outputs need, and is computed for all vertices nevertheless; and what it shares with the rest."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.graph.symbolic import readout

from ..models import FromCode
from .test_readout import CHAINS, GRAPHS, always_apart, check, inputs_of, is_apart, losses, tagger  # noqa: F401 (a fixture)


@pytest.mark.slow
def test_what_stays_with_the_vertices():
    """Products over edges, assertions, and derivatives that a trace does not tell."""

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad

    def own_derivative(self, v):
        h = torch.tanh(v.pull("x") + v.gather(0).h)
        v.scatter(h=h)
        v.push(y=Doubled.apply(self.linear(h)))

    def asserting(self, v):
        h = torch.tanh(v.pull("x") + v.gather(0).h)
        y = self.linear(h)
        torch._assert_async((y.abs() < 1e3).all())
        v.scatter(h=h)
        v.push(y=y)

    def over_edges(self, v):
        h = torch.tanh(v.pull("x") + v.sum(v.children.h))
        v.scatter(h=h)
        v.push(y=v.sum(self.linear(v.children.h)))

    def expanded(self, v):
        h = torch.tanh(v.pull("x") + v.sum(v.children.h))
        v.scatter(h=h)
        v.push(y=v.sum(self.linear(v.children.expand(h))))

    batch = vf.pack(CHAINS)
    for vertex in (own_derivative, asserting, over_edges, expanded):
        model = FromCode(vertex, {"h": 3}, linear=nn.Linear(3, 3)).double()
        x = inputs_of(batch)["x"]
        check(model, batch, batch.roots, [x, *model.parameters()], x=x)
        model(batch, x=x, outputs=batch.roots)
        assert not is_apart(model)


@pytest.mark.slow
def test_sums_over_edges_are_made_by_the_trunk():
    def vertex(self, v):
        kids = v.children
        h = torch.tanh(v.pull("x") + v.sum(kids.h))
        v.scatter(h=h)
        v.push(y=self.linear(v.sum(kids.h * 2)) / v.num_children.clamp(min=1)[:, None], edges=kids.h * 3)

    batch, model = vf.pack(GRAPHS), FromCode(vertex, {"h": 3}, linear=nn.Linear(3, 3)).double()
    x = inputs_of(batch)["x"]
    for model.backend in ("torch", "auto"):
        whole, some = model(batch, x=x), model(batch, x=x, outputs=batch.roots)
        assert is_apart(model)
        torch.testing.assert_close(some.y, whole.y[batch.roots], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(some.edges, whole.edges, rtol=1e-12, atol=1e-12)
        leaves = [x, *model.parameters()]
        picked = {"y": whole.y[batch.roots], "edges": whole.edges}
        slopes = [torch.autograd.grad(losses(each), leaves) for each in (some, picked)]
        for ours, expected in zip(*slopes, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_an_input_that_the_trunk_does_not_read_keeps_its_rows():
    """It has a row for the vertices of all kinds that pull it, whichever part reads it."""

    class Both(vf.VertexFunction):
        def __init__(self):
            super().__init__(state={"h": 3})
            self.linear = nn.Linear(3, 3)

        @vf.vertex("a")
        def of_a(self, v):
            v.scatter(h=torch.tanh(v.pull("x")))
            v.push(y=self.linear(v.pull("x")))

        @vf.vertex("b")
        def of_b(self, v):
            v.pull("x")
            v.scatter(h=v.gather(0).h)

    batch, model = vf.pack([vf.graph(3, [(0, 1)], kind=["a", "b", "a"])] * 2), Both().double()
    x = inputs_of(batch)["x"]
    for model.backend in ("torch", "auto"):
        whole, some = model(batch, x=x).y[[1, 3]], model(batch, x=x, outputs=torch.tensor([2, 5])).y
        assert is_apart(model)
        torch.testing.assert_close(some, whole, rtol=1e-12, atol=1e-12)
        slopes = [torch.autograd.grad(losses({"y": each}), x) for each in (some, whole)]
        torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


def test_little_work_is_not_apart():
    def vertex(self, v):
        h = torch.tanh(v.pull("x") + v.gather(0).h)
        v.scatter(h=h)
        v.push(y=h.softmax(-1))

    batch, model = vf.pack(CHAINS), FromCode(vertex, {"h": 3})
    model(batch, x=torch.randn(batch.num_vertices, 3), outputs=batch.roots)
    assert not is_apart(model)


@pytest.mark.slow
def test_a_readout_that_refuses_its_numbers_stays_with_the_vertices(monkeypatch):
    def refuse(*arguments):
        raise vf.VertexFunctionError("it does not take these numbers")

    monkeypatch.setattr(readout, "divide", refuse)
    batch, model = vf.pack(GRAPHS), tagger("torch")
    given = inputs_of(batch)
    check(model, batch, batch.roots, [given["x"], *model.parameters()], **given)
    model(batch, outputs=batch.roots, **given)
    assert not is_apart(model)
