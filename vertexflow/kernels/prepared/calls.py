"""Calls of native functions, written down before the addresses of a run are known.

An argument is a number, or so many bytes behind an address of the run: of a memory region, a parameter, an input or an output.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ... import _core
from ...graph.symbolic.program import CORES
from ..arguments import (  # fmt: skip
    PACKED,
    Argument,
    By,
    FirstSending,
    Function,
    GroupArgument,
    Outside,
    ParentOffset,
    ParentPlaces,
    RowsOfChildren,
    Seed,
    SentByAll,
    Stride,
    finder,
)
from ..binding import AddressedLoop
from ..bound import Bound
from ..compiled import NoSteps
from ..cut import Cut
from ..edges import Exchange
from ..memory.layout import ALIGNED, Values
from ..operations import Unsupported
from ..order import Ints, Order, Parents, RowGroup, Step
from ..ranges import MOVED, CallsOfRun, NamedCalls, is_profiling, step_numbers
from ..run import Run
from .calling_back import CallingBack, address_of, arguments_of
from .sent_rows import SentRows, receiving

COPY, ZERO, GATHER = map(Function, ("copy", "zero", "gather"))
RECEIVE = {dtype: Function(f"receive_{str(dtype)[6:]}") for dtype in (torch.float32, torch.float64)}
ADD = {dtype: Function(f"add_{str(dtype)[6:]}") for dtype in (torch.float32, torch.float64)}
MOVES = (COPY, ZERO, GATHER, *RECEIVE.values(), *ADD.values())  # functions that move rows


class Unprepared(Exception):  # noqa: N818 - a reason, not a failure
    """Why runs cannot be written down."""


class Location(NamedTuple):
    """Where rows lie: the first `offset` bytes behind an address, the others `stride` bytes apart."""

    address: int  # its number, see `Writer.address`
    offset: int
    stride: int
    num_rows: int

    def part(self, start: int, count: int) -> Location:
        """Rows [start, start + count)."""
        return Location(self.address, self.offset + start * self.stride, self.stride, count)


Index = Location | Tensor  # numbers of rows, int32: where they lie in a run, or those of all runs

Locations = dict[Hashable, Location]  # of values, by node, and of buffers and other arguments


@dataclass
class Region:
    """Memory of a run, which grows while rows are placed in it, one behind the other."""

    address: int
    size: int = 0  # bytes

    def allocate(self, num_rows: int, bytes: int) -> Location:
        """Place rows of so many bytes."""
        location = Location(self.address, self.size, bytes, num_rows)
        self.size += -(-num_rows * bytes // ALIGNED) * ALIGNED
        return location


def _length(index: Index) -> int:
    return index.num_rows if isinstance(index, Location) else len(index)


class Writer:
    """Writes down the calls of one pass over a structure."""

    def __init__(self, bound: Bound, order: Order, sent: Mapping[str, SentRows] | None = None) -> None:
        """Gradients that are sent to children lie at rows of `sent`, if it is given, not at the order's own."""
        self.bound, self.order = bound, order
        self.alive: list[Tensor] = []  # tensors whose addresses are among the numbers
        self.num_seeds = 0
        self._addresses: dict[Hashable, int] = {}  # what lies there: the number of the address, from 1 on
        # The arguments of all calls: a number, and the number of the address that it is added to, or 0.
        self._numbers: list[int] = []
        self._address_of: list[int] = []
        self._calls: list[tuple[int, int, Ints]] = []  # function, position of the first argument, steps
        self._parts: list[str | None] = []  # of each call: the part, or None
        # By group, part, window and number among the functions of a cut loop: the position of the first.
        self._arguments_of: dict[tuple[int, str, int, int], int] = {}
        self._begun: set[tuple[int, str, int]] = set()
        self.calls_back = False  # whether native code calls PyTorch
        native = (
            loop for compiled in bound.compiled for loop in compiled.loops.values() if isinstance(loop, AddressedLoop)
        )
        self._functions = next((loop.loop_numbers for loop in native), {})
        self._parents = {By.SLOT: order.parents, By.EDGE: order.edge_parents}
        self._partial = order.partial_parents
        if sent is not None:
            of_rows: dict[SentRows, dict[By, Parents]] = {}  # several states may have the same
            for rows in sent.values():
                if rows not in of_rows:
                    known = ((by, parents) for by, parents in self._parents.items() if parents and by in rows.blocks)
                    of_rows[rows] = {by: rows.parents(by, parents) for by, parents in known}
            self._partial = {(name, by): each for name, rows in sent.items() for by, each in of_rows[rows].items()}
            self._parents |= of_rows[rows]  # through slots, all states have the same

    def address(self, key: Hashable) -> int:
        """The number of the address where something lies, the next one if it is new."""
        return self._addresses.setdefault(key, len(self._addresses) + 1)

    def known_address(self, key: Hashable) -> int | None:
        """The number of the address where something lies, if it has one."""
        return self._addresses.get(key)

    def calls(self) -> CallsOfRun:
        """All calls that were written down; if a profiler runs, in ranges for it."""

        def made(calls: list[tuple[int, int, Ints]]) -> CallsOfRun:
            return CallingBack(self._written(calls)) if self.calls_back else self._written(calls)

        in_one_go = made(self._calls)
        if not is_profiling():
            return in_one_go
        return NamedCalls([(*name, made(calls)) for name, calls in self._pieces()], in_one_go)

    def calls_by_part(self, parts: Collection[str]) -> tuple[_core.Calls, _core.Calls] | None:
        """The calls of other parts, and those of these parts, which may be run over some of their rows; None where native code
        calls PyTorch."""
        if self.calls_back:
            return None
        named = list(zip(self._parts, self._calls, strict=True))
        others, some = ([call for part, call in named if (part in parts) is is_in] for is_in in (False, True))
        return self._written(others), self._written(some)

    def _written(self, calls: list[tuple[int, int, Ints]]) -> _core.Calls:
        numbers, address_of = np.array(self._numbers, np.int64), np.array(self._address_of, np.int64)
        return _core.Calls(numbers, address_of, len(self._addresses) + 1, calls)

    @property
    def bytes_of_calls(self) -> int:
        """What native code keeps of them: of each argument two numbers, of each call four and its steps."""
        return 16 * len(self._numbers) + sum(32 + steps.nbytes for _, _, steps in self._calls)

    def _pieces(self) -> Iterator[tuple[tuple[str, int | None], list[tuple[int, int, Ints]]]]:
        """The calls between two others of another part; those of a core, step by step."""
        for part, calls in itertools.groupby(zip(self._parts, self._calls, strict=True), lambda call: call[0]):
            if part not in CORES:
                yield (part or MOVED, None), [call for _, call in calls]
                continue
            for _, (function, first, steps) in calls:
                lines = steps.reshape(-1, len(Step._fields))
                for line, number in zip(lines, step_numbers(self.order.table, lines), strict=True):
                    yield (part, number), [(function, first, np.ascontiguousarray(line))]

    def run(self, group: int, part: str, locations: Locations, steps: Ints, window: int) -> None:
        """Run the loop of a part, if there is one, for these steps, which are all in one window."""
        loop = self.bound.compiled[group].loops.get(part)
        if loop is None or isinstance(loop, NoSteps):
            return
        if isinstance(loop, Cut):
            self._run_cut(loop, group, part, locations, steps, window)
        elif isinstance(loop, AddressedLoop):
            self._run_loop(loop, group, part, locations, steps, window)
        else:
            raise Unprepared(f"{part} is no native code")

    def _run_loop(
        self,
        loop: AddressedLoop,
        group: int,
        part: str,
        locations: Locations,
        steps: Ints,
        window: int,
        number: int = 0,
    ) -> None:
        """Run a native function; `number` is that of a function of a cut loop."""
        key = group, part, window, number
        if key not in self._arguments_of:
            run = Run(self.order.groups[group], Values({}), exchange=Exchange(self._parents, partial=self._partial))
            arguments: list[Location | int] = [
                *(loop.later_numbers if (group, part, number) in self._begun else loop.first_numbers)
            ]
            if (packed := self._addresses.get(PACKED)) is not None:
                arguments = [
                    Location(packed, 0, 0, 1) if each is PACKED else number
                    for each, number in zip(loop.arguments, arguments, strict=True)
                ]
            for position, tensor in loop.tensors:
                arguments[position] = locations[tensor]
            for position, argument in loop.run_arguments:
                arguments[position] = self._argument(argument, run, locations)
            self._arguments_of[key] = self._write(arguments)
            self._begun.add((group, part, number))
        self._calls.append((loop.address, self._arguments_of[key], steps.reshape(-1)))
        self._parts.append(part)

    def _run_cut(self, cut: Cut, group: int, part: str, locations: Locations, steps: Ints, window: int) -> None:
        """Run the functions of a cut loop step by step, and between them calls of PyTorch, by which native code calls back."""
        loops = [loop for loop in cut.loops if isinstance(loop, AddressedLoop)]
        calls_back = all(call.sees_whole_steps for call in (*cut.inner, *cut.leaf))
        if len(loops) < len(cut.loops) or loops[0].results or not calls_back:
            raise Unprepared(f"{part} calls PyTorch")
        rows = self.order.groups[group]
        for line in steps.reshape(-1, len(Step._fields)):
            calls = cut.leaf if line[0] < rows.num_leaves else cut.inner
            step = np.ascontiguousarray(line)
            self._run_loop(loops[0], group, part, locations, step, window)
            for number, call in enumerate(calls, 1):
                key = group, part, window, -number if calls is cut.inner else -number - len(cut.inner)
                if key not in self._arguments_of:
                    self._arguments_of[key] = self._write(arguments_of(call, rows, locations))
                try:
                    self._calls.append((address_of(call), self._arguments_of[key], step))
                except Unsupported as reason:
                    raise Unprepared(str(reason)) from None
                self._parts.append(part)
                self.calls_back = True
                self._run_loop(loops[number], group, part, locations, step, window, number)

    def copy(self, to: Location, source: Location, to_rows: Index | None, source_rows: Index | None) -> None:
        """Copy rows `source_rows` of `source` to rows `to_rows`; in place of one of them None: all, in order."""
        rows = to_rows if source_rows is None else source_rows
        count = to.num_rows if rows is None else _length(rows)
        self._move(COPY, to, [to, source, *map(self._index, (to_rows, source_rows)), to.stride, source.stride], count)

    def zero(self, to: Location, index: Tensor | None = None) -> None:
        """Fill rows `index`, or all rows, with zeros."""
        count, pointer = (to.num_rows, 0) if index is None else (len(index), self._pointer(index))
        self._move(ZERO, to, [to, pointer, to.stride], count)

    def row_of_zeros(self, size: int, num_rows: int) -> Location:
        """One row of so many bytes, all zero, which stands for many."""
        return Location(0, self._pointer(torch.zeros(size, dtype=torch.uint8)), 0, num_rows)

    def receive(self, to: Location, dtype: torch.dtype, first: int, state: str, sent: Mapping[By, Location]) -> None:
        """Sum what parents sent to consecutive rows of a state, from `first` on."""
        if dtype not in RECEIVE:
            raise Unprepared(f"gradients of {str(dtype)[6:]}")
        arguments = [to, to.stride // dtype.itemsize, first, *self._sent(state, sent)]
        self._move(RECEIVE[dtype], to, arguments, to.num_rows)

    def gather(self, to: Location, source: Location, rows: Location, which: Tensor | None) -> None:
        """Copy rows `rows` of `source`: all of them, or those at the positions `which`, to the same positions of `to`."""
        count = rows.num_rows if which is None else len(which)
        self._move(GATHER, to, [to, source, rows, self._index(which), to.stride], count)

    def add(
        self,
        to: Location,
        to_rows: Index | None,
        dtype: torch.dtype,
        bounds: tuple[int, int],
        state: str,
        sent: Mapping[By, Location],
        which: Tensor | None = None,
    ) -> None:
        """Add what parents sent to rows of a state, of which `bounds` are the first and how many there are (or those `which` are
        counted from the first), to rows `to_rows`, which may name a row twice."""
        if dtype not in ADD:
            raise Unprepared(f"gradients of {str(dtype)[6:]}")
        first, count = bounds
        indices = [self._index(to_rows), self._index(which)]
        arguments = [to, *indices, to.stride // dtype.itemsize, first, *self._sent(state, sent)]
        self._move(ADD[dtype], to, arguments, count if which is None else len(which))

    def _sent(self, state: str, sent: Mapping[By, Location]) -> list[Location | int]:
        """What parents sent, by slot and by edge, as arguments."""
        terms: list[Location | int] = []
        for by in self._parents:
            parents = self._partial.get((state, by), self._parents[by])
            if by not in sent or parents is None:
                terms += [0, 0, 0]
            else:
                offset = 0 if parents.offset is None else self._pointer(parents.offset)
                terms += [sent[by], self._pointer(parents.places), offset]
        return terms

    def _index(self, index: Index | None) -> Location | int:
        if index is None:
            return 0
        return index if isinstance(index, Location) else self._pointer(index)

    def _move(self, function: Function, to: Location, arguments: Sequence[Location | int], num_rows: int) -> None:
        if function not in self._functions:
            raise Unprepared("there is no native code")
        if num_rows and to.stride:
            steps = np.array(Step(0, num_rows), np.int32)
            self._calls.append((self._functions[function], self._write(arguments), steps))
            self._parts.append(None)

    def _write(self, arguments: Sequence[Location | int]) -> int:
        """Write the arguments of a call; returns the position of the first."""
        first = len(self._numbers)
        for argument in arguments:
            number, address = (argument.offset, argument.address) if isinstance(argument, Location) else (argument, 0)
            self._numbers.append(number)
            self._address_of.append(address)
        return first

    def _argument(self, argument: Argument, run: Run, locations: Locations) -> Location | int:
        """An argument that is not the address of a tensor in every run."""
        match argument:
            case Stride(node):
                dtype: torch.dtype = node.meta["val"].dtype
                return locations[node].stride // dtype.itemsize
            case SentByAll():
                return locations.get(argument, 0)
            case Outside():
                return locations.get(argument, 0)
            case FirstSending():
                return self._first_sending(run.group)
            case Seed():
                self.num_seeds += (Seed, run.group) not in self._addresses
                return Location(self.address((Seed, run.group)), 0, 0, 1)
            case GroupArgument() | RowsOfChildren() | ParentPlaces() | ParentOffset():
                value = finder(argument)(run)
                return self._pointer(value) if isinstance(value, Tensor) else value
        raise AssertionError(argument)

    def _first_sending(self, group: RowGroup) -> int:
        """The first row of a group with a child whose gradient is read, or the number of its rows."""
        rows = group.num_leaves + np.arange(len(group.child_rows)) // max(group.num_slots, 1)
        sending = [rows[self._is_read[group.child_rows.numpy()]]]
        if group.edges is not None:
            owner = np.repeat(group.edges.owner.numpy(), group.edges.side_by_side)
            sending.append(owner[self._is_read[group.edges.child_rows.numpy()]])
        return min((int(rows.min()) for rows in sending if len(rows)), default=group.num_rows)

    @cached_property
    def _is_read(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return receiving([compiled.program for compiled in self.bound.compiled], self.order)

    def _pointer(self, tensor: Tensor) -> int:
        self.alive.append(tensor)
        return tensor.data_ptr()
