"""Messages along the edges of a graph, as an input graph whose vertices are the messages."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import GraphError
from ..uncompiled import uncompiled
from .any_graph import edges_of
from .build import InputGraph
from .build import graph as build_graph
from .edge_arrays import LARGEST, Wide


@uncompiled
def line_graph(graph: Any, both_ways: bool = True) -> InputGraph:
    """Messages along the edges of a tree, in both directions, and what each vertex makes of those that reach it.

    Message i -> j is computed from all messages k -> i but the one from j: what the tree beyond i tells j, as in belief
    propagation and junction trees. With E edges, vertices 0 .. E - 1 of the result are the messages along the edges, in their
    order, vertices E .. 2E - 1 those against them; then come the V vertices of the graph, each with all messages that reach it
    as children. Messages are of the kind "message", the others of the kind "vertex"; children are in the order of their numbers.

    Args:
        graph: a pair `(num_vertices, edges)` with edges as in `vf.graph`, in whatever direction; an `InputGraph`; a networkx
            graph; a `Data` of PyTorch Geometric or a homogeneous DGL graph, whose edges are there once.
        both_ways: without, messages go along the edges only, and the graph may be any without cycles.

    Returns:
        The graph, of 2 E + V vertices (without `both_ways`, E + V). Its `data` (int64, a row each) say what the vertices are:
        `vertex`, where a message comes from, or the vertex itself; `target`, where it goes; `edge`, along or against which
        edge, -1 for the vertices of the graph. A vertex with d neighbours makes d * d edges.

    Raises:
        GraphError: no vertices, an edge out of range, or, taken both ways, edges that form a cycle: messages round a cycle
            never end; `vf.unroll` computes some rounds of them.
        InputTypeError: a graph of another sort.

    Example:
        >>> class Messages(vf.VertexFunction):                # how many vertices there are beyond each edge, and in all
        ...     def __init__(self):
        ...         super().__init__(state={"n": 1})
        ...
        ...     @vf.vertex("message")
        ...     def message(self, v):
        ...         v.scatter(n=1 + v.sum(v.children.n))
        ...
        ...     @vf.vertex("vertex")
        ...     def vertex(self, v):
        ...         v.push(n=1 + v.sum(v.children.n))
        >>> Messages()([vf.line_graph((3, [(0, 1), (1, 2)]))]).n[:, 0]
        tensor([3., 3., 3.])
    """
    count, source, target = edges_of(graph, "vf.line_graph", both_ways=False)
    edge, edges = np.arange(len(source)), len(source)
    if both_ways:
        source, target, edge = np.concatenate((source, target)), np.concatenate((target, source)), np.tile(edge, 2)
    messages = len(source)
    into = np.argsort(target, kind="stable")  # the messages that reach vertex 0, then those that reach vertex 1, ...
    received = np.bincount(target, minlength=count)
    before = int(received[source].sum()) - messages * both_ways  # a message does not read its answer
    if messages + count > LARGEST or before > LARGEST:
        raise GraphError(
            f"{messages} messages with {before} messages before them; a graph has at most {LARGEST} of each: vertices with fewer "
            "neighbours make fewer"
        )
    child, parent = _messages_into(source, into, received)
    if both_ways:
        is_answer = np.abs(child - parent) == edges  # the same edge the other way
        child, parent = child[~is_answer], parent[~is_answer]
    pairs = np.stack([np.concatenate((child, into)), np.concatenate((parent, messages + target[into]))])
    kind = np.array(["message", "vertex"])[np.repeat([0, 1], [messages, count])]
    try:
        lines = build_graph(messages + count, pairs, kind=kind)
    except GraphError:  # all else was checked
        advice = ", or both_ways=False for messages along the edges only" if both_ways else ""
        raise GraphError(
            f"the {edges} edges between {count} vertices form a cycle, round which messages would never end: give a tree or "
            f"forest{advice}; vf.unroll makes some rounds of them"
        ) from None
    own = np.arange(count)
    ends = {"vertex": np.concatenate((source, own)), "target": np.concatenate((target, own))}
    return lines.with_data(**ends, edge=np.concatenate((edge, np.full(count, -1))))


def _messages_into(source: Wide, into: Wide, received: Wide) -> tuple[Wide, Wide]:
    """Pairs (child, parent) of all messages that reach the source of a message, and that message."""
    first = np.cumsum(received) - received  # where those that reach a vertex begin in `into`
    num_children = received[source]
    parent = np.repeat(np.arange(len(source)), num_children)
    position = np.arange(len(parent)) - np.repeat(np.cumsum(num_children) - num_children, num_children)
    return into[first[source][parent] + position], parent
