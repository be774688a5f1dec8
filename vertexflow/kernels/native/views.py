"""Where the element of a view lies in the value that it is of, as C++ expressions of its coordinates."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import torch
from torch import fx

from ...graph import segments
from ..operations import Unsupported, first_of_piece, has_rows, integer, integers, trailing

aten = torch.ops.aten

Coords = tuple[str, ...]


def moved(node: fx.Node, coords: Coords) -> tuple[fx.Node, Coords] | None:
    """For a view, the value that it is of, and where the element at `coords` is there; None for other operations."""
    target = node.target
    if target is segments.EXPAND:
        return node.all_input_nodes[0], (f"(owner[{coords[0]}] - start)", *coords[1:])
    if target is operator.getitem:
        split = node.all_input_nodes[0]
        return split.all_input_nodes[0], _shifted(coords, integer(split, 2), first_of_piece(node))
    if target is aten.clone.default:
        return node.all_input_nodes[0], coords
    if target not in _MOVES:
        return None
    source = node.all_input_nodes[0]
    return source, _MOVES[target](node, source, coords)


def _slice(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    dim, start, step = integer(node, 1), integer(node, 2), integer(node, 4)
    scaled = tuple(f"({c} * {step})" if at == dim and step != 1 else c for at, c in enumerate(coords))
    return _shifted(scaled, dim, start)


def _select(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    dim = integer(node, 1)
    return (*coords[:dim], str(integer(node, 2)), *coords[dim:])


def _unsqueeze(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    dim = integer(node, 1)
    return (*coords[:dim], *coords[dim + 1 :])


def _squeeze(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    rest, dims = iter(coords), integers(node, 1)
    return tuple("0" if dim in dims else next(rest) for dim in range(source.meta["val"].dim()))


def _expand(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    return broadcast(source, coords, len(coords))


def _permute(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    order = integers(node, 1)
    return tuple(coords[order.index(dim)] for dim in range(len(coords)))


def _reshape(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    rows = has_rows(node)
    if rows != has_rows(source):
        raise Unsupported(f"{node.name} reshapes away its rows")
    wanted, given = trailing(source), trailing(node)
    front, rest = (coords[:1], coords[1:]) if rows else ((), coords)
    flat = linear(rest, given)
    moved, stride = [], math.prod(wanted)
    for extent in wanted:
        stride //= max(extent, 1)
        moved.append("0" if extent == 1 else f"(({flat}) / {stride} % {extent})" if len(wanted) > 1 else f"({flat})")
    return (*front, *moved)


_MOVES = {
    aten.slice.Tensor: _slice, aten.select.int: _select, aten.unsqueeze.default: _unsqueeze, aten.squeeze.dims: _squeeze,
    aten.expand.default: _expand, aten.permute.default: _permute, aten.reshape.default: _reshape,
}  # fmt: skip


def broadcast(node: fx.Node, coords: Coords, rank: int) -> Coords:
    """Where the element of an operand is that meets the element at `coords` of the result."""
    shape = node.meta["val"].shape
    ours = coords[rank - len(shape) :]
    return tuple("0" if isinstance(size, int) and size == 1 else at for size, at in zip(shape, ours, strict=True))


def _shifted(coords: Coords, dim: int, by: int) -> Coords:
    return tuple(f"{at} + {by}" if number == dim and by else at for number, at in enumerate(coords))


def linear(coords: Sequence[str], shape: Sequence[int]) -> str:
    """The place of an element in a row that lies in memory."""
    terms, stride = [], math.prod(shape)
    for at, extent in zip(coords, shape, strict=True):
        stride //= max(extent, 1)
        if at != "0":
            terms.append(at if stride == 1 else f"({at}) * {stride}")
    return " + ".join(terms) or "0"
