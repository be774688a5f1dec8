"""Vertex functions over arcs agree with the reference: outputs and every gradient; what cannot be is refused by name."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

import vertexflow as vf
from vertexflow.kernels.prepared import structures as prepared
from vertexflow.kernels.prepared import windows

from ..agreement import TOLERANCE, check
from ..budget import tries
from ..hyper import hyper_cases
from ..models import FromCode
from ..strategies import Case, Structure


@tries(5)
@given(hyper_cases())
def test_random_functions_over_random_hypergraphs(case):
    check(case, "eager", "torch", "native")


SIZE = 3
# In no order, with children that are missing, that stand twice in an arc, and that several arcs share.
FIRST = Structure(6, [((-1, 4), 5, 0), ((0, 1), 3, 0), ((3, 2), 4, 0), ((3, 3), 5, 1), ((0, -1), 4, 1), ((0, 3), 5, 2)])
SECOND = Structure(5, [((3, 0), 4, 0), ((2, 1), 3, 0), ((0, 2), 3, 1), ((2, 0), 1, 0)])
PARTS = [FIRST, Structure(1, []), SECOND]


def function(counts=True):
    """Reads all there is to be read of arcs; how many there are, which native code reads as PyTorch's numbers, if `counts`."""

    def vertex(self, v):
        arcs, x = v.arcs, v.pull("x")
        left, right = arcs.gather(0), arcs.gather(1)
        score = self.one(left.h) * right.m[:, 0] + torch.tanh(self.two(torch.cat([right.h, left.m[:, 1]], -1)))
        score = score + arcs.pull("w")[:, None] + arcs.expand(x)
        h = torch.tanh(x + v.logsumexp(score).clamp(min=-5) + v.sum(v.softmax(score) * left.h)) + 0.1 * v.max(score)
        if counts:
            h = h + 0.1 * (v.mean(left.h) - v.min(right.h) + v.sum(arcs.slot * 1.0)[:, None].to(h.dtype))
            h = h + 0.1 * (v.num_arcs - 0.5 * v.num_children)[:, None]
        v.scatter(h=h, m=torch.stack([h, 0.5 * h], 1))
        v.push(h=h, edge_score=score, edge_w=arcs.pull("w"))

    torch.manual_seed(0)
    model = FromCode(vertex, {"h": SIZE, "m": (2, SIZE)}, one=nn.Linear(SIZE, SIZE), two=nn.Linear(2 * SIZE, SIZE))
    return model.double()


def inputs_of(parts):
    generator = torch.Generator().manual_seed(0)
    count, arcs = sum(part.num_vertices for part in parts), sum(len(part.edges) for part in parts)
    x = torch.randn(count, SIZE, dtype=torch.float64, generator=generator, requires_grad=True)
    return {"x": x}, {"w": torch.randn(arcs, dtype=torch.float64, generator=generator, requires_grad=True)}


@pytest.fixture(scope="module")
def model():
    return function()


@pytest.fixture(scope="module")
def plain():
    return function(counts=False)


@pytest.mark.parametrize(("policy", "max_vertices"), [("depth", None), ("height", 5), ("agenda", None)])
@pytest.mark.slow
def test_arcs_with_missing_and_repeated_children(model, backends, policy, max_vertices):
    model.policy, model.max_vertices = policy, max_vertices
    check(Case(model, PARTS, *(inputs_of(PARTS)[:1]), False, inputs_of(PARTS)[1]), "eager", *backends)
    model.max_vertices = None


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["depth", "agenda"])
def test_calls_are_written_down_for_arcs_in_windows_too(plain, monkeypatch, policy):
    """In several windows, what was gathered for arcs is gathered again in the backward pass."""
    prepared_runs, prepare = [], prepared.prepare
    monkeypatch.setattr(
        prepared, "prepare", lambda *arguments: prepared_runs.append(prepare(*arguments)) or prepared_runs[-1]
    )
    plain.policy = policy
    check(Case(plain, PARTS, inputs_of(PARTS)[0], False, inputs_of(PARTS)[1]), "native")
    monkeypatch.setattr(windows, "rows_of_a_window", lambda rows, width: 5)
    parts = PARTS * 3
    check(Case(plain, parts, inputs_of(parts)[0], False, inputs_of(parts)[1]), "native")
    assert [memory.windows.are_several for one in prepared_runs for memory in one.forward.memory] == [False, True]
    plain.policy = "depth"


@pytest.mark.parametrize("backend", ["eager", "torch", "native"])
def test_selected_outputs_and_outputs_of_arcs(model, backend):
    model.backend = backend
    batch = vf.pack([part.graph() for part in PARTS])
    inputs, arc_inputs = inputs_of(PARTS)
    everything = model(batch, **inputs, **arc_inputs)
    roots = model(batch, outputs=batch.roots, **inputs, **arc_inputs)
    torch.testing.assert_close(roots.h, everything.h[batch.roots], **TOLERANCE)
    assert torch.equal(everything.edge_w, arc_inputs["w"])  # in the order in which arcs were given
    assert everything.edge_score.shape == (batch.num_arcs, SIZE) == roots.edge_score.shape


class Inside(vf.VertexFunction):
    """The inside algorithm over bracketings, with a kind that has no arcs."""

    def __init__(self):
        super().__init__(state={"h": 1})

    @vf.vertex("word")
    def word(self, v):
        h = v.pull("emission")
        v.scatter(h=h)
        v.push(h=h)

    @vf.vertex("span")
    def span(self, v):
        arcs = v.arcs
        h = v.logsumexp(arcs.gather(0).h + arcs.gather(1).h) + v.pull("score")
        v.scatter(h=h)
        v.push(h=h)


def chart(length):
    """Spans by their length, then by their first word."""
    spans = [(first, first + size) for size in range(1, length + 1) for first in range(length - size + 1)]
    number = {span: at for at, span in enumerate(spans)}
    arcs = [
        ((number[first, middle], number[middle, last]), number[first, last])
        for first, last in spans
        for middle in range(first + 1, last)
    ]
    return vf.hypergraph(len(spans), arcs, ["word"] * length + ["span"] * (len(spans) - length), arity=2)


def bracketings(first, last):
    """All binary trees over these words, as lists of spans."""
    if last - first == 1:
        return [[(first, last)]]
    return [
        [(first, last), *left, *right]
        for middle in range(first + 1, last)
        for left, right in itertools.product(bracketings(first, middle), bracketings(middle, last))
    ]


@pytest.mark.parametrize("length", [2, 5])
@pytest.mark.cases(1)
def test_the_inside_algorithm_sums_over_all_bracketings(backends, length):
    """log Z by enumeration; its gradients are the marginals of spans."""
    torch.manual_seed(0)
    graph = chart(length)
    emission = torch.randn(length, 1, dtype=torch.float64, requires_grad=True)
    score = torch.randn(graph.num_vertices - length, 1, dtype=torch.float64, requires_grad=True)
    spans = [(first, first + size) for size in range(1, length + 1) for first in range(length - size + 1)]
    scores = dict(zip(spans, torch.cat([emission, score]).squeeze(1), strict=True))
    log_z = torch.stack([sum(scores[span] for span in tree) for tree in bracketings(0, length)]).logsumexp(0)
    wanted = torch.autograd.grad(log_z, [emission, score], allow_unused=True)
    model = Inside()
    for backend in ("eager", *backends):
        model.backend = backend
        batch = vf.pack([graph, chart(1)])
        inputs = {"emission": torch.cat([emission, emission[:1]]), "score": score}
        out = model(batch, **inputs, outputs=batch.roots).h
        torch.testing.assert_close(out[0, 0], log_z, **TOLERANCE)
        gradients = torch.autograd.grad(out[0, 0], [emission, score], allow_unused=True)
        for ours, theirs in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(ours, torch.zeros_like(ours) if theirs is None else theirs, **TOLERANCE)


class Mixed(vf.VertexFunction):
    """A kind reads arcs, another its children one by one: of graphs, whose edges are arcs of one child."""

    def __init__(self, size=SIZE):
        super().__init__(state={"h": size})
        self.linear = nn.Linear(size, size)

    @vf.vertex("arcs")
    def of_arcs(self, v):
        arcs = v.arcs
        h = torch.tanh(v.pull("x") + v.sum(self.linear(arcs.gather(0).h) - arcs.gather(1).h) + v.num_arcs[:, None])
        v.scatter(h=h)
        v.push(h=h)

    @vf.vertex("rest")
    def of_rest(self, v):
        h = torch.tanh(v.pull("x") - v.gather(0).h + v.sum(self.linear(v.children[1:].h)))
        v.scatter(h=h)
        v.push(h=h)


@pytest.mark.slow
def test_arcs_of_one_child_beside_children_of_another_kind(backends):
    torch.manual_seed(0)
    model = Mixed().double()
    edges = [(0, 3, 0), (1, 3, 1), (2, 3, 2), (3, 4, 0), (0, 4, 1), (4, 5, 0), (3, 5, 1), (1, 5, 4)]
    kinds = ["arcs", "rest", "arcs", "rest", "arcs", "rest"]
    graph = vf.graph(6, [edge[:2] for edge in edges], kind=kinds, slots=[edge[2] for edge in edges])
    x = torch.randn(6, SIZE, dtype=torch.float64, requires_grad=True)
    h = [None] * 6
    for vertex, kind in enumerate(kinds):
        own = [(slot, h[child]) for child, parent, slot in edges if parent == vertex]
        if kind == "arcs":
            h[vertex] = torch.tanh(x[vertex] + sum(model.linear(state) + 1 for _, state in own))
        else:
            first = sum(state for slot, state in own if slot == 0)
            h[vertex] = torch.tanh(x[vertex] - first + sum(model.linear(state) for slot, state in own if slot > 0))
    wanted = torch.stack(h)
    grads = torch.autograd.grad(wanted.square().sum(), [x, *model.parameters()])
    for backend in ("eager", *backends):
        model.backend = backend
        out = model([graph], x=x).h
        torch.testing.assert_close(out, wanted, **TOLERANCE)
        for ours, theirs in zip(torch.autograd.grad(out.square().sum(), [x, *model.parameters()]), grads, strict=True):
            torch.testing.assert_close(ours, theirs, **TOLERANCE)


def test_a_batch_without_arcs_and_one_without_graphs(model, backends):
    parts = [Structure(1, []), Structure(2, [])]
    for backend in ("eager", *backends):
        model.backend = backend
        check(Case(model, parts, inputs_of(parts)[0], False, inputs_of(parts)[1]))
        out = model(vf.pack([]), x=torch.zeros(0, SIZE).double(), w=torch.zeros(0).double())
        assert out.h.shape == out.edge_score.shape == (0, SIZE)


def test_memory_is_estimated(model):
    model.backend = "native"
    batch = vf.pack([part.graph() for part in PARTS])
    inputs, arc_inputs = inputs_of(PARTS)
    on_meta = {name: value.detach().to("meta").requires_grad_() for name, value in {**inputs, **arc_inputs}.items()}
    assert model.estimate_memory(batch, **on_meta).peak > 0


def test_batches_travel(model):
    """Pickled, split, collated, and with data of arcs."""
    model.backend = "native"
    graphs = [part.graph().with_data(["w"], w=np.arange(len(part.edges)) / 7) for part in PARTS]
    batch = vf.pack(graphs)
    x, w = inputs_of(PARTS)[0]["x"], torch.from_numpy(batch.data["w"])
    wanted = model(batch, x=x, w=w)
    again = pickle.loads(pickle.dumps(batch))
    assert torch.equal(again.arcs, batch.arcs)
    assert again.arity == 2
    assert torch.equal(model(again, x=x, w=w).h, wanted.h)
    assert pickle.loads(pickle.dumps(graphs[0])).arcs.tolist() == graphs[0].arcs.tolist()
    scores = [model(part.batch, x=x[part.vertices], w=w[part.edges]).edge_score for part in vf.split(batch, 6)]
    torch.testing.assert_close(torch.cat(scores), wanted.edge_score, **TOLERANCE)
    assert vf.split(batch, 6)[0].batch.data["w"].tolist() == graphs[0].data["w"].tolist()
    collated = vf.collate([{"graph": graph, "w": torch.from_numpy(graph.data["w"])} for graph in graphs])
    assert torch.equal(collated["w"], w)
    assert torch.equal(collated["graph"].arcs, batch.arcs)
    kinds = graphs[0].with_kind(["a"] * 6)
    assert kinds.arity == 2
    assert kinds.arcs.tolist() == graphs[0].arcs.tolist()


def from_code(vertex):
    return FromCode(vertex, {"h": 1})


def scatter(v, h):
    v.scatter(h=h)
    v.push(h=h)


REFUSED = {
    "children one by one": (lambda v: scatter(v, v.gather(0).h), vf.GraphError, r"arcs of 2 children .* reads single children"),
    "children over edges": (lambda v: scatter(v, v.sum(v.children.h)), vf.GraphError, "arcs of 2 children"),
    "how many children alone": (lambda v: scatter(v, v.num_children[:, None].float()), vf.GraphError, "read v.arcs"),
    "the first of each arc": (lambda v: scatter(v, v.sum(v.arcs.gather(0).h)), vf.GraphError, r"read v.arcs.gather\(1\)"),
    "arcs and slots": (
        lambda v: scatter(v, v.sum(v.arcs.gather(0).h) + v.gather(0).h), vf.VertexFunctionError, r"v.arcs and v.gather\(0\)"
    ),
    "slots and arcs": (
        lambda v: scatter(v, v.gather(1).h + v.sum(v.arcs.gather(0).h)), vf.VertexFunctionError, r"v.arcs and v.gather\(1\)"
    ),
    "arcs and children": (
        lambda v: scatter(v, v.sum(v.arcs.gather(0).h) + v.sum(v.children.h)), vf.VertexFunctionError, "v.arcs and v.children"
    ),
    "children and arcs": (
        lambda v: scatter(v, v.sum(v.children.h) + v.num_arcs[:, None]), vf.VertexFunctionError, "v.arcs and v.children"
    ),
    "a state of arcs": (lambda v: scatter(v, v.sum(v.arcs.h)), vf.VertexFunctionError, r"v.arcs.gather\(0\)"),
    "a negative position": (lambda v: scatter(v, v.arcs.gather(-1).h), vf.VertexFunctionError, "a position in arcs"),
    "a loop over arcs": (lambda v: list(v.arcs), vf.VertexFunctionError, "iterating over v.arcs"),
    "len of arcs": (lambda v: len(v.arcs), vf.VertexFunctionError, "v.num_arcs"),
    "rows of vertices": (lambda v: scatter(v, v.sum(v.arcs.expand(v.arcs.gather(1).h))), vf.VertexFunctionError, "expand"),
    "an arc input as one of vertices": (
        lambda v: scatter(v, v.pull("w") + v.sum(v.arcs.pull("w"))), vf.VertexFunctionError, "for vertices and for edges"
    ),
}  # fmt: skip


@pytest.mark.parametrize("backend", ["eager", "torch"])
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.cases(1)
def test_refusals(name, backend):
    vertex, error, words = REFUSED[name]

    def method(self, v):
        vertex(v)

    model = from_code(method)
    model.backend = backend
    inputs = {"w": torch.zeros(3, 1)} if "w" in method.__closure__[0].cell_contents.__code__.co_consts else {}
    with pytest.raises(error, match=words):
        model([vf.hypergraph(3, [((0, 1), 2), ((1, 0), 2), ((1, 1), 2)])], **inputs)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "native"])
def test_runs_initial_states_and_the_other_direction_are_refused(model, backend):
    model.backend = backend
    batch = vf.pack([FIRST.graph()])
    inputs, arc_inputs = inputs_of([FIRST])
    given = {**inputs, **arc_inputs}
    with pytest.raises(vf.GraphError, match="cannot be reversed"):
        model(batch, reverse=True, **given)
    with pytest.raises(vf.VertexFlowError, match="initial states"):
        model(batch, initial={"h": torch.zeros(3, SIZE).double()}, **given)
    with pytest.raises(vf.GraphError, match="a run that grows"):
        model.start(batch, **given)
    with pytest.raises(vf.VertexFunctionError, match="a run that grows has no arcs"):
        model.start(x=torch.zeros(2, SIZE).double(), w=torch.zeros(0).double())
    with pytest.raises(vf.InputError, match=r"has 2 rows, but the batch has 6 arcs: give one row an arc, .*batch.arcs"):
        model(batch, x=given["x"], w=torch.zeros(2).double())


@pytest.mark.slow
def test_arcs_of_graphs_are_single_children(model, backends):
    """In both directions: the second child of an edge is missing."""
    pairs = [(0, 2), (1, 2), (2, 3), (0, 3)]
    for backend in ("eager", *backends):
        model.backend = backend
        for reverse in (False, True):
            turned = [(b, a) if reverse else (a, b) for a, b in pairs]
            x, w = inputs_of([Structure(4, pairs)])[0]["x"], torch.arange(4.0).double()
            ours = model([vf.graph(4, pairs)], x=x, w=w, reverse=reverse).h
            theirs = model([vf.hypergraph(4, [((a, -1), b) for a, b in turned])], x=x, w=w).h
            torch.testing.assert_close(ours, theirs, **TOLERANCE)
