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
from ..operations import Unsupported
from .plan import ROW, Plan, Stage, Stored, columns, factors, flipped, holder, in_order, is_join, stored_as

aten = torch.ops.aten

FEW = 8  # elements, of which a loop of its own is not worth it


def statements_of(plan: Plan) -> list[list[Statement]]:
    """All statements of a part, in their order: those before the first call of PyTorch, those up to the next one, and so on.

    Raises:
        Unsupported: a value does not lie where a statement could read it; the message says which.
    """
    there = {node for node in plan.part.graph.nodes if node.op == "placeholder"}
    groups: list[list[Statement]] = [[]]
    for stage in plan.stages:
        groups[-1] += _of_stage(stage, there)
        if stage.call is not None:
            there.update(stage.call.outputs)
            groups.append([])
    return groups


def _of_stage(stage: Stage, there: set[fx.Node]) -> Iterator[Statement]:
    """The statements of a stage; what they make is `there` as soon as others may read it."""
    pieces = [piece for node in stage.stores for piece in stored_as(node)]
    pieces += [Stored(value, target) for value, target in stage.copies]
    for over in (Over.ELEMENTS, Over.EDGES, Over.ROWS):
        chosen = [piece for piece in pieces if over_of(piece.value) is over]
        if chosen:
            yield _loop(over, chosen, Elements(frozenset(there)))
    there.update(stage.stores)
    for node in stage.products:
        yield from _products(node, there)
    for node in stage.outers:
        yield from _outers(node, there)
    for node in stage.sums:
        yield _sum_of_rows(node, Elements(frozenset(there)))
    there.update([*stage.products, *stage.outers])
    for node in stage.segments:
        yield _segment(node, Elements(frozenset(there)))
    for node in stage.reductions:
        yield _accumulate(node, Elements(frozenset(there)))
    there.update([*stage.segments, *stage.reductions, *stage.sums])


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(vertex_shape(node) if has_rows(node) else extents(node))


def _variables(shape: tuple[int, ...], name: str = "j") -> tuple[Coords, tuple[Var, ...]]:
    """A place for each dimension, and the variables that they are."""
    places = tuple(index_of(Var(f"{name}{dim}", extent)) if extent != 1 else ZERO for dim, extent in enumerate(shape))
    return places, tuple(variable for place in places for variable in place.variables())


def _coords(node: fx.Node, row: Index, inner: Coords) -> Coords:
    return put_back(node, row, inner) if has_rows(node) else inner


def _loop(over: Over, pieces: list[Stored], elements: Elements) -> Elementwise:
    """One pass over rows; in it, loops over elements for all values of one shape."""
    by_shape: dict[tuple[int, ...], list[Stored]] = {}
    for piece in pieces:
        if 0 not in (shape := _shape(_looped(piece))):
            by_shape.setdefault(shape, []).append(piece)
    nests = []
    for shape, stored in sorted(by_shape.items(), key=lambda one: str(one[0])):
        places, variables = _variables(shape)
        nest = Nest(variables, tuple(_store(piece, places, shape, elements) for piece in stored))
        split = _split(variables, nest)
        if split:
            places = tuple(substituted(place, split.get) for place in places)
            stores = tuple(_store(piece, places, shape, elements) for piece in stored)
            nest = Nest(tuple(variable for place in places for variable in place.variables()), stores)
        nests.append(nest)
    return Elementwise(over, ROW, tuple(nests))


def _looped(piece: Stored) -> fx.Node:
    """The value over whose elements a loop goes: one that lies in the same order, where that is known."""
    value, target = piece.value, piece.target
    if value.meta["val"].dim() == target.meta["val"].dim() == 2 or not is_join(target):
        return in_order(value)
    return value


def _store(piece: Stored, places: Coords, shape: tuple[int, ...], elements: Elements) -> Store:
    value, target = _looped(piece), piece.target
    coords = _coords(value, index_of(ROW), places)
    if is_join(target) and value is piece.value:
        shifted = (*coords[: piece.dim], coords[piece.dim] + piece.start, *coords[piece.dim + 1 :])
        column = load(target, shifted).column
    else:
        column = linear(places, shape) + piece.start
    return Store(target, column, in_dtype(elements.element(value, coords), target.meta["val"].dtype))


def _split(variables: tuple[Var, ...], nest: Nest) -> dict[Atom, Index]:
    """Two variables for one whose quotients are read, as the columns of heads are: then neighbours lie beside each other."""
    loop = Elementwise(Over.ROWS, ROW, (nest,))
    places = [place for expression in expressions(loop) for place in expression.places]
    quotients = [quotient for place in places for quotient in place.quotients()]
    split: dict[Atom, Index] = {}
    for variable in variables:
        asked = {quotient.by for quotient in quotients if variable in quotient.at.variables()}
        widths = [by for by in asked if FEW <= by < variable.bound and variable.bound % by == 0]
        if widths:
            width = max(widths)
            outer, inner = Var(f"{variable}_", variable.bound // width), Var(variable.name, width)
            split[variable] = index_of(outer) * width + index_of(inner)
    return split


def _products(node: fx.Node, there: set[fx.Node]) -> Iterator[Product]:
    """A product with a parameter, or one for each entry in front of the rows."""
    a, b = factors(node)
    bias = _bias(node, there) if node.target is aten.addmm.default else None
    for front in _fronts(node):
        out, repeat = _in_memory(node, node, front), node.meta["rows"].per_vertex
        yield Product(over_of(node), repeat, out, _read(a, front, there), _matrix(b, front, there), bias)


def _fronts(product: fx.Node) -> list[tuple[int, ...]]:
    """The places in the dimension in front of matrices; one where there is none."""
    return [(place,) for place in range(extents(product)[0])] if product.target is aten.bmm.default else [()]


def _bias(node: fx.Node, there: set[fx.Node]) -> Columns:
    bias = cast(fx.Node, node.args[0])
    place = Elements(there).element(bias, (index_of(Var("j", extents(node)[1])),)) if not has_rows(bias) else None
    is_plain = isinstance(place, Load) and extents(bias) == extents(node)[1:] and len(place.column.terms) == 1
    if node.kwargs or not is_plain or cast(Load, place).column.terms[0][1] != 1:
        raise Unsupported(f"{node.name} adds more than a bias")
    return Columns(cast(Load, place).array, cast(Load, place).column.constant)


def _read(node: fx.Node, front: tuple[int, ...], there: set[fx.Node]) -> Columns:
    """Where a product reads the rows of an operand."""
    return _in_memory(node, holder(node), front, there)


def _in_memory(node: fx.Node, held: fx.Node, front: tuple[int, ...], there: set[fx.Node] | None = None) -> Columns:
    place = columns(node, *front, through_views=held is not node)
    if place is None or place.array is not held or (there is not None and held not in there):
        raise Unsupported(f"a product reads {node.name}, which does not lie row by row")
    return place


def _matrix(node: fx.Node, front: tuple[int, ...], there: set[fx.Node]) -> Matrix:
    """The parameter that is a product's right side."""
    k, n = extents(node)[-2:]
    down, across = Var("k", k), Var("n", n)
    place = Elements(there).element(node, (*map(index_at, front), index_of(down), index_of(across)))
    if isinstance(place, Load) and place.row is None:
        factor = dict(place.column.terms)
        first, is_whole = place.column.constant, set(factor) <= {down, across}
        by_k, by_n = factor.get(down, n if k == 1 else 0), factor.get(across, 1 if n == 1 else 0)
        if is_whole and (by_k, by_n) == (n, 1):
            return Matrix(place.array, first, k, n, transposed=False)
        if is_whole and (by_k, by_n) == (1, k):
            return Matrix(place.array, first, k, n, transposed=True)
    raise Unsupported(f"a product reads {node.name}, which does not lie as parameters do")


def _outers(node: fx.Node, there: set[fx.Node]) -> Iterator[Outer]:
    """A product that sums over rows, or one for each entry in front of the result."""
    a, b = factors(node)
    a = flipped(a)
    n, k = extents(node)[-2:]
    for number, front in enumerate(_fronts(node)):
        out, repeat = Columns(node, number * n * k), a.meta["rows"].per_vertex
        yield Outer(over_of(a), repeat, out, _read(a, front, there), n, _read(b, front, there), k)


def _sum_of_rows(node: fx.Node, elements: Elements) -> SumOfRows:
    source, dims = node.all_input_nodes[0], cast("list[int]", node.args[1])
    shape, layout = extents(source), source.meta["rows"]
    kept = [dim for dim in range(len(shape)) if dim not in dims]
    column = Var("j", math.prod(shape[dim] for dim in kept))
    places = dict(
        zip(kept, unravel(index_of(column) if column.bound > 1 else ZERO, [shape[dim] for dim in kept]), strict=True)
    )
    others = {dim: shape[dim] if dim != layout.dim else layout.per_vertex for dim in dims}
    inner, summed = _variables(tuple(others.values()), "r")
    places.update(zip(others, inner, strict=True))
    if layout.per_vertex == 1:
        del places[layout.dim]
    coords = put_back(source, index_of(ROW), tuple(places[dim] for dim in sorted(places)))
    value = in_dtype(elements.element(source, coords), node.meta["val"].dtype)
    return SumOfRows(over_of(source), ROW, summed, column, node, value)


def _segment(node: fx.Node, elements: Elements) -> Accumulate:
    """A sum, or maximum, over the edges of each row."""
    source, shape = node.all_input_nodes[0], _shape(node)
    places, kept = _variables(shape)
    edge = Var("e")
    operation = "sum" if node.target is segments.SEGMENT_SUM else "max"
    value = elements.element(source, _coords(source, index_of(edge), places))
    return Accumulate(Over.ROWS, ROW, kept, (edge,), operation, Store(node, linear(places, shape), value))


def _accumulate(node: fx.Node, elements: Elements) -> Accumulate:
    """A reduction over some elements of each row, or a product of matrices of a row."""
    shape = _shape(node)
    places, kept = _variables(shape)
    value: Any = elements.reduction(node, _coords(node, index_of(ROW), places))
    column = linear(places, shape)
    if not isinstance(value, Reduce):  # of one element
        return Accumulate(over_of(node), ROW, kept, (Var("r", 1),), "sum", Store(node, column, value))
    return Accumulate(over_of(node), ROW, kept, value.over, value.operation, Store(node, column, value.value))
