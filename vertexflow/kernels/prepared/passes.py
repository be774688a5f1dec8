"""The passes of a run that was written down (`prepared`): each finds memory and addresses, and is one call of native code.

In a step of few vertices this is what takes time, so nothing is done here that was known when the calls were written.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from operator import add

import torch
from torch import Tensor

from ... import _core
from ..memory import rehearsal
from ..memory.pool import (
    LARGE_OF_A_CALL,
    LARGE_OF_PARTS,
    empty,
    give_back,
    is_large,
    rehearse_for_a_call,
    take_for_a_call,
)
from ..ranges import CallsOfRun
from .group_memory import GroupMemory
from .state_rows import StateRows
from .transfers import Sending

_CPU = torch.device("cpu")
_address = Tensor.data_ptr


@dataclass(frozen=True, eq=False)
class Fresh:
    """A tensor that each run makes."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    size: int  # bytes
    like: Tensor  # such a tensor, in the memory of a single number

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: torch.dtype) -> Fresh:
        return cls(shape, dtype, math.prod(shape) * dtype.itemsize, _number(dtype).expand(shape))

    def make(self) -> Tensor:
        if self.size >= LARGE_OF_PARTS and is_large(self.size):
            return empty(self.shape, self.dtype, _CPU)
        return torch.empty_like(self.like)  # in two thirds of the time of `torch.empty`


@dataclass(frozen=True, eq=False)
class Forward:
    """The forward pass."""

    calls: CallsOfRun
    alive: list[Tensor]  # whose addresses are in the calls
    kept: Fresh  # what the backward pass reads
    temporary_size: int  # bytes that are read in this pass only
    constants: list[Tensor]
    outputs: list[Fresh]
    num_seeds: int
    memory: list[GroupMemory]  # of each group
    sending: Sending | None  # where a backward pass may send that overwrites what is kept
    state_rows: StateRows | None  # None: in the order of the schedule
    bytes_of_calls: int  # in native code
    by_rows: _core.Calls | None = None  # of a run that grows: the same, for some of the rows

    @property
    def kept_size(self) -> int:
        """Bytes that the backward pass reads."""
        return self.kept.size

    def run(self, flat: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Tensor]:
        """The outputs, and the memory that is kept; `flat` are parameters, then inputs."""
        outputs = tuple([each.make() for each in self.outputs])
        return outputs, self.run_into(flat, map(_address, outputs))

    def run_into(self, flat: Sequence[Tensor], results: Iterable[int]) -> Tensor:
        """The memory that is kept; `results` are the addresses of outputs, and of `GrownRows`."""
        kept = self.kept.make()
        read = plain([*flat, *self.constants] if self.constants else flat)
        seeds = [int(torch.randint(2**62, ())) for _ in range(self.num_seeds)]
        _call(self.calls, [_address(kept), *map(_address, read), *results, *seeds], self.temporary_size)
        return kept


@dataclass(frozen=True, eq=False)
class Backward:
    """The backward pass where gradients come to certain outputs."""

    calls: CallsOfRun
    alive: list[Tensor]
    temporary_size: int
    terms: list[Fresh]
    sums: list[list[int]]  # for each parameter, then each input: the terms whose sum is its gradient
    num_sums: int  # how many terms are of parameters; they come first
    bytes_of_calls: int  # in native code
    # Of a run that grows: the same, for some of the rows, without and with sums over rows alone; None if these make more.
    by_rows: tuple[_core.Calls, _core.Calls] | None = None

    def run(self, kept: Tensor, read: Sequence[Tensor], grads: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients of parameters, then inputs; `grads` are those of all outputs, or their only row."""
        terms = [each.make() for each in self.terms]
        self._run(kept, read, map(_address, grads), terms)
        return sums_of(terms, self.sums)

    def run_adding(
        self, kept: Tensor, read: Sequence[Tensor], grads: Iterable[int], sums: Sequence[Tensor]
    ) -> list[Tensor]:
        """Add the terms of parameters to `sums`; returns those of inputs. `grads` are the addresses of gradients, and of
        `GrownRows`."""
        terms = [each.make() for each in self.terms]
        self._run(kept, read, grads, terms)
        for total, term in zip(sums, terms, strict=False):
            total.add_(term)
        return terms[self.num_sums :]

    def new_sums(self, num_params: int) -> tuple[list[Tensor], list[list[int]]]:
        """Zeros for the terms of parameters, of which there are so many, and the terms that each is the sum of."""
        terms = [torch.zeros(fresh.shape, dtype=fresh.dtype) for fresh in self.terms[: self.num_sums]]
        return terms, self.sums[:num_params]

    def of_inputs(self, terms: Sequence[Tensor], num_params: int) -> list[Tensor | None]:
        """The gradients of inputs, of which these are all terms."""
        return sums_of(terms, [[at - self.num_sums for at in some] for some in self.sums[num_params:]])

    def _run(self, kept: Tensor, read: Sequence[Tensor], grads: Iterable[int], terms: Sequence[Tensor]) -> None:
        read = plain(read)  # copies live until the call is done
        addresses = [_address(kept), *map(_address, read), *grads, *map(_address, terms)]
        _call(self.calls, addresses, self.temporary_size)


def sums_of(terms: Sequence[Tensor], numbers: Iterable[Sequence[int]]) -> list[Tensor | None]:
    """Sums of the terms that have these numbers; None where there are none."""
    return [reduce(add, [terms[at] for at in some]) if some else None for some in numbers]


@cache
def _number(dtype: torch.dtype) -> Tensor:
    return torch.empty((), dtype=dtype, device=_CPU)


def plain(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The tensors, contiguous, and without lazy negations."""
    return tensors if all(map(is_plain, tensors)) else [*map(_plain, tensors)]


def rows_or_one(grad: Tensor) -> Tensor:
    """A gradient, or its first row where all rows are the same memory."""
    return _plain(grad[0] if grad.stride(0) == 0 and len(grad) else grad)


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is contiguous, and without lazy negations."""
    return tensor.is_contiguous() and not tensor.is_neg() and not tensor.is_conj()


def _plain(tensor: Tensor) -> Tensor:
    return tensor if is_plain(tensor) else tensor.resolve_conj().resolve_neg().contiguous()


def _call(calls: CallsOfRun, addresses: list[int], temporary_size: int) -> None:
    """Run a pass; in a rehearsal, count the memory that native code allocates itself.

    The memory for the time of the pass comes from the pool if it is large; else native code allocates it.
    """
    is_of_pool = temporary_size >= LARGE_OF_A_CALL or (temporary_size >= LARGE_OF_PARTS and is_large(temporary_size))
    rehearsed = rehearsal.current()
    if rehearsed is not None:
        if is_of_pool:
            rehearse_for_a_call(temporary_size)
        else:
            rehearsed.add(temporary_size)
            rehearsed.drop(temporary_size)
    elif is_of_pool:
        piece = take_for_a_call(temporary_size)
        try:
            calls.run([0, piece.address, *addresses], temporary_size)
        finally:
            give_back(piece)
    else:
        calls.run([0, 0, *addresses], temporary_size)
