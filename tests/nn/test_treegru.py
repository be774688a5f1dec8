"""TreeGRU equals its equations, one vertex at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vertexflow as vf
from tests.nn.recursion import agree, tree
from tests.strategies import structures
from vertexflow.nn import TreeGRU

MODELS = {arity: TreeGRU(3, 4, arity).double() for arity in (1, 3)}  # one each, so that each is traced once


def by_the_equations(model):
    """The equations of the docstring, with the matrices of each gate and each pair of children apart."""
    size, arity = model.state["h"][0], model.arity
    w = dict(zip("zrn", model.w.weight.split(size), strict=True))
    b = dict(zip("zrn", model.w.bias.split(size), strict=True))
    u_z, *u_r = [rows.split(size, 1) for rows in model.u_gates.weight.split(size)]  # u_r[k][l]
    u_n = model.u_new.weight.split(size, 1)

    def compose(inputs, children):
        x = inputs["x"]
        h = [children[k]["h"] if k in children else x.new_zeros(size) for k in range(arity)]
        z = torch.sigmoid(w["z"] @ x + sum(u_z[k] @ h[k] for k in range(arity)) + b["z"])
        r = [torch.sigmoid(w["r"] @ x + sum(u[k] @ h[k] for k in range(arity)) + b["r"]) for u in u_r]
        n = torch.tanh(w["n"] @ x + sum(u_n[k] @ (r[k] * h[k]) for k in range(arity)) + b["n"])
        return {"h": (1 - z) * n + z * sum(h)}

    return compose


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.data(), st.sampled_from(sorted(MODELS)))
def test_the_same_as_the_equations(data, arity):
    parts = data.draw(st.lists(structures(arity, max_parents=1), min_size=1, max_size=3))
    x = torch.randn(sum(part.num_vertices for part in parts), 3, dtype=torch.float64, requires_grad=True)
    agree(MODELS[arity], parts, {"x": x}, by_the_equations(MODELS[arity]))


def test_single_leaves_and_missing_children():
    parts = [tree([]), tree([[], None, [[], [], []]]), tree([None, []]), tree([])]
    x = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    agree(MODELS[3], parts, {"x": x}, by_the_equations(MODELS[3]))


def test_more_children_than_the_arity_are_refused():
    with pytest.raises(vf.GraphError, match="children"):
        MODELS[1]([vf.tree((0, 1))], x=torch.randn(3, 3, dtype=torch.float64))
    with pytest.raises(vf.VertexFlowError, match="arity"):
        TreeGRU(3, 4, 0)
