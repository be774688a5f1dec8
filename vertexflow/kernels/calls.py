"""Calls of native functions, written down before the addresses of a run are known.

An argument is a number, or so many bytes behind one of these addresses: a piece of memory, a parameter, an input, an output.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import _core
from .arguments import (
    Argument,
    By,
    Function,
    OfGroup,
    Outside,
    ParentOffset,
    ParentPlaces,
    Seed,
    SentByAll,
    Stride,
    finder,
)  # fmt: skip
from .binding import Addressed
from .bound import Bound
from .compiled import NoSteps
from .edges import Exchange
from .memory import ALIGNED, Values
from .order import Ints, Order, Step
from .run import Run

TAKE, PUT, ZERO = map(Function, ("take", "put", "zero"))
RECEIVE = {dtype: Function(f"receive_{str(dtype)[6:]}") for dtype in (torch.float32, torch.float64)}
MOVES = (TAKE, PUT, ZERO, *RECEIVE.values())  # functions that move rows


class Unprepared(Exception):  # noqa: N818 - a reason, not a failure
    """Why runs cannot be written down."""


class At(NamedTuple):
    """Where rows lie: the first is so many bytes behind an address, which is known by its number, each `stride` bytes behind
    the one before."""

    address: int
    offset: int
    stride: int
    rows: int

    def part(self, start: int, rows: int) -> At:
        """Some of the rows."""
        return At(self.address, self.offset + start * self.stride, self.stride, rows)


Places = dict[Hashable, At]  # of values, buffers and other arguments


@dataclass
class Piece:
    """A piece of memory, while places in it are given away."""

    address: int
    size: int = 0  # bytes

    def room(self, rows: int, bytes: int) -> At:
        """Room for rows of so many bytes."""
        place = At(self.address, self.size, bytes, rows)
        self.size += -(-rows * bytes // ALIGNED) * ALIGNED
        return place


class Writer:
    """Writes calls down."""

    def __init__(self, bound: Bound, order: Order) -> None:
        self.bound, self.order = bound, order
        self.alive: list[Tensor] = []  # whose addresses are among the numbers
        self.num_seeds = 0
        self._addresses: dict[Hashable, int] = {}  # by what is there; their numbers, from 1 on
        self._numbers: list[int] = []
        self._address_of: list[int] = []  # 0: none
        self._calls: list[tuple[int, int, Ints]] = []
        self._written: dict[tuple[int, str, int], int] = {}
        self._begun: set[tuple[int, str]] = set()
        native = (loop for one in bound.compiled for loop in one.loops.values() if isinstance(loop, Addressed))
        self._moves = next((loop.own for loop in native), {})
        self._parents = Exchange({By.SLOT: order.parents, By.EDGE: order.edge_parents})

    def address(self, what: Hashable) -> int:
        """The number of an address, the next one if it is new."""
        return self._addresses.setdefault(what, len(self._addresses) + 1)

    def known(self, what: Hashable) -> int | None:
        """The number of an address, if it has one."""
        return self._addresses.get(what)

    def calls(self) -> _core.Calls:
        """All that was written."""
        numbers, address_of = np.array(self._numbers, np.int64), np.array(self._address_of, np.int64)
        return _core.Calls(numbers, address_of, len(self._addresses) + 1, self._calls)

    def run(self, group: int, part: str, places: Places, steps: Ints, window: int) -> None:
        """Run the loop of a part for these steps, which are of one window, if there is such a part."""
        loop = self.bound.compiled[group].loops.get(part)
        if loop is None or isinstance(loop, NoSteps):
            return
        if not isinstance(loop, Addressed):
            raise Unprepared(f"{part} is no native code")
        if (group, part, window) not in self._written:
            run = Run(self.order.groups[group], Values({}), exchange=self._parents)
            found: list[At | int] = [*(loop.known_later if (group, part) in self._begun else loop.known)]
            for at, key in loop.lying:
                found[at] = places[key]
            for at, argument in loop.others:
                found[at] = self._other(argument, run, places)
            self._written[group, part, window] = self._arguments(found)
            self._begun.add((group, part))
        self._calls.append((loop.address, self._written[group, part, window], steps.reshape(-1)))

    def take(self, to: At, source: At, index: Tensor) -> None:
        """Rows `index` of `source`, one after the other."""
        self._move(TAKE, to, [to, source, self._of(index), to.stride, source.stride], len(index))

    def put(self, to: At, source: At, index: Tensor) -> None:
        """Rows of `source` become rows `index`."""
        self._move(PUT, to, [to, source, self._of(index), to.stride, source.stride], len(index))

    def zero(self, to: At, index: Tensor | None = None) -> None:
        """Rows become zero: all, or those of an index."""
        rows, which = (to.rows, 0) if index is None else (len(index), self._of(index))
        self._move(ZERO, to, [to, which, to.stride], rows)

    def receive(self, to: At, dtype: torch.dtype, first: int, sent: Mapping[By, At]) -> None:
        """What parents sent to rows of a state, the first of which is this one."""
        if dtype not in RECEIVE:
            raise Unprepared(f"gradients of {str(dtype)[6:]}")
        of_parents: list[At | int] = []
        for by, parents in ((By.SLOT, self.order.parents), (By.EDGE, self.order.edge_parents)):
            found = sent.get(by)
            if found is None or parents is None:
                of_parents += [0, 0, 0]
            else:
                of_parents += [
                    found,
                    self._of(parents.places),
                    0 if parents.offset is None else self._of(parents.offset),
                ]
        self._move(RECEIVE[dtype], to, [to, to.stride // dtype.itemsize, first, *of_parents], to.rows)

    def _move(self, function: Function, to: At, arguments: Sequence[At | int], rows: int) -> None:
        if function not in self._moves:
            raise Unprepared("there is no native code")
        if rows and to.stride:
            steps = np.array(Step(0, rows), np.int32)
            self._calls.append((self._moves[function], self._arguments(arguments), steps))

    def _arguments(self, arguments: Sequence[At | int]) -> int:
        """Write arguments; the place of the first."""
        first = len(self._numbers)
        self._numbers += [each.offset if isinstance(each, At) else each for each in arguments]
        self._address_of += [each.address if isinstance(each, At) else 0 for each in arguments]
        return first

    def _other(self, argument: Argument, run: Run, places: Places) -> At | int:
        """An argument that is not where something lies in any run."""
        match argument:
            case Stride(node):
                dtype: torch.dtype = node.meta["val"].dtype
                return places[node].stride // dtype.itemsize
            case SentByAll():
                return places.get(argument, 0)
            case Outside():
                return 0
            case Seed():
                self.num_seeds += (Seed, run.group) not in self._addresses
                return At(self.address((Seed, run.group)), 0, 0, 1)
            case OfGroup() | ParentPlaces() | ParentOffset():
                found = finder(argument)(run)
                return self._of(found) if isinstance(found, Tensor) else found
        raise AssertionError(argument)

    def _of(self, tensor: Tensor) -> int:
        self.alive.append(tensor)
        return tensor.data_ptr()
