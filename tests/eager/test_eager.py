"""backend="eager": the method itself on real tensors, step after step, with autograd's own gradients."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

import vertexflow as vf

from ..models import FromCode, TreeRNN

TREES = [vf.tree(((0, 1), 2)), vf.chain(4), vf.tree((0, 1))]


def eager_and_traced(make):
    """One model twice, with the same weights: under eager, and traced."""
    models = []
    for backend in ("eager", "torch"):
        torch.manual_seed(0)
        models.append(make().double())
        models[-1].backend = backend
    return models


def x_of(batch, size=3):
    return torch.randn(batch.num_vertices, size, dtype=torch.float64, requires_grad=True)


def test_any_python_runs_at_every_step_on_real_tensors(capsys):
    seen = []

    def vertex(self, v):
        x = v.pull("x")
        print("rows", x.shape[0], "first", x[0, 0].item())
        seen.append(v.num_children.tolist())
        h = x + v.gather(0).h if bool(v.num_children.max() > 0) else x * 2
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 1})
    model.backend = "eager"
    out = model([vf.chain(3)], x=torch.arange(1.0, 4.0)[:, None])
    assert out.h.flatten().tolist() == [2.0, 4.0, 7.0]
    assert seen == [[0], [1], [1]]
    assert capsys.readouterr().out.splitlines() == ["rows 1 first 1.0", "rows 1 first 2.0", "rows 1 first 3.0"]


def test_what_the_user_raises_comes_as_it_is():
    class MineError(Exception): ...

    def vertex(self, v):
        raise MineError("here")

    model = FromCode(vertex, {"h": 1})
    model.backend = "eager"
    with pytest.raises(MineError, match="here") as caught:
        model([vf.chain(2)], x=torch.ones(2, 1))
    assert caught.traceback[-1].name == "vertex"


@pytest.mark.slow
def test_gradients_of_gradients():
    (model, _), batch = eager_and_traced(lambda: TreeRNN(3, 4)), vf.pack(TREES)
    parameters = list(model.parameters())

    def run(x, *values):
        given = dict(zip(dict(model.named_parameters()), values, strict=True))
        return torch.func.functional_call(model, given, (batch,), {"x": x}).h.square().sum()

    values = [value.detach().clone().requires_grad_() for value in (x_of(batch), *parameters)]
    assert torch.autograd.gradgradcheck(run, values, eps=1e-6, atol=1e-4)


def test_gradients_of_gradients_through_any_number_of_children():
    def vertex(self, v):
        kids = v.children
        weights = v.softmax(self.linear(torch.tanh(kids.h + kids.expand(v.pull("x")))))
        h = torch.tanh(v.pull("x") + v.sum(weights * kids.h) + v.mean(kids.h) * v.max(kids.h))
        v.scatter(h=h)
        v.push(h=h)

    torch.manual_seed(0)
    model = FromCode(vertex, {"h": 3}, linear=nn.Linear(3, 3)).double()
    model.backend = "eager"
    batch = vf.pack([vf.graph(5, [(0, 2), (1, 2), (0, 3), (2, 3), (2, 4), (3, 4), (1, 4)])])
    x = x_of(batch)
    assert torch.autograd.gradgradcheck(lambda x: model(batch, x=x).h.sum(), x, eps=1e-6, atol=1e-4)


def test_hooks_on_submodules_run_at_every_step():
    model, batch = TreeRNN(3, 4), vf.pack([vf.chain(5)])
    model.backend = "eager"
    rows = []
    handle = model.w.register_forward_hook(lambda module, args, result: rows.append(len(result)))
    x = torch.randn(5, 3)
    model(batch, x=x)
    assert rows == [1] * 5
    handle.remove()
    model.w.register_forward_hook(lambda module, args, result: result * 0)
    with_hook = model(batch, x=x).h
    torch.testing.assert_close(with_hook, model(batch, x=torch.zeros(5, 3)).h)


def test_dropout_is_fresh_at_every_step_and_repeats_with_the_seed():
    def vertex(self, v):
        h = nn.functional.dropout(v.pull("x") + 0 * v.gather(0).h, 0.5, self.training)
        v.scatter(h=h)
        v.push(h=h)

    model, batch = FromCode(vertex, {"h": 64}), vf.pack([vf.chain(2)])
    model.backend = "eager"
    x = torch.ones(2, 64)
    torch.manual_seed(1)
    first, second = model(batch, x=x).h, model(batch, x=x).h
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(model(batch, x=x).h, first)
    assert torch.equal(model.eval()(batch, x=x).h, x)


def test_autocast_and_dtypes_of_states():
    def vertex(self, v):
        below = v.gather(0)
        assert below.h.dtype == torch.bfloat16
        assert below.c.dtype == torch.float32
        h = self.linear(v.pull("x") + below.h)
        v.scatter(h=h, c=h.float() + below.c)
        v.push(h=h, c=below.c)

    model = FromCode(vertex, {"h": 3, "c": 3}, linear=nn.Linear(3, 3))
    model.backend, model.state_dtype = "eager", {"h": torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        out = model([vf.chain(3)], x=torch.randn(3, 3))
    assert (out.h.dtype, out.c.dtype) == (torch.bfloat16, torch.float32)


def test_no_grad_and_inputs_that_require_grad():
    model, traced = eager_and_traced(lambda: TreeRNN(3, 4))
    batch = vf.pack(TREES)
    with torch.no_grad():
        assert not model(batch, x=x_of(batch)).h.requires_grad
    x = x_of(batch)
    for reverse in (False, True):
        grads = [
            torch.autograd.grad(one(batch, x=x, reverse=reverse).h.square().sum(), [x, *one.parameters()])
            for one in (model, traced)
        ]
        for ours, theirs in zip(*grads, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


class Arithmetic(vf.VertexFunction):
    """`number`s pull x, `operation`s weight; both may pull both."""

    def __init__(self, shared=False, backend="eager"):
        super().__init__(state={"h": 2}, backend=backend)
        self.shared = shared

    @vf.vertex("number")
    def number(self, v):
        h = v.pull("x") + (v.pull("w") if self.shared else 0)
        v.scatter(h=h)
        v.push(leaf=h)

    @vf.vertex("operation")
    def operation(self, v):
        h = (v.gather(0).h + v.gather(1).h) * v.pull("w")
        v.scatter(h=h)
        v.push(h=h)


def arithmetic(numbers):
    """Each operation joins two of the vertices before it; the first `numbers` are numbers."""
    edges = [(numbers - 1 if at == 0 else numbers + at - 1, numbers + at) for at in range(numbers - 1)]
    edges += [(at, numbers + at) for at in range(numbers - 1)]
    kinds = ["number"] * numbers + ["operation"] * (numbers - 1)
    return vf.graph(2 * numbers - 1, edges, kind=kinds)


@pytest.mark.parametrize("shared", [False, True])
def test_inputs_have_rows_of_the_kinds_that_pull_them(shared):
    """Also where the number of rows fits both choices: then the methods are asked."""
    batch = vf.pack([arithmetic(4), vf.graph(1, [], kind=["operation"])])
    numbers, operations = 4, 4
    x, w = torch.randn(numbers, 2), torch.randn(numbers + operations if shared else operations, 2)
    ours, theirs = (Arithmetic(shared, backend)(batch, x=x, w=w) for backend in ("eager", "torch"))
    torch.testing.assert_close(dict(ours), dict(theirs))


def test_where_the_number_of_rows_tells_nothing_methods_are_asked_on_one_vertex():
    """Two of three kinds have as many vertices, and pull the same or not."""

    class Three(vf.VertexFunction):
        def __init__(self, backend, both):
            super().__init__(state={"h": 2}, backend=backend)
            self.both = both
            self.register_buffer("calls", torch.zeros(()))

        @vf.vertex("a")
        def of_a(self, v):
            h = v.pull("x")
            v.scatter(h=h)
            v.push(h=h)

        @vf.vertex("b")
        def of_b(self, v):
            h = v.gather(0).h * (v.pull("x") if self.both == "b" else 2)
            v.scatter(h=h)
            v.push(h=h)

        @vf.vertex("c")
        def of_c(self, v):
            h = v.gather(0).h * (v.pull("x") if self.both == "c" else 3)
            v.scatter(h=h)
            v.push(h=h)

    batch = vf.pack([vf.graph(3, [(0, 1), (1, 2)], kind=["a", "b", "c"])] * 2)
    x = torch.randn(4, 2)
    for both in "bc":
        torch.testing.assert_close(Three("eager", both)(batch, x=x).h, Three("torch", both)(batch, x=x).h)
    with pytest.raises(vf.InputError, match=r"input 'x' has 5 rows, but the batch has 4 vertices of kind 'a' or 'b'"):
        Three("eager", "b")(batch, x=torch.randn(5, 2))


def test_a_batch_without_the_kind_that_pushes_has_an_output_without_rows():
    batch = vf.pack([vf.graph(2, [], kind=["number"] * 2)])
    state = torch.random.get_rng_state()
    out = Arithmetic()(batch, x=torch.ones(2, 2), w=torch.empty(0, 2))
    assert out.h.shape == (0, 2)
    assert out.leaf.shape == (2, 2)
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(vf.InputError, match="input 'w' has 1 rows, but the batch has 0 vertices of kind 'operation'"):
        Arithmetic()(batch, x=torch.ones(2, 2), w=torch.empty(1, 2))


def test_an_absent_kind_that_cannot_be_asked_may_pull_what_nobody_else_does():
    """It is called on one vertex without children to see what it pulls, where it may fail as it never does in a batch."""

    class TwoKinds(vf.VertexFunction):
        def __init__(self):
            super().__init__(state={"h": 3}, backend="eager")

        @vf.vertex("leaf")
        def leaf(self, v):
            v.scatter(h=v.pull("x"))
            v.push(h=v.pull("x"))

        @vf.vertex("node")
        def node(self, v):
            first = v.children.h[0] + v.pull("y")  # IndexError where there is none
            v.scatter(h=first)
            v.push(h=first)

    x = torch.randn(2, 3)
    out = TwoKinds()([vf.graph(2, [], kind=["leaf", "leaf"])], x=x, y=torch.randn(0, 3))
    assert torch.equal(out.h, x)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"v\.pull\('x'\): the model was not given this input"),
        ({"x": torch.ones(3, 1), "y": torch.ones(3, 1)}, "input 'y', but the vertex function never pulls it"),
        ({"x": torch.ones(4, 1)}, "input 'x' has 4 rows, but the batch has 3 vertices: give one row a vertex"),
        ({"x": [1, 2, 3]}, "input 'x' is a list; give a torch.Tensor"),
        ({"x": torch.ones(3, 1), "initial": {"g": torch.ones(1, 1)}}, "there is no such state"),
        ({"x": torch.ones(3, 1), "initial": {"h": torch.ones(2, 1)}}, r"give a tensor of shape \[1, 1\]"),
    ],
)
def test_inputs_are_refused_as_by_the_other_backends(given, message):
    def vertex(self, v):
        v.scatter(h=v.pull("x") + v.gather(0).h)
        v.push(h=v.pull("x"))

    for backend in ("eager", "torch"):
        model = FromCode(vertex, {"h": 1})
        model.backend = backend
        with pytest.raises(vf.VertexFlowError, match=message):
            model([vf.chain(3)], **given)


def test_children_beyond_the_slots_that_are_gathered_are_refused():
    def vertex(self, v):
        v.scatter(h=v.pull("x") + v.gather(0).h)
        v.push(h=v.pull("x"))

    for backend in ("eager", "torch"):
        model = FromCode(vertex, {"h": 1})
        model.backend = backend
        with pytest.raises(
            vf.GraphError, match="vertex 2 has a child in slot 1, but the vertex function gathers slots 0"
        ):
            model([vf.tree((0, 1))], x=torch.ones(3, 1))


def test_a_step_that_leaves_something_out_is_refused():
    def pushes_at_leaves(self, v):
        v.scatter(h=v.pull("x"))
        if int(v.num_children.max()) == 0:
            v.push(h=v.pull("x"))

    def changes_dtype(self, v):
        v.scatter(h=v.pull("x"))
        v.push(h=v.pull("x").double() if int(v.num_children.max()) else v.pull("x"))

    def scatters_nothing(self, v):
        v.push(h=v.pull("x"))

    def pushes_nothing(self, v):
        v.scatter(h=v.pull("x"))

    for vertex, message in (
        (pushes_at_leaves, "'h' was pushed in some steps and not in others"),
        (changes_dtype, r"output 'h' is float32 \[rows, 1\] in one step and float64 \[rows, 1\] in another"),
        (scatters_nothing, "state 'h' was never scattered(?s:.*)test_eager.py"),
        (pushes_nothing, "nothing was pushed"),
    ):
        model = FromCode(vertex, {"h": 1})
        model.backend = "eager"
        with pytest.raises(vf.VertexFunctionError, match=message):
            model([vf.chain(3)], x=torch.ones(3, 1))


def test_a_run_that_grows_goes_back_through_all_of_it():
    grads = []
    for model in eager_and_traced(lambda: TreeRNN(3, 4)):
        torch.manual_seed(1)
        x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
        run = model.start(x=x[:3])
        first = run.extend([[0, 1], [3, 2]], x=x[3:5])
        run.extend([[4, 0], [5, 5]], x=x[5:])
        assert len(run) == 7
        assert first.tolist() == [3, 4]
        loss = run[[3, 6]].h.square().sum() + run[0].h.sum() + run[:].h.mean()
        grads.append([loss, *torch.autograd.grad(loss, [x, *model.parameters()])])
        with pytest.raises(vf.VertexFlowError):
            run.extend([[0, 9]], x=x[:1])
        assert len(run) == 7
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_explain_and_symbolic_graph_say_what_runs():
    model = TreeRNN(3, 4)
    model.backend = "eager"
    assert model.explain() == 'vertex: the method itself, once a step, on real tensors (backend "eager")'
    with pytest.raises(vf.VertexFunctionError, match='nothing is traced; use backend="torch"'):
        model.symbolic_graph  # noqa: B018


def test_names_of_backends(monkeypatch):
    batch = vf.pack([vf.chain(2)])
    for name, said in (
        ("eager", "the method itself"),
        ("native", "native code"),
        ("compile", "native code"),
        ("torch", "calls of PyTorch"),
    ):
        model = TreeRNN(3, 4)
        monkeypatch.setenv("VERTEXFLOW_BACKEND", name)
        model(batch, x=torch.randn(2, 3))
        assert said in model.explain()
    monkeypatch.delenv("VERTEXFLOW_BACKEND")
    with pytest.raises(vf.BackendError, match="'auto', 'eager', 'torch', 'native', 'triton'"):
        vf.VertexFunction(state={"h": 1}, backend="magic")


def test_parameters_and_attributes_are_read_at_every_call():
    def vertex(self, v):
        v.scatter(h=v.pull("x") * self.scale)
        v.push(h=v.pull("x") * self.scale)

    model = FromCode(vertex, {"h": 1})
    model.backend = "eager"
    for model.scale in (2.0, 3.0):
        assert model([vf.chain(1)], x=torch.ones(1, 1)).h.item() == model.scale


class WithoutCode(vf.VertexFunction):
    def __init__(self):
        super().__init__(state={"h": 2}, backend="eager")

    def of_factor(self, factor, v):
        h = v.gather(0).h + factor * v.pull("x")
        v.scatter(h=h)
        v.push(h=h)

    vertex = functools.partialmethod(of_factor, 3)


def test_a_method_without_code_of_its_own_is_called():
    out = WithoutCode()([vf.chain(2)], x=torch.ones(2, 2))
    assert out.h.tolist() == [[3, 3], [6, 6]]
