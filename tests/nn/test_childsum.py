"""ChildSumTreeLSTM equals its paper's equations, one vertex at a time."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vertexflow as vf
from tests.nn.recursion import agree, tree
from tests.ragged import ragged_structures
from vertexflow.nn import ChildSumTreeLSTM

MODEL = ChildSumTreeLSTM(3, 4).double()


def by_the_paper(inputs, children):
    """Equations 2 to 8, with the matrices of each gate apart."""
    x = inputs["x"]
    w = dict(zip("iouf", MODEL.w.weight.split(4), strict=True))
    b = dict(zip("iouf", MODEL.w.bias.split(4), strict=True))
    u = dict(zip("iou", MODEL.u.weight.split(4), strict=True))
    total = sum((child["h"] for child in children.values()), torch.zeros_like(b["i"]))
    i, o = (torch.sigmoid(w[gate] @ x + u[gate] @ total + b[gate]) for gate in "io")
    cell = i * torch.tanh(w["u"] @ x + u["u"] @ total + b["u"])
    for child in children.values():
        cell = cell + torch.sigmoid(w["f"] @ x + MODEL.uf.weight @ child["h"] + b["f"]) * child["c"]
    return {"h": o * torch.tanh(cell), "c": cell}


@settings(max_examples=20, deadline=None)
@given(st.data(), st.sampled_from([1, 4]))
def test_the_same_as_the_paper(data, max_parents):
    parts = data.draw(st.lists(ragged_structures(max_parents, max_children=5), min_size=1, max_size=3))
    x = torch.randn(sum(part.num_vertices for part in parts), 3, dtype=torch.float64, requires_grad=True)
    agree(MODEL, parts, {"x": x}, by_the_paper)


def test_wide_and_deep():
    parts = [tree([[] for _ in range(30)]), tree([[[[[]]]]]), tree([])]
    x = torch.randn(37, 3, dtype=torch.float64, requires_grad=True)
    agree(MODEL, parts, {"x": x}, by_the_paper)


def test_the_order_of_children_does_not_matter():
    x = torch.randn(4, 3, dtype=torch.float64)
    one = MODEL([vf.graph(4, [(0, 3), (1, 3), (2, 3)])], x=x).h
    other = MODEL([vf.graph(4, [(2, 3), (0, 3), (1, 3)])], x=x).h
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
