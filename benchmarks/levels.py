"""The order in which hand-written peers compute a batch. It is found once, outside of what is timed, in their favour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vertexflow as vf

Bounds = list[tuple[int, int]]


@dataclass(frozen=True)
class Levels:
    """Rows by depth: those of a level are a slice, and the children of all of them are in levels before it.

    Attributes:
        order: the vertex of each row.
        bounds: first row and end of each level; the first level is the vertices without children.
        child, parent: the row of each edge's child, and of its parent; sorted by the latter, then by slot.
        edges: first edge and end of each level.
        roots: rows of the roots.
    """

    order: Tensor
    bounds: Bounds
    child: Tensor
    parent: Tensor
    edges: Bounds
    roots: Tensor


@dataclass(frozen=True)
class Generation:
    """The vertices of all trees at one distance from the root. Their children, in order, are the next generation.

    Attributes:
        leaves, inner: how many leaves there are in it, and how many others.
        place: where its vertices stand in [the inner ones; the leaves].
        parent: the parent of each, as a number among the inner vertices of the generation before; empty for roots.
    """

    leaves: int
    inner: int
    place: Tensor
    parent: Tensor


@dataclass(frozen=True)
class Generations:
    """Trees by distance from the root: what a level needs is the level below it, all of it, and nothing else.

    Attributes:
        order: the vertex of each row: leaves by generation, then the others by generation, from the youngest on.
        num_leaves: how many leaves there are.
        young_first: the generations in the order of computation; the roots are last.
    """

    order: Tensor
    num_leaves: int
    young_first: list[Generation]


def children_of(batch: vf.GraphBatch) -> list[list[int]]:
    """The children of each vertex, for recursions."""
    return [batch.child[start:stop].tolist() for start, stop in zip(batch.offset, batch.offset[1:], strict=False)]


def levels(batch: vf.GraphBatch) -> Levels:
    parent = np.repeat(np.arange(batch.num_vertices), np.diff(batch.offset))
    depth = np.zeros(batch.num_vertices, np.int64)
    while True:
        deeper = np.zeros_like(depth)
        np.maximum.at(deeper, parent, depth[batch.child] + 1)
        if (deeper == depth).all():
            break
        depth = deeper
    order = np.argsort(depth, kind="stable")
    row = np.argsort(order)
    edge = np.argsort(row[parent], kind="stable")
    return Levels(
        _at(batch, order),
        _bounds(np.bincount(depth)),
        _at(batch, row[batch.child[edge]]),
        _at(batch, row[parent[edge]]),
        _bounds(np.bincount(depth[parent], minlength=depth.max() + 1)),
        _at(batch, row)[batch.roots],
    )


def generations(batch: vf.GraphBatch) -> Generations:
    children = children_of(batch)
    vertices = [batch.roots.tolist()]
    parents: list[list[int]] = [[]]
    while inner := [vertex for vertex in vertices[-1] if children[vertex]]:
        parents.append([at for at, vertex in enumerate(inner) for _ in children[vertex]])
        vertices.append([child for vertex in inner for child in children[vertex]])
    young_first: list[Generation] = []
    rows: tuple[list[int], list[int]] = ([], [])  # leaves and others
    for level, parent in zip(reversed(vertices), reversed(parents), strict=True):
        inner, leaves = ([vertex for vertex in level if bool(children[vertex]) == has] for has in (True, False))
        place = np.argsort(np.argsort([not children[vertex] for vertex in level], kind="stable"))
        young_first.append(
            Generation(len(leaves), len(inner), _at(batch, place), _at(batch, np.array(parent, np.int64)))
        )
        rows[0].extend(leaves)
        rows[1].extend(inner)
    return Generations(_at(batch, np.array(rows[0] + rows[1], np.int64)), len(rows[0]), young_first)


def _at(batch: vf.GraphBatch, numbers: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
    """Numbers where the batch is."""
    return torch.from_numpy(numbers).to(batch.device)


def _bounds(sizes: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Bounds:
    ends = np.cumsum(sizes)
    return list(zip((ends - sizes).tolist(), ends.tolist(), strict=True))
