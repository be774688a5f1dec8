"""Tracing: once for each configuration, for any number of rows, with the user's names and lines."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

import vertexflow as vf

from ...models import BinaryTreeLSTM, FromCode, TreeRNN

RUNS = []  # of vertex methods of `Counting`


@pytest.fixture(autouse=True)
def _no_runs():
    RUNS.clear()


class Counting(TreeRNN):
    """Notes each time that the Python of its vertex method runs."""

    def __init__(self):
        super().__init__(3, 4)

    def vertex(self, v):
        RUNS.append(self.training)
        super().vertex(v)


@pytest.fixture(scope="module")
def traced():
    """The example of the README after a call, which changed nothing else in it."""
    model = BinaryTreeLSTM(3, 4)
    call(model)
    return model


def call(model, graphs=None, dtype=torch.float32, **options):
    batch = vf.pack(graphs or [vf.tree(((0, 1), 2)), vf.chain(5)])
    return model(batch, x=torch.randn(batch.num_vertices, 3, dtype=dtype), **options).h


def test_the_method_runs_once_for_all_batches():
    model = Counting()
    for graphs in ([vf.chain(1)], [vf.chain(1)] * 7, [vf.tree(((0, 1), 2))], [vf.chain(100)], None):
        call(model, graphs).sum().backward()
        call(model, graphs, reverse=True)
    with torch.no_grad():
        call(model)
    model.u.weight.requires_grad_(False)
    call(model).sum().backward()
    assert len(RUNS) == 1


@pytest.mark.slow
def test_the_method_runs_once_more_for_another_configuration():
    model = Counting()
    call(model)
    call(model.eval())
    assert len(RUNS) == 2
    call(model.train())
    call(model.eval())
    assert len(RUNS) == 2
    call(model.double(), dtype=torch.float64)
    assert len(RUNS) == 3
    with torch.autocast("cpu", torch.bfloat16):
        call(model.float())
    assert len(RUNS) == 4


def test_copies_trace_for_themselves():
    model = Counting()
    expected = call(model, [vf.chain(1)])
    assert expected.shape == (1, 4)
    for clone in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        RUNS.clear()
        call(clone)
        assert len(RUNS) == 1


def test_there_is_a_symbolic_graph_after_the_first_call():
    with pytest.raises(vf.VertexFunctionError, match="first call"):
        TreeRNN(3, 4).symbolic_graph  # noqa: B018


def test_the_symbolic_graph_shows_parts_names_shapes_and_lines(traced):
    lines = str(traced.symbolic_graph).splitlines()
    sections = {line.split(":")[0]: number for number, line in enumerate(lines) if line and not line.startswith(" ")}
    assert {"eager", "core", "derivative, core", "derivative, lazy"} <= sections.keys()
    source, first = inspect.getsourcelines(BinaryTreeLSTM.vertex)
    number = first + next(index for index, line in enumerate(source) if "fl, fr = self.u" in line)
    text = "\n".join(" ".join(line.split()) for line in lines)
    assert f"i: float32[n, 4] = getitem(split, 0) line {number}" in text
    assert "x: float32[n, 12] = addmm(w_bias, pull_x, t)" in text
    assert "h: float32[n, 4] = mul.Tensor(" in text
    assert "children_h: float32[n, 8] = given" in text


def test_parts_are_graph_modules(traced):
    part = traced.symbolic_graph.part("eager")
    x = torch.randn(6, 3)
    values = {"pull_x": x, "w_weight": traced.w.weight, "w_bias": traced.w.bias}
    rows, edges, *given = [node.name for node in part.graph.nodes if node.op == "placeholder"]
    assert (rows, edges) == ("rows", "edges")
    torch.testing.assert_close(part(6, 0, *map(values.__getitem__, given))[0], traced.w(x))


def stages(model):
    """Where each named value is computed."""
    return {
        node.name: name
        for name, part in model.symbolic_graph.parts.items()
        for node in part.graph.nodes
        if node.op == "call_function"
    }


def test_partition_of_the_readme_example(traced):
    where = stages(traced)
    assert where["x"] == "eager"
    assert where["fl"] == "core"
    parts = traced.symbolic_graph.parts
    products = {
        name: str(part.graph).count("aten.mm") + str(part.graph).count("aten.addmm") for name, part in parts.items()
    }
    assert products["eager"] == 1
    assert products["core"] == 1
    assert products["core_leaf"] == 0  # U @ 0 is folded away
    assert products["grad_core"] == 1  # the gradient of the children's state, nothing else
    assert products["grad_core_leaf"] == 0
    assert products["grad_lazy"] == 1  # dW
    assert products["grad_lazy_inner"] == 1  # dU, of vertices with children


def test_weights_that_are_made_of_each_other_many_times_are_cut_in_no_time():
    """Each power reads the one before twice: there are 2 ** 40 ways from the last to the weight."""

    def vertex(self, v):
        power = self.weight
        for _ in range(40):
            power = power @ power
        v.scatter(h=v.pull("x") @ power + v.gather(0).h)
        v.push(h=v.gather(0).h)

    x = torch.randn(3, 2)
    h = FromCode(vertex, {"h": 2}, weight=nn.Parameter(torch.eye(2)))([vf.chain(3)], x=x).h
    torch.testing.assert_close(h[1:], x[:2].cumsum(0))


def test_outputs_that_no_parent_reads_are_lazy():
    def vertex(self, v):
        h = torch.tanh(self.first(v.pull("x")) + v.gather(0).h)
        y = self.second(h)
        v.scatter(h=h)
        v.push(y=y)

    model = FromCode(vertex, {"h": 4}, first=nn.Linear(3, 4), second=nn.Linear(4, 2))
    model([vf.chain(3)], x=torch.randn(3, 3))
    where = stages(model)
    assert where["y"] == "lazy"
    assert where["h"] == "core_leaf"  # and in the core, of which it is the last to be listed
    assert "aten.addmm" not in str(model.symbolic_graph.parts["core"].graph)


def test_a_state_that_does_not_depend_on_children_needs_no_steps():
    def vertex(self, v):
        h = self.linear(v.pull("x"))
        v.scatter(h=h)
        v.push(y=h + v.gather(0).h)

    model = FromCode(vertex, {"h": 4}, linear=nn.Linear(3, 4))
    model([vf.chain(3)], x=torch.randn(3, 3)).y.sum().backward()
    assert not [name for name in model.symbolic_graph.parts if "core" in name]


def test_a_buffer_may_change_between_calls():
    def vertex(self, v):
        y = v.pull("x") * self.factor
        v.scatter(h=y + v.gather(0).h)
        v.push(y=y)

    model = FromCode(vertex, {"h": 3}, factor=torch.tensor(2.0))
    x = torch.randn(2, 3)
    assert torch.equal(model([vf.chain(2)], x=x).y, 2 * x)
    model.factor.fill_(3.0)
    assert torch.equal(model([vf.chain(2)], x=x).y, 3 * x)


def test_a_function_without_parameters_takes_its_dtype_from_the_inputs():
    def vertex(self, v):
        total = v.pull("x") + v.gather(0).total + v.gather(1).total
        v.scatter(total=total)
        v.push(total=total)

    batch = vf.pack([vf.tree(((0, 1), 2))])
    for dtype in (torch.float32, torch.float64):
        out = FromCode(vertex, {"total": 1})(batch, x=torch.ones(5, 1, dtype=dtype)).total
        assert out.dtype == dtype
        assert out[batch.roots].item() == 5


def test_tracing_leaves_random_numbers_alone():
    model, batch = TreeRNN(3, 4), vf.pack([vf.chain(3)])
    x = torch.randn(3, 3)
    torch.manual_seed(1)
    model(batch, x=x)
    after_tracing = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after_tracing)


def test_shared_modules_and_tied_weights_stay_what_they_are():
    def vertex(self, v):
        h = v.pull("x") + v.gather(0).h
        for layer in self.layers:
            h = h + torch.relu(layer(h))
        v.scatter(h=torch.tanh(h))
        v.push(h=h)

    first, tied = nn.Linear(3, 3), nn.Linear(3, 3)
    tied.weight = first.weight
    model = FromCode(vertex, {"h": 3}, layers=nn.ModuleList([first, first, tied]))
    before = {name: (value, value.clone()) for name, value in model.named_parameters(remove_duplicate=False)}
    model([vf.chain(3)], x=torch.randn(3, 3)).h.sum().backward()
    for name, value in model.named_parameters(remove_duplicate=False):
        assert value is before[name][0]
        assert torch.equal(value, before[name][1])
    assert first.weight.grad.abs().sum() > 0
    assert tied.bias.grad.abs().sum() > 0


def test_shapes_are_compared_as_symbols():
    def vertex(self, v):
        m = torch.linalg.solve(v.gather(0).m + torch.eye(2), v.pull("x"))  # [n, 2, 2] + [2, 2]
        v.scatter(m=m)
        v.push(m=m)

    x = torch.randn(3, 2, 2)
    m = FromCode(vertex, {"m": (2, 2)})([vf.chain(3)], x=x).m
    expected = [x[0]]
    for row in x[1:]:
        expected.append(torch.linalg.solve(expected[-1] + torch.eye(2), row))
    torch.testing.assert_close(m, torch.stack(expected))


def test_a_lost_leading_dimension_is_named():
    def vertex(self, v):
        v.scatter(h=v.pull("x").t())

    with pytest.raises(vf.VertexFunctionError, match=r"one row a vertex, but the shape is \(3, n\)"):
        FromCode(vertex, {"h": 3})([vf.chain(1)], x=torch.randn(1, 3))
