"""accelerate: a prepared model trains as a loop by hand does."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

import vertexflow as vf

from ..models import BinaryTreeLSTM
from .classifier import classifier, loader, loss_of, same_parameters, steps_by_hand


@pytest.fixture(autouse=True)
def _another_accelerator():
    """accelerate has one state for the whole process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def autocast(precision: str) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_steps_equal_those_of_a_loop_by_hand(precision, backend, tmp_path):
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
        accelerator.clip_grad_norm_(prepared.parameters(), 0.5)
        optimiser.step()
        losses.append(loss.item())

    other = classifier(backend)

    def forward(batch, x, labels):
        with autocast(precision):
            out = other(batch, x)
        return loss_of(vf.Outputs({name: value.float() for name, value in out.items()}), labels)

    assert losses == steps_by_hand(other, torch.optim.Adam(other.parameters(), lr=0.1), forward, clip=0.5)
    assert all(torch.equal(ours.grad, p.grad) for ours, p in zip(model.parameters(), other.parameters(), strict=True))
    same_parameters(accelerator.unwrap_model(prepared, keep_fp32_wrapper=False), other)
    assert model.tree._programs.num_versions == 1

    accelerator.save_state(tmp_path)
    torch.nn.init.zeros_(model.tree.u.weight)
    accelerator.load_state(tmp_path)
    same_parameters(model, other)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_vertex_function_itself_is_prepared_and_gradients_accumulate(precision):
    accelerator = Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=2)
    torch.manual_seed(1)
    model, other = BinaryTreeLSTM(3, 5), BinaryTreeLSTM(3, 5)
    other.load_state_dict(model.state_dict())
    with autocast(precision):
        sum(other(batch, x=x).h.float().square().mean() / 2 for batch, x, _ in list(loader())[:2]).backward()
    model, optimiser, batches = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=1.0), loader())
    before = model.u.weight.clone()
    for batch, x, _ in list(batches)[:2]:
        with accelerator.accumulate(model):
            out = model(batch, x=x)
            assert out.h.dtype == torch.float32
            accelerator.backward(out.h.square().mean())
            optimiser.step()
            optimiser.zero_grad(set_to_none=False)
    torch.testing.assert_close(model.u.weight.detach(), before.detach() - other.u.weight.grad)
    gathered = accelerator.gather(out)
    assert type(gathered) is vf.Outputs
    assert torch.equal(gathered.h, out.h)
    again = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    other.load_state_dict(again.state_dict())
    with autocast(precision):
        torch.testing.assert_close(dict(again(batch, x=x)), dict(other(batch, x=x)), rtol=0, atol=0)
