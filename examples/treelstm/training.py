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

from . import ranks
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


def shared_batches(samples: Sequence[Sample], sampler: vf.parallel.BalancedSampler) -> DataLoader[Sample]:
    """Packed batches of this rank's share of each global batch; perhaps without a tree in the last one."""
    return DataLoader(
        samples,  # type: ignore[arg-type]  # a list has all that a Dataset needs
        batch_sampler=sampler, collate_fn=partial(vf.collate, rows=(1, 2), like=samples[0]),
    )  # fmt: skip


def run_epoch(
    model: nn.Module,
    loader: DataLoader[Sample],
    device: torch.device,
    title: str,
    optimizer: torch.optim.Optimizer | None = None,
    clip: float = 5.0,
) -> Metrics:
    """Go once over the data: training with an optimizer, evaluation without. The loss is that of all labelled vertices.

    With several ranks each has its share of each batch in `loader`; the metrics are those of all of them.
    """
    model.train(optimizer is not None)
    # Of this rank: the loss; vertices that are right, and labelled; the same of roots. And trees.
    sums, trees = torch.zeros(5, dtype=torch.float64, device=device), 0
    started = time.perf_counter()
    progress = tqdm(loader, desc=title, leave=False, unit="batch", disable=not ranks.is_first())
    with torch.set_grad_enabled(optimizer is not None), progress:
        for batch, tokens, labels in progress:
            tokens, labels = tokens.to(device), labels.to(device)
            logits = model(batch, token=tokens).logits
            known = labels != UNLABELLED
            losses = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="none")
            if optimizer is not None:
                loss = vf.parallel.mean(losses, weight=known)  # of all ranks
                if not math.isfinite(loss.item()):
                    raise FloatingPointError(f"{title}: the loss is {loss.item()}; a smaller --lr may help")
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
            hits = logits.argmax(-1) == labels
            of_batch = (losses.detach(), hits, known, hits[batch.roots], known[batch.roots])
            sums += torch.stack([values.sum().double() for values in of_batch])
            trees += len(batch)
            loss_so_far, _, labelled, *_ = sums.tolist()
            rate = trees / (time.perf_counter() - started)
            progress.set_postfix_str(f"loss {loss_so_far / max(labelled, 1):.3f}, {rate:.0f} trees/s")
    total_loss, correct, labelled, roots_correct, roots = (vf.parallel.sum(value).item() for value in sums)
    rate = vf.parallel.sum(torch.tensor(trees, device=device)).item() / (time.perf_counter() - started)
    if not math.isfinite(total_loss):
        raise FloatingPointError(f"{title}: the loss is {total_loss}; a smaller --lr may help")
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
