"""The README's example agrees with the reference on real trees."""

from __future__ import annotations

import pytest
import torch

import vertexflow as vf

from .data import needs_data
from .models import BinaryTreeLSTM
from .reference import run_reference


@needs_data
@pytest.mark.slow
def test_the_first_50_trees_of_sst_dev(data):
    batch = vf.pack(vf.from_ptb(data / "sst" / "dev.txt", num_labels=5)[:50])
    torch.manual_seed(0)
    model = BinaryTreeLSTM(3, 4).double()
    x = torch.randn(batch.num_vertices, 3, dtype=torch.float64, requires_grad=True)
    parent = [v for v in range(batch.num_vertices) for _ in range(batch.offset[v], batch.offset[v + 1])]
    edges = list(zip(batch.child.tolist(), parent, batch.slot.tolist(), strict=True))
    weights = torch.randn(batch.num_vertices, 4, dtype=torch.float64)
    leaves = [x, *model.parameters()]

    def loss_and_gradients(h):
        loss = (h * weights).sum() / len(batch)
        return [loss, *torch.autograd.grad(loss, leaves)]

    ours = loss_and_gradients(model(batch, x=x).h)
    reference = loss_and_gradients(run_reference(model, batch.num_vertices, edges, {"x": x})["h"])
    for actual, expected in zip(ours, reference, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
