"""The model as a Lightning module."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import vertexflow as vf

from . import formulas
from .formulas import Sample
from .loaders import loader
from .model import Classifier


class Lit(lightning.LightningModule):
    """Trains `Classifier` on formulas, and is asked about longer ones.

    Args:
        options: those of the command, by name.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.save_hyperparameters()  # `Lit.load_from_checkpoint(path)` has them back
        self.model = Classifier(options["hidden"])

    def train_dataloader(self) -> DataLoader[Sample]:
        at = self.hparams
        return loader(formulas.make(at.formulas, at.most, at.seed + 1), at.batch_size, at.seed)

    def val_dataloader(self) -> DataLoader[Sample]:
        at = self.hparams
        return loader(formulas.make(1000, 4 * at.most, at.seed + 2), at.batch_size)

    def training_step(self, sample: Sample, number: int) -> Tensor:
        return self._mean("loss", cross_entropy(self._scores(sample), sample["label"], reduction="none"))

    def validation_step(self, sample: Sample, number: int) -> None:
        self._mean("accuracy", (self._scores(sample).argmax(-1) == sample["label"]).float())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)

    def _scores(self, sample: Sample) -> Tensor:
        return self.model(sample["graph"], sample["token"])  # type: ignore[no-any-return]

    def _mean(self, name: str, rows: Tensor) -> Tensor:
        """Over the rows of all processes; logged under this name, and over an epoch by how many rows these are."""
        mean, count = vf.parallel.mean(rows), vf.parallel.sum(torch.tensor(len(rows), device=rows.device))
        shown = {"prog_bar": True, "on_epoch": True, "on_step": False}
        self.log(name, mean.detach(), batch_size=int(count), sync_dist=True, **shown)
        return mean
