"""Measure links in training steps, with all ranks at work at the same time: what these take longer than without the messages.

Alone, on ranks that do nothing else, messages are faster than in a step: there, threads that carry them want the processors and
the memory with which ranks compute, ranks do not come to them at the same time, and their numbers are in no cache.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
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

# The extremes come first, between which a line is drawn if there is no time for more.
_WIDTHS = (16, 1024, 128, 512)  # of a square parameter, whose gradients are averaged
_ROWS, _WIDTH, _DEPTH = (8, 1024, 128), 64, 16  # of an exchange: rows of a rank, columns of a state, levels
_TURNS, _UNTIMED = 15, 3
_MEDIANS = 5 * len(_WIDTHS) + 2 * len(_ROWS)


def links_of(kind: str, group: Any, ranks: int, python: float, seconds: float) -> dict[str, Link]:
    """The link of each collective along one dimension of a mesh, of so many ranks. `python` are the seconds of a call of PyTorch,
    which are counted beside the messages of an exchange; `seconds` how long it takes, about."""
    rounds, part_of = (ranks - 1).bit_length(), (ranks - 1) / ranks
    each = seconds / _MEDIANS
    averaged = {width: _averaging(width, group, ranks, each) for width in _in_time(_WIDTHS, group, seconds / 2)}
    sizes, times = np.square(list(averaged)) * 4.0, np.array(list(averaged.values()))
    links = {}
    for column, name in enumerate(("all_reduce", "all_gather", "reduce_scatter")):
        alpha, beta = _line(sizes, times[:, column] / (2 if name == "all_reduce" else 1))
        links[f"{kind}.{name}"] = Link(alpha / rounds, part_of / beta)
    exchanged = {rows: _exchange(rows, group, ranks, each) for rows in _in_time(_ROWS, group, seconds / 2)}
    alpha, beta = _line(np.array(list(exchanged)) * _WIDTH * 4.0, np.array(list(exchanged.values())))
    links[f"{kind}.all_to_all"] = Link(max(0.0, alpha - CALLS_AROUND * python) / (ranks - 1), 1 / beta)
    return links


def _in_time(sizes: Sequence[int], group: Any, seconds: float) -> Iterator[int]:
    """The first two, and more while there is time on the rank that has taken longest: as many on all ranks."""
    started = time.perf_counter()
    for number, size in enumerate(sizes):
        if number >= 2 and _longest(started, group) > seconds:
            return
        yield size


class _Step(nn.Module):
    """A training step whose gradients are all there at its end, as those of a vertex function are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.function = OneProduct(width)
        self.batch = pack([chain(8)] * 16)
        self.x = torch.randn(self.batch.num_vertices, width)

    def forward(self) -> Tensor:
        return self.function(self.batch, x=self.x).h.square().mean(1)  # type: ignore[no-any-return]


def _averaging(width: int, group: Any, ranks: int, seconds: float) -> list[float]:
    """The seconds by which a step takes longer if ranks average its losses and gradients; and of gathering and scattering as
    many, which are those of the messages alone, longer by the same factor as of an all-reduce."""
    alone = _Step(width)
    averaged = DistributedDataParallel(alone, process_group=group)

    def step(call: Callable[[], Tensor], mean: Callable[[Tensor], Tensor]) -> None:
        alone.zero_grad(set_to_none=True)
        mean(call()).backward()  # type: ignore[no-untyped-call]

    plain = _median(lambda: step(alone, torch.mean), group, seconds)
    longer = _median(lambda: step(averaged, lambda losses: reduce.mean(losses, group=group)), group, seconds)
    count = width * width // ranks * ranks
    whole, share = torch.zeros(count), torch.zeros(count // ranks)
    parts = list(whole.chunk(ranks))
    reducing = _median(lambda: distributed.all_reduce(whole, group=group), group, seconds)
    gathering = _median(lambda: distributed.all_gather(parts, share, group=group), group, seconds)
    scattering = _median(lambda: distributed.reduce_scatter(share, parts, group=group), group, seconds)
    factor = max(1.0, (longer - plain) / reducing)
    return [factor * each for each in (reducing, gathering, scattering)]


def _exchange(rows: int, group: Any, ranks: int, seconds: float) -> float:
    """The seconds by which a step of divided chains takes longer for each exchange, of so many rows of a rank, than one of chains
    of which none crosses."""
    rank = distributed.get_rank(group)
    batch = pack([chain(_DEPTH)] * (rows * ranks))
    level, number = np.tile(np.arange(_DEPTH), rows * ranks), np.repeat(np.arange(rows * ranks), _DEPTH)
    model = OneProduct(_WIDTH)
    model._part_group = group
    medians = []
    for rank_of in (number % ranks, (number + level) % ranks):
        part = divide(batch, ranks, rank_of=rank_of)[rank]
        x = torch.randn(part.num_vertices, _WIDTH)

        def step(part: Any = part, x: Tensor = x) -> None:
            model.zero_grad(set_to_none=True)
            model(part, x=x).h.sum().backward()

        medians.append(_median(step, group, seconds))
    return max(1e-9, (medians[1] - medians[0]) / (2 * (_DEPTH - 1)))  # states, and back their gradients


def _median(run: Callable[[], Any], group: Any, seconds: float) -> float:
    """The median time of the slowest rank, of at least one run that follows another. All ranks run as often: what they tell each
    other before each run, so that they start together, is how long they are at it."""
    started, taken = time.perf_counter(), []
    for turn in range(_TURNS):
        if _longest(started, group) > seconds and turn > 1:
            break
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    return float(largest(np.array([statistics.median(taken[min(_UNTIMED, len(taken) - 1) :])]), group)[0])


def _longest(started: float, group: Any) -> float:
    """The seconds since then, on the rank on which they are most: the same number on all ranks."""
    return float(largest(np.array([time.perf_counter() - started]), group)[0])


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
