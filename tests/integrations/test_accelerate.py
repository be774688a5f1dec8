"""accelerate: a prepared model trains as a loop by hand does."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

import vertexflow as vf

from .classifier import classifier, loader, loss_of, plain_losses, same_parameters


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_steps_equal_those_of_a_loop_by_hand(precision, backend):
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    model = classifier(backend)
    prepared, optimiser, batches = accelerator.prepare(model, torch.optim.Adam(model.parameters(), lr=0.1), loader())
    losses = []
    for batch, x, labels in batches:
        assert type(batch) is vf.GraphBatch
        optimiser.zero_grad()
        out = prepared(batch, x)
        assert type(out) is vf.Outputs
        assert out.score.dtype == out.h.dtype == torch.float32  # what accelerate makes of bfloat16
        loss = loss_of(out, labels)
        accelerator.backward(loss)
        optimiser.step()
        losses.append(loss.item())

    other = classifier(backend)

    def forward(batch, x, labels):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            out = other(batch, x)
        return loss_of(vf.Outputs({name: value.float() for name, value in out.items()}), labels)

    by_hand = plain_losses(other, torch.optim.Adam(other.parameters(), lr=0.1), forward)
    assert losses == list(by_hand)
    same_parameters(accelerator.unwrap_model(prepared), other)
    assert all(torch.equal(ours.grad, p.grad) for ours, p in zip(model.parameters(), other.parameters(), strict=True))
