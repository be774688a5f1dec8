"""Vertex functions that read any number of children agree with the reference: outputs and every gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import vertexflow as vf

from .agreement import check, join
from .budget import tries
from .models import FromCode
from .ragged import batch_of, ragged_cases
from .strategies import SMOOTH, Case, Structure


@tries(7)
@given(ragged_cases())
def test_random_functions_over_random_structures(case):
    check(case, "eager", "torch", "native")


@tries(4)
@given(ragged_cases(max_graphs=2), st.data())
@pytest.mark.slow
def test_frozen_parameters(case, data):
    for parameter in case.model.parameters():
        parameter.requires_grad_(data.draw(st.booleans()))
    check(case, "auto", "eager")


@tries(2)
@given(ragged_cases(SMOOTH, max_graphs=1, max_vertices=4))
@pytest.mark.slow
def test_gradcheck(case):
    parameters = dict(case.model.named_parameters())
    wanted = {"x": case.inputs["x"], "weight": case.inputs["weight"], "relation": case.edge_inputs["relation"]}

    def run(*values):
        given = dict(zip((*wanted, *parameters), values, strict=True))
        inputs = {**case.inputs, **case.edge_inputs, **{name: given.pop(name) for name in wanted}}
        return tuple(torch.func.functional_call(case.model, given, (batch_of(case),), inputs).values())

    values = [value.detach().clone().requires_grad_() for value in (*wanted.values(), *parameters.values())]
    assert torch.autograd.gradcheck(run, values, eps=1e-6, atol=1e-5)


class Attention(vf.VertexFunction):
    """Every vertex attends to its children with several heads; the relation of each edge is an edge input."""

    def __init__(self, size, heads):
        super().__init__(state={"h": size})
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.relation = nn.Embedding(3, size)

    def vertex(self, v):
        kids, x = v.children, v.pull("x")

        def split(t):
            return t.unflatten(-1, (self.heads, -1))

        keys = split(self.key(kids.h) + self.relation(kids.pull("relation")))
        scores = (split(kids.expand(self.query(x))) * keys).sum(-1, keepdim=True)
        attended = v.sum(v.softmax(scores) * split(self.value(kids.h))).flatten(1)
        h = torch.tanh(x + attended)
        v.scatter(h=h)
        v.push(h=h)


STAR = Structure(7, [(child, 6, child) for child in range(6)])
CHAIN = Structure(4, [(0, 1, 0), (1, 2, 0), (2, 3, 0)])
FAN = Structure(5, [(0, 1, 0), (0, 2, 0), (0, 3, 1), (1, 4, 0), (2, 4, 1), (3, 4, 4), (0, 4, 7)])


@pytest.fixture(scope="module")
def model():
    """One for all tests that change nothing in it: it is traced once."""
    torch.manual_seed(0)
    return Attention(8, 2).double()


def rows(count):
    return torch.randn(count, 8, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("parts", [[STAR], [CHAIN], [Structure(1, [])], [FAN, STAR, Structure(2, []), CHAIN]])
@pytest.mark.cases(3)
def test_attention_over_children_with_several_heads(model, parts, reverse):
    vertices, edges = join(parts)
    relation = torch.randint(0, 3, (len(edges),))
    check(Case(model, parts, {"x": rows(vertices)}, reverse, {"relation": relation}))


SHUFFLED = Structure(6, [(4, 5, 1), (2, 3, 7), (0, 4, 0), (1, 3, 2), (3, 5, 0), (0, 3, 4), (1, 5, 9), (2, 4, 3)])


@pytest.mark.parametrize("reverse", [False, True])
def test_edge_inputs_are_in_the_order_in_which_edges_were_given(model, reverse):
    """As `edge_attr` of PyTorch Geometric: passed as it is, with an `edge_index` that is not sorted."""
    parts = [SHUFFLED, CHAIN, Structure(FAN.num_vertices, FAN.edges[::-1])]
    vertices, edges = join(parts)
    x = rows(vertices)
    relation = torch.arange(len(edges)) * 7 % 3
    check(Case(model, parts, {"x": x}, reverse, {"relation": relation}))
    index, slots = torch.tensor(edges)[:, :2].T, [slot for *_, slot in edges]
    batch = vf.pack([vf.from_edge_index(index, slots=slots)])
    assert torch.equal(batch.edge_index, index)
    h = model(batch, x=x, relation=relation, reverse=reverse).h
    torch.testing.assert_close(
        h, model(vf.pack([part.graph() for part in parts]), x=x, relation=relation, reverse=reverse).h
    )
    if not reverse:  # a run that grows may begin with graphs
        run = model.start([part.graph() for part in parts], x=x, relation=relation)
        torch.testing.assert_close(run[:].h, h)


def test_a_batch_without_any_edge():
    def vertex(self, v):
        weighted = v.softmax(self.linear(v.children.h)) * v.children.pull("relation")
        reduced = {"sum": v.sum(weighted), "mean": v.mean(weighted), "max": v.max(weighted), "min": v.min(weighted)}
        v.scatter(h=torch.tanh(v.pull("x") + sum(reduced.values())))
        v.push(**reduced, logsumexp=v.logsumexp(weighted).exp())

    torch.manual_seed(0)
    model = FromCode(vertex, {"h": 8}, linear=nn.Linear(8, 8)).double()
    check(Case(model, [Structure(1, []), Structure(2, [])], {"x": rows(3)}, edge_inputs={"relation": rows(0)}))


@pytest.mark.parametrize("backend", ["eager", "torch", "native"])
def test_logsumexp_of_infinite_scores(backend):
    """A semiring's zero is -inf: where no path exists, its gradient is zero; elsewhere it is that of PyTorch."""

    def vertex(self, v):
        score = v.pull("x") + v.logsumexp(v.children.score)
        v.scatter(score=torch.where(v.num_children > 0, score, v.pull("x")))
        v.push(score=score)

    model = FromCode(vertex, {"score": ()})
    model.backend = backend
    batch = vf.pack([vf.graph(4, [(0, 3), (1, 3), (2, 3)])] * 5)
    none, inf, nan = -torch.inf, torch.inf, torch.nan
    scores = [[1000.0, 999.0, -1000.0], [none, 2.0, 1.0], [none, none, none], [inf, 0.0, 1.0], [nan, 0.0, 1.0]]
    x = torch.tensor([[*leaves, 0.5] for leaves in scores], dtype=torch.float64).flatten().requires_grad_()
    out = model(batch, x=x).score
    expected = torch.tensor(scores, dtype=torch.float64).requires_grad_()
    total = expected.logsumexp(1)
    torch.testing.assert_close(out.view(5, 4)[:, 3], total + 0.5, equal_nan=True)
    assert out.view(5, 4)[:, :3].eq(none).logical_or(out.view(5, 4)[:, :3].isnan()).all()  # no children
    (ours,) = torch.autograd.grad(out[batch.roots].sum(), x)
    (theirs,) = torch.autograd.grad(total.sum(), expected)
    theirs[2] = 0
    torch.testing.assert_close(ours.view(5, 4)[:3, :3], theirs[:3])


def test_edge_projections_that_need_no_child_are_computed_once_over_all_edges(model):
    model([vf.chain(5)], x=rows(5), relation=torch.zeros(4, dtype=torch.int64))
    targets = {
        name: [str(node.target) for node in part.graph.nodes] for name, part in model.symbolic_graph.parts.items()
    }
    eager = targets.get("eager", []) + targets.get("eager_inner", [])
    assert "aten.embedding.default" in eager
    assert "vertexflow.expand.default" in eager  # of the query, which needs no child either
    assert "aten.embedding.default" not in targets["core"]
    assert "vertexflow.segment_sum.default" not in targets["core_leaf"]


def test_ten_thousand_children_are_not_padded(model):
    """One vertex of 10,000 children and 10,000 of one: memory follows the edges."""
    graphs = [vf.graph(10_001, [(child, 10_000) for child in range(10_000)]), *[vf.chain(2)] * 10_000]
    batch = vf.pack(graphs)
    model(
        batch, x=rows(batch.num_vertices), relation=torch.zeros(batch.num_edges, dtype=torch.int64)
    ).h.sum().backward()
    ((order, _, _),) = batch.derived.orders.values()
    assert order.groups[0].child_rows.numel() == 0
    assert order.groups[0].edges.num_edges == batch.num_edges == 20_000


def test_two_runs_give_the_same_bits(model):
    batch = vf.pack([FAN.graph(), STAR.graph()] * 5)
    x, relation = rows(batch.num_vertices), torch.randint(0, 3, (batch.num_edges,))

    def gradients():
        return torch.autograd.grad(model(batch, x=x, relation=relation).h.square().sum(), [x, *model.parameters()])

    for one, other in zip(gradients(), gradients(), strict=True):
        assert torch.equal(one, other)


def test_a_run_that_grows_reads_all_children_too():
    class Sum(vf.VertexFunction):
        def __init__(self):
            super().__init__(state={"h": 4})
            self.linear = nn.Linear(4, 4)

        def vertex(self, v):
            h = torch.tanh(v.pull("x") + self.linear(v.mean(v.children.h)))
            v.scatter(h=h)
            v.push(h=h)

    torch.manual_seed(0)
    model = Sum().double()
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    whole = model([vf.graph(5, [(0, 3), (1, 3), (2, 3), (3, 4), (0, 4)])], x=x).h
    run = model.start(x=x[:3])
    run.extend([[0, 1, 2]], x=x[3:4])
    run.extend([[3, 0, -1]], x=x[4:])
    torch.testing.assert_close(run[:].h, whole)
    ours, expected = (torch.autograd.grad(h[-1].sum(), [x, *model.parameters()]) for h in (run[:].h, whole))
    torch.testing.assert_close(ours, expected)


@pytest.mark.slow
def test_edge_inputs_of_a_run_that_grows(model):
    """A row for each child, row by row; left out, they are zeros."""
    x = rows(5)
    relation = torch.tensor([2, 1, 0, 0])
    whole = model([vf.graph(5, [(0, 2), (1, 2), (2, 4), (3, 4)])], x=x, relation=relation).h
    run = model.start([vf.graph(3, [(0, 2), (1, 2)])], x=x[:3], relation=relation[:2])
    run.extend([[-1, -1], [2, 3]], x=x[3:])
    torch.testing.assert_close(run[:].h, whole)
    wide = vf.graph(3_001, [(child, 3_000) for child in range(3_000)])
    assert (
        len(model.start([wide] * 20, x=torch.randn(60_020, 8).double(), relation=torch.zeros(60_000).long())) == 60_020
    )


def refused(vertex, message, error=vf.VertexFunctionError, **inputs):
    model = FromCode(vertex, {"h": 4}, linear=nn.Linear(4, 4))
    with pytest.raises(error, match=message):
        model([STAR.graph()], x=torch.randn(7, 4), **inputs)


def ends(v, h):
    v.scatter(h=h)
    v.push(h=h)


def test_what_mixes_vertices_and_edges_is_refused():
    refused(lambda self, v: ends(v, v.pull("x") + v.children.h), r"(?s)size.*test_ragged\.py")
    refused(lambda self, v: ends(v, v.sum(v.pull("x"))), r"v\.sum\(\.\.\.\) takes one row for each edge")
    refused(lambda self, v: ends(v, v.children.expand(v.children.h)), r"kids\.expand\(\.\.\.\) takes one row a vertex")
    refused(lambda self, v: ends(v, v.children.h), r"v\.scatter\(h=\.\.\.\) takes one row a vertex")
    refused(lambda self, v: ends(v, v.mean(v.children.h.argmax(-1))), r"v\.mean\(\.\.\.\) takes floating point values")


def test_what_mixes_the_children_of_different_vertices_is_refused():
    refused(lambda self, v: ends(v, v.sum(v.children.h - v.children.h.mean(0)) + v.pull("x")), "mixes rows")
    refused(lambda self, v: ends(v, v.sum(v.children.h.flip(0)) + v.pull("x")), "mixes rows")
    refused(lambda self, v: ends(v, v.sum(torch.softmax(v.children.h, 0)) + v.pull("x")), "mixes rows")


def test_wrong_edge_inputs_are_refused():
    def vertex(self, v):
        ends(v, v.pull("x") + v.sum(v.children.pull("r")))

    refused(
        vertex,
        r"input 'r' has 7 rows, but the batch has 6 edges: give one row an edge",
        vf.InputError,
        r=torch.ones(7, 4),
    )
    refused(vertex, r"v\.children\.pull\('r'\): the model was not given this input", vf.InputError)

    def both(self, v):
        ends(v, v.pull("x") + v.pull("r") + v.sum(v.children.pull("r")))

    refused(both, r"'r'\): this input is pulled for vertices and for edges", r=torch.ones(7, 4))
    refused(lambda self, v: ends(v, v.sum(v.children.g)), "a child has no state 'g'; the states are 'h'")


def test_the_number_of_children_as_a_number():
    """It is an operand of ordinary operations, an output, and what loops over edges go by, all at once."""

    def vertex(self, v):
        number, kids = v.num_children, v.children
        each = torch.tanh(kids.h) * kids.expand(number.double())[:, None]
        mean = v.sum(each) / number.double().clamp(min=1)[:, None]
        v.scatter(h=torch.tanh(mean + v.pull("x") + number.double()[:, None]))
        v.push(number=number, twice=number.double() * 2, tanh=torch.tanh(number.double()), mean=mean)

    model = FromCode(vertex, {"h": 3})
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    check(
        Case(model, [Structure(4, [(0, 2, 0), (1, 2, 1), (2, 3, 0)]), Structure(2, [(1, 0, 0)])], {"x": x}),
        "torch",
        "native",
    )


def test_the_number_of_children_beside_each_edge():
    """As it is, without another operation in front: loops over edges knew it as a place only."""

    def vertex(self, v):
        share = v.softmax(v.children.expand(v.num_children).double())
        h = torch.tanh(v.pull("x") + v.sum(v.children.h * share[:, None]))
        v.scatter(h=h)
        v.push(h=h)

    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    parts = [Structure(4, [(0, 2, 0), (1, 2, 1), (2, 3, 0)]), Structure(2, [(1, 0, 0)])]
    check(Case(FromCode(vertex, {"h": 3}), parts, {"x": x}), "torch", "native")
