"""Arcs: edges from several children at once to one parent. Those of a vertex are in the order in which they were given, and with
arcs of k children, the child at position j of a vertex's arc number a is in its slot `a * k + j`; every arc has at least one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .build import InputGraph
    from .pack import GraphBatch

Ints = np.ndarray[Any, np.dtype[np.int32]]
Wide = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def first_of_arc(slot: Ints, offset: Ints, arity: int) -> Mask:
    """[E]: whether each child is the first of its arc, among children sorted by parent and slot."""
    is_first = np.ones(len(slot), np.bool_)
    if arity > 1 and len(slot):
        arc = slot // arity
        is_first[1:] = arc[1:] != arc[:-1]
        starts = offset[:-1]
        is_first[starts[starts < len(slot)]] = True
    return is_first


def arcs_before(slot: Ints, offset: Ints, arity: int) -> Ints:
    """[V + 1]: how many arcs lead to the vertices before each one; where arcs are edges, `offset` itself."""
    if arity == 1:
        return offset
    before = np.concatenate(([0], np.cumsum(first_of_arc(slot, offset, arity))), dtype=np.int32)
    counts: Ints = before[offset]
    return counts


def arcs_of(child: Ints, slot: Ints, offset: Ints, edge: Ints | None, arity: int) -> Wide:
    """int64 [arity + 1, A]: the children of each arc, -1 where one is missing, and its parent, in the order in which arcs were
    given. `edge` is the user's number of each child among those of all arcs; None: they are in that order."""
    is_first = first_of_arc(slot, offset, arity)
    number = np.cumsum(is_first) - 1
    if edge is not None:
        by_edge = np.empty_like(is_first)
        by_edge[edge] = is_first
        number = (np.cumsum(by_edge) - 1)[edge]
    arcs = np.full((arity + 1, int(is_first.sum())), -1, np.int64)
    arcs[slot % arity, number] = child
    arcs[arity, number] = np.repeat(np.arange(len(offset) - 1), np.diff(offset))
    return arcs


def refuse_arcs(structure: InputGraph | GraphBatch, attempt: str) -> None:
    """Refuse arcs of several children, which cannot be what `attempt` says."""
    if structure.arity > 1:
        raise GraphError(f"a hypergraph, whose arcs have {structure.arity} children, cannot be {attempt}")


def common_arity(graphs: Sequence[InputGraph]) -> int:
    """How many children the arcs of all these graphs have; those without arcs fit to any.

    Raises:
        GraphError: they have different numbers.
    """
    arities = [graph.arity for graph in graphs]
    if len(set(arities)) <= 1:
        return arities[0] if arities else 1
    with_arcs = [(number, arity) for number, arity in enumerate(arities) if graphs[number].num_edges]
    if not with_arcs:
        return max(arities)
    first, arity = with_arcs[0]
    for number, other in with_arcs:
        if other != arity:
            raise GraphError(
                f"graph {first} has {_named(arity)}, graph {number} {_named(other)}: arcs of one batch have one number of "
                f"children; give it with vf.hypergraph(..., arity={max(arity, other)}), which leaves the others out"
            )
    return arity


def _named(arity: int) -> str:
    return "edges, from one child each" if arity == 1 else f"arcs of {arity} children"
