"""Graphs divided over ranks: from the rank of each vertex to what each rank computes, and when ranks tell each other states.

The depth of a vertex in the whole graph is its level. A state that crosses goes out in an exchange between the level of its
vertex and the first level of that rank which reads it; exchanges are as few as that allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _core
from ..graph.inputs.pack import GraphBatch
from .graph_part import EXCHANGE, OWN, START, Ints, LocalGraph


@dataclass(frozen=True)
class Crossings:
    """The states that cross, each to one rank, in the order of exchanges, then of the ranks that send them, those that get
    them, and vertices; all int64.

    Attributes:
        points: [exchanges]: the level after which each is.
        exchange, source, target, vertex: [crossings].
    """

    points: Ints
    exchange: Ints
    source: Ints
    target: Ints
    vertex: Ints


def parents_of(batch: GraphBatch) -> Ints:
    """int64 [E]: the vertex to which each entry of `child` belongs."""
    return np.repeat(np.arange(batch.num_vertices), np.diff(batch.offset))


def crossings(batch: GraphBatch, levels: Ints, rank_of: Ints, ranks: int) -> Crossings:
    """The states that cross, of a division."""
    parent, child = parents_of(batch), batch.child.astype(np.int64)
    crosses = rank_of[parent] != rank_of[child]
    parent, child = parent[crosses], child[crosses]
    keys, at = np.unique(child * ranks + rank_of[parent], return_inverse=True)
    needed = np.full(len(keys), np.iinfo(np.int64).max)
    np.minimum.at(needed, at, levels[parent])
    vertex, target = np.divmod(keys, ranks)
    points = stabbed(levels[vertex], needed - 1, int(levels.max(initial=-1)) + 1)
    exchange = np.searchsorted(points, levels[vertex])
    source = rank_of[vertex]
    order = np.lexsort((vertex, target, source, exchange))
    return Crossings(points, exchange[order], source[order], target[order], vertex[order])


def stabbed(first: Ints, last: Ints, num_levels: int) -> Ints:
    """The fewest levels of which each interval [first, last] has one, in ascending order: as late as the intervals that wait
    allow."""
    never = np.iinfo(np.int64).max
    ends = np.full(num_levels, never)
    np.minimum.at(ends, first, last)
    points, deadline = [], never
    for level, end in enumerate(ends.tolist()):
        deadline = min(deadline, end)
        if deadline == level:
            points.append(level)
            deadline = never
    return np.array(points, np.int64)


def local_graph(
    batch: GraphBatch, levels: Ints, rank_of: Ints, crossed: Crossings, rank: int, ranks: int
) -> LocalGraph:
    """What a rank computes."""
    own = np.flatnonzero(rank_of == rank)
    num_own, num_exchanges = len(own), len(crossed.points)
    leaves, arrives = crossed.source == rank, crossed.target == rank
    sent, received = np.zeros((2, num_exchanges, ranks), np.int64)
    np.add.at(sent, (crossed.exchange[leaves], crossed.target[leaves]), 1)
    np.add.at(received, (crossed.exchange[arrives], crossed.source[arrives]), 1)
    rows = np.maximum(np.maximum(sent.sum(1), received.sum(1)), 1)
    exchange = np.repeat(np.arange(num_exchanges), rows)
    first_row = np.cumsum(rows) - rows
    place = np.arange(len(exchange)) - first_row[exchange]
    has_start = int((sent.sum(1) < rows).any())
    base = num_own + has_start
    number = np.full(batch.num_vertices, -1)  # of each vertex, among those of this rank
    number[own] = np.arange(num_own)
    read = np.full(len(exchange), num_own)  # by rows of exchanges; the start, where nothing leaves
    read[_rows(crossed, leaves, first_row)] = number[crossed.vertex[leaves]]
    number[crossed.vertex[arrives]] = base + _rows(crossed, arrives, first_row)
    is_read = rank_of[parents_of(batch)] == rank
    edges_of_user = np.flatnonzero(is_read) if batch.edge is None else batch.edge[is_read].astype(np.int64)
    edges = np.sort(edges_of_user)
    degrees = [np.diff(batch.offset)[own], np.zeros(has_start, np.int64), np.ones(len(exchange), np.int64)]
    child = np.concatenate([number[batch.child[is_read]], read]).astype(np.int32)
    slot = np.concatenate([batch.slot[is_read], np.zeros(len(read), np.int32)]).astype(np.int32)
    edge = np.concatenate([np.searchsorted(edges, edges_of_user), len(edges) + np.arange(len(read))])
    kinds, kind_index = _kinds(batch, own, has_start, len(exchange))
    num_vertices = base + len(exchange)
    local = GraphBatch(
        num_graphs=int(num_vertices > 0),
        num_vertices=num_vertices,
        child=child,
        slot=slot,
        offset=np.concatenate([[0], np.cumsum(np.concatenate(degrees))]).astype(np.int32),
        graph_offset=np.array([0, num_vertices] if num_vertices else [0], np.int32),
        num_slots=int(slot.max(initial=-1)) + 1,
        kinds=kinds,
        kind_index=kind_index,
        edge=edge.astype(np.int32),
    )
    steps = np.concatenate([2 * levels[own], np.zeros(has_start, np.int64), 2 * crossed.points[exchange] + 1])
    return LocalGraph(local, steps, exchange, place, sent, received, edges)


def levels_of(batch: GraphBatch) -> Ints:
    """int64 [V]: the depth of each vertex.

    Raises:
        GraphError: a cycle.
    """
    if not batch.num_vertices:
        return np.zeros(0, np.int64)
    return _core.depth(batch.child, batch.slot, batch.offset, 0).astype(np.int64)


def _rows(crossed: Crossings, chosen: np.ndarray[Any, np.dtype[np.bool_]], first_row: Ints) -> Ints:
    """The rows of exchanges of a rank that these crossings have: one after the other in each exchange."""
    exchange = crossed.exchange[chosen]
    counts = np.bincount(exchange, minlength=len(first_row))
    before = np.cumsum(counts) - counts
    rows: Ints = first_row[exchange] + np.arange(len(exchange)) - before[exchange]
    return rows


def _kinds(batch: GraphBatch, own: Ints, has_start: int, num_rows: int) -> tuple[tuple[Any, ...], np.ndarray[Any, Any]]:
    """The kinds that occur in a local graph, and the number of each vertex's."""
    of_own = np.zeros(len(own), np.int64) if batch.kind_index is None else batch.kind_index[own]
    names = (OWN,) if batch.kinds is None else batch.kinds
    numbers = np.concatenate([of_own, np.full(has_start, len(names)), np.full(num_rows, len(names) + 1)])
    present, index = np.unique(numbers, return_inverse=True)
    everything = (*names, START, EXCHANGE)
    return tuple(everything[number] for number in present), index.astype(np.int32)
