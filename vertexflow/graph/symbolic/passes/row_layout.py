"""Which dimension of a value holds the vertices, and how the entries of some vertices are selected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor

from .samples import OWNER


@dataclass(frozen=True)
class RowLayout:
    """Dimension `dim` of a value has `per_vertex` entries for each vertex; with `edges`, for each edge to a child."""

    dim: int
    per_vertex: int = 1
    edges: bool = False


def layout_of(value: Tensor, rows: sympy.Symbol, edges: sympy.Symbol) -> RowLayout | None:
    """The layout of a value's rows; None if it has no rows.

    Raises:
        ValueError: no value with rows has such a shape.
    """
    symbolic: list[tuple[int, Any]] = [(dim, n) for dim, n in enumerate(value.shape) if isinstance(n, torch.SymInt)]
    if not symbolic:
        return None
    dim, size = symbolic[0]
    per_edge = edges in size.node.expr.free_symbols
    per_vertex = size.node.expr / (edges if per_edge else rows)
    if len(symbolic) > 1 or not per_vertex.is_Integer:
        raise ValueError("no shape of a value with rows")
    return RowLayout(dim, int(per_vertex), per_edge)


def take(value: Tensor, layout: RowLayout, selection: tuple[int, ...], outer: int) -> Tensor:
    """The entries of the vertices in `selection`. The entries of a vertex lie in `outer` runs: `[outer, vertices, inner]`."""
    rows = list(selection)
    if layout.edges:
        rows = [edge for row in selection for edge, owner in enumerate(OWNER) if owner == row]
    index = torch.tensor(rows, dtype=torch.int64, device=value.device)
    if layout.per_vertex == 1:
        return value.index_select(layout.dim, index)
    return joined(blocks(value, layout, outer).index_select(0, index), layout, outer)


def blocks(value: Tensor, layout: RowLayout, outer: int) -> Tensor:
    """The value with its vertices (or edges) in dimension 0."""
    inner = layout.per_vertex // outer
    count = value.shape[layout.dim] // layout.per_vertex
    shape = (*value.shape[: layout.dim], outer, count, inner, *value.shape[layout.dim + 1 :])
    return value.reshape(shape).movedim(layout.dim + 1, 0)


def joined(blocks: Tensor, layout: RowLayout, outer: int) -> Tensor:
    """The inverse of `blocks`."""
    return blocks.movedim(0, layout.dim + 1).flatten(layout.dim, layout.dim + 2)


def divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
