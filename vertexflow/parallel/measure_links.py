"""Measure links in training steps, with all ranks at work at the same time: what these take longer than without the messages.

Alone, on ranks that do nothing else, messages are faster than in a step: there, threads that carry them want the processors and
the memory with which ranks compute, ranks do not come to them at the same time, and their numbers are in no cache.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ..graph.inputs.build import chain
from ..graph.inputs.pack import pack
from . import reduce
from .assign import optimize
from .calibration import OneProduct
from .cluster import Link
from .cost import Floats
from .divided_work import CALLS_AROUND
from .parts import divide

_WIDTHS = (16, 128, 512, 1024)  # of a square parameter, whose gradients are averaged
_ROWS, _WIDTH, _DEPTH = (8, 128, 1024), 64, 16  # of an exchange: rows of a rank, columns of a state, levels
_TURNS, _UNTIMED = 15, 3


def links_of(kind: str, group: Any, ranks: int, python: float) -> dict[str, Link]:
    """The link of each collective along one dimension of a mesh, of so many ranks. `python` are the seconds of a call of PyTorch,
    which are counted beside the messages of an exchange."""
    rounds, part_of = (ranks - 1).bit_length(), (ranks - 1) / ranks
    times = np.array([_averaging(width, group, ranks) for width in _WIDTHS])
    sizes = np.square(_WIDTHS) * 4.0
    links = {}
    for column, name in enumerate(("all_reduce", "all_gather", "reduce_scatter")):
        alpha, beta = _line(sizes, times[:, column] / (2 if name == "all_reduce" else 1))
        links[f"{kind}.{name}"] = Link(alpha / rounds, part_of / beta)
    exchanges = np.array([_exchange(rows, group, ranks) for rows in _ROWS])
    alpha, beta = _line(np.array(_ROWS) * _WIDTH * 4.0, exchanges)
    links[f"{kind}.all_to_all"] = Link(max(0.0, alpha - CALLS_AROUND * python) / (ranks - 1), 1 / beta)
    links[kind] = links[f"{kind}.all_reduce"]
    return links


class _Step(nn.Module):
    """A training step whose gradients are all there at its end, as those of a vertex function are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.function = OneProduct(width)
        self.batch = pack([chain(8)] * 16)
        self.x = torch.randn(self.batch.num_vertices, width)

    def forward(self) -> Tensor:
        return self.function(self.batch, x=self.x).h.square().mean(1)  # type: ignore[no-any-return]


def _averaging(width: int, group: Any, ranks: int) -> list[float]:
    """The seconds by which a step takes longer if ranks average its losses and gradients; and of gathering and scattering as
    many, which are those of the messages alone, longer by the same factor as of an all-reduce."""
    alone = _Step(width)
    averaged = DistributedDataParallel(alone, process_group=group)

    def step(call: Callable[[], Tensor], mean: Callable[[Tensor], Tensor]) -> None:
        alone.zero_grad(set_to_none=True)
        mean(call()).backward()  # type: ignore[no-untyped-call]

    plain = _median(lambda: step(alone, torch.mean), group)
    longer = _median(lambda: step(averaged, lambda losses: reduce.mean(losses, group=group)), group)
    count = width * width // ranks * ranks
    whole, share = torch.zeros(count), torch.zeros(count // ranks)
    parts = list(whole.chunk(ranks))
    reducing = _median(lambda: distributed.all_reduce(whole, group=group), group)
    gathering = _median(lambda: distributed.all_gather(parts, share, group=group), group)
    scattering = _median(lambda: distributed.reduce_scatter(share, parts, group=group), group)
    factor = max(1.0, (longer - plain) / reducing)
    return [factor * each for each in (reducing, gathering, scattering)]


def _exchange(rows: int, group: Any, ranks: int) -> float:
    """The seconds by which a step of divided chains takes longer for each exchange, of so many rows of a rank, than one of chains
    of which none crosses."""
    rank = distributed.get_rank(group)
    batch = pack([chain(_DEPTH)] * (rows * ranks))
    level, number = np.tile(np.arange(_DEPTH), rows * ranks), np.repeat(np.arange(rows * ranks), _DEPTH)
    model = OneProduct(_WIDTH)
    model._part_group = group
    seconds = []
    for rank_of in (number % ranks, (number + level) % ranks):
        part = divide(batch, ranks, rank_of=rank_of)[rank]
        x = torch.randn(part.num_vertices, _WIDTH)

        def step(part: Any = part, x: Tensor = x) -> None:
            model.zero_grad(set_to_none=True)
            model(part, x=x).h.sum().backward()

        seconds.append(_median(step, group))
    return max(1e-9, (seconds[1] - seconds[0]) / (2 * (_DEPTH - 1)))  # states, and back their gradients


def _median(run: Callable[[], Any], group: Any) -> float:
    """The median time of the slowest rank."""
    taken = []
    for turn in range(_TURNS):
        distributed.barrier(group)
        begin = time.perf_counter()
        run()
        if turn >= _UNTIMED:
            taken.append(time.perf_counter() - begin)
    return float(largest(np.array([statistics.median(taken)]), group)[0])


def _line(sizes: Floats, seconds: Floats) -> tuple[float, float]:
    """Latency and seconds a byte, with the least relative errors."""
    nnls = optimize().nnls

    (alpha, beta), _ = nnls(np.stack([np.ones(len(sizes)), sizes], 1) / seconds[:, None], np.ones(len(sizes)))
    return float(alpha), max(float(beta), 1e-15)


def largest(values: Floats, group: Any = None) -> Floats:
    """The largest of all ranks: everyone waits for the slowest."""
    tensor = torch.from_numpy(values.copy())
    distributed.all_reduce(tensor, distributed.ReduceOp.MAX, group=group)
    return tensor.numpy()
