"""Where the element of a view lies in the value that it is of, as C++ expressions of its coordinates."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from ...graph import segments
from ..operations import SAME, Unsupported, dim_of, has_rows, integer, piece_sizes, trailing

aten = torch.ops.aten

Coords = tuple[str, ...]


def moved(node: fx.Node, coords: Coords) -> tuple[fx.Node, Coords] | None:
    """For a view, the value that it is of, and where the element at `coords` is there; None for other operations."""
    target = node.target
    if target is segments.EXPAND:
        return node.all_input_nodes[0], (f"(owner[{coords[0]}] - start)", *coords[1:])
    if target is operator.getitem:
        split = node.all_input_nodes[0]
        dim = dim_of(split, 2)
        return split.all_input_nodes[0], _shifted(coords, dim, sum(piece_sizes(split)[: integer(node, 1)]))
    if target in SAME:
        return node.all_input_nodes[0], coords
    if target not in _MOVES:
        return None
    source = node.all_input_nodes[0]
    return source, _MOVES[target](node, source, coords)


def _slice(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    start, step = integer(node, 2), integer(node, 4, 1)
    dim = dim_of(node, 1)
    scaled = tuple(f"({c} * {step})" if at == dim and step != 1 else c for at, c in enumerate(coords))
    return _shifted(scaled, dim, start)


def _select(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    dim, at = dim_of(node, 1), integer(node, 2)
    at = at if at >= 0 else at + int(source.meta["val"].shape[dim])
    return (*coords[:dim], str(at), *coords[dim:])


def _unsqueeze(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    dim = integer(node, 1) % int(node.meta["val"].dim())
    return (*coords[:dim], *coords[dim + 1 :])


def _squeeze(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    dim = dim_of(node, 1)
    return coords if source.meta["val"].dim() == len(coords) else (*coords[:dim], "0", *coords[dim:])


def _expand(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    return broadcast(source, coords, len(coords))


def _permute(node: fx.Node, source: fx.Node, coords: Coords) -> Coords:
    rank = len(coords)
    if node.target is aten.t.default:
        order = list(range(rank))[::-1]
    elif node.target is aten.transpose.int:
        order = list(range(rank))
        one, other = (integer(node, at) % rank for at in (1, 2))
        order[one], order[other] = other, one
    else:
        dims: Any = node.args[1]
        order = [int(dim) % rank for dim in dims]
    moved = [""] * rank
    for at, dim in enumerate(order):
        moved[dim] = coords[at]
    return tuple(moved)


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
    aten.slice.Tensor: _slice, aten.select.int: _select, aten.unsqueeze.default: _unsqueeze, aten.squeeze.dim: _squeeze,
    aten.expand.default: _expand, aten.permute.default: _permute, aten.transpose.int: _permute, aten.t.default: _permute,
    aten.view.default: _reshape, aten._unsafe_view.default: _reshape, aten.reshape.default: _reshape,
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
