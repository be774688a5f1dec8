"""Message passing over graphs with cycles, as input graphs without."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import GraphError, InputTypeError
from ..uncompiled import uncompiled
from .any_graph import edges_of
from .build import HAS_EDGES, HAS_KINDS, HEADER, InputGraph
from .edge_arrays import LARGEST, Wide

KINDS = ("round", "start")


@uncompiled
def unroll(graph: Any, rounds: int) -> InputGraph:
    """Message passing for some rounds over any graph, with cycles or without, as an input graph.

    Vertex v after round t is vertex t * V + v; round 0 is before the first. After a round, it is computed from itself before
    the round, in slot 0, and from the sources of its incoming edges, in slots 1, 2, ... in the order of the edges. Vertices
    of round 0 are of the kind "start" and all others of the kind "round", so that what "start" pulls has a row for each
    vertex of the graph. Edges are in the order of rounds; in each, those of every vertex to itself, and then the graph's own.

    Args:
        graph: a pair `(num_vertices, edges)`, with edges as in `vf.graph`, from source to target; an `InputGraph`; a networkx
            graph (each edge of an undirected one runs both ways, and so a loop twice); a `Data` of PyTorch Geometric with
            `edge_index` and `num_nodes`; or a homogeneous DGL graph.
        rounds: how many, 1 or more.

    Returns:
        The graph, of V * (rounds + 1) vertices. `data["vertex"]` and `data["round"]` (int64) say what each of them is.
        Its roots are the vertices after the last round.

    Raises:
        GraphError: no vertices, an edge out of range, too many rounds, or fewer than one.
        InputTypeError: a graph of another sort, or rounds that are no integer.

    Example:
        >>> ring = vf.unroll((3, [(0, 1), (1, 2), (2, 0)]), rounds=4)
        >>> batch = vf.pack([ring])
        >>> vf.nn.GGNN(8)(batch, x=torch.randn(3, 8)).h[batch.roots].shape
        torch.Size([3, 8])
    """
    rounds, count, source, target = _checked(graph, rounds)
    total, edges = count * (rounds + 1), rounds * (count + len(source))
    order, offset = _sorted_by_target(count, target)
    child = np.concatenate((np.arange(count), source))[order]
    slot = np.arange(len(child)) - np.repeat(offset[:-1], np.diff(offset))
    flags = HAS_KINDS | HAS_EDGES * bool((order[1:] < order[:-1]).any())
    structure = np.empty(HEADER + total + 1 + 2 * edges + total + edges * bool(flags & HAS_EDGES), np.int32)
    structure[:HEADER] = total, edges, int(slot.max()) + 1, flags
    parts = np.split(structure[HEADER:], np.cumsum([total + 1, edges, edges, total]))
    offsets, children, slots, kinds, numbers = parts
    by_round = np.arange(rounds)[:, None]
    offsets[: count + 1] = 0
    np.add(offset[1:], by_round * len(child), out=offsets[count + 1 :].reshape(rounds, count), casting="same_kind")
    np.add(child, by_round * count, out=children.reshape(rounds, len(child)), casting="same_kind")
    slots.reshape(rounds, len(slot))[:] = slot
    if flags & HAS_EDGES:
        np.add(order, by_round * len(child), out=numbers.reshape(rounds, len(child)), casting="same_kind")
    kinds[:count], kinds[count:] = KINDS.index("start"), KINDS.index("round")
    data = {"vertex": np.tile(np.arange(count), rounds + 1), "round": np.repeat(np.arange(rounds + 1), count)}
    return InputGraph(structure, KINDS, data)


def unrolled_edges(graph: Any, rounds: int) -> Wide:
    """Of each edge of `vf.unroll(graph, rounds)`, the number of the graph's own edge; -1 for those from a vertex to itself.

    int64, for inputs of edges: `relation = relations[numbers]` has a row for each, of which those at -1 mean nothing. Of a
    packed batch, concatenate those of its graphs. An undirected networkx graph has the edge k of `graph.edges` as k and, the
    other way, as E + k.

    Raises:
        GraphError, InputTypeError: as `unroll`.

    Example:
        >>> vf.unrolled_edges((2, [(0, 1), (1, 0)]), rounds=1)
        array([-1, -1,  0,  1])
    """
    rounds, count, source, _ = _checked(graph, rounds)
    return np.tile(np.concatenate((np.full(count, -1), np.arange(len(source)))), rounds)


def _sorted_by_target(count: int, target: Wide) -> tuple[Wide, Wide]:
    """The edges of one round (`count` from each vertex to itself, then the graph's own) in the order of their targets, and
    where the edges of each target begin in that order."""
    target = np.concatenate((np.arange(count), target))
    offset = np.concatenate(([0], np.cumsum(np.bincount(target))))
    return np.argsort(target, kind="stable"), offset


def _checked(graph: Any, rounds: Any) -> tuple[int, int, Wide, Wide]:
    """How many rounds and vertices, and the source and the target of each edge."""
    if not isinstance(rounds, (int, np.integer)) or isinstance(rounds, bool):
        raise InputTypeError(f"rounds is {rounds!r}; give an integer")
    if rounds < 1:
        raise GraphError(f"rounds is {rounds}; give at least 1")
    count, source, target = edges_of(graph, "vf.unroll")
    total, edges = count * (int(rounds) + 1), int(rounds) * (count + len(source))
    if max(total, edges) > LARGEST:
        raise GraphError(
            f"{rounds} rounds make {total} vertices and {edges} edges; a graph has at most {LARGEST} of each: use fewer rounds, "
            "or a smaller graph"
        )
    return int(rounds), count, source, target
