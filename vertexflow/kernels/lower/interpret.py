"""An interpreter of statements in NumPy, with which printed code must agree.

All elements that a statement loops over are computed at once, with an axis for each loop variable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import fx

from .index import Atom, Clipped, Index, Owner, Quotient, Var, index_of
from .loops import Accumulate, Columns, Elementwise, Matrix, Outer, Over, Product, Statement, SumOfRows
from .scalar import Apply, Cast, Choose, Constant, Draw, Expression, Load, Position, Reduce
from .spellings import NUMPY, numpy_dtype, uniform

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class StepMemory:
    """What the statements of a step work on: the values in memory, [rows, width] or, without rows, [elements]; and the rows of
    edges: `owner` [edges] is the row of each edge, `first_edge` [rows + 1] the first edge of each row and the last one's end."""

    arrays: Mapping[fx.Node, Array]
    num_rows: int
    owner: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    first_edge: Array = field(default_factory=lambda: np.zeros(1, np.int64))
    seed: int = 0

    def count(self, over: Over) -> int:
        """How many rows, edges or elements a statement loops over."""
        return {Over.ROWS: self.num_rows, Over.EDGES: len(self.owner), Over.ELEMENTS: 1}[over]


def run(statements: Iterable[Statement], step: StepMemory) -> None:
    """Compute the statements of a step, one after the other, into its arrays."""
    with np.errstate(all="ignore"):
        for statement in statements:
            match statement:
                case Elementwise():
                    _loop(statement, step)
                case Accumulate():
                    _accumulate(statement, step)
                case SumOfRows():
                    _sum_of_rows(statement, step)
                case Product():
                    _product(statement, step)
                case Outer():
                    _outer(statement, step)


def _loop(loop: Elementwise, step: StepMemory) -> None:
    for nest in loop.nests:
        space = _Space(step, {loop.row: step.count(loop.over)}, nest.variables)
        for store in nest.stores:
            column, value = space.place(store.column), space.value(store.value)
            _write(step.arrays[store.target], space.place(index_of(loop.row)), column, value, space)


def _accumulate(loop: Accumulate, step: StepMemory) -> None:
    target, store = step.arrays[loop.store.target], loop.store
    if not loop.is_over_edges:
        space = _Space(step, {loop.row: step.count(loop.over)}, (*loop.free, *loop.reduced))
        axes = tuple(range(1 + len(loop.free), space.rank))
        value = _REDUCTIONS[loop.operation](
            np.broadcast_to(space.value(store.value), space.shape), axis=axes, keepdims=True
        )
        _write(target, space.place(index_of(loop.row)), space.place(store.column), value, space.without(axes))
        return
    (edge,) = loop.reduced
    edges = _Space(step, {edge: len(step.owner)}, loop.free)
    values = np.broadcast_to(edges.value(store.value), edges.shape).reshape(len(step.owner), -1)
    columns = np.broadcast_to(edges.place(store.column), (1, *edges.shape[1:])).reshape(-1)
    join = {"sum": np.add, "max": np.maximum}[loop.operation]
    for row in range(step.num_rows):
        first, end = step.first_edge[row], step.first_edge[row + 1]
        target[row, columns] = join.reduce(values[first:end], axis=0) if end > first else 0


def _sum_of_rows(loop: SumOfRows, step: StepMemory) -> None:
    space = _Space(step, {loop.row: step.count(loop.over)}, (loop.column, *loop.reduced))
    value = np.broadcast_to(space.value(loop.value), space.shape)
    step.arrays[loop.target][:] = value.sum(axis=(0, *range(2, space.rank)), dtype=value.dtype)


def _product(product: Product, step: StepMemory) -> None:
    result = _columns(step, product.a, product.b.k, product.repeat) @ _matrix(step, product.b)
    if product.bias is not None:
        result = result + step.arrays[product.bias.array][product.bias.first : product.bias.first + product.b.n]
    _columns(step, product.out, product.b.n, product.repeat)[:] = result


def _outer(outer: Outer, step: StepMemory) -> None:
    result = _columns(step, outer.a, outer.n, outer.repeat).T @ _columns(step, outer.b, outer.k, outer.repeat)
    step.arrays[outer.out.array][outer.out.first : outer.out.first + outer.n * outer.k] = result.reshape(-1)


def _columns(step: StepMemory, columns: Columns, count: int, repeat: int) -> Array:
    """A view of rows in memory."""
    array = step.arrays[columns.array]
    return array.reshape(-1, array.shape[1] // repeat)[:, columns.first : columns.first + count]


def _matrix(step: StepMemory, matrix: Matrix) -> Array:
    flat = step.arrays[matrix.array][matrix.first : matrix.first + matrix.n * matrix.k]
    return flat.reshape(matrix.n, matrix.k).T if matrix.transposed else flat.reshape(matrix.k, matrix.n)


def _write(target: Array, row: Array, column: Array, value: Array, space: _Space) -> None:
    if target.ndim == 1:
        target[np.broadcast_to(column, space.shape)] = value
    else:
        target[np.broadcast_to(row, space.shape), np.broadcast_to(column, space.shape)] = value


_REDUCTIONS: dict[str, Any] = {"sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min}


class _Space:
    """The values of some variables, with an axis for each, and the values of expressions for all of them."""

    def __init__(self, step: StepMemory, rows: Mapping[Var, int], variables: Iterable[Var]) -> None:
        self.step = step
        self.extents = {**rows, **{variable: variable.bound for variable in variables}}
        self.known: dict[Expression, Array] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.extents.values())

    @property
    def rank(self) -> int:
        return len(self.extents)

    def without(self, axes: Iterable[int]) -> _Space:
        """The same space with extent 1 along these axes."""
        axes = set(axes)
        space = _Space(self.step, {}, ())
        space.extents = {variable: 1 if axis in axes else n for axis, (variable, n) in enumerate(self.extents.items())}
        return space

    def place(self, index: Index) -> Array:
        """The value of a place everywhere in the space."""
        total: Array = np.full((1,) * self.rank, index.constant, np.int64)
        for atom, factor in index.terms:
            total = total + self._atom(atom) * factor
        return total

    def _atom(self, atom: Atom) -> Array:
        match atom:
            case Var():
                axis = list(self.extents).index(atom)
                shape = [1] * self.rank
                shape[axis] = self.extents[atom]
                return np.arange(self.extents[atom]).reshape(shape)
            case Owner():
                return self.step.owner[self.place(atom.edge)]
            case Clipped():
                return np.clip(self.place(atom.at), 0, atom.bound - 1)
            case Quotient():
                place = self.place(atom.at)
                return place % atom.by if atom.is_remainder else place // atom.by

    def value(self, expression: Expression) -> Array:
        """The value of an expression everywhere in the space, along the axes that it depends on."""
        if expression not in self.known:
            self.known[expression] = self._value(expression)
        return self.known[expression]

    def _value(self, expression: Expression) -> Array:
        dtype = numpy_dtype(expression.dtype)
        match expression:
            case Constant():
                return np.full((1,) * self.rank, expression.value, dtype)
            case Load():
                array, column = self.step.arrays[expression.array], self.place(expression.column)
                return array[column] if expression.row is None else array[self.place(expression.row), column]
            case Draw():
                row, column = self.place(expression.row), self.place(expression.column)
                return uniform(self.step.seed, expression.stream, row, column).astype(dtype)
            case Position():
                return self.place(expression.at).astype(dtype)
            case Cast():
                return self.value(expression.operand).astype(dtype)
            case Choose():
                place = self.place(expression.at)
                result: Array = np.zeros((1,) * self.rank, dtype)
                for branch in expression.branches:
                    result = np.where((place >= branch.start) & (place < branch.stop), self.value(branch.value), result)
                return result
            case Reduce():
                inner = _Space(self.step, self.extents, expression.over)
                axes = tuple(range(self.rank, inner.rank))
                shape = [n if place in axes else 1 for place, n in enumerate(inner.shape)]
                value = inner.value(expression.value)
                value = np.broadcast_to(value, np.broadcast_shapes(value.shape, tuple(shape)))
                total = _REDUCTIONS[expression.operation](value, axis=axes)
                return np.asarray(total).astype(dtype)
            case Apply():
                operands = [self.value(operand) for operand in expression.operands]
                return np.asarray(NUMPY[expression.operation](*operands)).astype(dtype)
        raise TypeError(expression)
