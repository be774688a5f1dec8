"""What samples carry beside their structure: arrays with a row a vertex or an edge, kept by graphs and joined by batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import GraphError

if TYPE_CHECKING:
    from .build import InputGraph

Rows = np.ndarray[Any, Any]


def add_edge_data(graph: InputGraph, name: str, rows: Rows) -> None:
    """Keep rows of edges in `graph.data`; where vertices have the name already, as `edge_<name>`.

    Raises:
        GraphError: vertices have that name as well.
    """
    stored_name = f"edge_{name}" if name in graph.data and name not in graph.edge_names else name
    if stored_name in graph.data and stored_name not in graph.edge_names:
        raise GraphError(
            f"vertices have {name!r} and {stored_name!r}, so that there is no name left for {name!r} of the edges; rename one"
        )
    graph.data[stored_name] = rows
    if stored_name not in graph.edge_names:
        graph.edge_names.append(stored_name)


def join_data(graphs: Sequence[InputGraph]) -> tuple[dict[str, Rows], frozenset[str]]:
    """The arrays that all graphs have, graph after graph, and the names of those with a row an edge.

    Raises:
        GraphError: arrays of one name that belong to vertices in one graph and to edges in another, that have another number
            of rows, or whose rows have different shapes.
    """
    joined: dict[str, Rows] = {}
    for name in graphs[0].data if graphs else ():
        if not all(name in graph.data for graph in graphs):
            continue
        is_edge = name in graphs[0].edge_names
        rows = [graph.data[name] for graph in graphs]
        for index, graph in enumerate(graphs):
            if (name in graph.edge_names) != is_edge:
                raise GraphError(
                    f"data {name!r} of graph {index} has a row for each {'vertex' if is_edge else 'edge'}, that of graph 0 for "
                    f"each {'edge' if is_edge else 'vertex'}; give it one meaning (`graph.edge_names`)"
                )
            count, owners, owner = graph.num_vertices, "vertices", "vertex"
            if is_edge:
                count, owners, owner = graph.num_arcs, "edges", "edge"
            if len(rows[index]) != count:
                advice = "" if is_edge else "; rows of edges are told by graph.edge_names.append(...)"
                raise GraphError(
                    f"data {name!r} of graph {index} has {len(rows[index])} rows for {count} {owners}; "
                    f"give one for each {owner}{advice}"
                )
        try:
            joined[name] = np.concatenate(rows)
        except ValueError as error:
            raise GraphError(f"data {name!r} cannot be joined: {error}; give its rows one shape everywhere") from error
    return joined, frozenset(name for name in joined if name in graphs[0].edge_names)
