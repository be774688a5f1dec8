"""The loss, and how good a model is on a split."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

import vertexflow as vf

from .data import UNLABELLED, Batch


@dataclass(frozen=True)
class Scores:
    """Means over a split: the loss, the share of trees right at the root, and of labelled vertices that are right."""

    loss: float
    root_accuracy: float
    accuracy: float
    trees: int


def loss(scores: Tensor, labels: Tensor, batch: vf.GraphBatch, where: str) -> Tensor:
    """Mean cross-entropy over the labelled vertices.

    Args:
        scores: float [V, num_labels].
        labels: int64 [V], UNLABELLED where there is none.
        where: `"every"` labelled vertex, or the `"root"` of each tree.
    """
    if where == "root":
        scores, labels = scores[batch.roots], labels[batch.roots]
    return functional.cross_entropy(scores, labels, ignore_index=UNLABELLED)


@torch.no_grad()
def evaluate(model: nn.Module, loader: Iterable[Batch], where: str, device: torch.device) -> Scores:
    """Score the model, without dropout, on all the batches; the loss is as in training."""
    model.eval()
    total_loss, trees, roots_right, vertices, right = 0.0, 0, 0, 0, 0
    for packed, tokens, labels in loader:
        batch, labels = packed.to(device), labels.to(device)
        scores = model(batch, tokens.to(device))
        is_right = scores.argmax(-1) == labels  # never so where UNLABELLED, which is negative
        total_loss += loss(scores, labels, batch, where).item() * len(batch)
        trees += len(batch)
        roots_right += int(is_right[batch.roots].sum())
        vertices += int((labels != UNLABELLED).sum())
        right += int(is_right.sum())
    return Scores(total_loss / trees, roots_right / trees, right / vertices, trees)
