"""One epoch of training, evaluation, and the random state from which a run continues as if it had never stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

import vertexflow as vf

from .task import UNLABELLED, Sample


@dataclass(frozen=True)
class Metrics:
    """Mean loss of a labelled vertex; accuracy at roots and over all labelled vertices; trees per second."""

    loss: float
    root_accuracy: float
    vertex_accuracy: float
    trees_per_second: float


def batches(samples: Sequence[Sample], size: int, order: torch.Generator | None = None) -> DataLoader[Sample]:
    """Packed batches of up to `size` trees, in a random order drawn from `order` if that is given."""
    return DataLoader(
        samples,  # type: ignore[arg-type]  # a list has all that a Dataset needs
        batch_size=size, shuffle=order is not None, generator=order, collate_fn=partial(vf.collate, rows=(1, 2)),
    )  # fmt: skip


def run_epoch(
    model: nn.Module,
    loader: DataLoader[Sample],
    device: torch.device,
    title: str,
    optimizer: torch.optim.Optimizer | None = None,
    clip: float = 5.0,
) -> Metrics:
    """Go once over the data: training with an optimizer, evaluation without. The loss is that of all labelled vertices."""
    model.train(optimizer is not None)
    total_loss = correct = labelled = roots_correct = roots = 0.0
    trees = 0
    started = time.perf_counter()
    with torch.set_grad_enabled(optimizer is not None), tqdm(loader, desc=title, leave=False, unit="batch") as progress:
        for batch, tokens, labels in progress:
            tokens, labels = tokens.to(device), labels.to(device)
            logits = model(batch, token=tokens).logits
            known = (labels != UNLABELLED).sum().item()
            loss = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
            if optimizer is not None:
                optimizer.zero_grad()
                (loss / max(known, 1)).backward()
                nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
            total_loss += loss.item()
            if not math.isfinite(total_loss):
                raise FloatingPointError(f"{title}: the loss is {loss.item()}; a smaller --lr may help")
            hits = logits.argmax(-1) == labels
            correct += hits.sum().item()
            labelled += known
            roots_correct += hits[batch.roots].sum().item()
            roots += (labels[batch.roots] != UNLABELLED).sum().item()
            trees += len(batch)
            rate = trees / (time.perf_counter() - started)
            progress.set_postfix_str(f"loss {total_loss / labelled:.3f}, {rate:.0f} trees/s")
    return Metrics(total_loss / labelled, roots_correct / roots, correct / labelled, rate)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of the generators that dropout draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
