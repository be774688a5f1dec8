"""What is pushed with a row an edge comes back in the user's order of edges; or it is refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vertexflow as vf

from ..models import FromCode

BACKENDS = ("eager", "torch", "native")
EDGES = [(4, 5), (2, 3), (0, 4), (1, 3), (3, 5), (0, 3), (1, 5), (2, 4)]  # in no order


def attend(self, v):
    kids = v.children
    a = v.softmax(self.key(kids.h).squeeze(-1) + kids.pull("w"))
    h = torch.tanh(v.pull("x") + v.sum(a[:, None] * kids.h))
    v.scatter(h=h)
    v.push(h=h, attention=a, w=kids.pull("w"))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FromCode(attend, {"h": 3}, key=nn.Linear(3, 1)).double()


def inputs_of(batch):
    torch.manual_seed(0)
    shapes = {"x": (batch.num_vertices, 3), "w": (batch.num_edges,)}
    return {name: torch.randn(shape, dtype=torch.float64, requires_grad=True) for name, shape in shapes.items()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("max_vertices", [None, 3])
@pytest.mark.cases(1)
def test_rows_are_in_the_order_in_which_edges_were_given(model, backend, reverse, max_vertices):
    batch = vf.pack([vf.graph(6, EDGES), vf.graph(2, []), vf.graph(6, EDGES[::-1])])
    model.backend, model.max_vertices = backend, max_vertices
    inputs = inputs_of(batch)
    out = model(batch, **inputs, reverse=reverse)
    assert torch.equal(out.w, inputs["w"])
    child, parent = batch.edge_index.flip(0) if reverse else batch.edge_index
    scores = model.key(out.h[child]).squeeze(-1) + inputs["w"]
    powers = scores.exp()
    wanted = powers / torch.zeros(14, dtype=torch.float64).index_add(0, parent, powers)[parent]
    torch.testing.assert_close(out.attention, wanted, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(wanted)
    ours, theirs = (
        torch.autograd.grad((value * weight).sum(), [*inputs.values(), *model.parameters()], retain_graph=True)
        for value in (out.attention, wanted)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    model.max_vertices = None


def test_parts_that_the_user_makes(model):
    batch = vf.pack([vf.graph(6, EDGES), vf.chain(3), vf.graph(6, EDGES[::-1])])
    model.backend, inputs = "auto", inputs_of(batch)
    whole = model(batch, **inputs).attention
    parts = [
        (part, model(part.batch, x=inputs["x"][part.vertices], w=inputs["w"][part.edges]).attention)
        for part in vf.split(batch, 6)
    ]
    assert len(parts) > 2
    for part, attention in parts:
        torch.testing.assert_close(attention, whole[part.edges])


class OfKinds(vf.VertexFunction):
    """Two kinds push values of their edges, under a name of both and under names of their own."""

    def __init__(self):
        super().__init__(state={"h": 2})

    @vf.vertex("leaf")
    def leaf(self, v):
        v.scatter(h=v.pull("x"))

    @vf.vertex("a")
    def of_a(self, v):
        kids = v.children
        v.scatter(h=v.sum(kids.h))
        v.push(both=kids.pull("w") * 2, a=kids.h)

    @vf.vertex("b")
    def of_b(self, v):
        kids = v.children
        v.scatter(h=v.mean(kids.h))
        v.push(both=kids.pull("w") * 3)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_edges_to_the_children_of_the_kinds_that_push(backend):
    model = OfKinds()
    model.backend = backend
    kinds = ["leaf", "leaf", "leaf", "a", "b", "a"]
    graph = vf.graph(6, EDGES, kind=kinds)
    x, w = torch.randn(3, 2), torch.randn(len(EDGES) + 1, requires_grad=True)
    batch = vf.pack([graph, vf.graph(2, [(0, 1)], kind=["leaf", "b"])])
    out = model(batch, x=torch.cat([x, x[:1]]), w=w)
    parents = [kinds[parent] for _, parent in EDGES] + ["b"]
    factor = torch.tensor([{"a": 2.0, "b": 3.0}[kind] for kind in parents])
    assert torch.equal(out.both, w * factor)
    assert len(out.a) == parents.count("a")
    of_a = [child for (child, _), kind in zip(EDGES, parents, strict=False) if kind == "a"]
    for row, child in zip(out.a, of_a, strict=True):
        if kinds[child] == "leaf":
            torch.testing.assert_close(row, x[child])
    (gradient,) = torch.autograd.grad(out.both.sum(), [w])
    assert torch.equal(gradient, factor)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_kind_that_is_not_in_the_batch(backend):
    model = OfKinds()
    model.backend = backend
    out = model([vf.graph(2, [(0, 1)], kind=["leaf", "b"])], x=torch.randn(1, 2), w=torch.randn(1))
    assert out.a.shape == (0, 2)
    assert out.both.shape == (1,)


@pytest.mark.parametrize("backend", BACKENDS)
def test_initial_states_and_runs_that_grow_are_refused_by_name(backend):
    def vertex(self, v):
        h = torch.tanh(v.pull("x") + v.sum(v.children.h))
        v.scatter(h=h)
        v.push(h=h, kids=v.children.h)

    model = FromCode(vertex, {"h": 2})
    model.backend = backend
    with pytest.raises(vf.InputError, match="no row of the edge output 'kids'"):
        model([vf.chain(3)], x=torch.randn(3, 2), initial={"h": torch.randn(1, 2)})
    with pytest.raises(vf.VertexFunctionError, match="output 'kids' has a row for each edge"):
        model.start([vf.chain(3)], x=torch.randn(3, 2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_name_for_vertices_and_for_edges_is_refused(backend):
    class Both(OfKinds):
        def of_b(self, v):
            v.scatter(h=v.mean(v.children.h))
            v.push(both=v.num_children * 1.0)

        of_b._vertexflow_kinds = ("b",)

    model = Both()
    model.backend = backend
    with pytest.raises(vf.VertexFunctionError, match=r"'both' as float32\[e\], method `of_b` as float32\[n\]"):
        model(
            [vf.graph(6, EDGES, kind=["leaf", "leaf", "leaf", "a", "b", "a"])],
            x=torch.randn(3, 2),
            w=torch.randn(sum(parent != 4 for _, parent in EDGES)),
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_as_many_edges_as_vertices_in_every_step(backend):
    """Where the backend "eager" cannot tell by the sizes what a row belongs to."""

    class Unary(vf.VertexFunction):
        def __init__(self):
            super().__init__(state={"h": 2})

        @vf.vertex("leaf")
        def leaf(self, v):
            v.scatter(h=v.pull("x"))

        @vf.vertex("node")
        def node(self, v):
            kids = v.children
            v.scatter(h=v.sum(kids.h) + 1)
            v.push(h=v.sum(kids.h), w=kids.pull("w"))

    model = Unary()
    model.backend = backend
    graph = vf.graph(5, [(3, 4), (1, 2), (0, 1), (2, 3)], kind=["leaf"] + ["node"] * 4)
    x, w = torch.randn(1, 2), torch.randn(4)
    out = model([graph], x=x, w=w)
    assert torch.equal(out.w, w)
    torch.testing.assert_close(out.h, x + torch.arange(4)[:, None])


def test_values_of_neither_are_refused_with_the_line():
    def vertex(self, v):
        v.scatter(h=v.pull("x"))
        v.push(a=torch.ones(7))

    with pytest.raises(vf.VertexFunctionError, match=r"takes one row a vertex, or one for each edge(.|\n)*v\.push\(a="):
        FromCode(vertex, {"h": 2})([vf.chain(3)], x=torch.randn(3, 2))
