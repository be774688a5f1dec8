"""Vertices of several kinds, each with a method of its own, against the reference."""

from __future__ import annotations

import functools
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

import vertexflow as vf
from vertexflow.scheduler import POLICIES

from ..agreement import TOLERANCE, join
from ..budget import tries
from ..kinds import kinds_cases
from ..reference import run_reference


def check(case, batch=None):
    ours = dict(case.model(batch or case.batch(), reverse=case.reverse, **case.given()))
    count, edges = join(case.parts)
    reference = run_reference(case.model, count, edges, case.inputs, case.reverse, case.edge_inputs, case.methods())
    pushed = {name for method in case.model.methods.values() for name in method.pushed}
    assert ours.keys() == pushed
    for name in pushed - reference.keys():  # of a kind that this batch has not
        assert len(ours[name]) == 0
    for name, expected in reference.items():
        torch.testing.assert_close(ours[name], expected, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")
    leaves = {**dict(case.model.named_parameters()), **case.inputs, **case.edge_inputs}
    leaves = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(value.shape, dtype=value.dtype, generator=generator)
        for name, value in reference.items()
        if value.requires_grad
    }
    if not leaves or not weights:
        return

    def gradients(outputs):
        loss = sum((outputs[name] * weight).sum() for name, weight in weights.items())
        return torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)

    for name, actual, expected in zip(leaves, gradients(ours), gradients(reference), strict=True):
        if expected is None:
            assert actual is None or not actual.any(), name
        else:
            actual = torch.zeros_like(expected) if actual is None else actual
            torch.testing.assert_close(actual, expected, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")


class Weighted(vf.VertexFunction):
    """Vertices of the kinds "a" and "b" weigh their children by an edge input of their own and by one of both."""

    def __init__(self):
        super().__init__(state={"h": 3})
        self.linear = nn.Linear(3, 3)

    def weigh(self, v, own):
        kids = v.children
        self.finish(v, v.sum(kids.pull(own) * kids.h + kids.pull("both") * torch.cos(kids.h)))

    def finish(self, v, below):
        h = torch.tanh(self.linear(v.pull("x")) + below)
        v.scatter(h=h)
        v.push(h=h)

    @vf.vertex("a")
    def of_a(self, v):
        self.weigh(v, "weight")

    @vf.vertex("b")
    def of_b(self, v):
        self.weigh(v, "other")

    @vf.vertex("c")
    def of_c(self, v):
        self.finish(v, v.mean(v.children.h))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.cases(1)
def test_edge_inputs_of_some_kinds_are_in_the_order_in_which_edges_were_given(reverse):
    torch.manual_seed(0)
    model = Weighted().double()
    edges = [(6, 7), (2, 3), (0, 4), (5, 7), (1, 3), (3, 6), (0, 3), (4, 6), (1, 5), (4, 5), (0, 7), (2, 6)]
    kinds = [*"abcabcba"]
    batch = vf.pack([vf.graph(8, edges, kind=kinds), vf.graph(8, edges[::-1], kind=kinds)])
    joined = edges + [(child + 8, parent + 8) for child, parent in edges[::-1]]
    x = torch.randn(16, 3, dtype=torch.float64)
    rows = {name: torch.rand(24, 1, dtype=torch.float64, requires_grad=True) for name in ("weight", "other", "both")}
    pulled_by = {"weight": "a", "other": "b", "both": "ab"}
    readers = [kinds[edge[0 if reverse else 1] % 8] for edge in joined]
    given = {name: rows[name][[kind in pulled_by[name] for kind in readers]] for name in rows}
    ours = model(batch, x=x, reverse=reverse, **given).h
    with_slots = [(*edge, number) for number, edge in enumerate(joined)]  # they rise in the order of the edges
    methods = [getattr(model, f"of_{kind}") for kind in kinds * 2]
    reference = run_reference(model, 16, with_slots, {"x": x}, reverse, rows, methods)["h"]
    torch.testing.assert_close(ours, reference, **TOLERANCE)
    weight = torch.randn_like(ours)
    actual, expected = (torch.autograd.grad((h * weight).sum(), list(rows.values())) for h in (ours, reference))
    torch.testing.assert_close(actual, expected, **TOLERANCE)
    assert torch.equal(batch.edge_index.T, torch.tensor(joined))


@tries(3)
@given(kinds_cases())
def test_random_methods_over_random_structures(case):
    for backend in ("auto", "eager"):
        print(f"backend {backend}")
        case.model.backend = backend
        check(case)


@tries(2)
@given(kinds_cases())
@pytest.mark.slow
def test_every_policy_gives_the_same(case):
    for policy in [*POLICIES, "fsm"]:
        print(f"policy {policy}")
        case.model.policy = vf.FSM.learn([case.batch()]) if policy == "fsm" else policy
        check(case)


class Arithmetic(vf.VertexFunction):
    """Numbers, and two operations on them."""

    def __init__(self):
        super().__init__(state={"value": 1})
        self.scale = nn.Parameter(torch.ones(1))

    @vf.vertex("number")
    def number(self, v):
        v.scatter(value=self.scale * v.pull("x"))

    @vf.vertex("plus", "minus")
    def operation(self, v):
        left, right = v.gather(0).value, v.gather(1).value
        value = left + v.pull("sign") * right
        v.scatter(value=value)
        v.push(value=value)


KINDS = ["number", "number", "plus", "number", "minus"]
EDGES = [(0, 2), (1, 2), (2, 4), (3, 4)]


ONE = Arithmetic()


def arithmetic(kinds=KINDS):
    return vf.graph(5, EDGES, kind=kinds)


X, SIGN = torch.tensor([[2.0], [3.0], [4.0]]), torch.tensor([[1.0], [-1.0]])


def test_inputs_and_outputs_have_rows_of_the_kinds_that_pull_and_push_them():
    out = Arithmetic()([arithmetic()], x=X, sign=SIGN)
    assert out.value.tolist() == [[5.0], [1.0]]  # 2 + 3, and that minus 4


def test_kinds_of_one_method_are_computed_in_the_same_steps():
    model = Arithmetic()
    batch = vf.pack([arithmetic(), arithmetic(["number", "number", "minus", "number", "plus"])])
    model(batch, x=torch.cat([X, X]), sign=torch.cat([SIGN, -SIGN]))
    ((order, methods, _),) = batch.derived.orders.values()
    assert [methods[step.group] for step in order.steps] == ["number", "operation", "operation"]


def test_no_row_is_computed_for_nothing():
    """The product of leaves runs over leaves, that of nodes over nodes."""
    rows = []

    class Rows(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
                rows.append(args[-2].shape[0])
            return func(*args, **(kwargs or {}))

    class Two(vf.VertexFunction):
        def __init__(self, backend):
            super().__init__(state={"h": 3}, backend=backend)
            self.up, self.join = nn.Linear(2, 3), nn.Linear(6, 3)

        @vf.vertex("leaf")
        def leaf(self, v):
            v.scatter(h=self.up(v.pull("x")))

        @vf.vertex("node")
        def node(self, v):
            h = torch.tanh(self.join(torch.cat([v.gather(0).h, v.gather(1).h], -1)))
            v.scatter(h=h)
            v.push(h=h)

    model = Two(backend="torch")
    graph = vf.graph(5, EDGES, kind=["leaf", "leaf", "node", "leaf", "node"])
    with torch.no_grad():
        model([graph], x=torch.randn(3, 2))
        with Rows():
            model([graph], x=torch.randn(3, 2))
    assert rows == [3, 1, 1]


def test_a_schedule_from_a_worker_is_used():
    model = Arithmetic()
    samples = [(arithmetic(), X, SIGN)] * 4
    loader = DataLoader(samples, batch_size=2, collate_fn=functools.partial(vf.collate, policy="agenda"), num_workers=1)
    for batch, x, sign in loader:
        out = model(batch, x=x, sign=sign)
        assert out.value.flatten().tolist() == [5.0, 1.0] * 2
        assert all(key.is_ahead for key in batch.derived.orders)


def test_a_model_with_kinds_is_pickled_and_copied():
    model = Arithmetic()
    model([arithmetic()], x=X, sign=SIGN)
    again = pickle.loads(pickle.dumps(model))
    assert again([arithmetic()], x=X, sign=SIGN).value.tolist() == [[5.0], [1.0]]


def test_the_symbolic_graph_shows_every_method():
    model = Arithmetic()
    model([arithmetic()], x=X, sign=SIGN)
    text = str(model.symbolic_graph)
    assert "vertex function `number` of test_kinds.py" in text
    assert "vertex function `operation` of test_kinds.py" in text
    assert "operation.core" in model.symbolic_graph.parts


def test_methods_are_inherited_and_replaced():
    class Louder(Arithmetic):
        @vf.vertex("number")
        def number(self, v):
            v.scatter(value=10 * v.pull("x"))

    assert Louder()([arithmetic()], x=X, sign=SIGN).value.tolist() == [[50.0], [10.0]]


# What is wrong is said, where it is, and what to do.


def test_a_kind_without_a_method():
    kinds = ["number", "number", "times", "number", "minus"]
    message = (
        "graph 1, vertex 2 is of kind 'times', for which the vertex function has no method; it has 'number', 'plus'"
    )
    with pytest.raises(vf.GraphError, match=message):
        Arithmetic()([arithmetic(), arithmetic(kinds)], x=X, sign=SIGN)


def test_a_batch_whose_children_another_model_reads():
    class Reader(vf.VertexFunction):
        def __init__(self, reads):
            super().__init__(state={"h": 1}, backend="torch")
            self.reads = reads

        @vf.vertex("a")
        def a(self, v):
            self.compute(v, "a")

        @vf.vertex("b")
        def b(self, v):
            self.compute(v, "b")

        def compute(self, v, kind):
            h = v.pull("x") + (v.sum(v.children.h) if kind == self.reads else 0)
            v.scatter(h=h)
            v.push(h=h)

    batch, x = vf.pack([vf.graph(2, [(0, 1)], kind=["b", "a"])]), torch.ones(2, 1)
    assert Reader("a")(batch, x=x).h.flatten().tolist() == [1, 2]
    with pytest.raises(
        vf.GraphError, match="graph 0, vertex 1 has a child in slot 0, but the vertex function gathers no"
    ):
        Reader("b")(batch, x=x)


def test_graphs_without_kinds():
    with pytest.raises(
        vf.GraphError, match="methods for the kinds 'number', 'plus', 'minus', but the graphs have no kinds"
    ):
        Arithmetic()([vf.graph(5, EDGES)], x=X, sign=SIGN)


def test_rows_for_all_vertices_instead_of_those_of_a_kind():
    message = "input 'x' has 5 rows, but the batch has 3 vertices of kind 'number': give one row a vertex"
    with pytest.raises(vf.InputError, match=message):
        Arithmetic()([arithmetic()], x=torch.randn(5, 1), sign=SIGN)
    with pytest.raises(
        vf.InputError, match="'sign' has 3 rows, but the batch has 2 vertices of kind 'plus' or 'minus'"
    ):
        Arithmetic()([arithmetic()], x=X, sign=torch.randn(3, 1))


def test_an_input_that_no_kind_pulls():
    with pytest.raises(vf.InputError, match="given the input 'y', but the vertex function never pulls it"):
        Arithmetic()([arithmetic()], x=X, sign=SIGN, y=SIGN)


class Signed(vf.VertexFunction):
    """Words have a state `h`, negations a state `sign`; phrases read both of both and have no sign."""

    def __init__(self):
        super().__init__(state={"h": 2, "sign": 1})
        self.linear = nn.Linear(2, 2)

    @vf.vertex("word")
    def word(self, v):
        v.scatter(h=torch.tanh(self.linear(v.pull("x"))))

    @vf.vertex("not")
    def negation(self, v):
        v.scatter(sign=-torch.exp(v.pull("x")[:, :1]))

    @vf.vertex("phrase")
    def phrase(self, v):
        left, right = v.gather(0), v.gather(1)
        h = self.linear(left.h + 2 * right.h) * (1 + left.sign + 3 * right.sign)
        v.scatter(h=h)
        v.push(h=h)


def test_a_state_that_a_kind_leaves_out_is_zero_there(backends):
    torch.manual_seed(1)
    model, x = Signed(), torch.randn(3, 2, requires_grad=True)
    kinds, edges = ["not", "word", "phrase", "word", "phrase"], [(0, 2), (1, 2), (2, 4), (3, 4)]
    word = [torch.tanh(model.linear(x[1:]))[row] for row in (0, 1)]
    first = model.linear(2 * word[0]) * (1 - torch.exp(x[0, 0]))
    expected = torch.stack([first, model.linear(first + 2 * word[1])])
    wanted = [x, *model.parameters()]
    for backend in (*backends, "eager"):
        model.backend = backend
        h = model([vf.graph(5, edges, kind=kinds)], x=x).h
        torch.testing.assert_close(h, expected)
        gradients = [torch.autograd.grad(value.square().sum(), wanted, retain_graph=True) for value in (h, expected)]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_a_state_that_all_kinds_leave_out(backend):
    class Half(Arithmetic):
        @vf.vertex("number")
        def number(self, v):
            v.pull("x")

        @vf.vertex("plus", "minus")
        def operation(self, v):
            v.push(value=v.gather(0).value + v.pull("sign"))

    model = Half()
    model.backend = backend
    with pytest.raises(vf.VertexFunctionError, match=r"state 'value' was never scattered[^$]*test_kinds.py"):
        model([arithmetic()], x=X, sign=SIGN)


def test_methods_that_push_one_name_in_two_shapes():
    class Odd(Arithmetic):
        @vf.vertex("number")
        def number(self, v):
            v.scatter(value=v.pull("x"))
            v.push(value=torch.cat([v.pull("x")] * 2, -1))

    message = (
        r"method `number` pushes 'value' as float32\[n, 2\], method `operation` as float32\[n, 1\]; give two outputs"
    )
    with pytest.raises(vf.VertexFunctionError, match=message):
        Odd()([arithmetic()], x=X, sign=SIGN)


def test_one_input_for_vertices_and_for_edges():
    class Odd(Arithmetic):
        @vf.vertex("number")
        def number(self, v):
            v.scatter(value=v.pull("x") + v.sum(v.children.pull("sign")))

    with pytest.raises(vf.VertexFunctionError, match="pulls 'sign' for edges, method `operation` for vertices"):
        Odd()([arithmetic()], x=X, sign=SIGN)


def test_two_methods_for_one_kind():
    class Twice(Arithmetic):
        @vf.vertex("plus")
        def other(self, v): ...

    with pytest.raises(
        vf.VertexFunctionError, match="two methods for vertices of kind 'plus', `operation` and `other`"
    ):
        Twice()


def test_a_method_for_all_and_methods_for_kinds():
    class Both(Arithmetic):
        def vertex(self, v): ...

    with pytest.raises(vf.VertexFunctionError, match="a method `vertex` for all vertices and methods for kinds"):
        Both()


def test_a_method_of_the_name_of_another():
    class Begin(Arithmetic):
        @vf.vertex("begin")
        def start(self, v): ...

    with pytest.raises(
        vf.VertexFunctionError, match=r"`start` of Begin would take the place of `VertexFunction\.start`"
    ):
        Begin()


def test_a_decorator_without_kinds():
    with pytest.raises(vf.VertexFunctionError, match="name the kinds"):

        class Bare(vf.VertexFunction):
            @vf.vertex
            def leaf(self, v): ...


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(5)))
def test_the_order_of_vertices_does_not_matter(order):
    place = {old: new for new, old in enumerate(order)}
    graph = vf.graph(5, [(place[a], place[b]) for a, b in EDGES], kind=[KINDS[old] for old in order])
    x = torch.stack([X[[0, 1, 3].index(old)] for old in order if KINDS[old] == "number"])
    sign = torch.stack([SIGN[[2, 4].index(old)] for old in order if KINDS[old] != "number"])
    values = ONE([graph], x=x, sign=sign).value.flatten().tolist()
    assert values == [{2: 5.0, 4: 1.0}[old] for old in order if KINDS[old] != "number"]
