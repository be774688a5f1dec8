"""All steps of a core in one launch: the same as a launch a step, forward and backward, in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from torch import nn

import vertexflow as vf
from benchmarks.zoo import ZOO
from vertexflow.kernels.triton.loop import Call
from vertexflow.kernels.triton.persistent import Persistent, launch
from vertexflow.kernels.triton.persistent.launch import VARIABLE
from vertexflow.kernels.triton.persistent.work import Choice, Work, most_sizes

from ....budget import tries
from ....call.test_kinds import check as check_kinds
from ....kinds import kinds_cases
from ....ragged import ragged_cases
from ....strategies import OPERATIONS, cases
from ..test_functions import check_kernels
from ..test_zoo import difference, model_and_exact, results

pytestmark = pytest.mark.usefixtures("one_launch")
FAST = ("README", "DAGNN")  # of two children; of any number, with several parents


@pytest.fixture
def launches(monkeypatch):
    """What the interpreter is given: programs, the first stage and the end; launches of single steps are not allowed."""
    seen, interpret = [], launch.interpret

    def noted(form, programs, arguments):
        first, end = arguments[len(form.written.pointers) + 1 :][:2]
        seen.append((form.written.name, programs, first, end))
        interpret(form, programs, arguments)

    def refused(*_):
        raise AssertionError("a step was launched by itself")

    monkeypatch.setattr(launch, "interpret", noted)
    monkeypatch.setattr(Call, "start", refused)
    return seen


@pytest.fixture
def weights_are_read(monkeypatch):
    """In every step, however few they are."""
    monkeypatch.setattr(launch.keep, "choose", lambda *_: Choice([], "not here"))


@pytest.mark.usefixtures("weights_are_read")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in ZOO if name != "LatticeLSTM"],
)
@pytest.mark.slow
def test_every_model_is_the_same_as_in_float64(name, launches, monkeypatch):
    """With small tiles, as for many multiprocessors: several programs, of which each runs its part of a stage."""
    monkeypatch.setattr(Work, "size_number", lambda work, _: most_sizes(work.launches) - 1)
    animal, inputs, exact, exact_inputs = model_and_exact(name, torch.float32)
    actual = results(animal, inputs, "triton")
    assert difference(actual, results(exact, exact_inputs, "eager")) < 1e-5
    assert {core for core, *_ in launches} == {"core_persistent", "grad_core_persistent"}
    assert any(programs > 1 for _, programs, _, _ in launches)
    (function,) = animal.functions()
    assert "core: Triton kernels, one launch for all steps" in function.explain()
    assert "grad_core: Triton kernels, one launch for all steps" in function.explain()


@pytest.mark.usefixtures("weights_are_read")
@pytest.mark.parametrize("name", ["README", pytest.param("ChildSumTreeLSTM", marks=pytest.mark.slow)])
def test_one_program_runs_all_steps_in_one_launch(name, launches):
    """Barriers included, forward and backward; twice, on another batch."""
    animal = ZOO[name](5)
    inputs = animal.inputs(torch.float32)
    actual = results(animal, inputs, "triton")
    cores = [(core, programs, first) for core, programs, first, _ in launches]
    assert cores == [("core_persistent", 1, 0), ("grad_core_persistent", 1, 0)]
    if name == "README":
        assert launches[0][3] == vf.schedule(vf.pack(animal.graphs)).num_steps
    assert difference(actual, [value.double() for value in results(animal, inputs, "torch")]) < 1e-5
    animal.graphs = [*animal.graphs[::-1], vf.tree(((0, 1), (2, 3)))]
    inputs = animal.inputs(torch.float32)
    actual = results(animal, inputs, "triton")
    assert difference(actual, [value.double() for value in results(animal, inputs, "torch")]) < 1e-5


@pytest.mark.slow
@pytest.mark.usefixtures("weights_are_read")
@tries(2)
@given(cases(sorted(OPERATIONS)))
def test_random_functions(case):
    check_kernels(case)


@tries(2)
@given(ragged_cases(sorted(OPERATIONS)))
@pytest.mark.slow
@pytest.mark.usefixtures("weights_are_read")
def test_random_functions_of_any_number_of_children(case):
    check_kernels(case)


def test_the_same_random_numbers_are_drawn(monkeypatch):
    from ..test_random import GRAPHS, drawn, dropped_on_edges, model_of

    model = model_of(dropped_on_edges, torch.float64)
    actual = drawn(model, GRAPHS, "triton")
    assert "one launch" in model.explain()
    monkeypatch.setenv(VARIABLE, "0")
    expected = drawn(model, GRAPHS, "triton")
    assert all(map(torch.equal, actual, expected))


@pytest.mark.parametrize("weights", ["kept", pytest.param("read", marks=pytest.mark.slow)])
def test_steps_of_several_kinds_that_take_turns_are_one_launch(weights, launches, request):
    if weights == "read":
        request.getfixturevalue("weights_are_read")
    animal, inputs, exact, exact_inputs = model_and_exact("LatticeLSTM", torch.float32)
    actual = results(animal, inputs, "triton")
    assert difference(actual, results(exact, exact_inputs, "eager")) < 1e-5
    assert len({core for core, *_ in launches}) == 2
    assert [first for _, _, first, _ in launches if first == 0] == [0, 0]  # forward and backward begin once
    said = animal.functions()[0].explain()
    for part in ("word.core", "char.core", "word.grad_core", "char.grad_core"):
        assert f"{part}: Triton kernels, one launch for all steps of 2 kinds" in said


@pytest.mark.slow
@tries(3)
@given(kinds_cases())
def test_random_functions_of_kinds(case):
    """Kinds of a batch that take turns, of which some leave out a state, and of which some may have no kernels."""
    case.model.backend = "triton"
    check_kinds(case)


class Turns(vf.VertexFunction):
    """Two kinds that take turns, of which one sorts, for which there are no kernels."""

    def __init__(self):
        super().__init__(state={"h": 5})
        self.linear = nn.Linear(5, 5)

    @vf.vertex("plain")
    def plain(self, v):
        h = torch.tanh(self.linear(v.gather(0).h) + v.pull("x"))
        v.scatter(h=h)
        v.push(plain=h)

    @vf.vertex("sorted")
    def sorted(self, v):
        v.scatter(h=torch.sort(torch.tanh(self.linear(v.gather(0).h)), -1).values)


@pytest.mark.slow
def test_kinds_of_which_one_has_no_kernels_are_launched_one_by_one_and_that_is_said():
    model = Turns()
    graph = vf.graph(6, [(at, at + 1) for at in range(5)], kind=["plain", "sorted"] * 3)
    x = torch.randn(3, 5)
    model.backend = "triton"
    actual = model([graph], x=x).plain
    said = model.explain()
    assert "plain.core: Triton kernels, 1 launch a step, not one for all (a run of one step)" in said
    assert "sorted.core: calls of PyTorch" in said
    model.backend = "eager"
    torch.testing.assert_close(actual, model([graph], x=x).plain)


@pytest.mark.parametrize("name", ["README", pytest.param("LatticeLSTM", marks=pytest.mark.slow)])
def test_without_being_asked_for_every_step_is_launched(name, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(Persistent, "run", lambda *_: pytest.fail("one launch"))
    animal = ZOO[name](5)
    results(animal, animal.inputs(torch.float32), "triton")
    counts = {"README": "1 launch", "LatticeLSTM": "2 launches"}
    assert f"core: Triton kernels, {counts[name]} a step\n" in animal.functions()[0].explain()


def test_another_value_of_the_variable_is_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, "yes")
    animal = ZOO["README"](5)
    with pytest.raises(vf.BackendError, match="VERTEXFLOW_ONE_LAUNCH is 'yes'; 1 asks for"):
        results(animal, animal.inputs(torch.float32), "triton")
