"""Gradients are not computed for leaves that need none: those of steps all of whose children are such leaves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.kernels import native
from vertexflow.kernels.prepared import windows
from vertexflow.kernels.prepared.calls import Writer

from ...models import FromCode

SIZE = 4

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")


def by_slot(self, v):
    h = torch.tanh(self.join(torch.cat([v.gather(0).h, v.gather(1).h], -1))) + v.pull("x")
    v.scatter(h=h)
    v.push(h=h)


def by_edge(self, v):
    h = torch.tanh(v.sum(self.map(v.children.h))) + v.pull("x")
    v.scatter(h=h)
    v.push(h=h)


def by_both(self, v):
    h = torch.tanh(self.join(torch.cat([v.gather(0).h, v.gather(1).h], -1)) + v.sum(self.map(v.children.h)))
    v.scatter(h=h + v.pull("x"))
    v.push(h=h)


class Sentence(vf.VertexFunction):
    """Words need no gradient, names do: phrases have children of both kinds."""

    def __init__(self, bias):
        super().__init__(state={"h": SIZE})
        self.join, self.read = nn.Linear(2 * SIZE, SIZE, bias=bias), nn.Linear(SIZE, SIZE)

    @vf.vertex("word")
    def word(self, v):
        v.scatter(h=torch.tanh(v.pull("x")))

    @vf.vertex("name")
    def name(self, v):
        v.scatter(h=torch.tanh(self.read(v.pull("x"))))

    @vf.vertex("phrase")
    def phrase(self, v):
        h = torch.tanh(self.join(torch.cat([v.gather(0).h, v.gather(1).h], -1)))
        v.scatter(h=h)
        v.push(h=h)


def model_of(vertex):
    parts = {"join": nn.Linear(2 * SIZE, SIZE, bias=False), "map": nn.Linear(SIZE, SIZE, bias=False)}
    return FromCode(vertex, {"h": SIZE}, **parts).double()


GRAPHS = [
    vf.tree(((0, 1), ((2, 3), (4, 5)))),  # by height, the first row of a step has leaves alone, and the second has not
    vf.tree((((0, 1), (2, 3)), (4, 5))),  # a step of pairs of leaves, then mixed ones
    vf.graph(5, [(0, 2), (1, 2), (2, 3), (0, 3), (3, 4), (1, 4)]),  # leaves that are also read further up
    vf.chain(4),
    vf.chain(1),
    vf.graph(2, [(1, 0)], slots=[1]),
]


def gradients(model, graphs, wanted, backend, policy="depth", **inputs):
    model.backend, model.policy = backend, policy
    out = model(vf.pack(graphs), **inputs).h
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return torch.autograd.grad((out * weight).sum(), wanted, allow_unused=True)


def first_sending(monkeypatch):
    """Per group: the rows that are not computed for, noted as they are found."""
    skipped, find = [], Writer._first_sending

    def noted(self, group):
        first = find(self, group)
        skipped.append(first - group.num_leaves)
        return first

    monkeypatch.setattr(Writer, "_first_sending", noted)
    return skipped


@pytest.mark.parametrize("vertex", [by_slot, by_edge, by_both])
@pytest.mark.parametrize("policy", ["depth", "height", "agenda"])
@pytest.mark.parametrize("rows", [10**6, 2])
@pytest.mark.cases(2)
def test_weights_have_the_same_gradients(monkeypatch, vertex, policy, rows):
    monkeypatch.setattr(windows, "rows_of_a_window", lambda *_: rows)
    skipped, model = first_sending(monkeypatch), model_of(vertex)
    x = torch.randn(sum(graph.num_vertices for graph in GRAPHS), SIZE, dtype=torch.float64)
    wanted = [
        parameter for name, parameter in model.named_parameters() if vertex is by_both or name[:4] in NAMES[vertex]
    ]
    reference = gradients(model, GRAPHS, wanted, "torch", policy, x=x)
    for ours, expected in zip(gradients(model, GRAPHS, wanted, "native", policy, x=x), reference, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    if policy == "depth":
        assert max(skipped) == 9  # rows whose children are all leaves come first


NAMES = {by_slot: "join", by_edge: "map."}


@pytest.mark.parametrize("bias", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_leaves_of_two_kinds(monkeypatch, bias):
    """Rows that have a child which needs its gradient send, whatever the others need: a phrase without children, of which there
    is none, would need its own for a bias."""
    skipped, model = first_sending(monkeypatch), Sentence(bias).double()
    kinds = ["word", "word", "phrase", "name", "phrase"]
    tree = [(0, 2), (1, 2), (2, 4), (3, 4)]
    graphs = [vf.graph(5, tree, kind=kinds), vf.graph(3, [(0, 2), (1, 2)], kind=["word", "name", "phrase"])]
    x = torch.randn(sum(kind != "phrase" for kind in kinds) + 2, SIZE, dtype=torch.float64)
    wanted = list(model.parameters())
    reference = gradients(model, graphs, wanted, "torch", x=x)
    for ours, expected in zip(gradients(model, graphs, wanted, "native", x=x), reference, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    skipped.clear()
    gradients(model, graphs[:1], wanted, "native", x=x[:3])
    assert skipped == [1]  # the phrase of two words


def test_leaves_whose_input_needs_a_gradient_get_it(monkeypatch):
    skipped, model = first_sending(monkeypatch), model_of(by_slot)
    x = torch.randn(sum(graph.num_vertices for graph in GRAPHS), SIZE, dtype=torch.float64, requires_grad=True)
    (expected,) = gradients(model, GRAPHS, [x], "torch", x=x)
    (ours,) = gradients(model, GRAPHS, [x], "native", x=x)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    assert not any(skipped)


def test_initial_states_get_their_gradients():
    """Children that a caller computed need their gradients, though leaves here need none."""
    model = model_of(by_slot)
    batch, x = vf.pack([vf.chain(3)] * 2), torch.randn(6, SIZE, dtype=torch.float64)
    slopes = []
    for model.backend in ("torch", "native"):
        h = torch.ones(2, SIZE, dtype=torch.float64, requires_grad=True)
        slopes.append(torch.autograd.grad(model(batch, x=x, initial={"h": h}).h.square().sum(), h)[0])
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)
    assert slopes[0].all()
