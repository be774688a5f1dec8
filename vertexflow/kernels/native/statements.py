"""The stages of a part as statements: loops over the elements of rows, products, sums."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import fx

from ...graph import segments
from ...graph.symbolic.nodes import has_rows
from ..lower.elements import Elements, load
from ..lower.index import ZERO, Atom, Index, Var, index_at, index_of, linear, substituted, unravel
from ..lower.loops import (
    Accumulate,
    Columns,
    Elementwise,
    Matrix,
    Nest,
    Outer,
    Over,
    Product,
    Statement,
    Store,
    SumOfRows,
    expressions,
    over_of,
)
from ..lower.scalar import Load, Reduce, in_dtype
from ..lower.views import Coords, extents, put_back, vertex_shape
from ..operations import Unsupported, line_of
from .plan import ROW, Placement, Plan, Stage, columns, factors, flipped, holder, in_order, is_join, stored_as

aten = torch.ops.aten

FEW = 8  # a loop over fewer elements is not worth it


def statements_of(plan: Plan) -> list[list[Statement]]:
    """All statements of a part in order, in groups: up to the first call of PyTorch, up to the next one, and so on.

    Raises:
        Unsupported: a value does not lie in memory as a statement could read it; the message says which.
    """
    in_memory = {node for node in plan.part.graph.nodes if node.op == "placeholder"}
    groups: list[list[Statement]] = [[]]
    for stage in plan.stages:
        groups[-1] += _of_stage(stage, in_memory)
        if stage.call is not None:
            in_memory.update(stage.call.outputs)
            groups.append([])
    return groups


def _of_stage(stage: Stage, in_memory: set[fx.Node]) -> Iterator[Statement]:
    """The statements of a stage; adds what they compute to `in_memory` as soon as others may read it."""
    placements = [placement for node in stage.stores for placement in stored_as(node)]
    placements += [Placement(value, target) for value, target in stage.copies]
    for over in (Over.ELEMENTS, Over.EDGES, Over.ROWS):
        looped = [placement for placement in placements if over_of(placement.value) is over]
        if looped:
            yield _loop(over, looped, Elements(frozenset(in_memory)))
    in_memory.update(stage.stores)
    for node in stage.products:
        yield from _products(node, in_memory)
    for node in stage.outers:
        yield from _outers(node, in_memory)
    for node in stage.sums:
        yield _sum_of_rows(node, Elements(frozenset(in_memory)))
    in_memory.update([*stage.products, *stage.outers])
    for node in stage.segments:
        yield _segment(node, Elements(frozenset(in_memory)))
    for node in stage.reductions:
        yield _accumulate(node, Elements(frozenset(in_memory)))
    in_memory.update([*stage.segments, *stage.reductions, *stage.sums])


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(vertex_shape(node) if has_rows(node) else extents(node))


def _variables(shape: tuple[int, ...], name: str = "j") -> tuple[Coords, tuple[Var, ...]]:
    """A place for each dimension of a shape, and the variables in these places."""
    places = tuple(index_of(Var(f"{name}{dim}", extent)) if extent != 1 else ZERO for dim, extent in enumerate(shape))
    return places, tuple(variable for place in places for variable in place.variables())


def _coords(node: fx.Node, row: Index, inner: Coords) -> Coords:
    return put_back(node, row, inner) if has_rows(node) else inner


def _loop(over: Over, placements: list[Placement], elements: Elements) -> Elementwise:
    """One pass over rows; in it, nested loops over elements for all values of a shape."""
    by_shape: dict[tuple[int, ...], list[Placement]] = {}
    for placement in placements:
        if 0 not in (shape := _shape(_looped(placement))):
            by_shape.setdefault(shape, []).append(placement)
    nests = []
    for shape, stored in sorted(by_shape.items(), key=lambda entry: str(entry[0])):
        places, variables = _variables(shape)
        nest = Nest(variables, tuple(_store(placement, places, shape, elements) for placement in stored))
        split = _split(variables, nest)
        if split:
            places = tuple(substituted(place, split.get) for place in places)
            stores = tuple(_store(placement, places, shape, elements) for placement in stored)
            nest = Nest(tuple(variable for place in places for variable in place.variables()), stores)
        nests.append(nest)
    return Elementwise(over, ROW, tuple(nests))


def _looped(placement: Placement) -> fx.Node:
    """The value over whose elements a loop goes to write a placement: one with the same order of elements, if there is one."""
    value, target = placement.value, placement.target
    if value.meta["val"].dim() == target.meta["val"].dim() == 2 or not is_join(target):
        return in_order(value)
    return value


def _store(placement: Placement, places: Coords, shape: tuple[int, ...], elements: Elements) -> Store:
    value, target = _looped(placement), placement.target
    coords = _coords(value, index_of(ROW), places)
    if is_join(target) and value is placement.value:
        shifted = (*coords[: placement.dim], coords[placement.dim] + placement.start, *coords[placement.dim + 1 :])
        column = load(target, shifted).column
    else:
        column = linear(places, shape) + placement.start
    return Store(target, column, in_dtype(elements.element(value, coords), target.meta["val"].dtype))


def _split(variables: tuple[Var, ...], nest: Nest) -> dict[Atom, Index]:
    """Split a variable in two where its quotients are read, as with the columns of attention heads: places are then linear."""
    loop = Elementwise(Over.ROWS, ROW, (nest,))
    places = [place for expression in expressions(loop) for place in expression.places]
    quotients = [quotient for place in places for quotient in place.quotients()]
    split: dict[Atom, Index] = {}
    for variable in variables:
        divisors = {quotient.by for quotient in quotients if variable in quotient.at.variables()}
        widths = [by for by in divisors if FEW <= by < variable.bound and variable.bound % by == 0]
        if widths:
            width = max(widths)
            outer, inner = Var(f"{variable}_", variable.bound // width), Var(variable.name, width)
            split[variable] = index_of(outer) * width + index_of(inner)
    return split


def _products(node: fx.Node, in_memory: set[fx.Node]) -> Iterator[Product]:
    """A product with a parameter, or a product for each entry in front of the rows."""
    a, b = factors(node)
    bias = _bias(node, in_memory) if node.target is aten.addmm.default else None
    for front in _fronts(node):
        out, repeat = _in_memory(node, node, front), node.meta["rows"].per_vertex
        yield Product(over_of(node), repeat, out, _read(a, front, in_memory), _matrix(b, front, in_memory), bias)


def _fronts(product: fx.Node) -> list[tuple[int, ...]]:
    """The places in the dimension in front of the matrices of a product; a single empty one if there is no such dimension."""
    return [(place,) for place in range(extents(product)[0])] if product.target is aten.bmm.default else [()]


def _bias(node: fx.Node, in_memory: set[fx.Node]) -> Columns:
    bias = cast(fx.Node, node.args[0])
    place = Elements(in_memory).element(bias, (index_of(Var("j", extents(node)[1])),)) if not has_rows(bias) else None
    is_plain = isinstance(place, Load) and extents(bias) == extents(node)[1:] and len(place.column.terms) == 1
    if node.kwargs or not is_plain or cast(Load, place).column.terms[0][1] != 1:
        raise Unsupported(f"{node.name} adds more than a bias")
    return Columns(cast(Load, place).array, cast(Load, place).column.constant)


def _read(node: fx.Node, front: tuple[int, ...], in_memory: set[fx.Node]) -> Columns:
    """The columns in memory at which a product reads the rows of an operand."""
    return _in_memory(node, holder(node), front, in_memory)


def _in_memory(
    node: fx.Node, holder_node: fx.Node, front: tuple[int, ...], in_memory: set[fx.Node] | None = None
) -> Columns:
    place = columns(node, *front, through_views=holder_node is not node)
    if place is None or place.array is not holder_node or (in_memory is not None and holder_node not in in_memory):
        raise Unsupported(f"a product reads {node.name}, which does not lie row by row{line_of(node)}")
    return place


def _matrix(node: fx.Node, front: tuple[int, ...], in_memory: set[fx.Node]) -> Matrix:
    """The matrix in a parameter that is the right factor of a product."""
    k, n = extents(node)[-2:]
    down, across = Var("k", k), Var("n", n)
    place = Elements(in_memory).element(node, (*map(index_at, front), index_of(down), index_of(across)))
    if isinstance(place, Load) and place.row is None:
        factor = dict(place.column.terms)
        first, is_whole = place.column.constant, set(factor) <= {down, across}
        by_k, by_n = factor.get(down, n if k == 1 else 0), factor.get(across, 1 if n == 1 else 0)
        if is_whole and (by_k, by_n) == (n, 1):
            return Matrix(place.array, first, k, n, transposed=False)
        if is_whole and (by_k, by_n) == (1, k):
            return Matrix(place.array, first, k, n, transposed=True)
    raise Unsupported(f"a product reads {node.name}, which does not lie as parameters do{line_of(node)}")


def _outers(node: fx.Node, in_memory: set[fx.Node]) -> Iterator[Outer]:
    """A product that sums over rows, or such a product for each entry in front of the result."""
    a, b = factors(node)
    a = flipped(a)
    n, k = extents(node)[-2:]
    for number, front in enumerate(_fronts(node)):
        out, repeat = Columns(node, number * n * k), a.meta["rows"].per_vertex
        yield Outer(over_of(a), repeat, out, _read(a, front, in_memory), n, _read(b, front, in_memory), k)


def _sum_of_rows(node: fx.Node, elements: Elements) -> SumOfRows:
    source, dims = node.all_input_nodes[0], cast("list[int]", node.args[1])
    shape, layout = extents(source), source.meta["rows"]
    free_dims = [dim for dim in range(len(shape)) if dim not in dims]
    column = Var("j", math.prod(shape[dim] for dim in free_dims))
    places = dict(
        zip(
            free_dims,
            unravel(index_of(column) if column.bound > 1 else ZERO, [shape[dim] for dim in free_dims]),
            strict=True,
        )
    )
    reduced_extents = {dim: shape[dim] if dim != layout.dim else layout.per_vertex for dim in dims}
    inner, reduced = _variables(tuple(reduced_extents.values()), "r")
    places.update(zip(reduced_extents, inner, strict=True))
    if layout.per_vertex == 1:
        del places[layout.dim]
    coords = put_back(source, index_of(ROW), tuple(places[dim] for dim in sorted(places)))
    value = in_dtype(elements.element(source, coords), node.meta["val"].dtype)
    return SumOfRows(over_of(source), ROW, reduced, column, node, value)


def _segment(node: fx.Node, elements: Elements) -> Accumulate:
    """The sum or maximum over the edges of each row."""
    source, shape = node.all_input_nodes[0], _shape(node)
    places, free = _variables(shape)
    edge = Var("e")
    operation = "sum" if node.target is segments.SEGMENT_SUM else "max"
    value = elements.element(source, _coords(source, index_of(edge), places))
    return Accumulate(Over.ROWS, ROW, free, (edge,), operation, Store(node, linear(places, shape), value))


def _accumulate(node: fx.Node, elements: Elements) -> Accumulate:
    """A reduction over elements of each row, or a product of two matrices of a row."""
    shape = _shape(node)
    places, free = _variables(shape)
    value: Any = elements.reduction(node, _coords(node, index_of(ROW), places))
    column = linear(places, shape)
    if not isinstance(value, Reduce):  # a reduction of a single element
        return Accumulate(over_of(node), ROW, free, (Var("r", 1),), "sum", Store(node, column, value))
    return Accumulate(over_of(node), ROW, free, value.over, value.operation, Store(node, column, value.value))
