"""A training run: everything that an epoch changes, and how it comes from and goes to its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import vertexflow as vf

from . import checkpoint, listops, sst
from .baseline import BagOfLeavesClassifier
from .data import Dataset, Vocabulary
from .model import TreeLSTMClassifier
from .settings import Settings, find_device, resumed

METRICS, CURVES = "metrics.jsonl", "curves.png"
MODELS = {"treelstm": TreeLSTMClassifier, "bag": BagOfLeavesClassifier}


@dataclass(frozen=True)
class Run:
    """A run between two epochs; `history` has one row of metrics for each epoch behind it."""

    folder: Path
    settings: Settings
    device: torch.device
    data: Dataset
    model: nn.Module
    optimizer: torch.optim.Optimizer
    order: torch.Generator
    history: list[dict[str, Any]]

    @property
    def best(self) -> dict[str, Any]:
        """The metrics of the epoch that was best on the validation split, the first of them where several are."""
        return max(self.history, key=lambda row: row["valid_root_accuracy"])


def begin(folder: Path, settings: Settings) -> Run:
    """Make a run and its folder.

    Raises:
        vf.InputError: the folder is in use, or the device or the data cannot be used.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise vf.InputError(f"{folder} is in use already; go on with it by --resume {folder}, or choose another --out")
    device = find_device(settings.device)
    data = read_data(settings)
    torch.manual_seed(settings.seed)
    run = _assemble(folder, settings, device, data, history=[])
    folder.mkdir(parents=True, exist_ok=True)
    save(run, checkpoint.LAST)
    return run


def resume(folder: Path, given: Mapping[str, Any]) -> Run:
    """Read a run back as it was after its last whole epoch; `given` are the flags to change.

    Raises:
        vf.InputError: there is no run in the folder, a flag contradicts it, or the data is not what it was.
    """
    saved = checkpoint.load(folder / checkpoint.LAST)
    settings = resumed(Settings(**saved["settings"]), given)
    device = find_device(settings.device)
    data = read_data(settings)
    if list(data.vocabulary.tokens) != saved["vocabulary"]:
        raise vf.InputError(f"{settings.data} holds other data than {folder} was trained on: the vocabularies differ")
    run = _assemble(folder, settings, device, data, saved["history"])
    run.model.load_state_dict(saved["model"])
    run.optimizer.load_state_dict(saved["optimizer"])
    run.order.set_state(saved["order"])
    torch.set_rng_state(saved["random"])
    if device.type == "cuda" and saved["random_cuda"]:
        torch.cuda.set_rng_state(saved["random_cuda"][0], device)
    rows = "".join(json.dumps(row) + "\n" for row in run.history)  # without epochs that were cut off before their checkpoint
    (folder / METRICS).write_text(rows, encoding="utf-8")
    return run


def save(run: Run, name: str) -> None:
    """Write the run to its folder as the checkpoint `name`."""
    content = {
        "settings": asdict(run.settings),
        "vocabulary": list(run.data.vocabulary.tokens),
        "labels": list(run.data.labels),
        "history": run.history,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "order": run.order.get_state(),
        "random": torch.get_rng_state(),
        "random_cuda": [torch.cuda.get_rng_state(run.device)] if run.device.type == "cuda" else [],
    }
    checkpoint.save(run.folder / name, content)


def load_model(saved: Mapping[str, Any]) -> tuple[Settings, Vocabulary, nn.Module]:
    """The settings, the vocabulary and the trained model of a checkpoint."""
    settings, vocabulary = Settings(**saved["settings"]), Vocabulary(tuple(saved["vocabulary"]))
    model = _build(settings, len(vocabulary), len(saved["labels"]))
    model.load_state_dict(saved["model"])
    return settings, vocabulary, model


def read_data(settings: Settings) -> Dataset:
    """The data set that the settings ask for."""
    if settings.dataset == "listops":
        return listops.generate(settings.seed, settings.train_size, settings.max_depth)
    assert settings.data is not None  # `settings.fresh` sees to it
    return sst.read(Path(settings.data), settings.binary)


def _assemble(
    folder: Path, settings: Settings, device: torch.device, data: Dataset, history: list[dict[str, Any]]
) -> Run:
    model = _build(settings, len(data.vocabulary), len(data.labels)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    order = torch.Generator().manual_seed(settings.seed)
    return Run(folder, settings, device, data, model, optimizer, order, history)


def _build(settings: Settings, num_tokens: int, num_labels: int) -> nn.Module:
    return MODELS[settings.model](num_tokens, num_labels, settings.embed, settings.hidden, settings.dropout)
