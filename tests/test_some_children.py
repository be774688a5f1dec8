"""`v.children[k:]`: the children in slots k and later, over edges; `kids.slot`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vertexflow as vf
from vertexflow.kernels.prepared import passes

from .agreement import TOLERANCE
from .models import FromCode

BACKENDS = ("eager", "torch", "native")
SIZE = 3
# In no order, with slots left out, vertices with nothing in slot 0, or with that alone.
EDGES = [(4, 5, 1), (2, 3, 0), (0, 4, 0), (1, 3, 2), (3, 5, 0), (0, 3, 4), (1, 5, 3), (2, 4, 1), (0, 6, 0), (5, 7, 2)]


def reference(first, x, w, edges, weight, key, initial=None, reverse=False):
    """One vertex at a time. Returns h, the attention and the sums of the slots, with rows in the order of edges."""
    count = len(x)
    ends = [(parent, child, slot) if reverse else (child, parent, slot) for child, parent, slot in edges]
    children = [[] for _ in range(count)]
    for number in sorted(range(len(edges)), key=lambda number: edges[number][1:]):  # consumers in order
        child, parent, slot = ends[number]
        children[parent].append((len(children[parent]) if reverse else slot, child, number))
    h = [None] * count
    attention = [x.new_zeros(()) for _ in edges]
    starts = [vertex for vertex in range(count) if not children[vertex]]

    def compute(vertex):
        if h[vertex] is not None:
            return h[vertex]
        own = children[vertex]
        previous = next((compute(child) for slot, child, _ in own if slot == 0), x.new_zeros(SIZE))
        number_of_children = len(own)
        if initial is not None and vertex in starts:
            previous, number_of_children = initial[starts.index(vertex)], 1
        rest = [(slot, compute(child), number) for slot, child, number in own if slot >= first]
        total = x[vertex] + previous @ weight + 0.1 * number_of_children
        if rest:
            states = torch.stack([state for _, state, _ in rest])
            slots = torch.tensor([slot for slot, *_ in rest], dtype=x.dtype)
            score = (states + x[vertex]) @ key + w[[number for *_, number in rest]]
            a = score.softmax(0)
            for (_, _, number), one in zip(rest, a, strict=True):
                attention[number] = one
            total = total + (a[:, None] * states).sum(0) + states.mean(0) + states.amax(0) - 0.5 * states.amin(0)
            total = total + 0.1 * torch.logsumexp(states * slots[:, None] * 0.1, 0)
        h[vertex] = torch.tanh(total)
        return h[vertex]

    rows = torch.stack([compute(vertex) for vertex in range(count)])
    return rows, torch.stack(attention)


def function(first):
    def vertex(self, v):
        kids, x = v.children[first:], v.pull("x")
        a = v.softmax((kids.h + kids.expand(x)) @ self.key + kids.pull("w"))
        count = v.num_children
        total = x + v.gather(0).h @ self.weight + 0.1 * count.to(x.dtype)[:, None]
        total = total + v.sum(a[:, None] * kids.h) + v.mean(kids.h) + v.max(kids.h) - 0.5 * v.min(kids.h)
        total = total + 0.1 * v.logsumexp(kids.h * kids.slot[:, None] * 0.1).nan_to_num(0, 0, 0)
        h = torch.tanh(total)
        v.scatter(h=h)
        v.push(h=h, a=a, slot=kids.slot)

    torch.manual_seed(0)
    parts = {"key": nn.Parameter(torch.randn(SIZE)), "weight": nn.Parameter(torch.randn(SIZE, SIZE))}
    return FromCode(vertex, {"h": SIZE}, **parts).double()


@pytest.fixture(scope="module")
def models():
    return {first: function(first) for first in (0, 1, 2)}


def batch_and_edges(copies):
    pairs, slots = [edge[:2] for edge in EDGES], [edge[2] for edge in EDGES]
    graphs = [vf.graph(8, pairs, slots=slots), vf.graph(1, [])] * copies
    edges = [(child + 9 * at, parent + 9 * at, slot) for at in range(copies) for child, parent, slot in EDGES]
    return vf.pack(graphs), edges


def check(model, first, backend, copies=2, reverse=False, max_vertices=None, with_initial=False):
    batch, edges = batch_and_edges(copies)
    torch.manual_seed(1)
    x = torch.randn(batch.num_vertices, SIZE, dtype=torch.float64, requires_grad=True)
    w = torch.randn(batch.num_edges, dtype=torch.float64, requires_grad=True)
    initial = None
    if with_initial:
        starts = batch.roots if reverse else batch.leaves
        initial = torch.randn(len(starts), SIZE, dtype=torch.float64, requires_grad=True)
    model.backend, model.max_vertices = backend, max_vertices
    more = {} if initial is None else {"initial": {"h": initial}}
    out = model(batch, x=x, w=w, reverse=reverse, **more)
    h, a = reference(first, x, w, edges, model.weight, model.key, initial, reverse)
    torch.testing.assert_close(out.h, h, **TOLERANCE)
    torch.testing.assert_close(out.a, a, **TOLERANCE)
    if not reverse:
        read = torch.tensor([slot if slot >= first else 0 for *_, slot in edges])
        assert torch.equal(out.slot, read)
    leaves = [x, w, model.weight, model.key, *([] if initial is None else [initial])]
    torch.manual_seed(2)
    weights = torch.randn_like(h), torch.randn_like(a)
    ours, theirs = (
        torch.autograd.grad((one * weights[0]).sum() + (other * weights[1]).sum(), leaves)
        for one, other in ((out.h, out.a), (h, a))
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)
    model.max_vertices = None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.cases(2)
def test_against_one_vertex_at_a_time(models, backend, first, reverse):
    check(models[first], first, backend, reverse=reverse)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_in_parts(models, backend):
    check(models[1], 1, backend, copies=3, max_vertices=9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_initial_states_are_in_slot_0_and_so_beside_inputs_of_other_edges(models, backend, reverse):
    check(models[1], 1, backend, reverse=reverse, with_initial=True)


def ends(v, h, **more):
    v.scatter(h=h)
    v.push(h=h, **more)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.cases(1)
def test_two_choices_in_one_function_are_refused_with_the_line(backend):
    def mixed(self, v):
        rest = v.children[1:]
        a = v.softmax(rest.h)
        ends(v, v.sum(a * v.children.h))

    def refused(vertex, match):
        model = FromCode(vertex, {"h": SIZE})
        model.backend = backend
        with pytest.raises(vf.VertexFunctionError, match=match) as error:
            model([vf.graph(3, [(0, 2), (1, 2)])], x=torch.randn(3, SIZE))
        return str(error.value)

    said = refused(mixed, r"reads v\.children\[1:\] and v\.children: they have different edges")
    if backend != "eager":
        assert "ends(v, v.sum(a * v.children.h))" in said
    refused(
        lambda self, v: ends(v, v.sum(v.children[1:].h) + v.sum(v.children[2:].h)),
        r"v\.children\[1:\] and v\.children\[2:\]",
    )
    refused(lambda self, v: ends(v, v.sum(v.children.h + v.children[1:].expand(v.pull("x")))), "different edges")
    refused(lambda self, v: ends(v, v.sum(v.children.h), s=v.children[1:].slot), "different edges")
    for index, shown in ((0, "0"), (slice(0, 2), ":2"), (slice(-1, None), "-1:"), (slice(1, None, 2), "1::2")):
        refused(
            lambda self, v, index=index: ends(v, v.sum(v.children[index].h)),
            rf"v\.children\[.*{shown}\]: .*slots k and later",
        )
    refused(lambda self, v: ends(v, v.sum(v.children[1:][1:].h)), "slots k and later")


def test_a_choice_that_is_not_read_is_no_choice():
    def vertex(self, v):
        rest, kids = v.children[1:], v.children
        assert rest is not kids
        ends(v, v.pull("x") + v.sum(rest.h))

    graph = vf.graph(3, [(0, 2), (1, 2)])
    x = torch.randn(3, SIZE)
    out = FromCode(vertex, {"h": SIZE})([graph], x=x)
    torch.testing.assert_close(out.h[2], x[2] + x[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.cases(1)
def test_runs_that_grow(backend):
    def vertex(self, v):
        kids = v.children[1:]
        h = torch.tanh(v.pull("x") + v.gather(0).h * 0.5 + v.sum(kids.h * kids.pull("w")[:, None]))
        ends(v, h)

    model = FromCode(vertex, {"h": SIZE}).double()
    model.backend = backend
    graph = vf.graph(5, [(0, 2), (1, 2), (2, 3), (0, 3), (1, 3), (3, 4)])
    x = torch.randn(5, SIZE, dtype=torch.float64, requires_grad=True)
    w = torch.randn(6, dtype=torch.float64, requires_grad=True)
    whole = model([graph], x=x, w=w)
    run = model.start(x=x[:2], w=w[:0])
    run.extend([[0, 1]], x=x[2:3], w=w[:2])
    run.extend([[2, 0, 1], [3, -1, -1]], x=x[3:], w=w[2:])
    torch.testing.assert_close(run[:].h, whole.h, **TOLERANCE)
    ours, theirs = (torch.autograd.grad(value.sin().sum(), [x, w]) for value in (run[:].h, whole.h))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


def test_slots_of_all_children_and_their_number():
    def vertex(self, v):
        slots = v.children.slot
        ends(v, v.pull("x"), slot=slots, total=v.sum(slots), count=v.num_children)

    pairs, slots = [edge[:2] for edge in EDGES], [edge[2] for edge in EDGES]
    model = FromCode(vertex, {"h": SIZE})
    for backend in BACKENDS:
        model.backend = backend
        out = model([vf.graph(8, pairs, slots=slots)], x=torch.randn(8, SIZE))
        assert out.slot.tolist() == slots
        parents = torch.tensor([parent for _, parent in pairs])
        assert torch.equal(out.total, torch.zeros(8, dtype=torch.int64).index_add(0, parents, torch.tensor(slots)))
        assert torch.equal(out.count, torch.bincount(parents, minlength=8))


def test_rows_of_edges_that_nobody_reads_are_zeros_whatever_the_memory_held(monkeypatch):
    def vertex(self, v):
        kids = v.children[2:]
        weighted = kids.h * kids.pull("w")[:, None]
        h = torch.tanh(v.pull("x") + v.gather(0).h + v.sum(weighted))
        v.scatter(h=h)
        v.push(weighted=weighted)

    monkeypatch.setattr(passes.Fresh, "make", lambda self: torch.full(self.shape, 7, dtype=self.dtype))
    model, (batch, edges) = FromCode(vertex, {"h": SIZE}, backend="native"), batch_and_edges(2)
    is_read = torch.tensor([slot >= 2 for *_, slot in edges])
    weighted = model(batch, x=torch.randn(batch.num_vertices, SIZE), w=torch.ones(batch.num_edges)).weighted
    assert "calls of PyTorch" not in model.explain()  # one native call, which writes to memory as it is
    assert torch.equal(weighted[~is_read], torch.zeros(int((~is_read).sum()), SIZE))
    assert is_read.any()
    assert weighted[is_read].abs().min() > 0
