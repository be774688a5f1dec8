"""What an element of a value is, and where it lies: an operation of the symbolic graph as a scalar expression.

Views cost nothing: they are other places in what they are of. Concatenations and padding are choices between places. All else
that is not in memory is computed where it is needed.
"""

from __future__ import annotations

import operator
import zlib
from collections.abc import Collection
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND, elementwise_dtypes

from ...graph import segments
from ...graph.symbolic.nodes import ARANGES, has_rows, operands
from ..operations import CONSTANT, PADS, PRODUCTS, SPLIT, Unsupported, integer
from .index import ZERO, Index, Owner, Var, linear, of
from .pointwise import POINTWISE
from .scalar import (
    DTYPES,
    FLOATS,
    HALVES,
    Choose,
    Draw,
    Expression,
    Load,
    Piece,
    Position,
    Reduce,
    apply,
    constant,
    in_dtype,
    wide,
)
from .views import VIEWS, Coords, broadcast, extents, moved, of_vertex, split_off

aten = torch.ops.aten

_PROMOTION = ELEMENTWISE_TYPE_PROMOTION_KIND.DEFAULT
_REDUCTIONS = {
    aten.sum.dim_IntList: "sum", aten.amax.default: "max", aten.amin.default: "min", aten.prod.dim_int: "prod",
    aten.any.dim: "max", aten.any.dims: "max", aten.all.dim: "min", aten.all.dims: "min",
}  # fmt: skip
_JOINS = {aten.cat.default, aten.stack.default}
_DRAWS = {aten.rand_like.default, aten.rand.default}
_COPY = aten._to_copy.default
_EMPTY = {aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default}


@cache
def known_targets() -> frozenset[Any]:
    """The operations that there are expressions for."""
    tables = (POINTWISE, VIEWS, _REDUCTIONS, _JOINS, _DRAWS, _EMPTY, PADS, PRODUCTS, ARANGES)
    others = (CONSTANT, _COPY, SPLIT, segments.EXPAND, aten.bmm.default, aten.clone.default)
    return frozenset((*others, *(target for table in tables for target in table)))


def is_known(node: fx.Node) -> bool:
    """Whether there is an expression for an operation."""
    if node.target is operator.getitem:
        return node.all_input_nodes[0].target is SPLIT
    return node.target in known_targets()


def is_reduction(node: fx.Node) -> bool:
    """Whether each element is made of several, in a dimension that the result has not."""
    return node.target in _REDUCTIONS or node.target in PRODUCTS or node.target is aten.bmm.default


class Elements:
    """Elements of the values of one graph; those of the values `there` lie in memory."""

    def __init__(self, there: Collection[fx.Node]) -> None:
        self.there = there
        self.known: dict[tuple[fx.Node, Coords], Expression] = {}
        self.num_variables = 0

    def element(self, node: fx.Node, coords: Coords) -> Expression:
        """The element at `coords`; the same expression whenever it is asked for."""
        key = (node, coords)
        if key not in self.known:
            self.known[key] = self._element(node, coords)
        return self.known[key]

    def variable(self, extent: int) -> Index:
        """The place that a new variable is, which has the values in [0, extent)."""
        if extent == 1:
            return ZERO
        self.num_variables += 1
        return of(Var(f"r{self.num_variables}", extent))

    def _element(self, node: fx.Node, coords: Coords) -> Expression:
        if 0 in extents(node):  # nobody asks for it in the end
            return constant(0, node.meta["val"].dtype)
        if node in self.there:
            return load(node, coords)
        view = moved(node, coords)
        if view is not None:
            return self.element(*view)
        target: Any = node.target
        dtype: torch.dtype = node.meta["val"].dtype
        if target is CONSTANT or target in _EMPTY:
            return constant(cast(float, node.args[1]) if target is CONSTANT else 0, dtype)
        if target is _COPY:
            return in_dtype(self.element(node.all_input_nodes[0], coords), dtype)
        if target is segments.EXPAND:
            return self.element(node.all_input_nodes[0], (Index(((Owner(coords[0]), 1),)), *coords[1:]))
        if target in ARANGES:
            return _position(node, coords[0])
        if target in _DRAWS:
            return _draw(node, coords)
        if target in _JOINS:
            return self._choice(node, coords)
        if target in PADS:
            return self._padded(node, coords)
        if is_reduction(node):
            return self.reduction(node, coords)
        if target in POINTWISE:
            return self._computed(node, coords)
        raise Unsupported(f"{node.name} is made by {target}")

    def reduction(self, node: fx.Node, coords: Coords) -> Expression:
        """The element of a sum, of a maximum and so on, or of a product of matrices, as what it is made of."""
        if node.target not in _REDUCTIONS:
            return self._product(node, coords)
        source = node.all_input_nodes[0]
        asked: Any = node.args[1]
        dims = [asked] if isinstance(asked, int) else sorted(asked)
        rest = iter([place for dim, place in enumerate(coords) if dim not in dims] if node.args[2] else coords)
        places = {dim: self.variable(extents(source)[dim]) for dim in dims}
        whole = tuple(places[dim] if dim in places else next(rest) for dim in range(source.meta["val"].dim()))
        dtype = node.meta["val"].dtype
        value = in_dtype(self.element(source, whole), wide(dtype))
        return in_dtype(_reduce(_REDUCTIONS[node.target], list(places.values()), value), dtype)

    def _product(self, node: fx.Node, coords: Coords) -> Expression:
        """Products of matrices, the first dimension of which may be many."""
        if node.target is aten.addmm.default and node.kwargs:
            raise Unsupported(f"{node.name} adds more than a bias")
        a, b = cast("tuple[fx.Node, fx.Node]", node.args[-2:])
        *front, row, column = coords
        inner, dtype = self.variable(extents(a)[-1]), node.meta["val"].dtype
        factors = self.element(a, (*front, row, inner)), self.element(b, (*front, inner, column))
        total = _reduce("sum", [inner], apply("mul", *(in_dtype(factor, wide(dtype)) for factor in factors)))
        return in_dtype(self.with_bias(node, total, coords), dtype)

    def with_bias(self, product: fx.Node, total: Expression, coords: Coords) -> Expression:
        """The element of a product, plus that of a bias if there is one."""
        if product.target is not aten.addmm.default:
            return total
        bias = cast(fx.Node, product.args[0])
        return apply("add", in_dtype(self.element(bias, broadcast(bias, coords)), total.dtype), total)

    def _computed(self, node: fx.Node, coords: Coords) -> Expression:
        dtype = wide(computed_in(node))

        def operand(argument: object) -> Any:
            if isinstance(argument, fx.Node):
                element = self.element(argument, broadcast(argument, coords))
                return (
                    element if node.target is aten.where.self and argument is node.args[0] else in_dtype(element, dtype)
                )
            if argument is None or isinstance(argument, str):
                return argument
            if not isinstance(argument, (bool, int, float)):
                raise Unsupported(f"{node.name} has an operand {argument!r}")
            return constant(argument, dtype)

        extra = {name: operand(value) for name, value in node.kwargs.items()}
        result = POINTWISE[node.target](*map(operand, node.args), **extra)
        return in_dtype(result, node.meta["val"].dtype)

    def _choice(self, node: fx.Node, coords: Coords) -> Expression:
        """An element of a concatenation, or of a stack."""
        dim, is_stack, dtype = integer(node, 1), node.target is aten.stack.default, node.meta["val"].dtype
        place, start, pieces = coords[dim], 0, []
        for operand in operands(node):
            extent = 1 if is_stack else extents(operand)[dim]
            if place.most >= start and place.least < start + extent:
                inner = () if is_stack else ((place + -start).clipped(extent),)
                value = in_dtype(self.element(operand, (*coords[:dim], *inner, *coords[dim + 1 :])), dtype)
                pieces.append(Piece(start, start + extent, value))
            start += extent
        return _choose(place, pieces, dtype)

    def _padded(self, node: fx.Node, coords: Coords) -> Expression:
        """An element of a value that is zero but for a slice, or for every so many of its elements."""
        dim, start, source = integer(node, 2), integer(node, 3), node.all_input_nodes[0]
        place, dtype = coords[dim], node.meta["val"].dtype
        if node.target is aten.select_backward.default:
            value = self.element(source, (*coords[:dim], *coords[dim + 1 :]))
            return _choose(place, [Piece(start, start + 1, value)], dtype)
        stop, step, extent = integer(node, 4), integer(node, 5), extents(source)[dim]
        if place.most < start or place.least >= stop or not extent:
            return constant(0, dtype)
        inside = (place + -start).clipped(stop - start)
        value = self.element(source, (*coords[:dim], (inside // step).clipped(extent), *coords[dim + 1 :]))
        if step != 1:
            value = _choose(inside % step, [Piece(0, 1, value)], dtype)
        return _choose(place, [Piece(start, stop, value)], dtype)


def load(node: fx.Node, coords: Coords) -> Load:
    """The element of a value that lies in memory, the vertices or edges that it has rows for one behind the other."""
    dtype = node.meta["val"].dtype
    if not has_rows(node):
        return Load(node, None, linear(coords, extents(node)), dtype)
    row, inner = split_off(node, coords)
    if not row.is_row:
        raise Unsupported(f"{node.name} is read at {row}, which could not be told to be the vertex itself")
    return Load(node, row, linear(inner, of_vertex(node)), dtype)


def computed_in(node: fx.Node) -> torch.dtype:
    """The dtype that the operands of a pointwise operation are brought to."""
    dtype: torch.dtype = node.meta["val"].dtype
    if dtype != torch.bool:
        return dtype
    given = [argument.meta["val"] if isinstance(argument, fx.Node) else argument for argument in node.args]
    numbers = (x for x in given if isinstance(x, (Tensor, int, float)))
    return elementwise_dtypes(*numbers, type_promotion_kind=_PROMOTION)[0]


def check_dtypes(node: fx.Node) -> None:
    """Refuse a value of a dtype that loops do not know.

    Raises:
        Unsupported: naming it.
    """
    value = node.meta.get("val")
    if isinstance(value, Tensor) and value.dtype not in DTYPES | HALVES:
        raise Unsupported(f"{node.name} is of {str(value.dtype)[6:]}")


def check_rows(named: fx.Node, node: fx.Node) -> None:
    """Refuse a value whose elements of one vertex, or edge, cannot lie one beside the other.

    Raises:
        Unsupported: naming it.
    """
    layout = node.meta.get("rows")
    if layout is not None and layout.per_vertex > 1 and any(extent != 1 for extent in extents(node)[: layout.dim]):
        raise Unsupported(f"{named.name} has several rows for a vertex in dimension {layout.dim}")


def _position(node: fx.Node, place: Index) -> Expression:
    numbers = [number for number in node.args if isinstance(number, (int, float))]
    start, step = (0, 1) if len(numbers) == 1 else (numbers[0], numbers[2] if len(numbers) > 2 else 1)
    if not isinstance(start, int) or not isinstance(step, int):
        raise Unsupported(f"{node.name} counts in fractions")
    return in_dtype(Position(place * step + start, torch.int64), node.meta["val"].dtype)


def _draw(node: fx.Node, coords: Coords) -> Draw:
    if not has_rows(node) or node.kwargs.get("generator") is not None or node.meta["val"].dtype not in FLOATS:
        raise Unsupported(f"{node.name} draws numbers in another way than one for each element of a row")
    row, inner = split_off(node, coords)
    return Draw(
        zlib.crc32(node.meta["stream"].encode()),
        node.meta["rows"].edges,
        row,
        linear(inner, of_vertex(node)),
        node.meta["val"].dtype,
    )


def _reduce(operation: str, places: list[Index], value: Expression) -> Expression:
    variables = tuple(variable for place in places for variable in place.variables())
    return Reduce(operation, variables, value) if variables else value


def _choose(place: Index, pieces: list[Piece], dtype: torch.dtype) -> Expression:
    if len(pieces) == 1 and place.least >= pieces[0].start and place.most < pieces[0].stop:
        return pieces[0].value
    return Choose(place, tuple(pieces), dtype)
