"""Hypergraphs: input graphs whose vertices have tuples of children that belong together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from ... import _core
from ...errors import GraphError, InputTypeError
from ..uncompiled import uncompiled
from .build import InputGraph, check_num_vertices
from .edge_arrays import LARGEST, Wide, as_array, explain, int_array
from .kind_names import number_kinds

MOST_CHILDREN = 1 << 10  # of an arc: each takes memory for every arc


@uncompiled
def hypergraph(num_vertices: int, arcs: Any, kind: Sequence[Any] | None = None, arity: int | None = None) -> InputGraph:
    """An input graph from arcs: tuples of children that belong together, any number of them for each vertex.

    The spans of a chart are such vertices, whose arcs are the pairs of spans that they may be split into; so are the vertices of
    an AND-OR graph, each arc of which is one way to derive it. A vertex function reads them with `v.arcs`.

    Args:
        num_vertices: vertices are 0 .. num_vertices - 1.
        arcs: pairs (children, parent), where `children` is a tuple of vertices; or an array or tensor [k + 1, A], a row for the
            children at each position, and one for the parents. A child may be missing: -1. Whatever has a row an arc, such as an
            input of arcs, is in their order.
        kind: the kind of each vertex, as in `vf.graph`.
        arity: how many children every arc has; arcs with fewer lack the last ones. By default arcs must have equally many.
            Graphs of one batch have one arity.

    Returns:
        The graph. Its `arcs` are int64 [arity + 1, A], as they were given; `data` for `edge_names` has a row an arc.

    Raises:
        GraphError: no vertices, a vertex out of range, an arc without children, arcs of different numbers of children, a cycle,
            or kinds of the wrong length.
        InputTypeError: vertices that are no integers, kinds of several types, or of another.

    Example:
        >>> graph = vf.hypergraph(5, [((0, 1), 3), ((3, 2), 4), ((0, 2), 4)])  # vertex 4: (3, 2) or (0, 2)
        >>> graph.num_arcs, graph.arity
        (3, 2)
    """
    num_vertices = check_num_vertices(num_vertices)
    children, parent, given_arity = *_arc_arrays(arcs, arity), arity
    width = children.shape[1]
    _check(num_vertices, children, parent)
    kinds, numbers = (None, None) if kind is None else number_kinds(kind, num_vertices)
    by_parent = np.argsort(parent, kind="stable")
    before = np.concatenate(([0], np.cumsum(np.bincount(parent, minlength=num_vertices))))
    arc_of_parent = np.empty_like(parent)  # the number of each arc among those of its parent
    arc_of_parent[by_parent] = np.arange(len(parent)) - before[parent[by_parent]]
    arc, position = np.nonzero(children >= 0)
    child, slot = children[arc, position], arc_of_parent[arc] * width + position
    if len(slot) and int(slot.max()) >= LARGEST:
        raise GraphError(f"a vertex has {int(arc_of_parent.max()) + 1} arcs of {width} children, which are too many")
    try:
        structure = _core.graph(num_vertices, child, np.ascontiguousarray(parent[arc]), slot, numbers)
    except _core.Malformed as error:
        explain(error, num_vertices, child, parent[arc], None)
    return InputGraph(structure, kinds, arity=width if len(parent) or given_arity is not None else 1)


def _arc_arrays(arcs: Any, arity: int | None) -> tuple[Wide, Wide]:
    """The children [A, arity] and the parent of each arc."""
    if arity is not None and (isinstance(arity, bool) or not isinstance(arity, (int, np.integer))):
        raise InputTypeError(f"arity is {arity!r}; give an integer, how many children an arc has")
    if arity is not None and not 1 <= arity <= MOST_CHILDREN:
        raise GraphError(f"arity is {arity}; an arc has from 1 to {MOST_CHILDREN} children")
    if isinstance(arcs, torch.Tensor):
        arcs = as_array(arcs, "arcs")
    rows = [*arcs] if isinstance(arcs, np.ndarray) else []
    if isinstance(arcs, np.ndarray):
        if arcs.ndim != 2 or len(arcs) < 2:
            raise GraphError(
                "an array of arcs has the shape [k + 1, A] (children at each of k positions, then parents), not "
                f"{list(arcs.shape)}"
            )
    else:
        rows = _columns(arcs, arity)
    *children, parent = (int_array(row, "vertices of arcs") for row in rows)
    width = arity or len(children)
    if len(children) > width:
        raise GraphError(
            f"arcs have {len(children)} children, but arity is {arity}; give the largest number of children"
        )
    if width > MOST_CHILDREN:
        raise GraphError(f"arcs have {width} children; an arc has at most {MOST_CHILDREN}")
    table = np.full((len(parent), width), -1, np.int64)
    for position, child in enumerate(children):
        table[:, position] = child
    return table, parent


def _columns(arcs: Any, arity: int | None) -> list[Any]:
    """The children at each position, and the parents, of arcs that are given one by one."""
    if not isinstance(arcs, Iterable):
        raise InputTypeError(f"arcs are pairs (children, parent) or an array [k + 1, A], not {type(arcs).__name__}")
    pairs = [tuple(arc) if isinstance(arc, Iterable) else (arc,) for arc in arcs]
    for number, pair in enumerate(pairs):
        if (
            len(pair) != 2
            or not isinstance(pair[0], (tuple, list, np.ndarray, torch.Tensor))
            or isinstance(pair[1], (tuple, list))
        ):
            raise GraphError(
                f"arc {number} is {pair!r}; give pairs (children, parent), with a tuple of children: ((0, 1), 2)"
            )
    children = [tuple(pair[0]) for pair in pairs]
    width = max(map(len, children), default=arity or 1)
    for number, one in enumerate(children):
        if arity is None and len(one) != width:
            longest = next(number for number, other in enumerate(children) if len(other) == width)
            raise GraphError(
                f"arc {number} has {len(one)} children, arc {longest} {width}; write -1 where a child is missing, or say how "
                f"many an arc has, arity={width}, so that the last ones may be left out"
            )
    try:
        table = np.array([[*one, *[-1] * (width - len(one))] for one in children], dtype=None if children else np.int64)
        parent = np.array([pair[1] for pair in pairs], dtype=None if pairs else np.int64)
    except (ValueError, TypeError) as error:
        raise GraphError(f"arcs such as {pairs[0]!r} are no pairs (children, parent) of numbers") from error
    return [*table.reshape(len(pairs), -1 if table.size else width).T, parent]


def _check(num_vertices: int, children: Wide, parent: Wide) -> None:
    """Refuse vertices that are out of range, and arcs without children."""
    for vertices, noun, least in ((children, "child", -1), (parent[:, None], "parent", 0)):
        wrong = np.argwhere((vertices < least) | (vertices >= num_vertices))
        if len(wrong):
            number, position = wrong[0]
            missing = "" if least == 0 else ", or -1 where a child is missing"
            raise GraphError(
                f"arc {number} ({tuple(children[number].tolist())} -> {parent[number]}): {noun} {vertices[number, position]} is "
                f"out of range; the vertices are 0 to {num_vertices - 1}{missing}"
            )
    empty = np.flatnonzero((children < 0).all(1))
    if len(empty):
        raise GraphError(
            f"arc {empty[0]} of vertex {parent[empty[0]]} has no children; an arc has at least one: a vertex without arcs is one "
            "without children, which can be of a kind of its own"
        )
