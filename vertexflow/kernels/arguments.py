"""What generated loops are called with: each argument is named by one of these, and is memory or a number for one run.

A loop prints what it reads and writes there, and `finder` tells what that is in a run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from .lower.loops import Over

if TYPE_CHECKING:
    from .memory import Values
    from .order import Parents, RowGroup
    from .run import Run


class By(Enum):
    """How states of children are read, and gradients sent to them: in numbered slots, or over the edges to all children."""

    SLOT = "slot"
    EDGE = "edge"


class OfGroup(Enum):
    """What is known of a group of rows: counts, and index arrays."""

    START = "start"  # its first row in a state
    NUM_LEAVES = "num_leaves"
    NUM_COMPUTED = "num_computed"  # rows and edges
    CHILD_ROWS = "child_rows"  # the row of a state that each slot of each row with children reads
    EDGE_ROWS = "edge_rows"  # the row of a state that each edge reads
    EDGE_OFFSET = "edge_offset"  # where the edges of each row with children begin
    EDGE_OWNER = "edge_owner"  # the row that each edge is of


@dataclass(frozen=True)
class ParentPlaces:
    """Which rows of `SentByAll` are for a row of a state: those of one row after those of another."""

    by: By


@dataclass(frozen=True)
class ParentOffset:
    """Where those of each row begin among `ParentPlaces`; missing where each row has one."""

    by: By


@dataclass(frozen=True)
class State:
    """A state, with the rows of all groups."""

    name: str


@dataclass(frozen=True)
class Value:
    """A value of the joint graph that has rows; `width` elements lie between the beginnings of two entries."""

    node: fx.Node
    width: int


@dataclass(frozen=True)
class Stride:
    """How many elements lie between the beginnings of two rows of a value: 0, if all rows are the same memory."""

    node: fx.Node


@dataclass(frozen=True)
class Whole:
    """A value as it lies in memory, in one piece: a parameter."""

    node: fx.Node


@dataclass(frozen=True)
class Result:
    """A value without rows that the loop makes."""

    node: fx.Node


@dataclass(frozen=True)
class Gathered:
    """Room for what is gathered of a state: of a step, or of all."""

    state: str
    by: By


@dataclass(frozen=True)
class Received:
    """Room for the gradient of a state that rows receive: of a step, or of all."""

    state: str


@dataclass(frozen=True)
class Scratch:
    """Room that a part needs for itself: `width` elements for each row, or edge, that is computed at a time, or in all."""

    part: str
    name: str
    width: int
    over: Over
    dtype: torch.dtype


@dataclass(frozen=True)
class Sent:
    """The gradient of a state that this group sends to its children."""

    state: str
    by: By


@dataclass(frozen=True)
class SentByAll:
    """The gradient of a state that all groups send to their children; missing where none does."""

    state: str
    by: By


@dataclass(frozen=True)
class Outside:
    """The gradient of a state that does not come from parents; missing where there is none."""

    state: str


@dataclass(frozen=True)
class Seed:
    """The seed of random numbers."""


@dataclass(frozen=True)
class Function:
    """A function that generated code calls, by its address."""

    name: str


@dataclass(frozen=True)
class Memory:
    """A number that is 0 at the first of the calls for a run, and kept from one to the next, or 1 at later ones."""

    name: str


OfStructure = OfGroup | ParentPlaces | ParentOffset  # the same in every run over a structure
Buffer = Gathered | Received | Scratch
OfLoop = Function | Memory  # which the loop knows itself
Given = Value | Whole | State | Result | Buffer | Sent | SentByAll | Outside | Stride | Seed | OfStructure
Argument = Given | OfLoop


def finder(argument: Given) -> Callable[[Run], Tensor | int]:
    """What finds an argument in a run: 0 if it is missing."""
    match argument:
        case State(name):
            return lambda run: run.states[name]
        case Value(node, width):
            return lambda run: _rows(run.values, node, width)
        case Stride(node):
            return lambda run: _stride(_rows_first(run.values[node], node))
        case Whole(node) | Result(node):
            return lambda run: run.values[node].resolve_neg().contiguous()
        case Gathered() | Received() | Scratch():
            return lambda run: run.values.buffer(argument)
        case Sent(state, By.SLOT):
            return lambda run: run.sent[state].data
        case Sent(state, _):
            return lambda run: run.sent_by_edge[state].data
        case SentByAll(state, by):
            return lambda run: run.exchange.sent[by].get(state, 0)
        case Outside(state):
            return lambda run: run.exchange.outside.get(state, 0)
        case Seed():
            return lambda run: run.seed
        case OfGroup():
            return lambda run: _of_group(argument, run.group)
        case ParentPlaces(by):
            return lambda run: _of_parents(run.exchange.parents[by], "places")
        case ParentOffset(by):
            return lambda run: _of_parents(run.exchange.parents[by], "offset")


def _of_parents(parents: Parents | None, field: str) -> Tensor | int:
    array: Tensor | None = getattr(parents, field, None)
    return 0 if array is None else array


def _rows(values: Values, node: fx.Node, width: int) -> Tensor:
    """A value with its rows in front, one behind the other."""
    value = values[node]
    if value.is_neg():  # its memory has the other sign
        value = values[node] = value.resolve_neg()
    rows = _rows_first(value, node)
    if _is_one_row(rows):
        return rows
    if not rows.is_contiguous():
        rows = rows.contiguous()
        values[node] = rows.movedim(0, node.meta["rows"].dim)
    assert rows.stride(0) == width or rows.numel() == 0 or len(rows) == 1, f"{node.name} has rows of another width"
    return rows


def _rows_first(value: Tensor, node: fx.Node) -> Tensor:
    dim = node.meta["rows"].dim
    return value.movedim(dim, 0) if dim else value


def _stride(rows: Tensor) -> int:
    return 0 if _is_one_row(rows) else rows.stride(0)


def _is_one_row(rows: Tensor) -> bool:
    """Whether all rows are the same memory, as zeros are for a gradient that is not there."""
    return rows.stride(0) == 0 and rows[0].is_contiguous() if len(rows) > 1 else False


def _of_group(what: OfGroup, group: RowGroup) -> Tensor | int:
    match what:
        case OfGroup.START:
            return group.start
        case OfGroup.NUM_LEAVES:
            return group.num_leaves
        case OfGroup.NUM_COMPUTED:
            return group.num_rows + group.num_edges
        case OfGroup.CHILD_ROWS:
            return group.child_rows
    assert group.edges is not None
    match what:
        case OfGroup.EDGE_ROWS:
            return group.edges.child_rows
        case OfGroup.EDGE_OFFSET:
            return group.edges.offset
        case OfGroup.EDGE_OWNER:
            return group.edges.owner
