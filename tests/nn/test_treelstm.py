"""NaryTreeLSTM equals its paper's equations, one vertex at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vertexflow as vf
from tests.nn.recursion import agree, tree
from tests.strategies import structures
from vertexflow.nn import NaryTreeLSTM

MODELS = {arity: NaryTreeLSTM(3, 4, arity).double() for arity in (1, 3)}  # one each, so that each is traced once


def by_the_paper(model):
    """Equations 9 to 14, with the matrices of each gate and each pair of children apart."""
    size, arity = model.state["h"][0], model.arity
    w = dict(zip("iouf", model.w.weight.split(size), strict=True))
    b = dict(zip("iouf", model.w.bias.split(size), strict=True))
    u = [rows.split(size, 1) for rows in model.u.weight.split(size)]  # u[gate][l]

    def compose(inputs, children):
        x = inputs["x"]
        h = [children[k]["h"] if k in children else x.new_zeros(size) for k in range(arity)]
        c = [children[k]["c"] if k in children else x.new_zeros(size) for k in range(arity)]

        def gate(name, number):
            return w[name] @ x + sum(u[number][k] @ h[k] for k in range(arity)) + b[name]

        i, o, new = torch.sigmoid(gate("i", 0)), torch.sigmoid(gate("o", 1)), torch.tanh(gate("u", 2))
        forget = [torch.sigmoid(gate("f", 3 + k)) for k in range(arity)]
        cell = i * new + sum(forget[k] * c[k] for k in range(arity))
        return {"h": o * torch.tanh(cell), "c": cell}

    return compose


@settings(max_examples=15, deadline=None)
@given(st.data(), st.sampled_from(sorted(MODELS)))
def test_the_same_as_the_paper(data, arity):
    parts = data.draw(st.lists(structures(arity, max_parents=1), min_size=1, max_size=3))
    x = torch.randn(sum(part.num_vertices for part in parts), 3, dtype=torch.float64, requires_grad=True)
    agree(MODELS[arity], parts, {"x": x}, by_the_paper(MODELS[arity]))


def test_single_leaves_and_missing_children():
    parts = [tree([]), tree([[], None, [[], [], []]]), tree([None, []]), tree([])]
    x = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    agree(MODELS[3], parts, {"x": x}, by_the_paper(MODELS[3]))


def test_the_loss_falls():
    model, batch = NaryTreeLSTM(3, 8), vf.pack([vf.tree(((0, 1), (2, 3))), vf.tree((0, (1, 2)))])
    x, target = torch.randn(batch.num_vertices, 3), torch.rand(2, 8) - 0.5
    stepper = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(15):
        stepper.zero_grad()
        loss = (model(batch, x=x).h[batch.roots] - target).square().mean()
        loss.backward()
        stepper.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_more_children_than_the_arity_are_refused():
    with pytest.raises(vf.GraphError, match="children"):
        MODELS[1]([vf.tree((0, 1))], x=torch.randn(3, 3, dtype=torch.float64))
    with pytest.raises(vf.VertexFlowError, match="arity"):
        NaryTreeLSTM(3, 4, 0)
