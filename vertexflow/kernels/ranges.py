"""Ranges for `torch.profiler`, named by part and step; where no profiler runs, nothing is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch

from .order import Ints

PREFIX = "vertexflow "  # of the names of ranges
MOVED = "moves"  # of inputs, outputs and gradients, to and from the order of rows

is_profiling = torch._C._autograd._profiler_enabled


@contextmanager
def named(part: str, step: int | None = None) -> Iterator[None]:
    """A range for a part, or for one of its steps."""
    if not is_profiling():
        yield
        return
    with torch.profiler.record_function(f"{PREFIX}{part}" + ("" if step is None else f", step {step}")):
        yield


def step_numbers(table: Ints, steps: Ints) -> list[int]:
    """The numbers of these steps, or of pieces of them, among all steps; lines as in `Step`."""
    every, wanted = (lines[:, 4] * 2**32 + lines[:, 0] for lines in (table.astype(np.int64), steps.astype(np.int64)))
    ascending = every.argsort()
    numbers: list[int] = ascending[every[ascending].searchsorted(wanted, "right") - 1].tolist()
    return numbers


class CallsOfRun(Protocol):
    """A pass as calls of native functions."""

    def run(self, addresses: list[int], room: int) -> None:
        """Run all calls; see `csrc/calls.hpp`."""


class NamedCalls:
    """A pass as native calls, in a range for each part and for each step: what `_core.Calls` does in one go."""

    def __init__(self, calls: Sequence[tuple[str, int | None, CallsOfRun]], in_one_go: CallsOfRun) -> None:
        self._calls, self._in_one_go = calls, in_one_go

    def run(self, addresses: list[int], room: int) -> None:
        """Run all calls, and find temporary memory for them if they are given none."""
        if not is_profiling():  # any more
            self._in_one_go.run(addresses, room)
            return
        temporary = torch.empty(0 if addresses[1] else room, dtype=torch.uint8)
        addresses = [0, addresses[1] or temporary.data_ptr(), *addresses[2:]]
        for part, step, calls in self._calls:
            with named(part, step):
                calls.run(addresses, room)
