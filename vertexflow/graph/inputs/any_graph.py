"""The edges of a graph of any library."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import GraphError, InputTypeError
from .arcs import refuse_arcs
from .build import InputGraph
from .edge_arrays import Wide, edge_arrays


def edges_of(graph: Any, caller: str, both_ways: bool = True) -> tuple[int, Wide, Wide]:
    """The number of vertices, and the source and the target of each edge.

    With `both_ways`, an edge of an undirected networkx graph is one edge from each end. `caller` is named in errors.
    """
    count: Any
    pairs: tuple[Any, Any]
    if isinstance(graph, InputGraph):
        refuse_arcs(graph, f"taken by {caller}; give the pairs that exchange messages")
        child, parent = graph.edge_index.numpy()
        count, pairs = graph.num_vertices, (child, parent)
    elif isinstance(graph, tuple) and len(graph) == 2:
        count, pairs = graph[0], edge_arrays(graph[1])
    elif hasattr(graph, "nodes") and hasattr(graph, "adj") and hasattr(graph, "is_directed"):  # networkx
        count, pairs = graph.number_of_nodes(), _networkx_edges(graph, both_ways)
    elif hasattr(graph, "edge_index"):  # PyTorch Geometric
        count, pairs = graph.num_nodes, edge_arrays(graph.edge_index)
    elif callable(getattr(graph, "num_nodes", None)) and callable(getattr(graph, "edges", None)):  # DGL
        source, target = graph.edges()
        count, pairs = graph.num_nodes(), (source.cpu().numpy(), target.cpu().numpy())
    else:
        raise InputTypeError(
            f"{caller} takes (num_vertices, edges), an input graph, or a graph of networkx, PyTorch Geometric or DGL, not "
            f"{type(graph).__name__}"
        )
    if not isinstance(count, (int, np.integer)) or isinstance(count, bool):
        raise InputTypeError(f"the number of vertices is {count!r}; give an integer")
    if count < 1:
        raise GraphError("a graph with no vertices; every graph needs at least one")
    source, target = (np.asarray(side, np.int64) for side in pairs)
    for side, ends in (("source", source), ("target", target)):
        wrong = np.flatnonzero((ends < 0) | (ends >= count))
        if len(wrong):
            raise GraphError(
                f"edge {wrong[0]} ({source[wrong[0]]} -> {target[wrong[0]]}): {side} {ends[wrong[0]]} is out of range; the "
                f"vertices are 0 to {count - 1}"
            )
    return int(count), source, target


def _networkx_edges(graph: Any, both_ways: bool) -> tuple[Wide, Wide]:
    number_of = {node: number for number, node in enumerate(graph.nodes)}
    pairs = [(number_of[source], number_of[target]) for source, target, *_ in graph.edges]
    if both_ways and not graph.is_directed():
        pairs += [(target, source) for source, target in pairs]
    source, target = np.array(pairs, np.int64).reshape(-1, 2).T
    return source, target
