"""A model around a vertex function, its data, and the loop that others' trainers are compared with."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import vertexflow as vf

from ..models import BinaryTreeLSTM

Sample = tuple[vf.InputGraph, Tensor, int]


class Classifier(nn.Module):
    """A class for each graph, from the state of its root."""

    def __init__(self, backend: str = "torch") -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.tree = BinaryTreeLSTM(4, 5)
        self.tree.backend = backend
        self.out = nn.Linear(5, 3)

    def forward(self, batch: vf.GraphBatch, x: Tensor) -> vf.Outputs:
        h = self.tree(batch, x=self.embed(x)).h
        return vf.Outputs(score=self.out(h[batch.roots]), h=h)


def classifier(backend: str = "torch") -> Classifier:
    torch.manual_seed(1)
    return Classifier(backend)


def samples(count: int = 8) -> list[Sample]:
    generator = torch.Generator().manual_seed(2)
    graphs = [vf.chain(2 + at) if at % 2 else vf.tree(((0, 1), (2, 3))) for at in range(count)]
    return [(graph, torch.randn(graph.num_vertices, 3, generator=generator), at % 3) for at, graph in enumerate(graphs)]


def loader() -> DataLoader:
    return DataLoader(samples(), batch_size=2, collate_fn=vf.collate)


def loss_of(out: vf.Outputs, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(out.score, labels) + out.h.square().mean()


def steps_by_hand(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    forward: Callable[..., Tensor],
    clip: float | None = None,
    steps: int = 4,
) -> list[float]:
    """A step for each batch; returns the losses."""
    losses = []
    for batch, x, labels in itertools.islice(loader(), steps):
        optimiser.zero_grad()
        loss = forward(batch, x, labels)
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        losses.append(loss.item())
    return losses


def same_parameters(model: nn.Module, other: nn.Module) -> None:
    """To the last bit."""
    torch.testing.assert_close(dict(model.state_dict()), dict(other.state_dict()), rtol=0, atol=0)
