"""The addresses and numbers that generated code is called with: found once for a structure, completed for each run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from .arguments import (
    Argument,
    Buffer,
    Function,
    Gathered,
    Given,
    Memory,
    OfLoop,
    OfStructure,
    Received,
    Result,
    Scratch,
    Sent,
    State,
    Value,
    Whole,
    finder,
)  # fmt: skip
from .memory import Key
from .run import Run

Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class Addressed:
    """A loop that is one native function, called with arguments and steps."""

    address: int
    arguments: Sequence[Argument]
    own: Mapping[OfLoop, int]  # what the loop knows of its arguments itself; and the functions that move rows
    results: Sequence[tuple[fx.Node, tuple[int, ...]]]  # what it makes that has no rows, with shapes

    @cached_property
    def lying(self) -> list[tuple[int, Key | Given]]:
        """The arguments that are where something lies in any run, by their numbers: a value, a buffer, a state."""
        some = (Value, Whole, Result, State, Gathered, Received, Scratch, Sent)
        found = [(at, each) for at, each in enumerate(self.arguments) if isinstance(each, some)]
        return [(at, each.node if isinstance(each, Value | Whole | Result) else each) for at, each in found]

    @cached_property
    def others(self) -> list[tuple[int, Argument]]:
        """The other arguments, but for those that the loop knows."""
        known = {at for at, _ in self.lying}
        return [
            (at, each) for at, each in enumerate(self.arguments) if at not in known and not isinstance(each, OfLoop)
        ]

    @cached_property
    def known(self) -> list[int]:
        """The arguments that the loop knows; 0 for others."""
        return [self.own[each] if isinstance(each, OfLoop) else 0 for each in self.arguments]

    @cached_property
    def known_later(self) -> list[int]:
        """The same for other calls of a run than the first."""
        return [1 if isinstance(each, Memory) else at for each, at in zip(self.arguments, self.known, strict=True)]


@dataclass(frozen=True)
class Bound:
    """The arguments of one run, 0 for what is missing, and the tensors that they point into."""

    numbers: Numbers
    alive: list[Tensor]


@dataclass(frozen=True)
class Template:
    """Arguments for all runs over a structure, and where those belong that differ."""

    numbers: Numbers
    alive: list[Tensor]
    in_arenas: list[tuple[int, torch.dtype, Numbers, Numbers]]  # arena, dtype, positions, offsets in bytes
    varying: list[tuple[int, Callable[[Run], Tensor | int]]]  # positions, and what finds it

    def complete(self, run: Run) -> Bound:
        """The arguments of one run: of values in arenas by their places, others as they are found."""
        numbers, alive, arenas = self.numbers.copy(), list(self.alive), run.values.arenas
        for number, dtype, at, offsets in self.in_arenas:
            numbers[at] = offsets + arenas[number].flats[dtype].data_ptr()
        for position, find in self.varying:
            numbers[position] = _number(find(run), alive)
        return Bound(numbers, alive)


def template(arguments: Iterable[Argument], run: Run, own: Mapping[OfLoop, int]) -> Template:
    """What is known of arguments when a structure is; `own` are those that the loop knows."""
    numbers: list[int] = []
    alive: list[Tensor] = []
    varying: list[tuple[int, Callable[[Run], Tensor | int]]] = []
    places: dict[tuple[int, torch.dtype], list[tuple[int, int]]] = {}
    layouts = [arena.layout for arena in run.values.arenas]
    for at, argument in enumerate(arguments):
        numbers.append(0)
        if isinstance(argument, Function | Memory):
            numbers[at] = own[argument]
            continue
        key = key_of(argument)
        number = next((number for number, layout in enumerate(layouts) if key in layout.places), None)
        if key is not None and number is not None:
            place = layouts[number].places[key]
            places.setdefault((number, place.dtype), []).append((at, place.offset * place.dtype.itemsize))
        elif isinstance(argument, OfStructure):
            numbers[at] = _number(finder(argument)(run), alive)
        else:
            varying.append((at, finder(argument)))
    in_arenas = [(*key, *np.array(found, np.int64).T.copy()) for key, found in places.items()]
    return Template(np.array(numbers, np.int64), alive, in_arenas, varying)


def key_of(argument: Given) -> Key | None:
    """By what an argument lies in an arena, if it lies in one."""
    if isinstance(argument, Value):
        return argument.node
    return argument if isinstance(argument, Buffer) else None


def _number(value: Tensor | int, alive: list[Tensor]) -> int:
    if not isinstance(value, Tensor):
        return value
    alive.append(value)
    return value.data_ptr()
