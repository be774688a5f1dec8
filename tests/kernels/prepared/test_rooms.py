"""A backward pass may overwrite what was kept where it is behind: if nobody can ask for it again."""

from __future__ import annotations

import itertools
import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.kernels import native
from vertexflow.kernels.prepared import passes, windows
from vertexflow.kernels.prepared.sent_rows import Free, Occupied, Rows, common

from ...models import BinaryTreeLSTM, FromCode
from .test_windows import dags

SIZE = 4

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch):
    monkeypatch.setattr(windows, "rows_of_a_window", lambda rows, width: 3)


@pytest.fixture
def batch():
    return vf.pack([vf.tree((((0, 1), 2), ((3, 4), (5, 6)))), vf.chain(5), vf.tree((0, 1))] * 2)


def model_and_input(batch):
    torch.manual_seed(0)
    model = BinaryTreeLSTM(SIZE, SIZE).double()
    model.backend = "native"
    return model, torch.randn(batch.num_vertices, SIZE, dtype=torch.float64, requires_grad=True)


def gradients(out, wanted, **how):
    return torch.autograd.grad(out.h.square().sum(), wanted, **how)


def test_a_graph_that_is_retained_gives_the_same_gradients_again(batch):
    model, x = model_and_input(batch)
    wanted, out = [x, *model.parameters()], model(batch, x=x)
    first, again, last = (gradients(out, wanted, retain_graph=retained) for retained in (True, True, False))
    for one, other, third in zip(first, again, last, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, third)
    with pytest.raises(RuntimeError, match="second time"):
        gradients(out, wanted)


def test_what_was_kept_is_overwritten(batch, monkeypatch):
    """Else these tests would test nothing."""
    model, x = model_and_input(batch)
    changed, run = [], passes.Backward.run

    def noted(self, kept, read, grads):
        before = kept.clone()
        result = run(self, kept, read, grads)
        changed.append(int((before != kept).sum()))
        return result

    monkeypatch.setattr(passes.Backward, "run", noted)
    out = model(batch, x=x)
    gradients(out, [x], retain_graph=True)
    gradients(out, [x])
    assert changed[0] == 0
    assert changed[1] > 0


def test_after_a_pass_that_failed_the_next_one_is_refused(batch, monkeypatch):
    model, x = model_and_input(batch)
    out, run = model(batch, x=x), passes.Backward.run

    def failing(self, kept, read, grads):
        run(self, kept, read, grads)
        raise MemoryError

    with monkeypatch.context() as context:
        context.setattr(passes.Backward, "run", failing)
        with pytest.raises(MemoryError):
            gradients(out, [x])
    with pytest.raises(RuntimeError, match="run the model again"):
        gradients(out, [x])


def test_what_another_thread_still_reads_is_left_as_it_is(batch, monkeypatch):
    """A pass that retains the graph is on its way when one that does not comes and goes."""
    model, x = model_and_input(batch)
    out, run, results = model(batch, x=x), passes.Backward.run, []
    wanted = gradients(out, [x], retain_graph=True)
    begun, may_go_on = threading.Event(), threading.Event()

    def waiting(self, kept, read, grads):
        if threading.current_thread() is slow:
            begun.set()
            assert may_go_on.wait(60)
        return run(self, kept, read, grads)

    monkeypatch.setattr(passes.Backward, "run", waiting)
    slow = threading.Thread(target=lambda: results.extend(gradients(out, [x], retain_graph=True)))
    slow.start()
    assert begun.wait(60)
    results.extend(gradients(out, [x]))
    may_go_on.set()
    slow.join()
    assert len(results) == 2
    assert all(torch.equal(each, wanted[0]) for each in results)


def test_what_hooks_have_brought_back_is_left_as_it_is(batch):
    """It may be theirs: a file in memory, or a tensor that they hold."""
    model, x = model_and_input(batch)
    held = []

    def pack(tensor):
        held.append((tensor.clone(), tensor.clone()))
        return held[-1][0]

    wanted = gradients(model(batch, x=x), [x, *model.parameters()])
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(batch, x=x)
    actual = gradients(out, [x, *model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(actual, wanted, strict=True))
    assert all(torch.equal(one, other) for one, other in held)


def narrow(self, v):
    """A state of which many rows make one of the other."""
    left, right = v.gather(0), v.gather(1)
    score = torch.sigmoid(left.score + right.score + v.pull("x")[:, :1])
    h = torch.tanh(self.join(torch.cat([left.h, right.h], -1)) + score * v.pull("x"))
    v.scatter(h=h, score=score)
    v.push(h=h)


def by_edge(self, v):
    kids = v.children
    h = torch.tanh(v.pull("x") + self.u(v.sum(torch.sigmoid(kids.h) * kids.c)) + v.gather(0).c)
    v.scatter(h=h, c=torch.sin(h))
    v.push(h=h)


@pytest.mark.parametrize("case", ["narrow", "by edge"])
@pytest.mark.cases(1)
def test_states_of_several_widths_and_ways(batch, case):
    torch.manual_seed(0)
    if case == "narrow":
        model = FromCode(narrow, {"h": 16, "score": 1}, join=nn.Linear(32, 16)).double()
        graphs, x = batch, torch.randn(batch.num_vertices, 16, dtype=torch.float64)
    else:
        model = FromCode(by_edge, {"h": SIZE, "c": SIZE}, u=nn.Linear(SIZE, SIZE)).double()
        graphs = vf.pack(dags(6))
        x = torch.randn(graphs.num_vertices, SIZE, dtype=torch.float64)
    by_backend = []
    for model.backend in ("torch", "native"):
        by_backend.append(gradients(model(graphs, x=x), list(model.parameters())))
    for one, other in zip(*by_backend, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


class Turns(vf.VertexFunction):
    """Two kinds by turns: windows of one are entered again after windows of the other, where their children are."""

    def __init__(self):
        super().__init__(state={"h": SIZE})
        self.of_a, self.of_b = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)

    @vf.vertex("a")
    def a(self, v):
        self.publish(v, torch.tanh(self.of_a(v.gather(0).h) + v.pull("x")))

    @vf.vertex("b")
    def b(self, v):
        self.publish(v, torch.tanh(self.of_b(v.gather(0).h) - v.pull("x")))

    @staticmethod
    def publish(v, h):
        v.scatter(h=h)
        v.push(h=h)


@pytest.mark.parametrize("kinds", ["babababababaabaabbbaaba", "baababaabababa", "bababababaabaaba"])
@pytest.mark.cases(1)
def test_states_that_the_windows_of_parents_read_later(kinds):
    """Where the children are consecutive rows of a state, a weight's gradient reads them where they are."""
    torch.manual_seed(0)
    graph = vf.graph(len(kinds), [(child, child + 1) for child in range(len(kinds) - 1)], kind=list(kinds))
    model, x = Turns().double(), torch.randn(len(kinds), SIZE, dtype=torch.float64)
    by_backend = []
    for model.backend in ("torch", "native"):
        by_backend.append(gradients(model([graph], x=x), list(model.parameters())))
    for one, other in zip(*by_backend, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_backward_pass_takes_less_where_it_may_overwrite():
    """Of complete trees, whose leaves need no gradient, half of what is sent would be all states."""
    model, graphs = vf.nn.TreeFC(SIZE, backend="native").double(), [vf.tree(_complete(64))]
    batch = vf.pack(graphs)
    x = torch.empty(batch.num_vertices, SIZE, dtype=torch.float64, device="meta")
    estimate = model.estimate_memory(batch, x=x, outputs=batch.roots, holds_outputs=False)
    states = batch.num_vertices * (SIZE + 1) * 8
    assert estimate.kept < 1.4 * states
    assert estimate.backward < 0.5 * states


def test_states_that_are_sent_over_edges_share_one_room():
    """All that is kept makes room for what is sent, where a room for each state would leave some of it alone."""
    batch = vf.pack([vf.tree_from_parents([-1, *(vertex // 2 for vertex in range(60))])] * 4)
    model = vf.nn.ChildSumTreeLSTM(SIZE, SIZE, backend="native").double()
    x = torch.empty(batch.num_vertices, SIZE, dtype=torch.float64, device="meta")
    kept = model.estimate_memory(batch, x=x, outputs=batch.roots, holds_outputs=False).kept
    inner = 4 * 31
    must = 8 * SIZE * (5 * batch.num_vertices + batch.num_edges + inner)
    assert must < kept < 1.05 * must + 64 * 60


def _complete(leaves):
    return None if leaves == 1 else (_complete(leaves // 2), _complete(leaves // 2))


def test_rows_are_given_to_one_at_a_time():
    """Random orders of taking and giving back, against a set of rows."""
    random.seed(0)
    for _ in range(20):
        free, taken, used = Free(5), [], set(range(5))
        for _ in range(60):
            if taken and random.random() < 0.5:
                start, stop = taken.pop(random.randrange(len(taken)))
                used -= set(range(start, stop))
                free.give(start, stop)
            else:
                count, multiple = random.randint(1, 7), random.randint(1, 3)
                start = free.take(count, multiple)
                assert not start % multiple
                assert used.isdisjoint(range(start, start + count))
                assert start + count <= free.end
                used |= set(range(start, start + count))
                taken.append((start, start + count))
        for start, stop in taken:
            free.give(start, stop)
        assert free.take(free.end - 5) == 5


def test_rows_are_free_where_they_are_in_all_memories():
    generator = np.random.default_rng(0)
    for _ in range(50):
        occupied, wanted = [], np.full(30, -1)
        for _ in range(generator.integers(1, 4)):
            size = int(generator.integers(1, 30))
            bounds = np.unique(generator.integers(0, size + 1, 6)).tolist()
            until = [Rows(a, b, int(generator.integers(9))) for a, b in itertools.pairwise(bounds)][::2]
            last = np.where(np.arange(30) < size, 99, -1)
            for rows in until:
                last[rows.start : rows.stop] = rows.last
            wanted = np.maximum(wanted, last)
            occupied.append(Occupied(size, until))
        actual = np.full(30, 99)
        actual[max(memory.num_rows for memory in occupied) :] = -1
        for rows in common(occupied):
            actual[rows.start : rows.stop] = rows.last
        assert (actual == wanted).all()
