"""Loops over expressions: the statements that a step of a part is made of.

All threads of a team, or all programs of a grid, share out the rows (or edges, or columns) of a statement in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from torch import fx

from ...graph.symbolic.nodes import has_rows, on_edges
from .index import ANY, Clipped, Index, Owner, Quotient, Var
from .scalar import Draw, Expression, Load


class Over(Enum):
    """What a statement goes over: the rows of a step, its edges, or nothing but the elements of a value without rows."""

    ROWS = "rows"
    EDGES = "edges"
    ELEMENTS = "elements"


@dataclass(frozen=True)
class Store:
    """A value that is written to column `column` of the row, of `target`."""

    target: fx.Node
    column: Index
    value: Expression


@dataclass(frozen=True)
class Nest:
    """Loops over the elements of a row, the last of them in neighbouring places, and what is stored in it."""

    variables: tuple[Var, ...]
    stores: tuple[Store, ...]


@dataclass(frozen=True)
class Elementwise:
    """Nests, one after the other, for each row."""

    over: Over
    row: Var
    nests: tuple[Nest, ...]


@dataclass(frozen=True)
class Accumulate:
    """Of each row, for all `kept`: column `store.column` of the target is the "sum", "max" or so of `store.value` over all that
    `summed` may be; or over the edges of the row, if `summed` is one variable without bound. Zero where there is nothing."""

    over: Over
    row: Var
    kept: tuple[Var, ...]
    summed: tuple[Var, ...]
    operation: str
    store: Store

    @property
    def is_over_edges(self) -> bool:
        return self.summed[0].bound == ANY


@dataclass(frozen=True)
class SumOfRows:
    """Element `column` of the target, which has no rows, is the sum of `value` over all rows, and all that `summed` may be."""

    over: Over
    row: Var
    summed: tuple[Var, ...]
    column: Var
    target: fx.Node
    value: Expression


@dataclass(frozen=True)
class Columns:
    """Neighbouring columns of a value in memory, from `first` on."""

    array: fx.Node
    first: int


@dataclass(frozen=True)
class Matrix:
    """A matrix [k, n] of a parameter from element `first` on; if `transposed`, it lies there as [n, k]."""

    array: fx.Node
    first: int
    k: int
    n: int
    transposed: bool


@dataclass(frozen=True)
class Product:
    """`out = a @ b`, plus a bias if there is one: rows times a parameter. Each row is `repeat` rows, one behind the other."""

    over: Over
    repeat: int
    out: Columns
    a: Columns
    b: Matrix
    bias: Columns | None


@dataclass(frozen=True)
class Outer:
    """`out[n, k] = a.t() @ b`, a sum over rows, `repeat` for each one: the gradient of a parameter."""

    over: Over
    repeat: int
    out: Columns
    a: Columns
    n: int
    b: Columns
    k: int


Statement = Elementwise | Accumulate | SumOfRows | Product | Outer


def over_of(node: fx.Node) -> Over:
    """What the rows of a value are."""
    return Over.EDGES if on_edges(node) else Over.ROWS if has_rows(node) else Over.ELEMENTS


def expressions(statement: Statement) -> Iterator[Expression]:
    """All expressions of a statement, each once."""
    match statement:
        case Elementwise():
            stack = [store.value for nest in statement.nests for store in nest.stores]
        case Accumulate():
            stack = [statement.store.value]
        case SumOfRows():
            stack = [statement.value]
        case _:
            stack = []
    seen: set[Expression] = set()
    while stack:
        expression = stack.pop()
        if expression not in seen:
            seen.add(expression)
            yield expression
            stack += expression.parts


def reads(statement: Statement) -> set[fx.Node]:
    """The values in memory that a statement reads."""
    match statement:
        case Product():
            others = [] if statement.bias is None else [statement.bias.array]
            return {statement.a.array, statement.b.array, *others}
        case Outer():
            return {statement.a.array, statement.b.array}
        case _:
            return {part.array for part in expressions(statement) if isinstance(part, Load)}


def writes(statement: Statement) -> set[fx.Node]:
    """The values in memory that a statement writes."""
    match statement:
        case Elementwise():
            return {store.target for nest in statement.nests for store in nest.stores}
        case Accumulate():
            return {statement.store.target}
        case SumOfRows():
            return {statement.target}
        case _:
            return {statement.out.array}


def asks_for_owners(statement: Statement) -> bool:
    """Whether a statement needs to know which row an edge belongs to."""
    return any(_has_owner(place) for expression in expressions(statement) for place in expression.places)


def draws(statement: Statement) -> bool:
    """Whether a statement has random numbers."""
    return any(isinstance(expression, Draw) for expression in expressions(statement))


def _has_owner(place: Index) -> bool:
    return any(
        isinstance(atom, Owner) or (isinstance(atom, (Clipped, Quotient)) and _has_owner(atom.at))
        for atom, _ in place.terms
    )
