"""Where leaves have inputs as states, these are read where they lie: leaves have no rows in a state."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.kernels import native
from vertexflow.kernels.prepared import state_rows, windows, written

from ...models import FromCode

SIZE = 4

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")


@pytest.fixture
def recorded_rows(monkeypatch):
    """What `find_state_rows` has returned, for each pass that was prepared."""
    rows, find = [], written.find_state_rows

    def noted(*arguments, **named):
        rows.append(find(*arguments, **named))
        return rows[-1]

    monkeypatch.setattr(written, "find_state_rows", noted)
    monkeypatch.setattr(windows, "rows_of_a_window", lambda rows, width: 3)
    monkeypatch.setattr(state_rows, "PAYS", 0)
    return rows


def by_slot(self, v):
    """Leaves read their own state again in the backward pass, and two children may be one vertex."""
    left, right, x = v.gather(0), v.gather(1), v.pull("x")
    is_inner = (left.one + right.one) > 0
    h = torch.where(is_inner, torch.tanh(self.join(torch.cat([left.h, right.h], -1))), x)
    v.scatter(h=h, one=torch.ones_like(x[:, :1]))
    v.push(h=h, y=torch.sigmoid(self.out(h)))


def by_edge(self, v):
    kids, x = v.children, v.pull("x")
    is_inner = v.sum(kids.one) > 0
    inner = torch.tanh(self.join(v.sum(torch.sigmoid(kids.h) * kids.c)))
    h = torch.where(is_inner, inner, x)
    v.scatter(h=h, c=torch.where(is_inner, torch.sin(inner), v.pull("z")), one=torch.ones_like(x[:, :1]))
    v.push(h=h)


def both_ways(self, v):
    kids, x = v.children, v.pull("x")
    inner = torch.tanh(self.join(v.sum(kids.h)) + v.gather(0).h * v.gather(1).h)
    v.scatter(h=torch.where(v.sum(kids.one) > 0, inner, x), one=torch.ones_like(x[:, :1]))
    v.push(h=v.num_children[:, None] * inner)


class Kinds(vf.VertexFunction):
    """Leaves of two kinds, whose states are inputs of different names; one of them has another state that is computed."""

    def __init__(self):
        super().__init__(state={"h": SIZE, "c": SIZE})
        self.join = nn.Linear(2 * SIZE, SIZE)

    @vf.vertex("word")
    def word(self, v):
        v.scatter(h=v.pull("x"), c=v.pull("z"))
        v.push(h=v.pull("x") * 2)

    @vf.vertex("mark")
    def mark(self, v):
        z = v.pull("z")
        v.scatter(h=z, c=torch.sin(z))
        v.push(h=z)

    @vf.vertex("node")
    def node(self, v):
        left, right = v.gather(0), v.gather(1)
        h = torch.tanh(self.join(torch.cat([left.h * right.c, right.h], -1)) + left.c)
        v.scatter(h=h, c=torch.cos(h))
        v.push(h=h)


def trees(count, seed=0):
    """Random binary trees, some vertices of which have one child."""
    chooser = random.Random(seed)

    def tree(leaves):
        if leaves == 1:
            return None if chooser.random() < 0.8 else (None,)
        left = chooser.randrange(1, leaves)
        return (tree(left), tree(leaves - left))

    return [vf.tree(tree(chooser.randint(1, 12))) for _ in range(count)]


def dags(arity, seed=0):
    """Graphs of leaves that many read, some of them twice, with so many children for each child's rank."""
    chooser, graphs = random.Random(seed), []
    for inner in (5, 9, 14):
        edges = [
            (chooser.randrange(6 + vertex), 6 + vertex)
            for vertex in range(inner)
            for _ in range(chooser.randint(1, 2) * arity)
        ]
        graphs.append(vf.graph(6 + inner, edges))
    return graphs


def with_kinds(graphs, seed=0):
    """Leaves become words or marks."""
    chooser, labelled = random.Random(seed), []
    for graph in graphs:
        parents = set(graph.edge_index[1].tolist())
        kinds = [
            "node" if vertex in parents else chooser.choice(["word", "mark"]) for vertex in range(graph.num_vertices)
        ]
        labelled.append(graph.with_kind(kinds))
    return labelled


def join(columns):
    return {"join": nn.Linear(columns, SIZE)}


MODELS = {
    "slots": lambda: FromCode(by_slot, {"h": SIZE, "one": 1}, **join(2 * SIZE), out=nn.Linear(SIZE, 3)),
    "edges": lambda: FromCode(by_edge, {"h": SIZE, "c": SIZE, "one": 1}, **join(SIZE)),
    "both": lambda: FromCode(both_ways, {"h": SIZE, "one": 1}, **join(SIZE)),
    "kinds": Kinds,
    "Tree-FC": lambda: vf.nn.TreeFC(SIZE),
}


def case(name):
    torch.manual_seed(0)
    model = MODELS[name]().double()
    graphs = [*trees(6), *dags(2 if name in ("edges", "both") else 1)]
    batch = vf.pack(with_kinds(graphs) if name == "kinds" else graphs)
    inputs = {"x": torch.randn(batch.num_vertices, SIZE, dtype=torch.float64, requires_grad=True)}
    if name == "kinds":
        counts = {kind: len(batch.of_kind(kind)) for kind in ("word", "mark")}
        inputs["x"] = torch.randn(counts["word"], SIZE, dtype=torch.float64, requires_grad=True)
        inputs["z"] = torch.randn(sum(counts.values()), SIZE, dtype=torch.float64, requires_grad=True)
    elif name == "edges":
        inputs["z"] = torch.randn(batch.num_vertices, SIZE, dtype=torch.float64, requires_grad=True)
    return model, batch, inputs


def results(model, batch, inputs, wanted, **how):
    out = model(batch, **how, **inputs)
    loss = sum(value.square().sum() for value in out.values())
    return [*out.values(), *torch.autograd.grad(loss, wanted, allow_unused=True)]


def agree(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert (left is None) == (right is None)
        if left is not None:
            torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.cases(1)
def test_they_are_what_they_are_elsewhere(recorded_rows, name):
    """Values and gradients, also of a graph that is retained and of chosen vertices, and outputs without gradients."""
    model, batch, inputs = case(name)
    wanted = [*inputs.values(), *model.parameters()]
    of_backends = []
    for model.backend in ("torch", "native"):
        got = results(model, batch, inputs, wanted)
        got += results(model, batch, inputs, wanted, outputs=batch.roots)
        got += results(model, batch, {key: value.detach() for key, value in inputs.items()}, wanted[len(inputs) :])
        loss = sum(value.square().sum() for value in model(batch, **inputs).values())
        for is_last in (False, False, True):
            got += torch.autograd.grad(loss, wanted, retain_graph=not is_last, allow_unused=True)
        with torch.no_grad():
            got += model(batch, **inputs).values()
        of_backends.append(got)
    agree(*of_backends)
    assert len(recorded_rows) > 3
    assert all(rows is not None and rows.leaf_states for rows in recorded_rows)


def test_leaves_have_no_rows(recorded_rows):
    model, batch, inputs = case("Tree-FC")
    model.backend = "native"
    results(model, batch, inputs, list(model.parameters()))
    inner = batch.num_vertices - len(batch.leaves)
    assert inner <= recorded_rows[-1].shared.stop <= inner + 6


def test_few_leaves_have_rows(recorded_rows, monkeypatch):
    monkeypatch.setattr(state_rows, "PAYS", 1000)
    model, batch, inputs = case("Tree-FC")
    model.backend = "native"
    results(model, batch, inputs, list(model.parameters()))
    assert recorded_rows == [None]


def test_an_input_that_is_a_state_shall_not_be_changed(recorded_rows):
    model, batch, _ = case("Tree-FC")
    model.backend, x = "native", torch.randn(batch.num_vertices, SIZE, dtype=torch.float64)
    loss = model(batch, x=x).h.sum()
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_against_the_edges_and_strided(recorded_rows):
    """Where roots have inputs as states, and inputs do not lie in rows."""
    model, batch = case("slots")[0], vf.pack([vf.chain(7), vf.tree(((0, 1), 2))] * 4)
    x = torch.randn(SIZE, batch.num_vertices, dtype=torch.float64).T.requires_grad_()
    agree(*(results(model, batch, {"x": x}, [x], reverse=True) for model.backend in ("torch", "native")))
    assert recorded_rows[-1].leaf_states


@pytest.mark.parametrize("name", ["kinds", "Tree-FC"])
@pytest.mark.slow
def test_in_parts(recorded_rows, name):
    model, batch, inputs = case(name)
    wanted, of_backends = [*inputs.values(), *model.parameters()], []
    for model.backend, model.max_vertices in (("torch", None), ("native", 30)):
        of_backends.append(results(model, batch, inputs, wanted))
    agree(*of_backends)
    assert sum(rows is not None and bool(rows.leaf_states) for rows in recorded_rows) > 2


@pytest.mark.slow
def test_two_models_and_threads(recorded_rows):
    """Each model on a batch has what is prepared for it; threads share that."""
    batch, models = case("Tree-FC")[1], [case("Tree-FC")[0], case("slots")[0]]
    x = torch.randn(batch.num_vertices, SIZE, dtype=torch.float64, requires_grad=True)

    def all_results(backend):
        for model in models:
            model.backend = backend
        return [results(model, batch, {"x": x}, [x, *model.parameters()]) for model in models]

    expected = all_results("torch")
    with ThreadPoolExecutor(3) as threads:
        for got in threads.map(all_results, ["native"] * 6):
            for one, other in zip(got, expected, strict=True):
                agree(one, other)
    assert recorded_rows
    assert all(rows is not None and rows.leaf_states for rows in recorded_rows)
