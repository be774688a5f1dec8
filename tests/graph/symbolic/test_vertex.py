"""The object `v`: what it tells, and what it says to Python that asks it as if it were one vertex."""

from __future__ import annotations

import pytest
import torch

import vertexflow as vf

from ...agreement import check
from ...models import FromCode
from ...strategies import Case, Structure

ASKS = {
    "if v.children": lambda v, x: x * 2 if v.children else x,
    "len(v.children)": lambda v, x: x * len(v.children),
    "for kid in v.children": lambda v, x: x + sum(kid.h for kid in v.children),
    "v.children[0]": lambda v, x: x + v.children[0].h,
    "if v.gather(0)": lambda v, x: x * 2 if v.gather(0) else x,
    "for h in v.gather(0)": lambda v, x: x + sum(v.gather(0)),
    "v.gather(0)[0]": lambda v, x: x + v.gather(0)[0],
    "if v": lambda v, x: x * 2 if v else x,
    "len(v)": lambda v, x: x * len(v),
    "for child in v": lambda v, x: x + sum(v),
}


@pytest.mark.parametrize(
    ("asks", "hint"),
    list(zip(
        ASKS.values(),
        [r"v\.num_children", r"v\.num_children", r"v\.children\.h", r"v\.gather\(slot\)", r"v\.num_children",
         r"v\.gather\(0\)\.h", r"v\.gather\(0\)\.h", "all vertices", r"v\.num_children", r"v\.children"],
        strict=True,
    )),
    ids=ASKS,
)  # fmt: skip
@pytest.mark.cases(1)
def test_python_that_asks_a_vertex_or_its_children_is_told_what_to_write(asks, hint):
    def vertex(self, v):
        h = asks(v, v.pull("x"))
        v.scatter(h=h)
        v.push(h=h)

    with pytest.raises(vf.VertexFunctionError, match=rf"{hint}[^\n]*\n.*test_vertex\.py:\d+"):
        FromCode(vertex, {"h": 3})([vf.chain(3)], x=torch.randn(3, 3))


def counted(self, v):
    count = v.num_children
    count += 10  # a copy of the user's own
    h = torch.tanh(v.pull("x") * (1 + v.num_children)[:, None] + v.gather(0).h)
    v.scatter(h=h)
    v.push(h=h, count=v.num_children, ten=count)


def counted_and_summed(self, v):
    h = torch.tanh(v.pull("x") + v.sum(v.children.h) / v.num_children.clamp(min=1)[:, None].sqrt())
    v.scatter(h=h)
    v.push(h=h, none=(v.num_children == 0).to(h.dtype))


def counted_without_states(self, v):
    v.push(h=v.pull("x") / (1 + v.num_children)[:, None])


# A tree with one child in slot 1 alone, a single vertex, and a DAG.
PARTS = [
    Structure(3, [(0, 2, 0), (1, 2, 1)]),
    Structure(2, [(0, 1, 1)]),
    Structure(1, []),
    Structure(3, [(0, 1, 0), (0, 2, 0), (1, 2, 1)]),
]


@pytest.mark.parametrize("backend", ["torch", "compile", "triton"])
@pytest.mark.parametrize("vertex", [counted, counted_and_summed, counted_without_states])
@pytest.mark.cases(3)
def test_num_children(vertex, backend, monkeypatch, request):
    if backend == "triton":
        request.getfixturevalue("interpreter")
    monkeypatch.setenv("VERTEXFLOW_BACKEND", backend)
    model = FromCode(vertex, {} if vertex is counted_without_states else {"h": 3}).double()
    for reverse in (False, True):
        check(Case(model, PARTS, {"x": torch.randn(9, 3, dtype=torch.float64, requires_grad=True)}, reverse))


def test_num_children_is_whole_numbers_and_counts_what_comes_from_outside():
    model = FromCode(counted, {"h": 3})
    x, batch = torch.randn(4, 3), vf.pack([vf.chain(3), vf.chain(1)])
    assert model(batch, x=x).count.tolist() == [0, 1, 1, 0]
    assert model(batch, x=x).count.dtype == torch.int64
    assert model(batch, x=x).ten.tolist() == [10, 11, 11, 10]
    assert model(batch, x=x, initial={"h": torch.zeros(2, 3)}).count.tolist() == [1, 1, 1, 1]
    run = model.start(x=torch.randn(2, 3))
    first = run.extend([[0], [1]], x=torch.randn(2, 3))
    assert run[[0, *first.tolist()]].count.tolist() == [0, 1, 1]


def test_a_slot_that_no_batch_has_is_refused():
    def vertex(self, v):
        v.push(h=v.gather(2**40).h)

    with pytest.raises(vf.VertexFunctionError, match=r"slots up to 1023 .*v\.children"):
        FromCode(vertex, {"h": 3})([vf.chain(1)])


def test_pieces_of_the_rows_are_refused():
    def vertex(self, v):
        a, b = torch.cat([v.pull("x"), v.pull("x")]).chunk(2)
        v.push(h=a + b)

    with pytest.raises(vf.VertexFunctionError, match=r"cuts the dimension of the vertices(?s:.)*test_vertex\.py"):
        FromCode(vertex, {})([vf.chain(1)], x=torch.randn(1, 3))
