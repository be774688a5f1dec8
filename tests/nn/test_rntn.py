"""RNTN equals its paper's equations, one vertex at a time."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vertexflow as vf
from tests.nn.recursion import agree, tree
from tests.strategies import structures
from vertexflow.nn import RNTN

MODEL = RNTN(3).double()  # one for all examples, so that it is traced once


def by_the_paper(inputs, children):
    if not children:
        return {"h": inputs["x"]}
    e = torch.cat([children[k]["h"] if k in children else torch.zeros(3, dtype=torch.float64) for k in range(2)])
    slices = torch.stack([e @ MODEL.v[k] @ e for k in range(3)])
    return {"h": torch.tanh(slices + MODEL.w.weight @ e + MODEL.w.bias)}


def inputs_of(parts):
    count = sum(part.num_vertices for part in parts)
    return {"x": torch.randn(count, 3, dtype=torch.float64, requires_grad=True)}


@settings(max_examples=15, deadline=None)
@given(st.lists(structures(2, max_parents=1), min_size=1, max_size=3))
def test_the_same_as_the_paper(parts):
    agree(MODEL, parts, inputs_of(parts), by_the_paper)


def test_single_leaves_and_missing_children():
    parts = [tree([]), tree([[], [[None, []], [[], []]]]), tree([[], None])]
    agree(MODEL, parts, inputs_of(parts), by_the_paper)


def test_it_learns_negation():
    """What a tensor can tell and a sum cannot: whether both leaves are alike."""
    model, batch = RNTN(4), vf.pack([vf.tree((0, 1))] * 4)
    x = torch.zeros(12, 4)
    x[batch.leaves, 0] = torch.tensor([1.0, 1, 1, -1, -1, 1, -1, -1])
    target = torch.tensor([1.0, -1, -1, 1])
    stepper = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        stepper.zero_grad()
        loss = (model(batch, x=x).h[batch.roots, 0] - target).square().mean()
        loss.backward()
        stepper.step()
    assert loss < 0.05
