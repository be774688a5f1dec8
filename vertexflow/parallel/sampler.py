"""`vf.parallel.BalancedSampler`: the batches of each rank, of equal predicted cost."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import distributed
from torch.utils.data import Dataset, Sampler

from ..errors import InputError, InputTypeError
from .balance import Ranks, balance
from .cost import Cost, Floats, work_of

_LARGEST = 2**62  # of integers, so that a seed and an epoch together are one that PyTorch takes
_FIXED = ("num_samples", "global_batch_size", "shuffle", "drop_last")  # without these, batches could not be the same


class BalancedSampler(Sampler[list[int]]):
    """A batch sampler that spreads the graphs of each global batch over ranks by predicted cost, not by their number.

    For `DataLoader(dataset, batch_sampler=sampler)`, in the place of a `DistributedSampler` and a batch size. The global batches
    are those of one process: `torch.randperm` from `seed + epoch`, as in `DistributedSampler`, cut into pieces of
    `global_batch_size`. They do not depend on the number of ranks; each rank has its share of each, in the same order. Every
    sample comes once in an epoch: nothing is repeated to make ranks even. So ranks have different numbers of graphs, and none
    where the last batch has fewer graphs than there are ranks (`vf.collate(..., like=dataset[0])` makes the batch of none); with
    `vf.parallel.mean` the gradients are those of the whole batch all the same.

    Args:
        dataset: input graphs, or samples with one or more in them (tuples, dicts, ..., as for `vf.collate`). It is gone through
            once, here, unless `cost` has the costs.
        global_batch_size: how many graphs all ranks together compute in a step.
        cost: a `vf.parallel.Cost`, which tells the cost of a batch from its vertices, edges and steps, or costs of your own,
            one number for each sample, which add up.
        num_replicas, rank: how many ranks there are, and which of them this is; by default as `torch.distributed` says, or 1
            and 0.
        shuffle: whether each epoch has an order of its own; call `set_epoch` before each.
        seed: the same on all ranks.
        drop_last: leave out the last global batch of an epoch if it is not full.

    `len(sampler)` is the number of batches of an epoch, the same on all ranks.

    Raises:
        InputError, InputTypeError: an argument that cannot be used; `torchrun` has started several processes, and
            `torch.distributed` is not initialised yet.

    Example:
        >>> sampler = vf.parallel.BalancedSampler(dataset, global_batch_size=512)
        >>> collate = functools.partial(vf.collate, like=dataset[0])
        >>> loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate)
        >>> for epoch in range(epochs):
        ...     sampler.set_epoch(epoch)
        ...     for batch, x, label in loader: ...
    """

    def __init__(
        self,
        dataset: Sequence[Any] | Dataset[Any],
        global_batch_size: int,
        *,
        cost: Cost | Sequence[float] | Floats | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise InputTypeError(
                f"a BalancedSampler needs a data set with a length and an index, not {type(dataset).__name__}"
            )
        if isinstance(dataset, Mapping):
            raise InputTypeError(
                f"the data set is a {type(dataset).__name__}, whose samples have names; a BalancedSampler numbers them: "
                "give a list, or a torch.utils.data.Dataset with samples 0 to len - 1"
            )
        if not len(dataset):
            raise InputError("the data set is empty; there is nothing to sample")
        self.global_batch_size = _integer("global_batch_size", global_batch_size, 1)
        self.num_replicas, self.rank = _ranks(num_replicas, rank)
        self.shuffle, self.drop_last = shuffle, drop_last
        self.seed = _integer("seed", seed, None)
        self.epoch = 0
        self.num_samples = len(dataset)
        self._work = work_of(cast(Sequence[Any], dataset), Cost() if cost is None else cost)
        self._first = 0  # the batch with which the next pass begins
        self._given = 0  # batches of this epoch that were given out

    def __len__(self) -> int:
        whole, rest = divmod(self.num_samples, self.global_batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        first, self._first = self._first, 0
        order, rank, _ = self._plan()
        self._given = first
        return self._batches(first, order, rank == self.rank)

    def _batches(self, first: int, order: Ranks, is_ours: np.ndarray[Any, np.dtype[np.bool_]]) -> Iterator[list[int]]:
        for batch in range(first, len(order)):
            self._given = batch + 1
            ours: list[int] = order[batch, is_ours[batch] & (order[batch] >= 0)].tolist()
            yield ours

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is used from now on. A pass that `load_state_dict` has put in the middle of the same epoch
        stays there."""
        if _integer("epoch", epoch, 0) != self.epoch:
            self.epoch, self._first, self._given = epoch, 0, 0

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Where an epoch stands, to be continued with any number of ranks: the global batches that follow are the same.

        Args:
            batches: how many batches of this epoch have been trained on. By default as many as were given out, which is right
                without workers; a `DataLoader` with `num_workers` asks for batches before they are needed, so count them then.
        """
        given = self._given if batches is None else _integer("batches", batches, 0)
        if given > len(self):
            raise InputError(f"batches is {given}, but an epoch has {len(self)}")
        fixed = {name: getattr(self, name) for name in _FIXED}
        return {**fixed, "seed": self.seed, "epoch": self.epoch, "batches": given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken: the next pass has the rest of that epoch, and later ones are whole.

        Raises:
            InputError, InputTypeError: the state is that of other data or settings; the message names which.
        """
        if not isinstance(state, Mapping):
            raise InputTypeError(f"the state is a {type(state).__name__}; give what state_dict() returned")
        missing = [name for name in (*_FIXED, "seed", "epoch", "batches") if name not in state]
        if missing:
            raise InputError(f"this is no state of a BalancedSampler: {', '.join(missing)} missing")
        for name in _FIXED:
            if state[name] != getattr(self, name):
                raise InputError(
                    f"the state is of a sampler with {name}={state[name]}, this one has {getattr(self, name)}; make it alike to "
                    "continue with the same batches"
                )
        seed, epoch, batches = (
            _integer(f"the state's {name}", state[name], least)
            for name, least in (("seed", None), ("epoch", 0), ("batches", 0))
        )
        if batches > len(self):
            raise InputError(f"the state's batches is {batches}, but an epoch has {len(self)}")
        self.seed, self.epoch, self._first, self._given = seed, epoch, batches, batches

    def predicted_costs(self) -> Floats:
        """The predicted cost of each rank in each batch of this epoch, float64 [batches, ranks].

        Example:
            >>> costs = sampler.predicted_costs()
            >>> (costs.max(1) / costs.mean(1)).mean()          # 1: no rank waits for another
        """
        return self._plan()[2]

    def checksum(self) -> int:
        """A number that differs where the costs of the samples do, as they do for other data."""
        return zlib.crc32(self._work.steps.tobytes(), zlib.crc32(self._work.added.tobytes()))

    def _plan(self) -> tuple[Ranks, Ranks, Floats]:
        """The samples of each global batch of this epoch, -1 after the last one, their ranks, and the costs of ranks."""
        places = np.full(len(self) * self.global_batch_size, -1)
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed + self.epoch)
            samples = torch.randperm(self.num_samples, generator=generator).numpy()
        else:
            samples = np.arange(self.num_samples)
        count = min(len(samples), len(places))
        places[:count] = samples[:count]
        order = places.reshape(len(self), self.global_batch_size)
        is_there = order >= 0
        added, steps = (np.where(is_there, values[order], 0.0) for values in (self._work.added, self._work.steps))
        return order, *balance(added, steps, self.num_replicas)


def _integer(name: str, value: Any, least: int | None) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InputTypeError(f"{name} is {value!r}; give an integer")
    if least is not None and value < least:
        raise InputError(f"{name} is {value}; give {least} or more")
    if not -_LARGEST <= value <= _LARGEST:
        raise InputError(f"{name} is {value}, which is too large; give at most {_LARGEST}")
    return int(value)


def _ranks(num_replicas: int | None, rank: int | None) -> tuple[int, int]:
    """How many ranks there are, and which of them this is."""
    if (num_replicas is None) != (rank is None):
        raise InputError(f"num_replicas is {num_replicas} and rank {rank}; give both or neither")
    if num_replicas is not None:
        num_replicas, rank = _integer("num_replicas", num_replicas, 1), _integer("rank", rank, 0)
        if rank >= num_replicas:
            raise InputError(f"rank is {rank}, but with {num_replicas} ranks the last is {num_replicas - 1}")
        return num_replicas, rank
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size(), distributed.get_rank()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but torch.distributed is not initialised, so that every process would "
            "compute all graphs; call torch.distributed.init_process_group() before, or give num_replicas and rank"
        )
    return 1, 0
