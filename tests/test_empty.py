"""Nothing to compute: rows without elements, kinds without vertices, outputs without rows, batches without graphs."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

import vertexflow as vf

from .models import TreeRNN

BACKENDS = ["torch", "native", "triton"]


class TwoKinds(vf.VertexFunction):
    def __init__(self, backend):
        super().__init__(state={"h": 3}, backend=backend)
        self.w = nn.Linear(3, 3)
        self.u = nn.Linear(2, 3)

    @vf.vertex("leaf")
    def leaf(self, v):
        v.scatter(h=self.w(v.pull("x")))

    @vf.vertex("node")
    def node(self, v):
        h = torch.tanh(self.w(v.gather(0).h) + self.u(v.pull("y")))
        v.scatter(h=h)
        v.push(h=h, positive=(h > 0).sum(-1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.cases(2)
def test_a_batch_without_the_kind_that_pushes(backend):
    model = TwoKinds(backend)
    x = torch.randn(2, 3, requires_grad=True)
    out = model([vf.graph(2, [], kind=["leaf", "leaf"])], x=x, y=torch.randn(0, 2))
    assert (out.h.shape, out.positive.shape, out.positive.dtype) == ((0, 3), (0,), torch.int64)
    assert not out.positive.requires_grad
    out.h.sum().backward()
    assert all(leaf.grad is None for leaf in (x, *model.parameters()))
    with torch.no_grad():
        assert not model([vf.graph(2, [], kind=["leaf", "leaf"])], x=x, y=torch.randn(0, 2)).h.requires_grad


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.cases(1)
def test_a_batch_of_one_kind_only(backend):
    model = TwoKinds(backend)
    y = torch.randn(2, 2)
    out = model([vf.graph(2, [(0, 1)], kind=["node", "node"])], x=torch.randn(0, 3), y=y)
    first = torch.tanh(model.w(torch.zeros(3)) + model.u(y[0]))
    expected = torch.stack([first, torch.tanh(model.w(first) + model.u(y[1]))])
    torch.testing.assert_close(out.h, expected)
    ours, wanted = (torch.autograd.grad(h.square().sum(), list(model.parameters())) for h in (out.h, expected))
    torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.cases(1)
def test_rows_without_elements(backend):
    class Empty(vf.VertexFunction):
        def __init__(self):
            super().__init__(state={"h": 3}, backend=backend)
            self.w = nn.Linear(3, 3)
            self.z = nn.Linear(0, 3)

        def vertex(self, v):
            x, before = v.pull("x"), v.gather(0).h
            h = torch.tanh(
                self.w(torch.cat([before, x], -1))
                + self.z(x)
                + x.sum(-1, keepdim=True)
                + before[:, 1:1].sum(-1, keepdim=True)
            )
            v.scatter(h=h)
            v.push(h=h, x=x, cut=before[:, 1:1], q=v.pull("q") * 2)

    model = Empty()
    x, q = torch.randn(2, 0, requires_grad=True), torch.randn(2, 0, 3, requires_grad=True)
    out = model([vf.chain(2)], x=x, q=q)
    assert {name: tuple(value.shape) for name, value in out.items()} == {
        "h": (2, 3), "x": (2, 0), "cut": (2, 0), "q": (2, 0, 3),
    }  # fmt: skip
    first = torch.tanh(model.w(torch.zeros(3)) + model.z.bias)
    expected = torch.stack([first, torch.tanh(model.w(first) + model.z.bias)])
    torch.testing.assert_close(out.h, expected)
    leaves = [model.w.weight, model.w.bias, model.z.bias]
    ours = torch.autograd.grad(sum(value.sum() for value in out.values()), [*leaves, x, q, model.z.weight])
    torch.testing.assert_close(ours[:3], torch.autograd.grad(expected.sum(), leaves))
    assert [tuple(grad.shape) for grad in ours[3:]] == [(2, 0), (2, 0, 3), (3, 0)]


def test_leaves_alone_where_an_operation_of_pytorch_divides_by_the_number_of_rows():
    """The derivative of a GroupNorm of no rows ends the process in PyTorch 2.13; nothing that has children is there."""

    class Normalised(vf.VertexFunction):
        def __init__(self):
            super().__init__(state={"m": (2, 2)}, backend="torch")

        def vertex(self, v):
            m = v.gather(0).m
            normal = nn.functional.instance_norm(m, eps=0.1)
            v.scatter(m=torch.tanh(m + v.pull("x").view(-1, 2, 2)))
            v.push(normal=normal, m=m)

    x = torch.randn(2, 4, requires_grad=True)
    out = Normalised()([vf.graph(1, [])] * 2, x=x)
    (out.normal.square().sum() + out.m.sum()).backward()
    assert not out.normal.any()
    assert not x.grad.any()


class Unused(TreeRNN):
    """A tree's network with a parameter that it does not read: its gradient is missing, with graphs and without."""

    def __init__(self):
        super().__init__(3, 4)
        self.unused = nn.Linear(2, 2)


@pytest.mark.parametrize("backend", [*BACKENDS, "eager"])
@pytest.mark.cases(1)
def test_a_batch_without_graphs_gives_gradients_of_zero(backend):
    model = Unused() if backend != "eager" else TreeRNN(3, 4)
    model.backend = backend
    for way in ("forward", "reverse", "initial", "parts"):
        model.zero_grad()
        leaves = {"x": torch.randn(0, 3, requires_grad=True), **dict(model.named_parameters())}
        options = {"reverse": way == "reverse"}
        if way == "initial":
            leaves["h0"] = torch.randn(0, 4, requires_grad=True)
            options["initial"] = {"h": leaves["h0"]}
        model.max_vertices = 5 if way == "parts" else None
        out = model([], x=leaves["x"], **options)
        assert out.h.shape == (0, 4)
        (out.h @ torch.full((4,), torch.inf)).sum().backward()
        for name, leaf in leaves.items():
            assert (leaf.grad is None) == name.startswith("unused"), (way, name)
            assert leaf.grad is None or not leaf.grad.any(), (way, name)
        with torch.no_grad():
            assert not model([], x=leaves["x"]).h.requires_grad


@pytest.mark.parametrize("backend", [*BACKENDS, "eager"])
@pytest.mark.cases(1)
def test_a_batch_without_graphs_is_of_any_kinds(backend):
    model = TwoKinds(backend)
    batch = vf.pack([])
    out = model(batch, x=torch.randn(0, 3), y=torch.randn(0, 2))
    assert (out.h.shape, out.positive.shape, out.positive.dtype) == ((0, 3), (0,), torch.int64)
    out.h[batch.of_kind("node")].sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_what_a_batch_without_graphs_has():
    for batch in (vf.pack([]), pickle.loads(pickle.dumps(vf.pack([])))):
        assert (len(batch), batch.num_vertices, batch.num_edges, batch.data) == (0, 0, 0, {})
        for index in (batch.roots, batch.leaves, batch.graph_of_vertex, batch.edge_index[0], batch.reversed().roots):
            assert index.dtype == torch.int64
            assert not len(index)
        rows = torch.randn(0, 3)
        for readout in (batch.sum, batch.mean, batch.max, batch.softmax, batch.expand):
            assert readout(rows).shape == (0, 3)
        assert len(vf.split(batch, 3)) == 1
        with pytest.raises(vf.GraphError, match="the batch is empty: there is nothing to schedule"):
            vf.schedule(batch)
