"""MVRNN equals its paper's equations, one vertex at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vertexflow as vf
from tests.nn.recursion import agree, tree
from tests.strategies import structures
from vertexflow.nn import MVRNN

MODEL = MVRNN(3).double()  # one for all examples, so that it is traced once
MISSING = {"h": torch.zeros(3, dtype=torch.float64), "matrix": torch.zeros(3, 3, dtype=torch.float64)}


def by_the_paper(inputs, children):
    if not children:
        return {"h": inputs["x"], "matrix": inputs["matrix"]}
    (a, a_matrix), (b, b_matrix) = (children.get(k, MISSING).values() for k in range(2))
    h = torch.tanh(MODEL.w.weight @ torch.cat([b_matrix @ a, a_matrix @ b]) + MODEL.w.bias)
    return {"h": h, "matrix": MODEL.w_matrix @ torch.cat([a_matrix, b_matrix])}


def inputs_of(parts):
    count = sum(part.num_vertices for part in parts)
    x = torch.randn(count, 3, dtype=torch.float64, requires_grad=True)
    matrix = torch.eye(3, dtype=torch.float64) + 0.3 * torch.randn(count, 3, 3, dtype=torch.float64)
    return {"x": x, "matrix": matrix.requires_grad_()}


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.lists(structures(2, max_parents=1), min_size=1, max_size=3))
def test_the_same_as_the_paper(parts):
    agree(MODEL, parts, inputs_of(parts), by_the_paper)


def test_single_leaves_and_missing_children():
    parts = [tree([]), tree([[], [[None, []], [[], []]]]), tree([[], None])]
    agree(MODEL, parts, inputs_of(parts), by_the_paper)


@pytest.mark.slow
def test_it_learns_what_a_word_does_to_its_sibling():
    """Trees of one "not" and one word: the matrix of "not", an input that is learned, comes to turn the word round."""
    model, batch = MVRNN(2), vf.pack([vf.tree((0, 1))] * 2)
    words = torch.tensor([[0.0, 0.0], [1.0, 0.5], [0.0, 0.0], [-1.0, 0.5]])
    matrix_of_not = torch.nn.Parameter(torch.eye(2))
    stepper = torch.optim.Adam([*model.parameters(), matrix_of_not], lr=0.05)
    losses = []
    for _ in range(40):
        stepper.zero_grad()
        x = torch.zeros(6, 2).index_copy(0, batch.leaves, words)
        matrix = torch.eye(2).repeat(6, 1, 1).index_copy(0, batch.leaves[::2], matrix_of_not.expand(2, 2, 2))
        h = model(batch, x=x, matrix=matrix).h[batch.roots]
        loss = (h[:, 0] - torch.tensor([-0.8, 0.8])).square().mean()
        loss.backward()
        stepper.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.05 * losses[0]
    assert matrix_of_not.grad.any()
