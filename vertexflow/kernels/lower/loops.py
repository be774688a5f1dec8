"""The statements of a step of a part: loops over rows, edges or elements that store the values of expressions.

The rows (or edges, or columns) of every statement are divided among the threads of a team in the same way.
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
    """What a statement loops over: the rows of a step, its edges, or only the elements of a value without rows."""

    ROWS = "rows"
    EDGES = "edges"
    ELEMENTS = "elements"


@dataclass(frozen=True)
class Store:
    """Write `value` to column `column` of the loop's row of `target`."""

    target: fx.Node
    column: Index
    value: Expression


@dataclass(frozen=True)
class Nest:
    """Nested loops over the elements of a row, innermost last (over neighbouring elements), around some stores."""

    variables: tuple[Var, ...]
    stores: tuple[Store, ...]


@dataclass(frozen=True)
class Elementwise:
    """For each row, nests one after the other."""

    over: Over
    row: Var
    nests: tuple[Nest, ...]


@dataclass(frozen=True)
class Accumulate:
    """For each row and all values of the variables `free`: store the reduction (`operation`) of `store.value` over the variables
    `reduced`; or over the edges of the row, if `reduced` is one variable without bound. A row without edges gets zeros."""

    over: Over
    row: Var
    free: tuple[Var, ...]
    reduced: tuple[Var, ...]
    operation: str
    store: Store

    @property
    def is_over_edges(self) -> bool:
        return self.reduced[0].bound == ANY


@dataclass(frozen=True)
class SumOfRows:
    """Store the sum of `value` over all rows and the variables `reduced` in element `column` of the target, which has no rows."""

    over: Over
    row: Var
    reduced: tuple[Var, ...]
    column: Var
    target: fx.Node
    value: Expression


@dataclass(frozen=True)
class Columns:
    """Contiguous columns of a value in memory, beginning at `first`."""

    array: fx.Node
    first: int


@dataclass(frozen=True)
class Matrix:
    """A matrix [k, n] in a parameter, beginning at element `first`; if `transposed`, it is stored as [n, k]."""

    array: fx.Node
    first: int
    k: int
    n: int
    transposed: bool


@dataclass(frozen=True)
class Product:
    """`out = a @ b`, plus a bias if there is one: rows times a parameter. Each row of the step counts as `repeat` rows."""

    over: Over
    repeat: int
    out: Columns
    a: Columns
    b: Matrix
    bias: Columns | None


@dataclass(frozen=True)
class Outer:
    """`out[n, k] = a.t() @ b`, a sum over rows: the gradient of a parameter. Each row of the step counts as `repeat` rows."""

    over: Over
    repeat: int
    out: Columns
    a: Columns
    n: int
    b: Columns
    k: int


Statement = Elementwise | Accumulate | SumOfRows | Product | Outer


def over_of(node: fx.Node) -> Over:
    """What the rows of a value belong to."""
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
            stack += expression.subexpressions


def reads(statement: Statement) -> set[fx.Node]:
    """The values in memory that a statement reads."""
    match statement:
        case Product():
            bias = [] if statement.bias is None else [statement.bias.array]
            return {statement.a.array, statement.b.array, *bias}
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
    """Whether a statement reads which row an edge belongs to."""
    return any(_has_owner(place) for expression in expressions(statement) for place in expression.places)


def draws(statement: Statement) -> bool:
    """Whether a statement has random numbers."""
    return any(isinstance(expression, Draw) for expression in expressions(statement))


def _has_owner(place: Index) -> bool:
    return any(
        isinstance(atom, Owner) or (isinstance(atom, (Clipped, Quotient)) and _has_owner(atom.at))
        for atom, _ in place.terms
    )
