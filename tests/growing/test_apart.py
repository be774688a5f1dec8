"""Extensions by vertices of several kinds at once, which native code computes kind by kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.growing import frontier
from vertexflow.kernels.growing import strips

from ..agreement import TOLERANCE

SIZE = 4


class Mixed(vf.VertexFunction):
    """Three kinds that read two children: all pull a scale, one of them a row as well, and one has a state of its own."""

    def __init__(self):
        super().__init__(state={"h": SIZE, "t": SIZE})
        self.word = nn.Linear(SIZE, SIZE)
        self.join, self.pick, self.turn = (nn.Linear(2 * SIZE, SIZE) for _ in range(3))

    @vf.vertex("word")
    def words(self, v):
        h = self.word(v.pull("x"))
        v.scatter(h=h)
        v.push(h=h)

    @vf.vertex("join")
    def joins(self, v):
        h = torch.tanh(self.join(torch.cat([v.gather(0).h, v.gather(1).h], -1))) * v.pull("scale")
        v.scatter(h=h)
        v.push(h=h)

    @vf.vertex("pick")
    def picks(self, v):
        h = torch.sigmoid(self.pick(torch.cat([v.gather(0).h, v.gather(1).t], -1))) + v.pull("row")
        v.scatter(h=h)
        v.push(h=h)

    @vf.vertex("turn")
    def turns(self, v):
        h = torch.sin(self.turn(torch.cat([v.gather(1).h, v.gather(0).t], -1)) * v.pull("scale"))
        v.scatter(h=h, t=h.cos())
        v.push(h=h)


class Plainly:
    """The same, vertex by vertex."""

    def __init__(self, model):
        self.model, self.h, self.t = model, [], []

    def extend(self, table, kinds, quiet=False, **inputs):
        rows = {name: iter(value) for name, value in inputs.items()}
        with torch.set_grad_enabled(not quiet):
            for kind, children in zip(kinds, table.tolist(), strict=True):
                self.add(kind, children, rows)

    def add(self, kind, children, rows):
        model, nothing = self.model, torch.zeros(SIZE, dtype=torch.float64)
        (h0, t0), (h1, t1) = ((nothing, nothing) if c < 0 else (self.h[c], self.t[c]) for c in children)
        t = nothing
        if kind == "word":
            h = model.word(next(rows["x"]))
        elif kind == "join":
            h = torch.tanh(model.join(torch.cat([h0, h1]))) * next(rows["scale"])
        elif kind == "pick":
            h = torch.sigmoid(model.pick(torch.cat([h0, t1]))) + next(rows["row"])
        else:
            h = torch.sin(model.turn(torch.cat([h1, t0])) * next(rows["scale"]))
            t = h.cos()
        self.h.append(h)
        self.t.append(t)


@pytest.fixture
def joint(monkeypatch):
    """The methods of what was computed by `_compute`, joint or of one kind."""
    seen, compute = [], frontier.Frontier._compute

    def noted(run, addition, inputs):
        seen.append(addition.methods)
        return compute(run, addition, inputs)

    monkeypatch.setattr(frontier.Frontier, "_compute", noted)
    return seen


def begun(backend="native"):
    torch.manual_seed(0)
    model = Mixed().double()
    model.backend = backend
    x = torch.randn(5, SIZE, dtype=torch.float64)
    run, plain = model.start(x=x, kind="word"), Plainly(model)
    plain.extend(np.full((5, 2), -1), ["word"] * 5, x=x)
    return model, run, plain


def inputs_for(kinds, rng, wants=False):
    """Rows for the vertices of these kinds, in their order."""
    counts = {
        "x": kinds.count("word"),
        "scale": sum(kind in ("join", "turn") for kind in kinds),
        "row": kinds.count("pick"),
    }
    values = {name: torch.from_numpy(rng.normal(size=(count, SIZE))) for name, count in counts.items() if count}
    return {name: value.requires_grad_(wants) for name, value in values.items()}


def agree(run, plain, numbers, wanted):
    """What was pushed, and the gradients of it, are those of vertices one by one."""
    weight = torch.linspace(0.5, 1.5, len(numbers), dtype=torch.float64)[:, None]
    expected = torch.stack([plain.h[number] for number in numbers])
    ours = run[torch.as_tensor(numbers)].h
    torch.testing.assert_close(ours, expected, **TOLERANCE)
    assert ours.requires_grad == expected.requires_grad
    if expected.requires_grad:
        gradients = (
            torch.autograd.grad((weight * h.square()).sum(), wanted, retain_graph=True, materialize_grads=True)
            for h in (ours, expected)
        )
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, **TOLERANCE)


@pytest.mark.parametrize("is_small", [True, False])
@pytest.mark.parametrize("wants", [False, True])
@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.cases(1)
def test_interleaved_kinds_give_what_single_vertices_give(backend, wants, is_small, monkeypatch, joint):
    if is_small:
        monkeypatch.setattr(strips, "FEWEST", 4)
        monkeypatch.setattr(strips, "MOST", 16)
    rng = np.random.default_rng(wants)
    model, run, plain = begun(backend)
    wanted, added = [*model.parameters()], []
    for number in range(24):
        start, count = run.num_vertices, int(rng.integers(1, 9))
        kinds = rng.choice(["join", "pick", "turn", "word"], count, p=[0.4, 0.3, 0.25, 0.05]).tolist()
        table = rng.integers(-1, start, (count, 2))
        if number % 6 == 5:  # children among the new vertices
            table[1:, 1] = start + np.arange(count - 1)
        table[np.array(kinds) == "word"] = -1
        inputs = inputs_for(kinds, rng, wants and number % 2 == 0)
        wanted += [value for value in inputs.values() if value.requires_grad]
        with torch.set_grad_enabled(number % 7 != 3):
            new = run.extend(table, kind=kinds if number % 2 else np.array(kinds), **inputs)
        assert new.tolist() == [*range(start, start + count)]
        plain.extend(table, kinds, number % 7 == 3, **inputs)
        added.append(new)
        if number % 5 == 2:
            agree(run, plain, rng.integers(0, run.num_vertices, 6).tolist(), wanted)
            agree(run, plain, new.tolist(), wanted)
    agree(run, plain, rng.permutation(run.num_vertices).tolist(), wanted)
    assert backend == "torch" or sum(len(methods) > 1 for methods in joint) < 20


def test_vertices_are_read_by_their_numbers():
    _, run, plain = begun()
    kinds = ["turn", "join", "turn", "join"]
    for number in range(4):
        inputs = inputs_for(kinds, np.random.default_rng(number))
        table = np.array([[0, 1], [number, 2], [3, 4], [1, number]])
        run.extend(table, kind=kinds, **inputs)
        plain.extend(table, kinds, **inputs)
    assert run._numbering.is_needed
    whole = torch.stack(plain.h)
    table = torch.tensor([[5, 6], [7, 20]])
    for vertices in (slice(None), slice(3, 20, 2), [-1, -3, 6], table, 12, np.array([9]), whole[:, 0] > 0):
        torch.testing.assert_close(run[vertices].h, whole[vertices], **TOLERANCE)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"scale": 3}, "input 'scale' has 3 rows, but the extension has 2 vertices of kind 'join' or 'turn'"),
        ({"row": 2}, "input 'row' has 2 rows, but the extension has 1 vertices of kind 'pick'"),
        ({"x": 2}, "never pulls it"),
        ({"table": [[0, 1], [99, 0], [1, 2]]}, "row 1 of `children` names vertex 99"),
        ({"table": [[0, 1], [7, 0], [6, 2]]}, "cycle"),
        ({"kinds": ["join", "pick"]}, "2 kinds for 3 vertices"),
        ({"kinds": ["join", "pick", "rest"]}, "row 2 of `children` is of kind 'rest'"),
    ],
)
@pytest.mark.cases(2)
def test_what_is_refused_leaves_the_run_as_it_was(change, error):
    model, run, plain = begun()
    rng, kinds = np.random.default_rng(0), ["join", "pick", "turn"]
    table = np.array([[0, 1], [4, 0], [1, 2]])

    def extend():
        inputs = inputs_for(kinds, rng)
        run.extend(table, kind=kinds, **inputs)
        plain.extend(table, kinds, **inputs)

    extend()
    extend()
    for _ in range(2):
        count = run.num_vertices
        inputs = inputs_for(kinds, rng)
        inputs.update({name: torch.zeros(n, SIZE).double() for name, n in change.items() if isinstance(n, int)})
        bad = np.array(change.get("table", table))
        bad[bad > 5] += count - 5 if "cycle" in error else 0
        with pytest.raises(vf.VertexFlowError, match=error):
            run.extend(bad, kind=change.get("kinds", kinds), **inputs)
        assert run.num_vertices == count
        extend()
    agree(run, plain, [*range(run.num_vertices)], [*model.parameters()])


@pytest.mark.cases(2)
def test_a_failure_at_the_last_kind_forgets_the_first(monkeypatch):
    """Rows that were written are written again, and the backward pass goes through what is there."""
    model, run, plain = begun()
    rng, kinds = np.random.default_rng(0), ["turn", "join", "pick", "turn"]
    compute = frontier.Frontier._compute
    tables = [rng.integers(0, 5, (4, 2)) for _ in range(4)]

    def failing(frontier_of_run, addition, inputs):
        if addition.methods == ("turns",):
            raise MemoryError
        return compute(frontier_of_run, addition, inputs)

    for number, table in enumerate(tables):
        inputs = inputs_for(kinds, rng)
        if number == 1:
            monkeypatch.setattr(frontier.Frontier, "_compute", failing)
            with pytest.raises(MemoryError):
                run.extend(table, kind=kinds, **inputs)
            monkeypatch.setattr(frontier.Frontier, "_compute", compute)
            assert run.num_vertices == 9
        elif number == 2:  # joins where turns were
            kinds = ["join", "join", "pick", "pick"]
            inputs = inputs_for(kinds, rng)
        run.extend(table, kind=kinds, **inputs)
        plain.extend(table, kinds, **inputs)
    agree(run, plain, [*range(run.num_vertices)], [*model.parameters()])


@pytest.mark.cases(2)
def test_a_method_that_changes_is_seen():
    model, run, plain = begun()
    rng, kinds = np.random.default_rng(0), ["turn", "join", "turn", "pick"]
    for number in range(5):
        inputs, table = inputs_for(kinds, rng), rng.integers(0, 5, (4, 2))
        if number == 2:
            model.turn = nn.Linear(2 * SIZE, SIZE).double()
        if number == 3:
            model.join.weight.requires_grad_(False)
        run.extend(table, kind=kinds, **inputs)
        plain.extend(table, kinds, **inputs)
        if number == 2:  # explain tells of all kinds that were computed
            assert set(model._programs.latest) == {"turns", "joins", "picks"}
    agree(run, plain, [*range(run.num_vertices)], [each for each in model.parameters() if each.requires_grad])
