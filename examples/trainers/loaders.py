"""Batches: each process its share of the graphs, such that all take the same time."""

from __future__ import annotations

from functools import partial

from torch.utils.data import DataLoader

import vertexflow as vf

from .formulas import Sample


def loader(samples: list[Sample], batch_size: int, seed: int | None = None) -> DataLoader[Sample]:
    """Batches of so many graphs in all processes together, drawn anew each epoch if there is a seed.

    To be made when the processes have met. A trainer must leave it as it is: Lightning by `use_distributed_sampler=False`,
    accelerate by not preparing it.
    """
    shuffle = {"shuffle": False} if seed is None else {"seed": seed}
    sampler = vf.parallel.BalancedSampler(samples, batch_size, **shuffle)
    # `like`: what a batch looks like in a process that no graph of it was left for.
    collate = partial(vf.collate, rows=("token",), like=samples[0])
    return DataLoader(samples, batch_sampler=sampler, collate_fn=collate)  # type: ignore[arg-type]
