"""The addresses and numbers that generated code is called with: looked up once for a structure, completed for each run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from .arguments import (  # fmt: skip
    Argument,
    Buffer,
    Gathered,
    LoopArgument,
    Memory,
    Received,
    Result,
    RunArgument,
    Scratch,
    Sent,
    State,
    StructureArgument,
    Value,
    Whole,
    finder,
)
from .memory.layout import Key
from .order import RowGroup
from .run import Run

Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class AddressedLoop:
    """A loop that is one native function, called with the numbers of its arguments and with steps."""

    address: int
    arguments: Sequence[Argument]
    loop_numbers: Mapping[LoopArgument, int]  # also of the functions that move rows
    results: Sequence[tuple[fx.Node, tuple[int, ...]]]  # the values without rows that it computes, and their shapes

    @cached_property
    def tensors(self) -> list[tuple[int, Key | RunArgument]]:
        """The arguments that are the address of a tensor in any run, a value, a buffer or a state, with their positions."""
        kinds = (Value, Whole, Result, State, Gathered, Received, Scratch, Sent)
        tensors = [(at, argument) for at, argument in enumerate(self.arguments) if isinstance(argument, kinds)]
        return [
            (at, argument.node if isinstance(argument, Value | Whole | Result) else argument)
            for at, argument in tensors
        ]

    @cached_property
    def run_arguments(self) -> list[tuple[int, RunArgument]]:
        """The other arguments that a run determines, with their positions."""
        tensors = {at for at, _ in self.tensors}
        return [
            (at, argument)
            for at, argument in enumerate(self.arguments)
            if at not in tensors and not isinstance(argument, LoopArgument)
        ]

    @cached_property
    def first_numbers(self) -> list[int]:
        """The numbers of the loop's own arguments in the first call of a run, and 0 for all others."""
        return [self.loop_numbers[argument] if isinstance(argument, LoopArgument) else 0 for argument in self.arguments]

    @cached_property
    def later_numbers(self) -> list[int]:
        """The same in later calls of the run."""
        return [
            1 if isinstance(argument, Memory) else number
            for argument, number in zip(self.arguments, self.first_numbers, strict=True)
        ]


@dataclass(frozen=True)
class BoundArguments:
    """The arguments of one run, 0 for a missing one, and the tensors that they point into."""

    numbers: Numbers
    alive: list[Tensor]


@dataclass(frozen=True)
class Template:
    """The arguments of all runs over a structure: those that are always the same, and how to find the others."""

    numbers: Numbers
    alive: list[Tensor]
    in_arenas: list[tuple[int, torch.dtype, Numbers, Numbers]]  # arena, dtype, positions, offsets in bytes
    varying: list[tuple[int, Callable[[Run], Tensor | int]]]  # position, and the function that looks the argument up

    def complete(self, run: Run) -> BoundArguments:
        """The arguments of one run."""
        numbers, alive, arenas = self.numbers.copy(), list(self.alive), run.values.arenas
        for number, dtype, positions, offsets in self.in_arenas:
            numbers[positions] = offsets + arenas[number].flats[dtype].data_ptr()
        for position, find in self.varying:
            numbers[position] = _number(find(run), alive)
        return BoundArguments(numbers, alive)


def bind_arguments(
    arguments: Sequence[Argument],
    run: Run,
    templates: MutableMapping[RowGroup, Template],
    loop_numbers: Mapping[LoopArgument, int],
) -> BoundArguments:
    """The arguments of one run, by the template of its group of rows, which is made in the first run."""
    template = templates.get(run.group)
    if template is None:
        template = templates[run.group] = _template(arguments, run, loop_numbers)
    return template.complete(run)


def _template(arguments: Iterable[Argument], run: Run, loop_numbers: Mapping[LoopArgument, int]) -> Template:
    numbers: list[int] = []
    alive: list[Tensor] = []
    varying: list[tuple[int, Callable[[Run], Tensor | int]]] = []
    in_arenas: dict[tuple[int, torch.dtype], list[tuple[int, int]]] = {}
    layouts = [arena.layout for arena in run.values.arenas]
    for position, argument in enumerate(arguments):
        numbers.append(0)
        if isinstance(argument, LoopArgument):
            numbers[position] = loop_numbers[argument]
            continue
        key = key_of(argument)
        arena = next((number for number, layout in enumerate(layouts) if key in layout.places), None)
        if key is not None and arena is not None:
            place = layouts[arena].places[key]
            in_arenas.setdefault((arena, place.dtype), []).append((position, place.offset * place.dtype.itemsize))
        elif isinstance(argument, StructureArgument):
            numbers[position] = _number(finder(argument)(run), alive)
        else:
            varying.append((position, finder(argument)))
    columns = [(*key, *np.array(offsets, np.int64).T.copy()) for key, offsets in in_arenas.items()]
    return Template(np.array(numbers, np.int64), alive, columns, varying)


def key_of(argument: RunArgument) -> Key | None:
    """The key of an argument in the layout of an arena, if arenas can hold it."""
    if isinstance(argument, Value):
        return argument.node
    return argument if isinstance(argument, Buffer) else None


def _number(value: Tensor | int, alive: list[Tensor]) -> int:
    if not isinstance(value, Tensor):
        return value
    alive.append(value)
    return value.data_ptr()
