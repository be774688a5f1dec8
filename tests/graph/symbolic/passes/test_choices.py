"""Choices by which children there are: vertices with children do not compute, read or keep what they do not take."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import vertexflow as vf

from ....agreement import TOLERANCE, check, compare, expect, join
from ....budget import tries
from ....choosing import CONDITIONS, ChoosingFunction, choosing_cases
from ....fuzz.memory import memory
from ....models import FromCode
from ....reference import run_reference
from ....strategies import PARTS, ROWS, SIZE, Case

BATCH = [part.graph() for part in PARTS]


def program_of(model):
    (program,) = model.symbolic_graph.programs.values()
    return program


def choosing(condition, takes_first=True, backend="torch"):
    """A model that chooses between what it composes and `x`, after a call."""
    program = [("linear", 3, 3), (condition, 5, 0) if takes_first else (condition, 0, 5)]
    model = ChoosingFunction(program, [6], 2, (1,), 0)
    model.backend = backend
    inputs = {"x": torch.randn(ROWS, SIZE), "k": torch.zeros(ROWS, dtype=torch.int64), "weight": torch.rand(ROWS)}
    return model, {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}


@tries(2)
@given(choosing_cases())
def test_random_functions_that_choose(case):
    check(case, "torch", "native")


@tries(4)
@given(choosing_cases())
@pytest.mark.slow
def test_random_functions_that_choose_in_small_windows(case):
    """Memory is full of NaN where nothing was written."""
    case.model.max_vertices = None
    with memory(2, poisoned=True):
        check(case, "native")


KNOWN = {"any number": True, "at least one": True, "not none": True, "below one": False, "sum": True, "any": True,
         "first or others": True}  # fmt: skip


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.cases(3)
def test_which_conditions_are_known(condition):
    """Slots may lack children whatever others have; only what holds in each of these ways is known."""
    for takes_first in (True, False):
        model, inputs = choosing(condition, takes_first)
        out = model(BATCH, **inputs)
        program = program_of(model)
        assert bool(program.taken) == (condition in KNOWN)
        if condition in KNOWN and takes_first == KNOWN[condition]:
            assert program.trace.pulls["x"] in program.leaf_inputs
            assert not [state for state, _ in program.gathers if state == "m"]
        compare(Case(model, PARTS, inputs), dict(out))


def test_a_child_in_a_slot_that_is_not_read():
    """One slot is read, and all numbers of children are allowed: having children does not mean to have that one."""

    def vertex(self, v):
        total = v.sum(v.children.h) + v.pull("x")
        h = torch.where(v.gather(0).m > 0, total, 2 * v.pull("x"))
        v.scatter(h=h, m=torch.ones_like(h[:, :1]))
        v.push(h=h)

    model = FromCode(vertex, {"h": SIZE, "m": 1}).double()
    x = torch.randn(ROWS, SIZE, dtype=torch.float64)
    out = model(BATCH, x=x)
    assert not program_of(model).taken
    torch.testing.assert_close(out.h, run_reference(model, *join(PARTS), {"x": x})["h"], **TOLERANCE)


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("condition", ["any number", "sum"])
@pytest.mark.cases(2)
def test_initial_states_are_children_that_the_batch_does_not_have(backend, condition):
    model, inputs = choosing(condition, backend=backend)
    num_leaves = len(vf.pack(BATCH).leaves)
    for initial in ({"h": torch.randn(num_leaves, SIZE).double()}, {"m": torch.ones(num_leaves, 1).double()}):
        out = model(BATCH, initial=initial, **inputs)
        expected = run_reference(model, *join(PARTS), inputs, initial=initial)
        torch.testing.assert_close(out["out6"], expected["out6"], **TOLERANCE)
        assert not program_of(model).taken
    model(BATCH, **inputs)
    assert program_of(model).taken


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_vertices_without_children_that_are_added_to_a_run(backend):
    """They are computed as those with children are."""
    model, inputs = choosing("any number", backend=backend)
    expected = model([vf.tree((0, 1))], **{name: value[:3] for name, value in inputs.items()})["out6"]
    run = model.start(**{name: value[:1] for name, value in inputs.items()})
    run.extend([[]], **{name: value[1:2] for name, value in inputs.items()})
    run.extend([[0, 1]], **{name: value[2:3] for name, value in inputs.items()})
    torch.testing.assert_close(run[torch.arange(3)]["out6"], expected, **TOLERANCE)
    assert not program_of(model).taken


class Kinds(vf.VertexFunction):
    """Vertices whose mark is 1, and others whose mark is `other`, or that have none."""

    def __init__(self, other):
        super().__init__(state={"h": SIZE, "m": 1})
        self.other, self.linear = other, nn.Linear(SIZE, SIZE)
        self.double()

    @vf.vertex("one")
    def one(self, v):
        child = v.gather(0)
        h = torch.where(child.m > 0, self.linear(child.h), v.pull("x"))
        v.scatter(h=h, m=torch.ones_like(h[:, :1]))
        v.push(h=h)

    @vf.vertex("other")
    def of_other(self, v):
        h = v.gather(0).h - v.pull("x")
        v.scatter(h=h)
        if self.other is not None:
            v.scatter(m=torch.full_like(h[:, :1], self.other))
        v.push(h=h)


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("other", [1.0, -1.0, None])
@pytest.mark.cases(2)
def test_a_state_that_differs_between_kinds_says_nothing(other, backend):
    torch.manual_seed(0)
    model = Kinds(other)
    model.backend = backend
    kinds = ["one", "other", "one", "one", "other", "other", "one"]
    x = torch.randn(7, SIZE, dtype=torch.float64, requires_grad=True)
    out = model([vf.graph(7, [(i, i + 1) for i in range(6)], kind=kinds)], x=x)
    h = x[:0]
    for at, kind in enumerate(kinds):
        row = x[at : at + 1]
        if at:
            row = (
                h[-1:] - row
                if kind == "other"
                else model.linear(h[-1:])
                if kinds[at - 1] == "one" or other == 1
                else row
            )
        elif kind == "other":
            row = -row
        h = torch.cat([h, row])
    torch.testing.assert_close(out.h, h, **TOLERANCE)
    weight = torch.randn_like(h)
    grads = [torch.autograd.grad((value * weight).sum(), [x, model.linear.weight]) for value in (out.h, h)]
    torch.testing.assert_close(*grads, **TOLERANCE)
    assert bool(model.symbolic_graph.programs["one"].taken) == (other == 1)


def test_the_derivative_reads_the_state_and_not_what_it_was_chosen_from():
    def vertex(self, v):
        composed = torch.tanh(self.linear(v.gather(0).h))
        h = torch.where(v.num_children[:, None] > 0, composed, v.pull("x"))
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": SIZE}, linear=nn.Linear(SIZE, SIZE)).double()
    x = torch.randn(3, SIZE, dtype=torch.float64)
    model([vf.chain(3)], x=x).h.sum().backward()
    program = program_of(model)
    assert program.trace.scatters["h"] in program.saved
    assert not [node for node in program.saved if str(node.target) == "aten.tanh.default"]


@given(case=choosing_cases(max_graphs=2), data=st.data())
@tries(2)
@pytest.mark.slow
def test_outputs_of_some_vertices(case, data):
    batch = vf.pack([part.graph() for part in case.parts])
    chosen = data.draw(st.lists(st.integers(0, batch.num_vertices - 1), min_size=1, max_size=4))
    expected = expect(case)
    case.model.backend = "native"
    with memory(2, poisoned=True):
        out = case.model(batch, outputs=torch.tensor(chosen), **case.inputs)
    for name, value in expected.outputs.items():
        torch.testing.assert_close(out[name], value[chosen], **TOLERANCE)


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_an_input_of_what_is_computed_at_once_is_taken_for_all_vertices(backend):
    """Leaves alone take the product, which is computed over all rows."""

    def vertex(self, v):
        embedded = self.embed(v.pull("x"))
        h = torch.where(v.num_children[:, None] > 0, torch.tanh(self.linear(v.gather(0).h)), embedded)
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": SIZE}, embed=nn.Linear(2, SIZE), linear=nn.Linear(SIZE, SIZE)).double()
    model.backend = backend
    x = torch.randn(6, 2, dtype=torch.float64)
    with torch.no_grad():  # weight gradients would read it for all vertices
        out = model([vf.chain(6)], x=x)
    program = program_of(model)
    assert program.taken
    assert not program.leaf_inputs
    expected = run_reference(model, 6, [(i, i + 1, 0) for i in range(5)], {"x": x})
    torch.testing.assert_close(out.h, expected["h"], **TOLERANCE)


COUNTED = {
    "bytes": lambda number: number.to(torch.uint8) > 0,  # 256 children are none
    "negative": lambda number: number > -1,
    "infinite": lambda number: number > float("-inf"),
    "not a number": lambda number: number > float("nan"),
    "halves": lambda number: number.double() * 0.5 > 0,
    "above": lambda number: number > 255,
}


@pytest.mark.parametrize("condition", COUNTED)
@pytest.mark.cases(2)
def test_other_ways_to_count_children(condition):
    def vertex(self, v):
        kept = v.sum(v.children.h) + v.pull("x")
        h = torch.where(COUNTED[condition](v.num_children)[:, None], 0.5 * kept, v.pull("x"))
        v.scatter(h=h)
        v.push(h=h)

    model = FromCode(vertex, {"h": SIZE}).double()
    graphs = [vf.graph(n + 1, [(i, n) for i in range(n)]) for n in (256, 255, 1, 0)]
    x = torch.randn(516, SIZE, dtype=torch.float64)
    model.backend = "eager"
    expected = model(graphs, x=x).h
    for backend in ("torch", "native"):
        model.backend = backend
        torch.testing.assert_close(model(graphs, x=x).h, expected, **TOLERANCE)


MARKS = {  # of a state that is -1: children are those that have it
    "negated": (lambda x: torch._neg_view(torch.ones_like(x[:, :1])), lambda mark: mark < 0),
    "bits": (
        lambda x: (torch.ones_like(x[:, :1], dtype=torch.float32) * 0).view(torch.int32).double() - 1,
        lambda mark: mark < 0,
    ),
    "of bits": (lambda x: torch.full_like(x[:, :1], -1).view(torch.int64).double(), lambda mark: mark < -2),
    "expanded": (lambda x: torch.full_like(x[:, 0], -1)[:, None].expand(-1, 1), lambda mark: mark < 0),
}


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.cases(2)
def test_states_that_are_made_of_constants(mark):
    """Views may show other numbers than they are of."""
    make, reads = MARKS[mark]

    def vertex(self, v):
        child = v.gather(0)
        h = torch.where(reads(child.m), torch.tanh(child.h) + v.pull("x"), 2 * v.pull("x"))
        v.scatter(h=h, m=make(v.pull("x")))
        v.push(h=h)

    model = FromCode(vertex, {"h": SIZE, "m": 1}).double()
    x = torch.randn(5, SIZE, dtype=torch.float64)
    model.backend = "eager"
    expected = model([vf.chain(5)], x=x).h
    for backend in ("torch", "native"):
        model.backend = backend
        torch.testing.assert_close(model([vf.chain(5)], x=x).h, expected, **TOLERANCE)
