"""The example of trainers learns, alike in both and in two processes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_model

from examples.trainers import formulas, with_accelerate, with_lightning
from examples.trainers.lit import Lit
from examples.trainers.loaders import loader
from examples.trainers.model import Classifier

SIZE = ["--formulas", "500", "--most", "5", "--hidden", "24", "--lr", "0.01", "--epochs", "4"]


@pytest.fixture(autouse=True)
def _another_accelerator(monkeypatch):
    monkeypatch.setenv("VERTEXFLOW_BACKEND", "torch")
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def right(model) -> int:
    """Of the longer formulas that the commands ask about."""
    (batch,) = loader(formulas.make(1000, 20, 2), 1000)
    return int((model(batch["graph"], batch["token"]).argmax(-1) == batch["label"]).sum())


def test_with_lightning(tmp_path):
    accuracy = with_lightning.main([*SIZE, "--out", str(tmp_path)])
    assert accuracy > 0.9
    again = Lit.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    assert right(again.model) == round(1000 * accuracy)


def test_with_accelerate_in_one_process_and_in_two(tmp_path):
    accuracy = with_accelerate.main(["--cpu", *SIZE, "--out", str(tmp_path / "one")])
    assert accuracy > 0.9
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    program = ["-m", "examples.trainers.with_accelerate", "--cpu", *SIZE, "--out", str(tmp_path / "two")]
    subprocess.run([*launch, *program], check=True, capture_output=True)
    models = [Classifier(24), Classifier(24)]
    for model, name in zip(models, ("one", "two"), strict=True):
        load_model(model, tmp_path / name / "model.safetensors")
    assert right(models[0]) == round(1000 * accuracy)
    for one, two in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)  # float32, sums in another order, 32 steps of AdamW
