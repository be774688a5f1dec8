"""A pass over a structure that is written down: one call of native code, with the addresses of this run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor

from . import rehearsal
from .group_memory import GroupMemory
from .pool import empty, empty_for_a_call, is_large
from .ranges import CallsOfRun
from .transfers import Sending, TensorSpec

_CPU = torch.device("cpu")
_NOTHING = torch.empty(0)  # at address 0
_address = Tensor.data_ptr


@dataclass(frozen=True, eq=False)
class Forward:
    """The forward pass."""

    calls: CallsOfRun
    alive: list[Tensor]  # whose addresses are in the calls
    kept_size: int  # bytes that the backward pass reads
    temporary_size: int  # bytes that are read in this pass only
    constants: list[Tensor]
    outputs: list[TensorSpec]
    num_seeds: int
    memory: list[GroupMemory]  # of each group
    sending: Sending | None  # where a backward pass may send that overwrites what is kept

    def run(self, flat: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Tensor]:
        """The outputs, and the memory that is kept; `flat` are parameters, then inputs."""
        kept, temporary = self._allocate()
        outputs = tuple([_empty(*spec) for spec in self.outputs])
        self._run(kept, temporary, flat, map(_address, outputs))
        return outputs, kept

    def run_into(self, flat: Sequence[Tensor], results: Iterable[int]) -> Tensor:
        """The memory that is kept; `results` are the addresses of outputs, and of `GrownRows`."""
        kept, temporary = self._allocate()
        self._run(kept, temporary, flat, results)
        return kept

    def _allocate(self) -> tuple[Tensor, Tensor]:
        return _empty((self.kept_size,), torch.uint8), _temporary(self.temporary_size)

    def _run(self, kept: Tensor, temporary: Tensor, flat: Sequence[Tensor], results: Iterable[int]) -> None:
        read = [*map(_plain, flat), *map(_plain, self.constants)]
        seeds = [int(torch.randint(2**62, ())) for _ in range(self.num_seeds)]
        addresses = [0, _address(temporary), *map(_address, (kept, *read)), *results, *seeds]
        _call(self.calls, addresses, self.temporary_size)


@dataclass(frozen=True, eq=False)
class Backward:
    """The backward pass where gradients come to certain outputs."""

    calls: CallsOfRun
    alive: list[Tensor]
    temporary_size: int
    terms: list[TensorSpec]
    sums: list[list[int]]  # for each parameter, then each input: the terms whose sum is its gradient

    def run(self, kept: Tensor, read: Sequence[Tensor], grads: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients of parameters, then inputs; `grads` are those of all outputs, or their only row."""
        return self.run_from(kept, read, map(_address, grads))

    def run_from(self, kept: Tensor, read: Sequence[Tensor], grads: Iterable[int]) -> list[Tensor | None]:
        """The same; `grads` are the addresses of gradients, and of `GrownRows`."""
        temporary = _temporary(self.temporary_size)
        plain = [*map(_plain, read)]
        terms = [_empty(*spec) for spec in self.terms]
        addresses = [0, _address(temporary), *map(_address, (kept, *plain)), *grads, *map(_address, terms)]
        _call(self.calls, addresses, self.temporary_size)
        return [reduce(add, [terms[at] for at in indices]) if indices else None for indices in self.sums]


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if is_large(math.prod(shape) * dtype.itemsize):
        return empty(shape, dtype, _CPU)
    return torch.empty(shape, dtype=dtype, device=_CPU)


def _temporary(size: int) -> Tensor:
    """The memory for one pass, which native code allocates itself if it is small."""
    return empty_for_a_call(size) if is_large(size) else _NOTHING


def _call(calls: CallsOfRun, addresses: list[int], temporary_size: int) -> None:
    """Run a pass; in a rehearsal, count the memory that native code allocates itself."""
    rehearsed = rehearsal.current()
    if rehearsed is None:
        calls.run(addresses, temporary_size)
    elif not is_large(temporary_size):
        rehearsed.add(temporary_size)
        rehearsed.drop(temporary_size)


def _plain(tensor: Tensor) -> Tensor:
    """The tensor, contiguous, and without a lazy negation."""
    if tensor.is_contiguous() and not tensor.is_neg() and not tensor.is_conj():
        return tensor
    return tensor.resolve_conj().resolve_neg().contiguous()


def rows_of(grad: Tensor) -> Tensor:
    """A gradient, or its first row where all rows are the same memory."""
    return _plain(grad[0] if grad.stride(0) == 0 and len(grad) else grad)
