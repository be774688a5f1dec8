"""Runs that grow with vertices of several kinds: extensions of one kind, and of several at once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import vertexflow as vf

from ..agreement import TOLERANCE

BACKENDS = ["native", "torch", "eager"]
KINDS = np.array(["word", "track", "join"])


class Tracked(vf.VertexFunction):
    """Words, a chain of trackers, and joins that read two vertices and a tracker. No kind has both states."""

    def __init__(self, size=4):
        super().__init__(state={"h": size, "t": size})
        self.word = nn.Linear(size, size)
        self.track = nn.GRUCell(2 * size, size)
        self.join = nn.Linear(3 * size, size)
        self.score = nn.Linear(size, 2)

    @vf.vertex("word")
    def words(self, v):
        v.scatter(h=torch.tanh(self.word(v.pull("x"))))

    @vf.vertex("track")
    def trackers(self, v):
        t = self.track(torch.cat([v.gather(1).h, v.gather(2).h], -1), v.gather(0).t)
        v.scatter(t=t)
        v.push(score=self.score(t))

    @vf.vertex("join")
    def joins(self, v):
        h = torch.tanh(self.join(torch.cat([v.gather(0).h, v.gather(1).h, v.gather(2).t], -1))) * v.pull("weight")
        v.scatter(h=h)
        v.push(h=h, score=self.score(h))


def pieces(rng, counts):
    """Kinds and children of new vertices: every third extension has several kinds, and children of its own."""
    start, result = 0, []
    for number, count in enumerate(counts):
        kinds = KINDS[rng.integers(0, 3, count)] if number % 3 == 0 else np.repeat(KINDS[number % 3], count)
        table = rng.integers(-1, start, (count, 3)) if start else np.full((count, 3), -1)
        if number % 3 == 0:
            for row in range(1, count):
                table[row, row % 3] = start + rng.integers(0, row)
        table[kinds == "word"] = -1
        result.append((kinds, table))
        start += count
    return result


@pytest.mark.parametrize("backend", [*BACKENDS, "triton"])
@pytest.mark.cases(1)
def test_runs_of_several_kinds_give_what_the_whole_graph_gives(backend):
    rng = np.random.default_rng(5)
    parts = pieces(rng, [6, 3, 3, 4] if backend == "triton" else [6, 3, 3, 8, 1, 2, 5, 4])
    kinds = np.concatenate([part[0] for part in parts])
    bounds = np.cumsum([0, *(len(part[0]) for part in parts)])
    torch.manual_seed(5)
    model = Tracked().double()
    x = torch.randn(int((kinds == "word").sum()), 4, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(int((kinds == "join").sum()), 1, dtype=torch.float64, requires_grad=True)
    edges = [
        (child, int(start) + row, slot)
        for start, (_, table) in zip(bounds, parts, strict=False)
        for row, slot in np.ndindex(table.shape)
        for child in [int(table[row, slot])]
        if child >= 0
    ]
    graph = vf.graph(len(kinds), [edge[:2] for edge in edges], kind=kinds, slots=[edge[2] for edge in edges])
    model.backend = "eager"
    whole = model([graph], x=x, weight=weight)
    model.backend = backend
    run = model.start()
    used = {"word": 0, "join": 0}
    for number, ((start, stop), (part_kinds, table)) in enumerate(zip(itertools.pairwise(bounds), parts, strict=True)):
        inputs = {}
        for name, kind, value in (("x", "word", x), ("weight", "join", weight)):
            count = int((part_kinds == kind).sum())
            if count:
                inputs[name] = value[used[kind] : used[kind] + count]
                used[kind] += count
        kind = part_kinds if number % 3 == 0 else str(part_kinds[0])
        assert run.extend(table, kind=kind, **inputs).tolist() == list(range(start, stop))
    scored, joined = np.flatnonzero(kinds != "word"), np.flatnonzero(kinds == "join")
    read = run[joined]
    assert set(read) == {"h", "score"}
    assert set(run[scored]) == {"score"}
    assert set(run[:]) == set()
    torch.testing.assert_close(read.h, whole.h, **TOLERANCE)
    torch.testing.assert_close(run[scored].score, whole.score, **TOLERANCE)
    leaves = [*model.parameters(), x, weight]
    losses = [
        out.h.square().sum() + out.score.sin().sum() for out in (vf.Outputs(h=read.h, score=run[scored].score), whole)
    ]
    ours, expected = (torch.autograd.grad(loss, leaves) for loss in losses)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_begins_with_a_kind_or_with_graphs_and_inputs_left_out_are_zero(backend):
    model = Tracked().double()
    model.backend = backend
    x, weight = torch.randn(3, 4, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    run = model.start(x=x, kind="word")
    run.extend([[0, 1, -1]], kind="join", weight=weight)
    graph = vf.graph(4, [(0, 3), (1, 3)], kind=["word"] * 3 + ["join"])
    other = model.start([graph], x=x, weight=weight)
    torch.testing.assert_close(run[3].h, other[3].h, **TOLERANCE)
    new = run.extend([[3, 2, -1], [-1, -1, -1]], kind=["join", "word"])
    assert not run[new[:1]].h.any()  # its weight was left out
    assert run.extend(np.empty((0, 3), int), kind="track").tolist() == []


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_kinds_are_refused(backend):
    model = Tracked().double()
    model.backend = backend
    run = model.start(x=torch.randn(3, 4).double(), kind="word")
    with pytest.raises(vf.GraphError, match="give the kind of the new vertices"):
        run.extend([[0, 1, -1]])
    with pytest.raises(vf.GraphError, match=r"row 1 of `children` is of kind 'tree', .* has 'word', 'track', 'join'"):
        run.extend([[0, 1, -1], [0, 1, -1]], kind=["join", "tree"])
    with pytest.raises(vf.GraphError, match="1 kinds for 2 vertices"):
        run.extend([[0, 1, -1], [0, 1, -1]], kind=["join"])
    with pytest.raises(vf.InputError, match="never pulls it"):
        run.extend([[0, 1, -1]], kind="track", x=torch.randn(1, 4).double())
    with pytest.raises(vf.InputError, match="input 'x' has 2 rows, but the extension has 1 vertices of kind 'word'"):
        run.extend([[0, 1, -1], [-1, -1, -1]], kind=["track", "word"], x=torch.randn(2, 4).double())
    with pytest.raises(vf.GraphError, match="a child in slot 3"):
        run.extend([[0, 1, 2, 0]], kind="track")
    with pytest.raises(vf.OutputError, match="h"):
        _ = run[0].h
    assert len(run) == 3


@pytest.mark.parametrize("backend", ["torch", "eager"])
def test_a_state_that_no_kind_scatters_is_refused_when_all_kinds_are_known(backend):
    class Forgetful(vf.VertexFunction):
        def __init__(self):
            super().__init__(state={"h": 2, "memory": 2}, backend=backend)

        @vf.vertex("word")
        def word(self, v):
            v.scatter(h=v.pull("x"))

        @vf.vertex("join")
        def join(self, v):
            h = v.gather(0).h + v.gather(1).memory
            v.scatter(h=h)
            v.push(h=h)

    run = Forgetful().start(x=torch.randn(2, 2), kind="word")  # another kind may have it
    for _ in range(2):
        with pytest.raises(
            vf.VertexFunctionError, match=r"state 'memory' was never scattered[^$]*test_growing_kinds.py"
        ):
            run.extend([[0, 1]], kind="join")
    assert len(run) == 2


def computed_without(model, x):
    """Vertices that were computed without gradients, and with them: words want none, as nothing does before them."""
    run = model.start(x=x, kind="word")
    first = run.extend([[0, 1, 2], [-1, 1, 2]], kind="track")
    with torch.no_grad():
        quiet = [run.extend([[int(first[0]), number, 4]], kind="track") for number in range(3)]
        quiet.append(run.extend([[3, 1, 2]], kind="join", weight=torch.ones(1, 1, dtype=torch.float64)))
    second = run.extend([[int(quiet[0]), 1, 2]], kind="track")
    with torch.no_grad():
        quiet.append(run.extend([[int(second), 1, 2]], kind="track"))
    return run, first, torch.cat(quiet), second


def test_what_was_computed_without_gradients_has_none_when_it_is_read():
    found = []
    for backend in BACKENDS:
        torch.manual_seed(0)
        model, x = Tracked().double(), torch.randn(5, 4, dtype=torch.float64)
        model.backend = backend
        run, first, quiet, second = computed_without(model, x)
        read = [quiet, quiet[:1], quiet[-1:], first, second, torch.cat([quiet, second]), torch.cat([first, quiet])]
        wants = [run[numbers].score.requires_grad for numbers in read]
        assert wants == [False, False, False, True, True, True, True]
        loss = run[torch.cat([first, quiet, second])].score.sin().sum()
        found.append(
            [loss, *torch.autograd.grad(loss, [*model.parameters()], allow_unused=True, materialize_grads=True)]
        )
    for ours, expected in zip(found[:-1], (found[-1],) * 2, strict=True):
        for one, other in zip(ours, expected, strict=True):
            torch.testing.assert_close(one, other, **TOLERANCE)
