"""Elements of the values of a graph as scalar expressions.

Views cost nothing: their elements are elements of another value. Concatenations and padding choose between places. Other values
that are not in memory are computed where they are needed.
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
from ..operations import CONSTANT, PADS, PRODUCTS, SEGMENTS, SPLIT, Unsupported, integer, line_of
from .index import ZERO, Index, Owner, Var, index_of, linear
from .pointwise import POINTWISE
from .scalar import (
    DTYPES,
    FLOATS,
    HALVES,
    Branch,
    Choose,
    Draw,
    Expression,
    Load,
    Position,
    Reduce,
    apply,
    constant,
    in_dtype,
    wide,
)
from .views import VIEWS, Coords, broadcast, extents, split_off, through_view, vertex_shape

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
    """The operations whose results have expressions."""
    tables = (POINTWISE, VIEWS, _REDUCTIONS, _JOINS, _DRAWS, _EMPTY, PADS, PRODUCTS, ARANGES)
    single_targets = (CONSTANT, _COPY, SPLIT, segments.EXPAND, aten.bmm.default, aten.clone.default)
    return frozenset((*single_targets, *(target for table in tables for target in table)))


def is_known(node: fx.Node) -> bool:
    """Whether the elements of a node's value have expressions."""
    if node.target is operator.getitem:
        return node.all_input_nodes[0].target is SPLIT
    return node.target in known_targets()


def is_reduction(node: fx.Node) -> bool:
    """Whether each element of the result is a sum, maximum or the like over a dimension that the result does not have."""
    return node.target in _REDUCTIONS or node.target in PRODUCTS or node.target is aten.bmm.default


class Elements:
    """The elements of the values of one graph; those of the values `in_memory` are loaded."""

    def __init__(self, in_memory: Collection[fx.Node]) -> None:
        self.in_memory = in_memory
        self.known: dict[tuple[fx.Node, Coords], Expression] = {}
        self.num_variables = 0

    def element(self, node: fx.Node, coords: Coords) -> Expression:
        """The element of a value at `coords`: the same expression at every call."""
        key = (node, coords)
        if key not in self.known:
            self.known[key] = self._element(node, coords)
        return self.known[key]

    def variable(self, extent: int) -> Index:
        """A new variable with values in [0, extent), as a place."""
        if extent == 1:
            return ZERO
        self.num_variables += 1
        return index_of(Var(f"r{self.num_variables}", extent))

    def _element(self, node: fx.Node, coords: Coords) -> Expression:
        if 0 in extents(node):  # no loop reaches it
            return constant(0, node.meta["val"].dtype)
        if node in self.in_memory:
            return load(node, coords)
        view = through_view(node, coords)
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
        raise Unsupported(f"{node.name} is made by {target}{line_of(node)}")

    def reduction(self, node: fx.Node, coords: Coords) -> Expression:
        """An element of a reduction or of a matrix product as an expression in elements of the operands."""
        if node.target not in _REDUCTIONS:
            return self._product(node, coords)
        source = node.all_input_nodes[0]
        dim_argument: Any = node.args[1]
        dims = [dim_argument] if isinstance(dim_argument, int) else sorted(dim_argument)
        rest = iter([place for dim, place in enumerate(coords) if dim not in dims] if node.args[2] else coords)
        places = {dim: self.variable(extents(source)[dim]) for dim in dims}
        source_coords = tuple(places[dim] if dim in places else next(rest) for dim in range(source.meta["val"].dim()))
        dtype = node.meta["val"].dtype
        value = in_dtype(self.element(source, source_coords), wide(dtype))
        return in_dtype(_reduce(_REDUCTIONS[node.target], list(places.values()), value), dtype)

    def _product(self, node: fx.Node, coords: Coords) -> Expression:
        """An element of a matrix product, perhaps of batches of matrices."""
        if node.target is aten.addmm.default and node.kwargs:
            raise Unsupported(f"{node.name} adds more than a bias")
        a, b = cast("tuple[fx.Node, fx.Node]", node.args[-2:])
        *front, row, column = coords
        inner, dtype = self.variable(extents(a)[-1]), node.meta["val"].dtype
        factors = self.element(a, (*front, row, inner)), self.element(b, (*front, inner, column))
        total = _reduce("sum", [inner], apply("mul", *(in_dtype(factor, wide(dtype)) for factor in factors)))
        return in_dtype(self.with_bias(node, total, coords), dtype)

    def with_bias(self, product: fx.Node, total: Expression, coords: Coords) -> Expression:
        """The element `total` of a product, plus the element of its bias if it has one."""
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
        place, start, branches = coords[dim], 0, []
        for operand in operands(node):
            extent = 1 if is_stack else extents(operand)[dim]
            if place.most >= start and place.least < start + extent:
                inner = () if is_stack else ((place + -start).clipped(extent),)
                value = in_dtype(self.element(operand, (*coords[:dim], *inner, *coords[dim + 1 :])), dtype)
                branches.append(Branch(start, start + extent, value))
            start += extent
        return _choose(place, branches, dtype)

    def _padded(self, node: fx.Node, coords: Coords) -> Expression:
        """An element of a value that is zero outside of a slice, which may have a step."""
        dim, start, source = integer(node, 2), integer(node, 3), node.all_input_nodes[0]
        place, dtype = coords[dim], node.meta["val"].dtype
        if node.target is aten.select_backward.default:
            value = self.element(source, (*coords[:dim], *coords[dim + 1 :]))
            return _choose(place, [Branch(start, start + 1, value)], dtype)
        stop, step, extent = integer(node, 4), integer(node, 5), extents(source)[dim]
        if place.most < start or place.least >= stop or not extent:
            return constant(0, dtype)
        inside = (place + -start).clipped(stop - start)
        value = self.element(source, (*coords[:dim], (inside // step).clipped(extent), *coords[dim + 1 :]))
        if step != 1:
            value = _choose(inside % step, [Branch(0, 1, value)], dtype)
        return _choose(place, [Branch(start, stop, value)], dtype)


def load(node: fx.Node, coords: Coords) -> Load:
    """The element at `coords` of a value in memory, where the rows of vertices (or edges) lie one after the other."""
    dtype = node.meta["val"].dtype
    if not has_rows(node):
        return Load(node, None, linear(coords, extents(node)), dtype)
    row, inner = split_off(node, coords)
    if not row.is_row:
        raise Unsupported(f"{node.name} is read at {row}, which could not be told to be the vertex itself")
    return Load(node, row, linear(inner, vertex_shape(node)), dtype)


def computed_in(node: fx.Node) -> torch.dtype:
    """The dtype to which the operands of a pointwise operation are converted."""
    dtype: torch.dtype = node.meta["val"].dtype
    if dtype != torch.bool:
        return dtype
    operand_values = [argument.meta["val"] if isinstance(argument, fx.Node) else argument for argument in node.args]
    numbers = (x for x in operand_values if isinstance(x, (Tensor, int, float)))
    return elementwise_dtypes(*numbers, type_promotion_kind=_PROMOTION)[0]


def check_known(node: fx.Node, part: str) -> None:
    """Raise `Unsupported` for an operation, or a dtype, that loops do not have, and for a placeholder that they cannot read;
    name the stream of random numbers that an operation of this part draws."""
    for source in (node, *node.all_input_nodes):
        value = source.meta.get("val")
        if isinstance(value, Tensor) and value.dtype not in DTYPES | HALVES:
            raise Unsupported(f"{source.name} is of {str(value.dtype)[6:]}")
    node.meta["stream"] = f"{part}/{node.name}"
    if node.op == "placeholder":
        check_rows(node, node)
    elif not is_known(node) and node.target not in SEGMENTS:
        raise Unsupported(f"{node.name} is made by {node.target}{line_of(node)}")


def check_rows(named: fx.Node, node: fx.Node) -> None:
    """Raise `Unsupported` for `node`, on behalf of `named`, if the elements of one vertex (or edge) cannot lie side by side."""
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
        linear(inner, vertex_shape(node)),
        node.meta["val"].dtype,
    )


def _reduce(operation: str, places: list[Index], value: Expression) -> Expression:
    variables = tuple(variable for place in places for variable in place.variables())
    return Reduce(operation, variables, value) if variables else value


def _choose(place: Index, branches: list[Branch], dtype: torch.dtype) -> Expression:
    if len(branches) == 1 and place.least >= branches[0].start and place.most < branches[0].stop:
        return branches[0].value
    return Choose(place, tuple(branches), dtype)
