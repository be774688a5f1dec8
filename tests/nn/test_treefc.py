"""TreeFC equals its equation, one vertex at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vertexflow as vf
from tests.nn.recursion import agree, tree
from tests.strategies import structures
from vertexflow.nn import TreeFC

MODELS = {arity: TreeFC(4, arity).double() for arity in (2, 3)}  # one each, so that each is traced once


def by_the_equation(model):
    w = model.fc.weight.split(4, 1)

    def compose(inputs, children):
        if not children:
            return {"h": inputs["x"]}
        return {"h": torch.relu(sum(w[k] @ child["h"] for k, child in children.items()) + model.fc.bias)}

    return compose


@settings(max_examples=15, deadline=None)
@given(st.data(), st.sampled_from(sorted(MODELS)))
def test_the_same_as_the_equation(data, arity):
    parts = data.draw(st.lists(structures(arity, max_parents=1), min_size=1, max_size=3))
    x = torch.randn(sum(part.num_vertices for part in parts), 4, dtype=torch.float64, requires_grad=True)
    agree(MODELS[arity], parts, {"x": x}, by_the_equation(MODELS[arity]))


def test_single_leaves_and_missing_children():
    parts = [tree([]), tree([[], None, [[], [], []]]), tree([None, []]), tree([])]
    x = torch.randn(10, 4, dtype=torch.float64, requires_grad=True)
    agree(MODELS[3], parts, {"x": x}, by_the_equation(MODELS[3]))


def test_inputs_of_inner_vertices_do_not_matter_whatever_they_are():
    batch = vf.pack([vf.tree(((0, 1), 2)), vf.tree(0)])
    x = torch.randn(batch.num_vertices, 4, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        x[3:5] = torch.nan
    h = MODELS[2](batch, x=x).h
    assert h.isfinite().all()
    (gradient,) = torch.autograd.grad(h.square().sum(), x)
    assert gradient.isfinite().all()
    assert not gradient[3:5].any()


def test_a_run_that_grows_tells_leaves_too():
    x = torch.randn(5, 4, dtype=torch.float64)
    run = MODELS[2].start(x=x[:3])
    run.extend([[0, 1]], x=x[3:4])
    run.extend([[3, 2]], x=x[4:])
    torch.testing.assert_close(run[:].h, MODELS[2]([vf.tree(((0, 1), 2))], x=x).h)


def test_arity():
    with pytest.raises(vf.GraphError, match="children"):
        MODELS[2]([vf.tree((0, 1, 2))], x=torch.randn(4, 4, dtype=torch.float64))
    for arity in (0, -1, 1.5):
        with pytest.raises(vf.VertexFlowError, match="arity"):
            TreeFC(4, arity)
