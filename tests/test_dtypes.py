"""Dtypes of states and values: each is exact, or refused with the line and what to write instead."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vertexflow as vf

from .models import FromCode

BACKENDS = ["torch", "native", "triton"]
GRAPHS = [vf.tree(((0, 1), 2)), vf.chain(3), vf.graph(3, [(0, 1), (0, 2), (1, 2)])]  # 5, 3 and 3 vertices
BIG = 2**53 + 1  # which no floating dtype holds


class Counts(vf.VertexFunction):
    """Counts in integers and marks in booleans beside a state of real numbers, which are chosen by them."""

    def __init__(self, backend):
        super().__init__(
            state={"h": 3, "n": (), "deep": 2}, state_dtype={"n": torch.int64, "deep": torch.bool}, backend=backend
        )
        self.w = nn.Linear(3, 3)
        self.embed = nn.Embedding(4, 3)

    def vertex(self, v):
        left, right = v.gather(0), v.gather(1)
        n = v.pull("n") + left.n + right.n
        deep = left.deep | right.deep | v.pull("mark")
        x = self.w(v.pull("x")) + self.embed(left.n % 4) + right.n.remainder(3).to(torch.float32).unsqueeze(-1)
        h = torch.where(deep[:, :1], torch.tanh(x + left.h), x - right.h)
        v.scatter(h=h, n=n, deep=deep)
        v.push(h=h, n=n, deep=deep, kids=v.sum(v.children.n) + v.max(v.children.n) - 2 * v.min(v.children.n))

    def one_by_one(self, edges, num_vertices, x, n, mark):
        """The same, a vertex at a time."""
        h, count, deep, kids = {}, {}, {}, {}
        for vertex in range(num_vertices):
            own = [child for child, parent in edges if parent == vertex]
            sides = [own[slot] if slot < len(own) else None for slot in range(2)]
            counts = [torch.tensor(0) if side is None else count[side] for side in sides]
            states = [torch.zeros(3) if side is None else h[side] for side in sides]
            marks = [torch.zeros(2, dtype=torch.bool) if side is None else deep[side] for side in sides]
            count[vertex] = n[vertex] + counts[0] + counts[1]
            deep[vertex] = marks[0] | marks[1] | mark[vertex]
            y = self.w(x[vertex]) + self.embed(counts[0] % 4) + counts[1].remainder(3)
            h[vertex] = torch.where(deep[vertex][0], torch.tanh(y + states[0]), y - states[1])
            kids[vertex] = sum(count[c] for c in own)
            if own:
                kids[vertex] = kids[vertex] + max(count[c] for c in own) - 2 * min(count[c] for c in own)
        rows = [torch.stack(list(map(torch.as_tensor, table.values()))) for table in (h, count, deep, kids)]
        return dict(zip(("h", "n", "deep", "kids"), rows, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_integers_and_booleans_are_exact(backend):
    batch = vf.pack(GRAPHS)
    model = Counts(backend)
    x = torch.randn(batch.num_vertices, 3, requires_grad=True)
    n = torch.tensor([BIG, 2**24 + 1, 1, 5, 2, 3, 2**60 + 1, 1, BIG, 7, 9])
    mark = torch.rand(batch.num_vertices, 2) > 0.7
    out = model(batch, x=x, n=n, mark=mark)
    parts, start = [], 0
    for graph in GRAPHS:
        rows = slice(start, start + graph.num_vertices)
        parts.append(model.one_by_one(graph_edges(graph), graph.num_vertices, x[rows], n[rows], mark[rows]))
        start += graph.num_vertices
    expected = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    for name in ("n", "deep", "kids"):
        assert out[name].dtype == expected[name].dtype
        assert torch.equal(out[name], expected[name]), name
        assert not out[name].requires_grad
    torch.testing.assert_close(out.h, expected["h"])
    leaves = [x, *model.parameters()]
    ours, wanted = (torch.autograd.grad(h.square().sum(), leaves) for h in (out.h, expected["h"]))
    torch.testing.assert_close(ours, wanted)


def graph_edges(graph):
    parents = [
        vertex for vertex in range(graph.num_vertices) for _ in range(graph.offset[vertex + 1] - graph.offset[vertex])
    ]
    return list(zip(graph.child.tolist(), parents, strict=True))


def test_runs_that_grow_keep_integers_exact():
    def vertex(self, v):
        n = v.pull("n") + v.gather(0).n
        v.scatter(n=n)
        v.push(n=n)

    model = FromCode(vertex, {"n": ()})
    model.state_dtype = torch.int64
    run = model.start(n=torch.tensor([BIG, 3]))
    new = run.extend([[0], [1]], n=torch.tensor([1, 2]))
    assert run[new].n.tolist() == [BIG + 1, 5]


def test_an_initial_state_of_integers_is_exact():
    def vertex(self, v):
        v.scatter(n=v.gather(0).n + 1)
        v.push(n=v.gather(0).n)

    model = FromCode(vertex, {"n": ()})
    model.state_dtype = {"n": torch.int64}
    assert model([vf.chain(3)], initial={"n": torch.tensor([BIG])}).n.tolist() == [BIG, BIG + 1, BIG + 2]
    with pytest.raises(vf.InputError, match=r"is of float32, but the state is of int64; give initial\['n'\]\.to"):
        model([vf.chain(3)], initial={"n": torch.zeros(1)})


@pytest.mark.parametrize(
    ("value", "state", "advice"),
    [
        (torch.int64, torch.float32, r"h=value\.to\(torch\.float32\).*state_dtype=\{\"h\": torch\.int64\}"),
        (torch.bool, torch.float32, r"h=value\.to\(torch\.float32\).*state_dtype=\{\"h\": torch\.bool\}"),
        (torch.complex64, torch.float32, r"torch\.view_as_real\(value\)"),
        (torch.float64, torch.float32, r"h=value\.to\(torch\.float32\).*state_dtype=\{\"h\": torch\.float64\}"),
        (torch.float32, torch.int64, r"h=value\.to\(torch\.int64\)"),
        (torch.int64, torch.int32, r"h=value\.to\(torch\.int32\)"),
        (torch.bool, torch.int32, r"h=value\.to\(torch\.int32\)"),
    ],
)
def test_what_a_state_does_not_hold_exactly_is_refused(value, state, advice):
    def vertex(self, v):
        h = v.pull("x").to(value)
        v.scatter(h=h)  # here
        v.push(h=h)

    model = FromCode(vertex, {"h": 2}, w=nn.Parameter(torch.zeros(2)))
    if state != torch.float32:
        model.state_dtype = state
    with pytest.raises(vf.VertexFunctionError, match=f"(?s)does not hold it exactly; write .*{advice}.*# here"):
        model([vf.chain(2)], x=torch.ones(2, 2))


@pytest.mark.slow
def test_real_numbers_become_shorter_where_that_is_asked_for():
    def vertex(self, v):
        h = v.gather(0).h + v.pull("x") * self.w
        v.scatter(h=h)
        v.push(h=h, seen=v.gather(0).h)

    x = torch.full((2, 2), 1 / 3, dtype=torch.float64)
    shorter = FromCode(vertex, {"h": 2}, w=nn.Parameter(torch.ones(2)))
    shorter.state_dtype = {"h": torch.float32}
    out = shorter([vf.chain(2)], x=x)
    assert (out.h.dtype, out.seen.dtype) == (torch.float64, torch.float32)
    assert torch.equal(out.seen[1], x[0].float())
    longer = FromCode(vertex, {"h": 2}, w=nn.Parameter(torch.ones(2, dtype=torch.float64)))
    assert longer([vf.chain(2)], x=x.float()).h.dtype == torch.float64


@pytest.mark.parametrize("backend", BACKENDS[:2])
def test_derivatives_under_autocast_are_in_the_dtype_of_their_operations(backend):
    """They were traced under autocast too, where a product that the method had taken out of it was one of bfloat16 again."""

    def vertex(self, v):
        a = self.w(v.pull("x")).float() + v.gather(0).h
        with torch.autocast("cpu", enabled=False):
            h = torch.tanh(a @ self.u)
        v.scatter(h=h)
        v.push(h=h)

    def gradient(backend):
        torch.manual_seed(0)
        model = FromCode(vertex, {"h": 8}, w=nn.Linear(8, 8), u=nn.Parameter(torch.randn(8, 8) / 4))
        model.backend = backend
        with torch.autocast("cpu", torch.bfloat16):
            out = model([vf.chain(20)], x=torch.randn(20, 8))
        out.h.square().sum().backward()
        return model.u.grad

    torch.testing.assert_close(gradient(backend), gradient("eager"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS[:2])
@pytest.mark.cases(1)
def test_attention_under_autocast(backend):
    """On a CPU it takes bfloat16 apart into float32; its derivative was traced as one of both."""

    def vertex(self, v):
        q = (v.pull("x") + v.gather(0).h).unflatten(1, (2, 2))
        h = torch.nn.functional.scaled_dot_product_attention(q, q, q).flatten(1)
        v.scatter(h=h)
        v.push(h=h)

    x = torch.randn(4, 4, requires_grad=True)
    gradients = []
    for each in (backend, "eager"):
        model = FromCode(vertex, {"h": 4}, w=nn.Parameter(torch.ones(1)))
        model.backend = each
        with torch.autocast("cpu", torch.bfloat16):
            out = model([vf.chain(4)], x=x)
        assert out.h.dtype == torch.bfloat16
        gradients.append(torch.autograd.grad(out.h.sum(), x)[0])
    torch.testing.assert_close(*gradients, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("backend", ["torch", "eager"])
@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn], ids=str)
def test_dtypes_that_pytorch_does_not_select_rows_of(dtype, backend):
    def pulling(self, v):
        v.push(y=v.pull("x"))

    def pushing(self, v):
        v.push(y=v.pull("x").to(dtype))

    for vertex, x in ((pulling, torch.ones(3).to(dtype)), (pushing, torch.ones(3))):
        model = FromCode(vertex, {})
        model.backend = backend
        with pytest.raises(
            vf.VertexFlowError, match=rf"is of {dtype}.*\.to\(torch\.(int64|float32)\)(?s:.*)test_dtypes\.py"
        ):
            model([vf.graph(3, [])], x=x)
