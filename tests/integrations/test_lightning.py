"""Lightning: a Trainer's steps equal those of a loop by hand, in each precision that it offers on a CPU."""

from __future__ import annotations

import lightning
import pytest
import torch
from lightning.pytorch.utilities.model_summary import ModelSummary
from lightning_utilities.core.apply_func import apply_to_collection
from torch import nn

import vertexflow as vf

from .classifier import classifier, loader, loss_of, same_parameters, samples, steps_by_hand


class Lit(lightning.LightningModule):
    def __init__(self, model: nn.Module, example=None):
        super().__init__()
        self.model = model
        self.example_input_array = example
        self.losses = []

    def forward(self, batch, x):
        return self.model(batch, x)

    def training_step(self, batch, number):
        graphs, x, labels = batch
        out = self(graphs, x)
        assert type(out) is vf.Outputs
        loss = loss_of(out, labels)
        self.losses.append(loss.item())
        self.log("loss", loss, batch_size=graphs.num_graphs)
        return {"loss": loss, "out": out}  # an Outputs among what a step returns

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


def trainer(folder, **options) -> lightning.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "max_epochs": 1}
    return lightning.Trainer(accelerator="cpu", default_root_dir=folder, **{**quiet, **options})


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_steps_equal_those_of_a_loop_by_hand(precision, backend, tmp_path):
    lit = Lit(classifier(backend))
    fit = trainer(tmp_path, precision=precision, gradient_clip_val=0.5, max_steps=3)
    fit.fit(lit, loader())

    dtype = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(precision, torch.float32)
    other = classifier(backend).to(dtype)

    def forward(batch, x, labels):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            return loss_of(other(batch, x.to(dtype)), labels)

    losses = steps_by_hand(other, torch.optim.Adam(other.parameters(), lr=0.1), forward, clip=0.5, steps=3)
    assert lit.losses == losses
    same_parameters(lit.model, other)
    assert lit.model.tree._programs.num_versions == 1

    fit.save_checkpoint(tmp_path / "model.ckpt")
    again = Lit.load_from_checkpoint(tmp_path / "model.ckpt", model=classifier(backend).to(dtype), weights_only=True)
    same_parameters(again.model, other)


def test_training_goes_on_from_a_checkpoint_as_if_never_stopped(tmp_path):
    whole, first = Lit(classifier()), Lit(classifier())
    trainer(tmp_path, max_epochs=2).fit(whole, loader())
    fit = trainer(tmp_path)
    fit.fit(first, loader())
    fit.save_checkpoint(tmp_path / "half.ckpt")
    second = Lit(classifier())
    trainer(tmp_path, max_epochs=2).fit(second, loader(), ckpt_path=tmp_path / "half.ckpt")
    assert first.losses + second.losses == whole.losses
    same_parameters(second, whole)


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_the_model_s_summary_may_be_its_first_call(backend, tmp_path):
    batch, x, _ = vf.collate(samples(2))
    lit, other = Lit(classifier(backend), (batch, x)), Lit(classifier(backend))
    summary = ModelSummary(lit, max_depth=2)
    sizes = dict(zip(summary.layer_names, zip(summary.in_sizes, summary.out_sizes, strict=True), strict=True))
    assert sizes["model.embed"] == ([10, 3], [10, 4])
    assert sizes["model.tree"] == (["?", [10, 4]], "?")  # Lightning knows the sizes of tensors, lists and tuples
    assert sizes["model.out"] == ([2, 5], [2, 3])
    assert summary.total_parameters == sum(p.numel() for p in lit.parameters())
    lit = Lit(classifier(backend), (batch, x))
    trainer(tmp_path, enable_model_summary=True).fit(lit, loader())
    trainer(tmp_path).fit(other, loader())
    assert lit.losses == other.losses
    same_parameters(lit, other)


def test_graphs_are_not_taken_apart_where_tensors_are_converted():
    graphs = [samples(1)[0][0]]
    batch = vf.pack(graphs)
    converted = apply_to_collection((graphs, batch, torch.ones(2)), torch.Tensor, torch.Tensor.double)
    assert converted[0][0] is graphs[0]
    assert converted[1] is batch
    assert converted[2].dtype == torch.float64
