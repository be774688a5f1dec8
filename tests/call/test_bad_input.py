"""What a user can get wrong: each has its own message, and leaves the model and the optimiser as they were."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest
import torch
from torch import nn

import vertexflow as vf

from ..models import FromCode, TreeRNN

BATCH = [vf.tree(((0, 1), 2)), vf.chain(2)]  # 7 vertices


def state_and_gradient(v, h):
    v.scatter(h=h)
    v.push(h=h)


def linear_of(self, v):
    return self.linear(v.pull("x")) + v.gather(0).h + v.gather(1).h


def model_of(vertex, **parts):
    return FromCode(vertex, {"h": 4}, linear=nn.Linear(3, 4), **parts)


def refused(vertex, error, match, **parts):
    """The message with which a vertex function is refused."""
    with pytest.raises(error, match=match) as caught:
        model_of(vertex, **parts)(BATCH, x=torch.randn(7, 3))
    assert isinstance(caught.value, vf.VertexFlowError)
    return str(caught.value)


# Inputs of the model.


@pytest.mark.parametrize(
    ("inputs", "error", "match"),
    [
        ({"x": torch.randn(6, 3)}, vf.InputError, "'x' has 6 rows, but the batch has 7 vertices"),
        ({"x": torch.tensor(1.0)}, vf.InputError, "'x' has no dimension"),
        ({"x": np.zeros((7, 3))}, vf.InputTypeError, "'x' is a ndarray"),
        ({"x": torch.randn(7, 3, device="meta")}, vf.InputError, "'x' is on meta.* on cpu"),
        ({}, vf.InputError, r"v\.pull\('x'\): the model was not given this input \(given: none\)"),
        ({"y": torch.randn(7, 3)}, vf.InputError, r"v\.pull\('x'\).*given: 'y'"),
        ({"x": torch.randn(7, 3), "y": torch.randn(7)}, vf.InputError, "'y', but the vertex function never pulls it"),
        (
            {"x": torch.randn(7, 3).double()},
            vf.VertexFunctionError,
            r"(?s)dtype.*x: float64\[n, 3\]; parameters float32",
        ),
        ({"x": torch.randn(7, 5)}, vf.VertexFunctionError, r"(?s)dim.*linear_of.*x: float32\[n, 5\]"),
    ],
)
@pytest.mark.cases(1)
def test_inputs(inputs, error, match):
    def vertex(self, v):
        state_and_gradient(v, linear_of(self, v))

    model = model_of(vertex)
    with pytest.raises(error, match=match):
        model(BATCH, **inputs)
    assert model(BATCH, x=torch.randn(7, 3)).h.shape == (7, 4)


def test_graphs():
    model = TreeRNN(3, 4)
    for graphs, error, match in [
        ([], vf.InputError, "input 'x' has 4 rows, but the batch has 0 vertices"),
        ([vf.chain(1), None], vf.InputTypeError, "element 1"),
        ([vf.tree((0, 1, 2))], vf.GraphError, "graph 0, vertex 3 has a child in slot 2"),
    ]:
        with pytest.raises(error, match=match):
            model(graphs, x=torch.randn(4, 3))


def test_states():
    with pytest.raises(vf.InputError, match="state 'h' has size 0"):
        vf.VertexFunction(state={"h": 0})
    with pytest.raises(vf.InputError, match="'2h' is not a Python name"):
        vf.VertexFunction(state={"2h": 3})
    with pytest.raises(vf.VertexFunctionError, match="no method that computes a vertex"):
        vf.VertexFunction(state={"h": 3})([vf.chain(1)])


# What a vertex function may not do.


@pytest.mark.parametrize(
    ("finish", "match"),
    [
        (lambda v, h: (v.scatter(g=h), v.push(h=h)), r"v\.scatter\(g=\.\.\.\): there is no state.*'h'"),
        (lambda v, h: (v.scatter(h=h[:, :3]), v.push(h=h)), r"'h' has shape \(3,\).*declared with shape \(4,\)"),
        (lambda v, h: (v.scatter(h=3), v.push(h=h)), r"v\.scatter\(h=\.\.\.\) takes a tensor, not int"),
        (lambda v, h: v.push(h=h), "state 'h' was never scattered"),
        (lambda v, h: (v.scatter(h=h), v.scatter(h=h)), "scattered twice"),
        (lambda v, h: v.scatter(h), r"v\.scatter\(h=h\), not by position"),
        (lambda v, h: (v.scatter(h=h), v.push(h)), r"v\.push\(h=h\), not by position"),
        (lambda v, h: v.scatter(h=h), "nothing was pushed"),
        (lambda v, h: (v.scatter(h=h), v.push(h=h), v.push(h=h)), "pushed twice"),
        (lambda v, h: (v.scatter(h=h), v.push(h=h.sum())), "one row a vertex"),
        (lambda v, h: (v.gather(0).g, v.push(h=h)), "a child has no state 'g'; the states are 'h'"),
        (lambda v, h: v.gather(-1), "number of a slot.*-1"),
        (lambda v, h: v.gather("left"), "number of a slot.*'left'"),
    ],
)
@pytest.mark.cases(1)
def test_scatter_push_and_gather(finish, match):
    def vertex(self, v):
        finish(v, linear_of(self, v))

    message = refused(vertex, vf.VertexFunctionError, match)
    assert "test_bad_input.py" in message


@pytest.mark.parametrize(
    "mix",
    [
        lambda h: h - h.mean(0),
        lambda h: h - h.mean(),
        lambda h: h + h[0],
        lambda h: h.flip(0),
        lambda h: h.roll(1, 0),
        lambda h: h.softmax(0),
        lambda h: h.cumsum(0),
        lambda h: h.sort(0).values,
        lambda h: (h @ h.t()) @ h,
        lambda h: h[torch.arange(h.shape[0] - 1, -1, -1)],
        lambda h: nn.functional.batch_norm(h, None, None, training=True),
        lambda h: nn.functional.layer_norm(h.t(), (h.shape[0],)).t(),
    ],
)
@pytest.mark.cases(1)
def test_mixing_rows_names_the_line(mix):
    def vertex(self, v):
        h = linear_of(self, v)
        h = mix(h)
        state_and_gradient(v, h)

    message = refused(vertex, vf.VertexFunctionError, "mixes rows|number of vertices")
    assert f"test_bad_input.py:{inspect.getsourcelines(vertex)[1] + 2}: `h = mix(h)`" in message


def test_batch_norm_that_keeps_statistics():
    def vertex(self, v):
        state_and_gradient(v, self.norm(linear_of(self, v)))

    refused(vertex, vf.VertexFunctionError, "writes to 'norm.*LayerNorm", norm=nn.BatchNorm1d(4))


@pytest.mark.parametrize(
    "look",
    [
        lambda h: h if h.sum() > 0 else -h,
        lambda h: h * h.abs().max().item(),
        lambda h: h * float(h.sum()),
        lambda h: torch.tensor(h.tolist()),
        lambda h: h[h[:, 0] > 0],
        lambda h: torch.from_numpy(h.detach().numpy()),
    ],
)
def test_python_that_looks_at_values_names_the_line(look):
    def vertex(self, v):
        h = linear_of(self, v)
        h = look(h)
        state_and_gradient(v, h)

    message = refused(vertex, vf.VertexFunctionError, r"torch\.where|failed|mixes rows")
    assert f"test_bad_input.py:{inspect.getsourcelines(vertex)[1] + 2}: `h = look(h)`" in message


def test_python_that_looks_at_the_number_of_rows():
    def vertex(self, v):
        h = linear_of(self, v)
        if h.shape[0] > 5:
            h = -h
        state_and_gradient(v, h)

    message = refused(vertex, vf.VertexFunctionError, "takes the number of vertices")
    assert "`if h.shape[0] > 5:`" in message


def test_a_parameter_that_is_not_registered():
    hidden = [nn.Parameter(torch.randn(4))]

    def vertex(self, v):
        state_and_gradient(v, linear_of(self, v) * hidden[0])

    refused(vertex, vf.VertexFunctionError, "no parameter of the module.*register it")


def test_an_error_of_the_user_keeps_its_cause():
    def vertex(self, v):
        return undefined_name  # noqa: F821

    with pytest.raises(vf.VertexFunctionError, match=r"NameError.*undefined_name") as caught:
        model_of(vertex)(BATCH, x=torch.randn(7, 3))
    assert isinstance(caught.value.__cause__, NameError)


# Afterwards.


@pytest.mark.parametrize(
    ("dtypes", "why"),
    [
        ({"z": torch.float32}, "state_dtype has 'z', but there is no such state; the states are 'h', 'c'"),
        ({"c": "float32"}, "state_dtype of 'c' is float32; give a dtype of real numbers, integers or booleans"),
        (torch.complex64, r"state_dtype of 'h' is torch\.complex64; states are not complex: keep torch\.view_as_real"),
    ],
)
def test_dtypes_that_states_cannot_have(dtypes, why):
    with pytest.raises(vf.InputError, match=why):
        vf.VertexFunction(state={"h": 3, "c": 3}, state_dtype=dtypes)


def test_nan_is_not_hidden():
    model = TreeRNN(3, 4)
    x = torch.randn(7, 3)
    x[0, 0] = float("nan")  # a leaf of the first tree
    h = model(BATCH, x=x).h
    assert h[[0, 3, 4]].isnan().all()
    assert not h[[1, 2, 5, 6]].isnan().any()
    with torch.no_grad():
        model.u.weight[0, 0] = float("nan")
    assert model(BATCH, x=torch.randn(7, 3)).h[torch.tensor([3, 4, 6])].isnan().any(-1).all()


def test_a_nan_that_only_meets_the_zeros_of_missing_children():
    def vertex(self, v):
        state_and_gradient(v, self.linear(v.pull("x")) * v.gather(0).h + 1)

    x = torch.randn(2, 3)
    x[0] = float("nan")
    assert model_of(vertex)([vf.chain(2)], x=x).h[0].isnan().all()


def test_after_an_error_training_goes_on_as_if_nothing_had_happened():
    def train_with(bad_calls):
        torch.manual_seed(0)
        model = TreeRNN(3, 4)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        x = torch.randn(7, 3)
        for _ in range(3):
            for bad in bad_calls:
                before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
                with pytest.raises(vf.VertexFlowError):
                    bad(model)
                after = (model.state_dict(), optimizer.state_dict())
                assert all(torch.equal(a, b) for a, b in zip(before[0].values(), after[0].values(), strict=True))
                assert str(before[1]) == str(after[1])
            optimizer.zero_grad()
            model(BATCH, x=x).h.square().sum().backward()
            optimizer.step()
        return model.state_dict()

    bad_calls = [
        lambda model: model(BATCH, x=torch.randn(6, 3)),
        lambda model: model([], x=torch.randn(6, 3)),
        lambda model: model([vf.tree((0, 1, 2))], x=torch.randn(4, 3)),
        lambda model: model(BATCH, x=torch.randn(7, 5)),
    ]
    expected, actual = train_with([]), train_with(bad_calls)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


# What the constructor, a call, what it returns, and a run that grows are given by mistake.


def sums(backend="torch"):
    def vertex(self, v):
        h = torch.tanh(v.pull("x") + v.gather(0).h + v.gather(1).h)
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": 4})
    model.backend = backend
    return model


@pytest.mark.parametrize("size", [np.int64(4), torch.tensor(4), [4], (np.int32(2), 2), torch.Size([4]), ()])
def test_sizes_of_states_are_integers_of_any_sort(size):
    shape = vf.VertexFunction(state={"h": size}).state["h"]
    assert all(type(extent) is int for extent in shape)
    assert len(torch.empty(shape).reshape(-1)) in (4, 1)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"state": {"h": 4.0}}, vf.InputTypeError, r"state 'h' has size 4\.0.*as integers"),
        ({"state": {"h": True}}, vf.InputTypeError, "state 'h' has size True"),
        ({"state": {"h": "4"}}, vf.InputTypeError, "state 'h' has size '4'"),
        ({"state": {"h": None}}, vf.InputTypeError, "state 'h' has size None"),
        ({"state": {"h": (4, "a")}}, vf.InputTypeError, "state 'h' has size"),
        ({"state": {"h": 0}}, vf.InputError, "would hold nothing; leave it out"),
        ({"state": {"h": (3, 0)}}, vf.InputError, "would hold nothing; leave it out"),
        ({"state": {"h": -4}}, vf.InputError, "positive integers"),
        ({"state": ["h"]}, vf.InputTypeError, "a mapping from names to sizes"),
        ({"state": 4}, vf.InputTypeError, "a mapping from names to sizes"),
        ({"state": {"h": 4}, "state_dtype": "float32"}, vf.InputTypeError, "state_dtype is 'float32'; give a dtype"),
    ],
)
def test_settings(settings, error, match):
    with pytest.raises(error, match=match):
        vf.VertexFunction(**settings)


@pytest.mark.parametrize("backend", ["torch", "eager"])
def test_arguments_of_a_call(backend):
    model, graphs, x = sums(backend), [vf.chain(3)], torch.randn(3, 4)
    for call, match in (
        (lambda: model(graphs, x), r"Tensor without a name.*model\(batch, x=x\)"),
        (lambda: model(graphs, x=x, reverse="no"), r"reverse is 'no'"),
        (lambda: model(graphs, x=x, initial=x), r"initial is a Tensor; give a mapping"),
        (lambda: model(graphs, x=x, initial=[x]), r"initial is a list; give a mapping"),
    ):
        with pytest.raises(vf.InputTypeError, match=match):
            call()
    assert model(graphs, x=x, reverse=np.bool_(True)).h.shape == (3, 4)


@pytest.mark.parametrize("backend", ["torch", "eager"])
def test_outputs_that_are_not_there(backend):
    out = sums(backend)([vf.chain(3)], x=torch.randn(3, 4))
    for read, error in ((lambda: out.k, AttributeError), (lambda: out["k"], KeyError), (lambda: out[0], KeyError)):
        with pytest.raises(
            vf.VertexFlowError, match=r"^there is no output .*; the vertex function pushed 'h'$"
        ) as caught:
            read()
        assert isinstance(caught.value, error)
    assert out.get("k") is None
    assert not hasattr(out, "k")


@pytest.mark.parametrize("backend", ["torch", "eager"])
def test_a_run_that_grows(backend):
    x = torch.randn(3, 4)
    run = sums(backend).start(x=x)
    for call, match in (
        (lambda: run.extend([[0, 1], [2]]), "as many slots in each row"),
        (lambda: run["h"], r"vertices are numbers.*not 'h'.*run\[vertices\]\.name"),
        (lambda: run.h, r"no attribute 'h'.*run\[vertices\]\.h"),
        (lambda: run[:].k, "pushed 'h'"),
    ):
        with pytest.raises(vf.VertexFlowError, match=match):
            call()
    with pytest.raises(vf.VertexFlowError, match="no vertex was computed yet"):
        _ = sums(backend).start(x=x[:0])[:].h
    new = run.extend([[0, 1]])
    assert new.tolist() == [3]
