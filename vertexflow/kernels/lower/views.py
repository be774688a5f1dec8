"""Where an element of a view lies in the value that it views."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from ...graph.symbolic.nodes import has_rows
from ...graph.symbolic.roles import ALL_SLOTS, Gather, is_over_edges, role_of
from ..operations import SPLIT, Unsupported, first_of_piece, integer, integers
from .index import ANY, ZERO, Index, index_at, linear, unravel

if TYPE_CHECKING:
    from ...graph.symbolic.trace import Trace

aten = torch.ops.aten

Coords = tuple[Index, ...]


def through_view(node: fx.Node, coords: Coords) -> tuple[fx.Node, Coords] | None:
    """For a view, the value that it views and the coordinates there of its element at `coords`; None for other operations."""
    target = node.target
    if target is operator.getitem and node.all_input_nodes[0].target is SPLIT:
        split = node.all_input_nodes[0]
        return split.all_input_nodes[0], _shifted(coords, integer(split, 2), first_of_piece(node))
    if target is aten.clone.default:
        return node.all_input_nodes[0], coords
    if target not in VIEWS:
        return None
    source = node.all_input_nodes[0]
    return source, VIEWS[target](node, source, coords)


def extents(node: fx.Node) -> list[int]:
    """The shape of a value, with `ANY` times the entries of a vertex as the extent of the dimension of its rows."""
    return [size if isinstance(size, int) else ANY * node.meta["rows"].per_vertex for size in node.meta["val"].shape]


def vertex_shape(node: fx.Node) -> list[int]:
    """The shape of one vertex's (or edge's) part of a value. The dimension of rows is dropped, unless a vertex has several
    entries there, whose number is then its extent."""
    layout, shape = node.meta["rows"], extents(node)
    return [*shape[: layout.dim], *([layout.per_vertex] if layout.per_vertex > 1 else []), *shape[layout.dim + 1 :]]


def width(node: fx.Node) -> int:
    """How many elements a row of a value has; for a value without rows, how many elements it has."""
    return math.prod(vertex_shape(node) if has_rows(node) else extents(node))


def stride(node: fx.Node, trace: Trace) -> int:
    """The distance from one row of a value to the next in memory: a gathered slot is columns of a buffer of all slots, and what
    is gathered at a position of arcs of a buffer of all positions."""
    role, columns = role_of(node), 1
    if isinstance(role, Gather) and role.slot != ALL_SLOTS:
        columns = trace.side_by_side if is_over_edges(role.slot) else trace.num_slots
    return width(node) * columns


def split_off(node: fx.Node, coords: Coords) -> tuple[Index, Coords]:
    """The vertex (or edge) of the element at `coords`, and the element's coordinates in that vertex's part of the value."""
    dim, count = node.meta["rows"].dim, node.meta["rows"].per_vertex
    place = coords[dim]
    inner = () if count == 1 else (place % count,)
    return place // count, (*coords[:dim], *inner, *coords[dim + 1 :])


def put_back(node: fx.Node, row: Index, inner: Coords) -> Coords:
    """The inverse of `split_off`: the coordinates of an element from its vertex and its coordinates in that vertex's part."""
    dim, count = node.meta["rows"].dim, node.meta["rows"].per_vertex
    if count == 1:
        return (*inner[:dim], row, *inner[dim:])
    return (*inner[:dim], row * count + inner[dim], *inner[dim + 1 :])


def broadcast(node: fx.Node, coords: Coords) -> Coords:
    """The coordinates in an operand of the element that broadcasts to the element at `coords` of the result."""
    shape = node.meta["val"].shape
    aligned = coords[len(coords) - len(shape) :]
    return tuple(
        ZERO if isinstance(size, int) and size == 1 else place for size, place in zip(shape, aligned, strict=True)
    )


def _slice(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    dim, start, step = integer(node, 1), integer(node, 2), integer(node, 4)
    return (*coords[:dim], coords[dim] * step + start, *coords[dim + 1 :])


def _select(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    dim = integer(node, 1)
    return (*coords[:dim], index_at(integer(node, 2)), *coords[dim:])


def _unsqueeze(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    dim = integer(node, 1)
    return (*coords[:dim], *coords[dim + 1 :])


def _squeeze(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    remaining, dims = iter(coords), integers(node, 1)
    return tuple(ZERO if dim in dims else next(remaining) for dim in range(source.meta["val"].dim()))


def _expand(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    return broadcast(source, coords)


def _permute(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    order = integers(node, 1)
    return tuple(coords[order.index(dim)] for dim in range(len(coords)))


def _reshape(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    return unravel(linear(coords, extents(node)), extents(source))


def _flip(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    shape, dims = extents(source), integers(node, 1)
    if any(shape[dim] >= ANY for dim in dims):
        raise Unsupported(f"{node.name} turns rows around")
    return tuple(place * -1 + (shape[dim] - 1) if dim in dims else place for dim, place in enumerate(coords))


def _diagonal(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    offset, first_dim, second_dim = (integer(node, position) for position in (1, 2, 3))
    along, rest = coords[-1], iter(coords[:-1])
    places = {first_dim: along + max(-offset, 0), second_dim: along + max(offset, 0)}
    return tuple(places[dim] if dim in places else next(rest) for dim in range(source.meta["val"].dim()))


def _unfold(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    """Windows along a dimension; the last dimension of the view counts the elements of a window."""
    dim, step = integer(node, 1), integer(node, 3)
    return (*coords[:dim], coords[dim] * step + coords[-1], *coords[dim + 1 : -1])


def _shifted(coords: Coords, dim: int, by: int) -> Coords:
    return (*coords[:dim], coords[dim] + by, *coords[dim + 1 :])


VIEWS: dict[Any, Callable[[fx.Node, fx.Node, Coords], Coords]] = {
    aten.slice.Tensor: _slice, aten.select.int: _select, aten.unsqueeze.default: _unsqueeze, aten.squeeze.dims: _squeeze,
    aten.expand.default: _expand, aten.permute.default: _permute, aten.reshape.default: _reshape, aten.flip.default: _flip,
    aten.diagonal.default: _diagonal, aten.unfold.default: _unfold,
}  # fmt: skip
