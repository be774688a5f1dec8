"""The arguments of generated loops: each is memory or a number in one run, which `finder` looks up."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from .lower.loops import Over

if TYPE_CHECKING:
    from .memory.layout import Values
    from .order import Parents, RowGroup
    from .run import Run


class By(Enum):
    """How states of children are read, and gradients sent to them: in numbered slots, or over the edges to all children."""

    SLOT = "slot"
    EDGE = "edge"


class GroupArgument(Enum):
    """Counts and index arrays of a group of rows."""

    START = "start"  # the group's first row in a state
    NUM_LEAVES = "num_leaves"
    NUM_COMPUTED = "num_computed"  # rows and edges
    CHILD_ROWS = "child_rows"  # the row of a state that each slot of each row with children reads
    EDGE_ROWS = "edge_rows"  # the row of a state that each edge reads
    EDGE_OFFSET = "edge_offset"  # where the edges of each row with children begin
    EDGE_OWNER = "edge_owner"  # the row that each edge belongs to


@dataclass(frozen=True)
class RowsOfChildren:
    """As `CHILD_ROWS` or `EDGE_ROWS`, of a state that has rows for the vertices of some kinds only."""

    state: str
    by: By


@dataclass(frozen=True)
class ParentPlaces:
    """The rows of `SentByAll` that are sent to each row of a state, row after row; of `state`, which some kinds lack, or of any
    state that all have."""

    by: By
    state: str | None = None


@dataclass(frozen=True)
class ParentOffset:
    """Where the places of each row begin in `ParentPlaces`; missing where each row has one place."""

    by: By


@dataclass(frozen=True)
class State:
    """A state, with the rows of all groups."""

    name: str


@dataclass(frozen=True)
class Value:
    """A value of the joint graph that has rows; entries begin `width` elements apart."""

    node: fx.Node
    width: int


@dataclass(frozen=True)
class Stride:
    """The distance from one row of a value to the next in elements: 0 if all rows are the same memory."""

    node: fx.Node


@dataclass(frozen=True)
class Whole:
    """A value without rows, contiguous: a parameter."""

    node: fx.Node


@dataclass(frozen=True)
class Result:
    """A value without rows that the loop computes."""

    node: fx.Node


@dataclass(frozen=True)
class Gathered:
    """Memory for the gathered rows of a state, of one step or of all steps."""

    state: str
    by: By


@dataclass(frozen=True)
class Received:
    """Memory for the gradients of a state that rows receive, in one step or in all steps."""

    state: str


@dataclass(frozen=True)
class Scratch:
    """Memory that a part needs for itself: `width` elements for each row, or edge, that is computed at a time, or once.

    `phases` are the first and the last phase of a step in which it is needed, between which all threads meet; None: in all. Steps
    of leaves are other steps, so that their phases are counted as those of others are.
    """

    part: str
    name: str
    width: int
    over: Over
    dtype: torch.dtype
    phases: tuple[int, int] | None = None


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
class FirstSending:
    """The first row of a group that sends gradients which are read: children of the rows before it are leaves that need none."""


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


PACKED = Memory("packed")  # whether weights were packed
ADDS = Memory("adds")  # whether sums over rows are added to what is there

StructureArgument = (
    GroupArgument | RowsOfChildren | ParentPlaces | ParentOffset
)  # the same in every run over a structure
Buffer = Gathered | Received | Scratch
LoopArgument = Function | Memory  # known to the loop itself, without a run
RunArgument = (
    Value
    | Whole
    | State
    | Result
    | Buffer
    | Sent
    | SentByAll
    | Outside
    | Stride
    | Seed
    | FirstSending
    | StructureArgument
)
Argument = RunArgument | LoopArgument


def rows_of_children(state: str, by: By, partial: Collection[str]) -> tuple[GroupArgument | RowsOfChildren, str]:
    """The rows in a state that children have, and a name for that; `partial` are the states that some vertices lack."""
    rows = GroupArgument.CHILD_ROWS if by is By.SLOT else GroupArgument.EDGE_ROWS
    return (RowsOfChildren(state, by), f"{rows.value}_{state}") if state in partial else (rows, rows.value)


def places_of_parents(state: str, by: By, partial: Collection[str]) -> tuple[ParentPlaces, str]:
    """Where what is sent to a state lies, and a name for that; `partial` are the states that some vertices lack."""
    name = "placed_places" if by is By.SLOT else "listed_places"
    return (ParentPlaces(by, state), f"{name}_{state}") if state in partial else (ParentPlaces(by), name)


def finder(argument: RunArgument) -> Callable[[Run], Tensor | int]:
    """The function that looks an argument up in a run; 0 stands for a missing one."""
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
        case FirstSending():
            return lambda run: 0
        case GroupArgument():
            return lambda run: _of_group(argument, run.group)
        case RowsOfChildren(state, By.SLOT):
            return lambda run: run.group.child_rows_in(state)
        case RowsOfChildren(state, _):
            return lambda run: run.group.edge_rows_in(state)
        case ParentPlaces(by, partial_state):
            return lambda run: _of_parents(run.exchange.parents_of(partial_state, by), "places")
        case ParentOffset(by):
            return lambda run: _of_parents(run.exchange.parents[by], "offset")


def _of_parents(parents: Parents | None, field: str) -> Tensor | int:
    array: Tensor | None = getattr(parents, field, None)
    return 0 if array is None else array


def _rows(values: Values, node: fx.Node, width: int) -> Tensor:
    """A value with its rows in dimension 0, contiguous."""
    value = values[node]
    if value.is_neg():  # a lazy negation, whose memory has the other sign
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
    """Whether all rows are the same memory: the zeros that stand for a missing gradient."""
    return rows.stride(0) == 0 and rows[0].is_contiguous() if len(rows) > 1 else False


def _of_group(field: GroupArgument, group: RowGroup) -> Tensor | int:
    match field:
        case GroupArgument.START:
            return group.start
        case GroupArgument.NUM_LEAVES:
            return group.num_leaves
        case GroupArgument.NUM_COMPUTED:
            return group.num_rows + group.num_edges
        case GroupArgument.CHILD_ROWS:
            return group.child_rows
    assert group.edges is not None
    match field:
        case GroupArgument.EDGE_ROWS:
            return group.edges.child_rows
        case GroupArgument.EDGE_OFFSET:
            return group.edges.offset
        case GroupArgument.EDGE_OWNER:
            return group.edges.owner
