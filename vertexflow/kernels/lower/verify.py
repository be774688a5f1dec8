"""The verifier of loops, run before they are printed: reads and writes lie inside their rows, operands have their dtypes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import fx

from ...graph.symbolic.nodes import has_rows
from .index import Index, Var
from .loops import Accumulate, Columns, Elementwise, Outer, Product, Statement, Store, SumOfRows
from .scalar import DTYPES, HALVES, OPERATIONS, Apply, Cast, Choose, Constant, Draw, Expression, Load, Position, Reduce
from .views import width


class BrokenLoopError(Exception):
    """A loop that would read or write out of bounds, or compute something else: a defect of vertexflow."""


def verify(statements: Iterable[Statement]) -> None:
    """Check statements.

    Raises:
        BrokenLoopError: naming what is wrong.
    """
    for statement in statements:
        match statement:
            case Elementwise():
                for nest in statement.nests:
                    scope = {statement.row, *nest.variables}
                    for store in nest.stores:
                        _store(store, scope)
            case Accumulate():
                if statement.is_over_edges and len(statement.reduced) > 1:
                    raise BrokenLoopError(f"{statement.store.target.name} goes over edges and more")
                _column(statement.store.target, statement.store.column, {*statement.free})
                _value(statement.store, {statement.row, *statement.free, *statement.reduced})
            case SumOfRows():
                if statement.column.bound != width(statement.target):
                    raise BrokenLoopError(f"{statement.target.name} has other columns than its sum")
                _Checker({statement.row, statement.column, *statement.reduced}).check(statement.value)
            case Product():
                _product(statement)
            case Outer():
                _inside(statement.a, statement.n * statement.repeat)
                _inside(statement.b, statement.k * statement.repeat)
                _inside(statement.out, statement.n * statement.k)


def verify_value(value: Expression, scope: Iterable[Var]) -> None:
    """Check an expression that may depend on these variables.

    Raises:
        BrokenLoopError: naming what is wrong.
    """
    _Checker(set(scope)).check(value)


def _product(product: Product) -> None:
    matrix = product.b
    _inside(product.a, matrix.k * product.repeat)
    _inside(product.out, matrix.n * product.repeat)
    if product.bias is not None:
        _inside(product.bias, matrix.n)
    _inside(Columns(matrix.array, matrix.first), matrix.n * matrix.k)
    dtypes = {columns.array.meta["val"].dtype for columns in (product.a, product.out, Columns(matrix.array, 0))}
    if len(dtypes) > 1:
        raise BrokenLoopError(f"{product.out.array.name} is a product of several dtypes")


def _inside(columns: Columns, count: int) -> None:
    if columns.first < 0 or columns.first + count > width(columns.array):
        raise BrokenLoopError(f"columns {columns.first} to {columns.first + count} are not all of {columns.array.name}")


def _store(store: Store, scope: set[Var]) -> None:
    _column(store.target, store.column, scope)
    _value(store, scope)


def _value(store: Store, scope: set[Var]) -> None:
    dtype = store.target.meta["val"].dtype
    if store.value.dtype != dtype:
        raise BrokenLoopError(f"{store.target.name} is of {dtype}, and what is stored of {store.value.dtype}")
    _Checker(scope).check(store.value)


def _column(array: fx.Node, column: Index, scope: set[Var]) -> None:
    if column.least < 0 or column.most >= width(array):
        raise BrokenLoopError(f"column {column} is not in a row of {array.name}, which has {width(array)}")
    unbound = set(column.variables()) - scope
    if unbound:
        raise BrokenLoopError(f"column {column} of {array.name} depends on {', '.join(map(str, unbound))}")


class _Checker:
    """Checks expressions that may use the variables in `scope`, each expression once."""

    def __init__(self, scope: set[Var]) -> None:
        self.scope = scope
        self.seen: set[Expression] = set()

    def check(self, expression: Expression) -> None:
        if expression in self.seen:
            return
        self.seen.add(expression)
        if expression.dtype not in DTYPES | HALVES:
            raise BrokenLoopError(f"there are no numbers of {expression.dtype}")
        match expression:
            case Load():
                _column(expression.array, expression.column, self.scope)
                self._row(expression)
            case Draw():
                self._variables(expression.row)
                self._variables(expression.column)
            case Apply():
                _signature(expression)
            case Choose():
                self._choice(expression)
            case Reduce():
                if self.scope & set(expression.over):
                    raise BrokenLoopError("a sum goes over what is gone over already")
                inner = _Checker(self.scope | set(expression.over))
                inner.check(expression.value)
                return
            case Position():
                self._variables(expression.at)
            case Constant() | Cast():
                pass
        for subexpression in expression.subexpressions:
            self.check(subexpression)

    def _row(self, load: Load) -> None:
        if (load.row is None) == has_rows(load.array):
            raise BrokenLoopError(f"{load.array.name} is read with a row, or without one")
        if load.row is None:
            return
        self._variables(load.row)
        if not load.row.is_row:
            raise BrokenLoopError(f"{load.row} is no row of {load.array.name}")

    def _variables(self, place: Index) -> None:
        unbound = set(place.variables()) - self.scope
        if unbound:
            raise BrokenLoopError(f"{place} depends on {', '.join(map(str, unbound))}")

    def _choice(self, choice: Choose) -> None:
        self._variables(choice.at)
        previous_stop = None
        for branch in choice.branches:
            if branch.value.dtype != choice.dtype or (previous_stop is not None and branch.start < previous_stop):
                raise BrokenLoopError("the branches of a choice are of several dtypes, or overlap")
            previous_stop = branch.stop


def _signature(apply: Apply) -> None:
    dtypes = [operand.dtype for operand in apply.operands]
    if apply.operation == "where":
        is_right = len(dtypes) == 3 and dtypes == [torch.bool, apply.dtype, apply.dtype]
    else:
        signature = OPERATIONS[apply.operation]
        result = torch.bool if signature.is_predicate else dtypes[0]
        is_right = len(dtypes) == signature.operands and set(dtypes) <= signature.takes and len(set(dtypes)) == 1
        is_right = is_right and apply.dtype == result
    if not is_right:
        raise BrokenLoopError(f"{apply.operation} of {', '.join(map(str, dtypes))} gives no {apply.dtype}")
