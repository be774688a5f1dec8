"""Extensions whose rows lie in strips of memory: sums over rows wait for the end of a strip, which packs weights once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.kernels.growing import strips

from ..agreement import TOLERANCE
from .test_growing_kinds import Tracked


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Strips of few rows, so that there are several."""
    monkeypatch.setattr(strips, "FEWEST", 4)
    monkeypatch.setattr(strips, "MOST", 16)


def agree(ours, expected):
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


def parse(seed, backend, sizes, row_wants=False):
    """A model of three kinds, and what it computes for random children, all of which came earlier: a run, the vertices of each
    extension, and the tensors that want gradients."""
    torch.manual_seed(seed)
    rng, model = np.random.default_rng(seed), Tracked().double()
    model.backend = backend
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    run, added, wanted = model.start(x=x, kind="word"), [], [x, *model.parameters()]
    for number, count in enumerate(sizes):
        table = rng.integers(-1, run.num_vertices, (count, 3))
        if number % 2:
            weight = torch.rand(count, 1, dtype=torch.float64, requires_grad=row_wants)
            wanted += [weight] if row_wants else []
            added.append(run.extend(table, kind="join", weight=weight))
        else:
            added.append(run.extend(table, kind="track"))
    return run, added, wanted


def strips_of(run):
    return [strip for entered in run._trail.entered.values() for strip in entered.strips]


def loss_of(run, added, seed, late=True):
    """A loss of some of what was pushed, read together or extension by extension."""
    generator = torch.Generator().manual_seed(seed)
    terms = [run[new].score.sin().sum() for new in added[::3]]
    terms += [run[new].h.square().sum() for new in added[1::4]]
    if late:
        terms.append((run[torch.cat(added[1::2])].h * torch.rand(4, generator=generator, dtype=torch.float64)).sum())
    return sum(terms)


@pytest.mark.parametrize("row_wants", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.cases(1)
def test_strips_give_what_the_methods_give(seed, row_wants):
    sizes, found = np.random.default_rng(seed).integers(1, 9, 16), []
    for backend in ("native", "eager"):
        run, added, wanted = parse(seed, backend, sizes, row_wants)
        gradients = torch.autograd.grad(loss_of(run, added, seed), wanted, materialize_grads=True)
        found.append([run[torch.cat(added)].score, *gradients])
        if backend == "native":
            of_kinds = 1 if row_wants else 2  # inputs that want gradients get them at once
            assert len(strips_of(run)) > 2 * of_kinds
    agree(*found)


@pytest.mark.slow
def test_backward_again_and_of_parts():
    sizes, found = [3, 5, 2, 7, 4, 6, 1, 8], []
    for backend in ("native", "eager"):
        run, added, wanted = parse(1, backend, sizes)
        early = run[added[1]].h.square().sum() + run[added[2]].score.sum()
        middle, late = run[added[4]].score.square().sum(), run[added[-1]].h.sin().sum()
        terms = [early, middle, late, early + late, early]
        found.append([torch.autograd.grad(term, wanted, retain_graph=True, materialize_grads=True) for term in terms])
        late.backward()
        if backend == "native":
            with pytest.raises(RuntimeError, match="a second time"):
                middle.backward()
    for ours, expected in zip(*found, strict=True):
        agree(ours, expected)


def test_a_run_goes_on_after_a_backward_pass():
    sizes, found = [3, 2, 2], []
    for backend in ("native", "eager"):
        run, added, wanted = parse(2, backend, sizes)
        first = torch.autograd.grad(run[added[1]].h.sum(), wanted, retain_graph=True, materialize_grads=True)
        new = run.extend(np.stack([added[0][:2], added[1], added[2]], 1), kind="track")
        found.append([*first, *torch.autograd.grad(run[new].score.sin().sum(), wanted, materialize_grads=True)])
    agree(*found)


@pytest.mark.slow
def test_threads_go_back_through_the_same_strips():
    sizes = [6, 5, 4, 7, 8, 6] * 4
    run, added, wanted = parse(3, "native", sizes)
    losses = [loss_of(run, added, seed, late=seed % 2 == 0) for seed in range(4)]

    def backward(loss):
        return torch.autograd.grad(loss, wanted, retain_graph=True, materialize_grads=True)

    expected = [backward(loss) for loss in losses]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for ours, alone in zip(pool.map(backward, losses), expected, strict=True):
                agree(ours, alone)


def test_what_is_not_kept_has_the_same_rows_and_sees_other_weights():
    found = []
    for backend in ("native", "eager"):
        torch.manual_seed(0)
        model, x = Tracked().double(), torch.randn(5, 4, dtype=torch.float64)
        model.backend, values = backend, []
        with torch.no_grad():
            run = model.start(x=x, kind="word")
            for number, count in enumerate([2, 3, 7, 1, 12, 2]):
                table = np.random.default_rng(number).integers(-1, run.num_vertices, (count, 3))
                values.append(run[run.extend(table, kind="track")].score)
                model.track.weight_ih.mul_(1.5)
                if number == 3:
                    model.score.weight.data = model.score.weight.data * 2
            if backend == "native":
                ((_, strip, _),) = run._trail.passing.values()
                assert len(strip.children) == 16
        found.append(values)
    agree(*found)


def test_other_weights_begin_another_strip():
    found = []
    for backend in ("native", "eager"):
        run, _, wanted = parse(4, backend, [2, 2])
        model = run._grower.model if backend == "native" else run._model
        before = len(strips_of(run)) if backend == "native" else 0
        model.track.weight_ih.data = model.track.weight_ih.data * 2
        new = run.extend(np.arange(6).reshape(2, 3), kind="track")
        found.append(torch.autograd.grad(run[new].score.sin().sum(), wanted, materialize_grads=True))
        assert backend == "eager" or len(strips_of(run)) == before  # one of joins, and a new one of trackers
    agree(*found)


def add_to_data(weight):
    weight.data.add_(0.25)


def write_by_numpy(weight):
    weight.detach().numpy()[:] *= 1.25


def exchange_data_twice(weight):
    for _ in range(2):  # the second may get the memory that the first one had
        weight.data = weight.data * 1.25


def transpose_data(weight):
    weight.data = weight.data.t()


class Square(vf.VertexFunction):
    def __init__(self):
        super().__init__(state={"h": 8})
        self.weight = nn.Parameter(torch.randn(8, 8))

    def vertex(self, v):
        h = torch.tanh((v.gather(0).h + v.gather(1).h) @ self.weight) + 0.1
        v.scatter(h=h)
        v.push(h=h)


@pytest.mark.parametrize("grows_with_gradients", [False, True])
@pytest.mark.parametrize("change", [add_to_data, write_by_numpy, exchange_data_twice, transpose_data])
@pytest.mark.cases(1)
def test_weights_that_change_without_a_new_version_are_seen(change, grows_with_gradients, monkeypatch):
    monkeypatch.setattr(strips, "FEWEST", 64)  # few rows do not pack weights
    found = []
    for backend in ("native", "eager"):
        torch.manual_seed(0)
        model = Square().double()
        model.backend = backend
        with torch.set_grad_enabled(grows_with_gradients):
            run = model.start()
            run.extend([[-1, -1]] * 3)
            added = []
            for number in range(8):
                added.append(run.extend([[number, number + 1], [number, number]]))
                change(model.weight)
            found.append(run[torch.cat(added)].h)
    torch.testing.assert_close(*found, **TOLERANCE)


class TwoOutputs(vf.VertexFunction):
    def __init__(self) -> None:
        super().__init__(state={"h": 4})
        self.u, self.a, self.b = nn.Linear(8, 4), nn.Linear(4, 3), nn.Linear(4, 2)

    def vertex(self, v: vf.Vertex) -> None:
        h = torch.tanh(self.u(torch.cat([v.gather(0).h, v.gather(1).h], -1)) + v.pull("x"))
        v.scatter(h=h)
        v.push(a=self.a(h), b=self.b(h))


@pytest.mark.slow
@pytest.mark.parametrize("read", ["ab", "ba", "aab", "bba", "abab", "a_b", "_ab", "b_a_"])
def test_outputs_whose_gradients_come_one_after_the_other(read):
    """The later an extension, the earlier it is swept: by then, another output may have no gradient yet."""
    results = []
    for backend in ("eager", "native"):
        torch.manual_seed(0)
        model = TwoOutputs().double()
        model.backend = backend
        x = torch.randn(12, 4, dtype=torch.float64)
        run, terms = model.start(x=x[:4]), []
        for number, name in enumerate(read):
            count = run.num_vertices
            new = run.extend([[count - 1, count - 2], [count - 3, count - 4]], x=x[count : count + 2])
            if name != "_":
                terms.append((number + 1) * run[new][name].square().sum())
        results.append(torch.autograd.grad(sum(terms), [*model.parameters()]))
    agree(*results)
    assert strips_of(run)


class Dropping(vf.VertexFunction):
    def __init__(self):
        super().__init__(state={"h": 64})
        self.drop = nn.Dropout(0.5)

    def vertex(self, v):
        h = self.drop(v.gather(0).h + 1)
        v.scatter(h=h)
        v.push(h=h)


def test_each_extension_draws_numbers_of_its_own():
    model = Dropping()
    model.backend = "native"
    run = model.start()
    run.extend([[-1]])
    kept = [run[run.extend([[0], [0]])].h.ne(0) for _ in range(8)]
    rows = torch.cat(kept)
    assert 0.4 < rows.double().mean() < 0.6
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)


@pytest.mark.slow
def test_a_single_row_of_a_wider_input():
    found = []
    for backend in ("native", "eager"):
        run, _, wanted = parse(6, backend, [2, 2])
        wide = torch.rand(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
        added = [run.extend([[0, 1, 2]], kind="join", weight=wide[row : row + 1, 4:5]) for row in range(6)]
        score = run[torch.cat(added)].score
        found.append([score, *torch.autograd.grad(score.sin().sum(), wanted, materialize_grads=True)])
    agree(*found)


@pytest.mark.slow
def test_large_extensions_have_memory_of_their_own():
    run, _, _ = parse(5, "native", [17, 17])
    assert not strips_of(run)


def test_a_run_begins_with_strips_and_buffers_as_large_as_the_last_one_had():
    torch.manual_seed(0)
    model, found, counts = Tracked().double(), [], []
    model.backend = "native"
    x = torch.randn(5, 4, dtype=torch.float64)
    for _ in range(2):
        run, rng = model.start(x=x, kind="word"), np.random.default_rng(0)
        added = [run.extend(rng.integers(0, run.num_vertices, (3, 3)), kind="track") for _ in range(5)]
        generation = run._grown.generation
        loss = run[torch.cat(added)].score.sin().sum()
        found.append([loss, *torch.autograd.grad(loss, [*model.parameters()], allow_unused=True)])
        counts.append((len(strips_of(run)), generation))
    assert counts[1][0] == 1 < counts[0][0]
    assert counts[1][1] < counts[0][1]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)
