"""Extensions like an earlier one: computed in one native call, unless something is different."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

import vertexflow as vf
from vertexflow import _core
from vertexflow.growing import frontier

from ..agreement import TOLERANCE
from .test_growing_kinds import Tracked


def begun(backend="native", wants=False):
    """A model, and a run of it that has been extended by each kind twice."""
    torch.manual_seed(0)
    model = Tracked().double()
    model.backend = backend
    run = model.start(x=torch.randn(5, 4, dtype=torch.float64), kind="word")
    for number in range(4):
        extend(run, [[number, number + 1, 0]] * (2 + (number < 2)), ("track", "join")[number % 2], wants=wants)
    return model, run


def extend(run, table, kind, rows=None, wants=False, **settings):
    """Of joins, whose weights want gradients, or whose extensions lie in a strip."""
    if kind == "join":
        weight = torch.linspace(0.5, 1, rows or len(table), dtype=torch.float64)[:, None].clone()
        settings = {"weight": weight.requires_grad_(wants), **settings}
    return run.extend(table, kind=kind, **settings)


@pytest.fixture
def otherwise(monkeypatch):
    """The additions of a run that were not alike."""
    added, add = [], frontier.Frontier._add

    def noted(run, addition, inputs):
        added.append(addition)
        return add(run, addition, inputs)

    monkeypatch.setattr(frontier.Frontier, "_add", noted)
    return added


def gradients_of(tensors, run, added):
    loss, wanted = run[torch.cat(added)].score.sin().sum(), [each for each in tensors if each.requires_grad]
    return [loss, *torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize(("grows_with_gradients", "wants"), [(False, False), (True, False), (True, True)])
def test_they_are_as_any_others(otherwise, grows_with_gradients, wants, monkeypatch):
    found, add_alike = [], frontier.Frontier._add_alike
    for is_alike in (True, False):
        monkeypatch.setattr(frontier.Frontier, "_add_alike", add_alike if is_alike else lambda *_: None)
        with torch.set_grad_enabled(grows_with_gradients):
            model, run = begun(wants=wants)
            otherwise.clear()
            weights = [torch.full((2, 1), 0.5 + number, dtype=torch.float64) for number in range(6)]
            weights = [weight.requires_grad_(wants) for weight in weights]
            added = []
            for number, weight in enumerate(weights):
                added.append(extend(run, [[2, number, 1], [-1, 3, 0]], "track"))
                added.append(extend(run, [[2, number, 1], [-1, 3, 0]], "join", weight=weight))
            values = [run[torch.cat(added)].score, *(run[new].score for new in added), torch.cat(added)]
        assert len(otherwise) <= 8 if is_alike else len(otherwise) == 12  # buffers double, and begin small
        wanted = [*model.parameters(), *(weights if wants else ())]
        found.append([*values, *(gradients_of(wanted, run, added) if grows_with_gradients else ())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def with_changed(weight, change):
    return lambda model: done(change, weight(model))


@contextlib.contextmanager
def done(action, *arguments):
    action(*arguments)
    yield


def in_place(weight):
    with torch.no_grad():
        weight.mul_(1.5)


def through_data(weight):
    weight.data.mul_(1.5)


CHANGES = {
    "in place": with_changed(lambda model: model.track.weight_ih, in_place),
    "through data": with_changed(lambda model: model.track.weight_ih, through_data),
    "without gradient": with_changed(lambda model: model.track.weight_ih, lambda weight: weight.requires_grad_(False)),
    "another tensor": lambda model: done(
        setattr, model.track, "weight_ih", torch.nn.Parameter(model.track.weight_ih.detach() * 1.5)
    ),
    "a hook": lambda model: done(model.score.register_forward_hook, lambda module, given, result: 2 * result),
    "saved by hooks": lambda model: torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone),
    "profiled": lambda model: torch.profiler.profile(),
    "no gradients": lambda model: torch.no_grad(),
}


@pytest.mark.parametrize("wants", [False, True])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.cases(4)
def test_what_changes_is_seen(change, wants):
    found = []
    for backend in ("native", "eager"):
        model, run = begun(backend, wants)

        def added(table, *kinds, run=run):
            return [extend(run, table, kind, wants=wants) for kind in kinds]

        before = added([[1, 0, 1], [2, 3, 4]], "track", "join")
        with CHANGES[change](model):
            within = added([[1, 0, 1], [2, 3, 4]], "track", "join", "track", "join")
        after = added([[5, 10, 6], [20, 21, 4]], "track", "join")
        found.append([run[new].score for new in (*before, *within, *after)])
        if change != "in place":  # which autograd refuses
            found[-1] += gradients_of(model.parameters(), run, [*before, *within, *after])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


@pytest.mark.parametrize(
    ("table", "kind", "settings"),
    [
        ([[0, 1, 12], [0, 15, 2]], "track", {}),  # of which one is new
        ([[0, 1], [0, 2]], "track", {}),  # fewer slots
        ([[-1, -1, -1]], "track", {}),
        (np.zeros((0, 3), np.int64), "track", {}),
        (np.array([[0, 1, 2]], np.int32), "track", {}),
        (torch.tensor([[0, 1, 2]]), "track", {}),
        (np.arange(12).reshape(3, 4)[:, :3], "track", {}),
        (np.array([[0, 1, 2]] * 2), "join", {"weight": torch.ones(2, 2, dtype=torch.float64)[:, :1]}),
        (np.array([[0, 1, 2]] * 2), "join", {"weight": torch.ones(2, 1, dtype=torch.float64, requires_grad=True)}),
        (np.array([[0, 1, 2]] * 2), ["join", "track"], {"weight": torch.ones(1, 1, dtype=torch.float64)}),
    ],
)
@pytest.mark.cases(3)
def test_other_tables_and_inputs(table, kind, settings):
    found = []
    for backend in ("native", "eager"):
        model, run = begun(backend)
        added = [extend(run, table, kind, **settings), extend(run, [[0, 1, 2]], "track")]
        numbers = torch.cat(added)
        found.append([numbers, run[numbers].score, *gradients_of(model.parameters(), run, added)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


@pytest.mark.parametrize(
    ("table", "kind", "settings", "message"),
    [
        ([[0, 1, 99]], "track", {}, "names vertex 99"),
        ([[0, 1, -2]], "track", {}, "names vertex -2"),
        ([[0, 1, 2, 3]], "track", {}, "slot"),
        ([[0.0, 1.0, 2.0]], "track", {}, "integers"),
        ([0, 1, 2], "track", {}, "table"),
        ([[0, 1, 2]], "other", {}, "no method"),
        ([[0, 1, 2]], None, {}, "kind"),
        ([[0, 1, 2]], "track", {"weight": torch.ones(1, 1)}, "weight"),
        ([[0, 1, 2]], "join", {"rows": 2}, "2 rows"),
        ([[0, 1, 2]], "join", {"weight": [[1.0]]}, "list"),
    ],
)
def test_what_is_refused_is_refused_again(table, kind, settings, message):
    _, run = begun()
    count = run.num_vertices
    for _ in range(2):
        with pytest.raises(vf.VertexFlowError, match=message):
            extend(run, table, kind, **settings)
        assert run.num_vertices == count
        extend(run, [[0, 1, 2]], "track")
        count += 1


def test_rows_that_are_not_taken():
    to, before = np.zeros((4, 2), np.int32), tuple([[] for _ in range(18)])
    unchanged = (*before, lambda: True)
    table = np.array([[0, -1], [2, 1]])
    assert _core.take_rows(table, to, 1, 3, unchanged, []) == 2
    assert to.tolist() == [[0, 0], [1, 0], [3, 2], [0, 0]]
    others = [table[:, :1], table[0], table.astype(np.int32), table.tolist(), table[:0], np.repeat(table, 2, 0)]
    assert not any(_core.take_rows(other, to, 1, 3, unchanged, []) for other in others)
    assert _core.take_rows(table, to, 1, 2, unchanged, []) == 0
    assert _core.take_rows(table - 1, to, 1, 3, unchanged, []) == 0
    assert _core.take_rows(np.full((1, 2), -1), to, 1, 3, unchanged, []) == 0
    assert _core.take_rows(table, to, 1, 3, (*before, lambda: False), []) == 0
    with pytest.raises(ValueError, match="rows"):
        _core.take_rows(table, to, 5, 3, unchanged, [])
