"""`v.shared(name)`: a tensor without rows that is given to a call, and is used as a parameter is."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import vertexflow as vf

from ..models import FromCode

BACKENDS = ("eager", "torch", "native")
SIZE = 3


def with_weights(self, v):
    kids = v.children
    weight, b = v.shared("W"), v.shared("b")
    read = v.pull("x") @ weight + v.shared("table")[v.pull("k")]
    h = torch.tanh(read + v.gather(0).h @ weight.t() + v.sum(kids.h * b))
    v.scatter(h=h)
    v.push(h=h, a=kids.h @ weight)


def with_parameters(self, v):
    kids = v.children
    h = torch.tanh(v.pull("x") @ self.W + v.gather(0).h @ self.W.t() + v.sum(kids.h * self.b) + self.table[v.pull("k")])
    v.scatter(h=h)
    v.push(h=h, a=kids.h @ self.W)


BATCH = vf.pack([vf.graph(5, [(1, 4), (0, 3), (0, 1), (3, 4), (0, 4)]), vf.chain(3), vf.graph(1, [])])


@pytest.fixture
def model():
    return FromCode(with_weights, {"h": SIZE}).double()


def given():
    """A hypernetwork's weights, and inputs."""
    torch.manual_seed(0)
    z = torch.randn(4, dtype=torch.float64, requires_grad=True)
    network = nn.Linear(4, SIZE * SIZE + SIZE).double()
    flat = network(z)
    table = torch.randn(2, SIZE, dtype=torch.float64, requires_grad=True)
    shared = {"W": flat[: SIZE * SIZE].view(SIZE, SIZE), "b": torch.sin(flat[SIZE * SIZE :]), "table": table}
    x = torch.randn(BATCH.num_vertices, SIZE, dtype=torch.float64, requires_grad=True)
    k = torch.arange(BATCH.num_vertices) % 2
    return shared, {"x": x, "k": k}, [z, *network.parameters(), table, x]


def agree(ours, theirs, our_leaves, their_leaves):
    torch.manual_seed(1)
    weights = {name: torch.randn_like(value) for name, value in theirs.items()}
    gradients = []
    for out, leaves in ((ours, our_leaves), (theirs, their_leaves)):
        gradients.append(torch.autograd.grad(sum((out[name] * weights[name]).sum() for name in weights), leaves))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-10, atol=1e-10)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def by_parameters(shared, inputs, reverse=False):
    """What a model with these tensors as parameters gives, by the backend "eager", which knows no trace."""
    plain = FromCode(with_parameters, {"h": SIZE}, **{name: nn.Parameter(value) for name, value in shared.items()})
    plain.backend = "eager"
    return torch.func.functional_call(plain, shared, (BATCH,), {**inputs, "reverse": reverse})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("reverse", "max_vertices"), [(False, None), (True, None), (False, 3)])
@pytest.mark.cases(1)
def test_gradients_go_on_to_what_made_them(model, backend, reverse, max_vertices):
    shared, inputs, leaves = given()
    model.backend, model.max_vertices = backend, max_vertices
    ours = model(BATCH, shared=shared, reverse=reverse, **inputs)
    theirs_shared, theirs_inputs, theirs_leaves = given()
    agree(ours, by_parameters(theirs_shared, theirs_inputs, reverse), leaves, theirs_leaves)
    assert backend != "native" or "vertex.grad_core: native code" in model.explain(), model.explain()


def test_other_numbers_shapes_and_dtypes_are_seen_at_the_next_call(model):
    for dtype in (torch.float64, torch.float32, torch.float64):
        shared, inputs, _ = given()
        for times in (1, 2):
            model.to(dtype)
            here = {name: (value * times).to(dtype) for name, value in shared.items()}
            here_inputs = {
                name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()
            }
            out = model(BATCH, shared=here, **here_inputs)
            assert out.h.dtype == dtype
            wanted = by_parameters({name: value * times for name, value in shared.items()}, inputs)
            torch.testing.assert_close(out.h.double(), wanted["h"], rtol=1e-4, atol=1e-4)

    def scaled(self, v):
        h = torch.tanh(v.pull("x") * v.shared("s") + v.gather(0).h)
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(scaled, {"h": SIZE})
    x = torch.randn(3, SIZE)
    for s in (torch.tensor(2.0), torch.randn(SIZE), torch.tensor(2.0), torch.randn(1, SIZE)):
        outputs = [model([vf.chain(3)], x=x, shared={"s": s}).h]
        h, rows = torch.zeros(SIZE), []
        for row in x:
            h = torch.tanh(row * s + h).view(SIZE)
            rows.append(h)
        torch.testing.assert_close(outputs[0], torch.stack(rows))


@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_that_grow(model, backend):
    def vertex(self, v):
        h = torch.tanh(v.pull("x") + v.gather(0).h @ v.shared("W"))
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": SIZE}).double()
    model.backend = backend
    base = torch.randn(SIZE, SIZE, dtype=torch.float64, requires_grad=True)
    x = torch.randn(4, SIZE, dtype=torch.float64)
    run = model.start(x=x[:2], shared={"W": base * 2})
    run.extend([[0], [2]], x=x[2:])
    whole = model([vf.graph(4, [(0, 2), (2, 3)])], x=x, shared={"W": base * 2})
    torch.testing.assert_close(run[:].h, whole.h, rtol=1e-10, atol=1e-10)
    ours, theirs = (torch.autograd.grad(value.square().sum(), [base])[0] for value in (run[:].h, whole.h))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


class OfKinds(vf.VertexFunction):
    """Of two kinds only one reads what is shared, or both do."""

    def __init__(self, both):
        super().__init__(state={"h": SIZE})
        self.both = both

    @vf.vertex("leaf")
    def leaf(self, v):
        v.scatter(h=v.pull("x") @ v.shared("W") if self.both else v.pull("x"))

    @vf.vertex("node")
    def node(self, v):
        h = torch.tanh(v.sum(v.children.h) @ v.shared("W"))
        v.scatter(h=h)
        v.push(h=h)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.cases(1)
def test_kinds(backend, both):
    model = OfKinds(both)
    model.backend = backend
    graph = vf.graph(4, [(0, 2), (1, 2), (2, 3), (1, 3)], kind=["leaf", "leaf", "node", "node"])
    x = torch.randn(2, SIZE, dtype=torch.float64)
    weight = torch.randn(SIZE, SIZE, dtype=torch.float64, requires_grad=True)
    out = model([graph], x=x, shared={"W": weight}).h
    h0, h1 = x @ weight if both else x
    h2 = torch.tanh((h0 + h1) @ weight)
    wanted = torch.stack([h2, torch.tanh((h2 + h1) @ weight)])
    torch.testing.assert_close(out, wanted, rtol=1e-10, atol=1e-10)
    ours, theirs = (torch.autograd.grad(value.sin().sum(), [weight])[0] for value in (out, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    leaves = vf.graph(2, [], kind=["leaf", "leaf"])  # a batch in which nobody may read it
    assert model([leaves], x=x, shared={"W": weight}).h.shape == (0, SIZE)


def test_functional_call_and_checkpoint(model):
    shared, inputs, _ = given()
    wanted = by_parameters(shared, inputs)
    ours = torch.func.functional_call(model, {}, (BATCH,), {**inputs, "shared": shared})
    torch.testing.assert_close(ours["h"], wanted["h"], rtol=1e-10, atol=1e-10)
    shared, inputs, leaves = given()
    out = checkpoint(lambda: model(BATCH, shared=shared, **inputs), use_reentrant=False)
    shared, inputs, their_leaves = given()
    agree(out, by_parameters(shared, inputs), leaves, their_leaves)


def test_what_changed_before_the_backward_pass_is_noticed(model):
    shared, inputs, _ = given()
    weight = shared["W"].detach().clone().requires_grad_()
    out = model(BATCH, shared={**shared, "W": weight}, **inputs)
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.h.sum().backward()


@pytest.mark.parametrize("backend", BACKENDS)
def test_refused_by_name(model, backend):
    shared, inputs, _ = given()
    model.backend = backend
    with pytest.raises(
        vf.InputError, match=r"v\.shared\('b'\): the model was not given this tensor \(given: 'W', 'table'\)"
    ):
        model(BATCH, shared={name: shared[name] for name in ("W", "table")}, **inputs)
    with pytest.raises(vf.InputError, match=r'v.shared\("W"\), v.shared\("b"\)' if backend != "eager" else "'W'"):
        model(BATCH, **inputs)  # with the line
    with pytest.raises(vf.InputError, match="given the shared tensor 'Z', but the vertex function never reads it"):
        model(BATCH, shared={**shared, "Z": torch.ones(2, dtype=torch.float64)}, **inputs)
    with pytest.raises(vf.InputTypeError, match="shared is a Tensor; give a mapping"):
        model(BATCH, shared=shared["W"], **inputs)
    with pytest.raises(vf.InputTypeError, match="shared has 'b': float"):
        model(BATCH, shared={**shared, "b": 1.0}, **inputs)
    with pytest.raises(vf.InputError, match="meta"):
        model(BATCH, shared={**shared, "b": torch.ones(3, device="meta")}, **inputs)
    with pytest.raises(vf.InputTypeError, match="shared tensor 'b'"):
        model(BATCH, shared={**shared, "b": torch.ones(3).to_sparse()}, **inputs)


def test_writing_to_it_is_refused_with_the_line():
    def vertex(self, v):
        with torch.no_grad():
            v.shared("W").mul_(2)
        h = v.pull("x") @ v.shared("W")
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": SIZE})
    with pytest.raises(vf.VertexFunctionError, match=r"writes to \"v\.shared\('W'\)\""):
        model([vf.chain(2)], x=torch.randn(2, SIZE), shared={"W": torch.eye(SIZE)})
