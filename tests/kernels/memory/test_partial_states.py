"""A state has rows for the vertices of the kinds that scatter it, and takes no memory for others."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

import vertexflow as vf
from benchmarks.partial_states import WORD, Sentences, text
from vertexflow.kernels import native
from vertexflow.kernels.arguments import By
from vertexflow.kernels.prepared import windows, written

from ...agreement import TOLERANCE
from ...reference import run_reference
from ..prepared.test_structures import by_random, by_sum
from ..prepared.test_windows import Sizes, check, trained

needs_a_compiler = pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")


class Some(vf.VertexFunction):
    """Vertices of the kind "both" have both states, others have one of them. All but "plain" read both, by slots
    or over edges."""

    def __init__(self, size=3):
        super().__init__(state={"h": size, "m": (2, size)})
        self.read, self.join = nn.Linear(2, size), nn.Linear(4 * size, size)

    def below(self, v):
        one, other = v.gather(0), v.gather(1)
        return torch.tanh(
            self.read(v.pull("x")) + self.join(torch.cat([one.h, other.h, one.m[:, 0], other.m[:, 1]], -1))
        )

    @vf.vertex("both")
    def both(self, v):
        kids, h = v.children, self.below(v)
        v.scatter(h=h, m=torch.stack([torch.sin(h), v.sum(kids.m[:, 0] * kids.h)], 1))
        v.push(h=h)

    @vf.vertex("one")
    def one(self, v):
        h = self.below(v)
        v.scatter(h=h)
        v.push(h=torch.cos(h))

    @vf.vertex("other")
    def other(self, v):
        kids = v.children
        m = torch.tanh(self.read(v.pull("x")) + v.sum(kids.m[:, 1] + torch.sin(kids.h)))
        v.scatter(m=torch.stack([m, m * m], 1))
        v.push(h=m)

    @vf.vertex("plain")
    def plain(self, v):
        h = torch.tanh(self.read(v.pull("x")) + v.gather(0).h - v.sum(torch.cos(v.children.h)))
        v.scatter(h=h)
        v.push(h=h)


def given(seed=0, sizes=(1, 7, 9, 12), kinds=("both", "one", "other", "plain"), most=2):
    """A batch of DAGs, its edges with slots, and the kind of each vertex."""
    random, graphs, edges, of_all, first = np.random.default_rng(seed), [], [], [], 0
    for size in sizes:
        pairs = [
            (int(child), parent, slot)
            for parent in range(size)
            for slot, child in enumerate(random.permutation(parent)[: random.integers(most + 1)])
        ]
        own = random.choice(kinds, size).tolist()
        slots = [slot for *_, slot in pairs]
        graphs.append(vf.graph(size, [pair[:2] for pair in pairs], kind=own, slots=slots))
        edges += [(child + first, parent + first, slot) for child, parent, slot in pairs]
        of_all, first = [*of_all, *own], first + size
    return vf.pack(graphs), edges, of_all


def inputs_of(batch):
    generator = torch.Generator().manual_seed(3)
    return {"x": torch.randn(batch.num_vertices, 2, dtype=torch.float64, generator=generator).requires_grad_()}


@pytest.fixture(scope="module")
def some():
    torch.manual_seed(0)
    return Some().double()


def gradients(h, wanted):
    weight = torch.linspace(-1, 1, h.numel(), dtype=h.dtype).view_as(h)
    return torch.autograd.grad((h * weight).sum(), wanted, allow_unused=True)


@pytest.mark.parametrize(
    "kinds",
    [
        ("both", "one", "other", "plain"),
        pytest.param(("one", "other"), marks=pytest.mark.slow),
        pytest.param(("one",), marks=pytest.mark.slow),
        pytest.param(("both", "one"), marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def test_every_backend_gives_what_single_vertices_give(backends, some, kinds):
    batch, edges, of_all = given(kinds=kinds)
    inputs, methods = inputs_of(batch), [getattr(some, kind) for kind in of_all]
    wanted = [*inputs.values(), *some.parameters()]
    reference = run_reference(some, batch.num_vertices, edges, inputs, methods=methods)["h"]
    expected = gradients(reference, wanted)
    for some.backend in (*backends, "eager"):
        for policy in ("depth", "agenda"):
            some.policy = policy
            h = some(batch, **inputs).h
            torch.testing.assert_close(h, reference, **TOLERANCE, msg=lambda text: f"{some.backend}: {text}")
            torch.testing.assert_close(gradients(h, wanted), expected, **TOLERANCE)
    some.policy = "depth"


class Alternating(vf.VertexFunction):
    """A sequence in which vertices of the kind "a" have both states, those of the kind "b" one."""

    def __init__(self):
        super().__init__(state={"h": 3, "m": 3})
        self.read, self.join = nn.Linear(2, 3), nn.Linear(6, 3)

    def below(self, v):
        before = v.gather(0)
        return torch.tanh(self.read(v.pull("x")) + self.join(torch.cat([before.h, before.m], -1)))

    @vf.vertex("a")
    def a(self, v):
        h = self.below(v)
        v.scatter(h=h, m=torch.sin(h))
        v.push(h=h)

    @vf.vertex("b")
    def b(self, v):
        h = self.below(v)
        v.scatter(h=h)
        v.push(h=h)


@pytest.mark.slow
def test_children_that_are_consecutive_rows_of_one_state_only(backends):
    """Of sequences of one length, each step reads consecutive rows of the state that all vertices have."""
    torch.manual_seed(0)
    model, kinds, count = Alternating().double(), [*"bbabaab"], 4
    pairs = [(at, at + 1) for at in range(6)]
    batch = vf.pack([vf.graph(7, pairs, kind=kinds)] * count)
    edges = [(child + 7 * number, parent + 7 * number, 0) for number in range(count) for child, parent in pairs]
    inputs, methods = inputs_of(batch), [getattr(model, kind) for kind in kinds * count]
    wanted = [*inputs.values(), *model.parameters()]
    reference = run_reference(model, 7 * count, edges, inputs, methods=methods)["h"]
    expected = gradients(reference, wanted)
    for model.backend in backends:
        h = model(batch, **inputs).h
        torch.testing.assert_close(h, reference, **TOLERANCE)
        torch.testing.assert_close(gradients(h, wanted), expected, **TOLERANCE)


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_a_state_has_rows_of_the_vertices_that_have_it(some, backend):
    batch, edges, of_all = given()
    some.backend = backend
    some(batch, **inputs_of(batch))
    (kept,) = batch.derived.orders.values()
    (order,) = kept.order._partial.values()
    assert order.num_rows_in("h") == sum(kind != "other" for kind in of_all)
    assert order.num_rows_in("m") == sum(kind in ("both", "other") for kind in of_all)
    read_by_slot = sum(of_all[parent] in ("both", "one") for parent in {parent for _, parent, _ in edges})
    assert order.num_sent("m", By.SLOT) == 2 * read_by_slot + 1 < order.num_positions
    read_over_edges = sum(of_all[parent] in ("both", "other") for _, parent, _ in edges)
    assert order.num_sent("m", By.EDGE) == read_over_edges + 1 < order.num_edge_positions


@pytest.mark.slow
def test_initial_states_and_parts(backends, some):
    """Initial states are read in slot 0: a vertex has one child there, or none."""
    batch, edges, of_all = given(1, sizes=(6, 4, 9), most=1)
    inputs, methods = inputs_of(batch), [getattr(some, kind) for kind in of_all]
    leaves = batch.num_vertices - len({parent for _, parent, _ in edges})
    initial = {name: torch.randn(leaves, *shape, dtype=torch.float64) for name, shape in some.state.items()}
    for value in initial.values():
        value.requires_grad_()
    wanted = [*inputs.values(), *some.parameters(), *initial.values()]
    reference = run_reference(some, batch.num_vertices, edges, inputs, methods=methods, initial=initial)["h"]
    expected = gradients(reference, wanted)
    for some.backend in backends:
        for some.max_vertices in (None, 7):
            h = some(batch, initial=initial, **inputs).h
            torch.testing.assert_close(h, reference, **TOLERANCE)
            torch.testing.assert_close(gradients(h, wanted), expected, **TOLERANCE)
    some.max_vertices = None


@pytest.mark.slow
def test_gradients_of_gradients(some):
    batch, edges, of_all = given(2, sizes=(5, 8))
    inputs, methods = inputs_of(batch), [getattr(some, kind) for kind in of_all]
    wanted = [*inputs.values(), *some.parameters()]

    def second(h):
        first = torch.autograd.grad(h.square().sum(), wanted, create_graph=True)
        return torch.autograd.grad(sum(grad.square().sum() for grad in first), wanted)

    expected = second(run_reference(some, batch.num_vertices, edges, inputs, methods=methods)["h"])
    for some.backend in ("torch", "native"):
        for _ in range(2):  # the second call is a replay from the start
            torch.testing.assert_close(second(some(batch, **inputs).h), expected, **TOLERANCE)


@needs_a_compiler
@pytest.mark.parametrize("most", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.slow
def test_windows(monkeypatch, some, most):
    sizes, some.backend = Sizes(monkeypatch), "native"
    batch, _, _ = given(3, sizes=(9, 14, 5), most=most)
    for backward in (by_random, by_sum):
        assert check(sizes, functools.partial(trained, some, batch, inputs_of(batch), backward)) > 3


@pytest.mark.slow
@needs_a_compiler
def test_without_gradients_windows_let_rows_go(monkeypatch, some):
    outputs, ends, find = [], [], written.find_state_rows

    def noted(*arguments, **named):
        rows = find(*arguments, **named)
        ends.append([rows.num_rows_in(name) for name in ("m", "h", "none such")])
        return rows

    monkeypatch.setattr(written, "find_state_rows", noted)
    monkeypatch.setattr(windows, "rows_of_a_window", lambda rows, width: 3)
    batch, _, of_all = given(4, sizes=(9, 30, 5))
    with torch.no_grad():
        for some.backend in ("torch", "native"):
            outputs.append(some(batch, **inputs_of(batch)).h)
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    assert max(ends[0][:2]) < ends[0][2] < len(of_all)


@needs_a_compiler
@pytest.mark.parametrize("training", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_what_few_vertices_have_takes_little_memory(training):
    batch = vf.pack([text(4, 40)] * 20)
    x = torch.empty(20 * 4 * 40, WORD, device="meta")
    peaks = []
    for leaves_out in (True, False):
        model = Sentences(512, leaves_out)
        estimate = model.estimate_memory(batch, x=x, training=training)
        peaks.append(estimate.kept + max(estimate.forward, estimate.backward))
    assert peaks[0] < peaks[1] / (2 if training else 4)
