"""Input graphs from the graphs of other libraries, which need not be installed for it: networkx, PyTorch Geometric, DGL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ....errors import GraphError, InputTypeError
from ...uncompiled import uncompiled
from ..arcs import refuse_arcs
from ..build import InputGraph, graph
from ..data import add_edge_data, join_data


@uncompiled
def from_networkx(source: Any, kind: str | None = None, slot: str | None = None) -> InputGraph:
    """An input graph from a networkx `DiGraph` or `MultiDiGraph`, whose edges run from children to parents.

    Args:
        source: the graph; its vertices are numbered in the order of `source.nodes`.
        kind: the node attribute that holds the kind of each vertex.
        slot: the edge attribute that holds the slot; without it, a parent's edges fill slots in the order of `source.edges`.

    Returns:
        The graph. `data["node"]` holds the names of its nodes; node attributes that all nodes have are arrays there as well,
        and so are edge attributes that all edges have (`edge_names`), in the order of `source.edges`, as edges are. An edge
        attribute whose name nodes have, too, becomes `edge_<name>`. Numbers and objects are `[V]` or `[E]`, vectors (lists,
        arrays, tensors of numbers) `[V, ...]` or `[E, ...]`.

    Raises:
        GraphError: no nodes, a cycle, an attribute that some nodes or edges lack, vectors of different lengths, slots that
            `vf.graph` refuses, or nodes that have the attributes `name` and `edge_name` where edges have `name`.
        InputTypeError: not a directed graph of networkx.

    Example:
        >>> vf.from_networkx(networkx.DiGraph([("a", "c"), ("b", "c")]))  # "c" has the children "a" and "b"
        InputGraph(num_vertices=3)
    """
    if not callable(getattr(source, "is_directed", None)) or not hasattr(source, "nodes"):
        raise InputTypeError(f"from_networkx takes a networkx graph, not {type(source).__name__}")
    if not source.is_directed():
        raise InputTypeError(
            "the networkx graph is undirected; a vertex must know which neighbours it is computed from: give a DiGraph "
            "with edges from children to parents"
        )
    nodes = list(source.nodes)
    number_of = {node: number for number, node in enumerate(nodes)}
    edges = list(source.edges(data=True))
    pairs = [(number_of[child], number_of[parent]) for child, parent, _ in edges]
    kinds = None if kind is None else [_attribute(source.nodes[node], kind, f"node {node!r}") for node in nodes]
    slots = None if slot is None else [_attribute(data, slot, f"edge {a!r} -> {b!r}") for a, b, data in edges]
    input_graph = graph(len(nodes), pairs, kind=kinds, slots=slots)
    input_graph.data["node"] = _column(nodes)
    for name in source.nodes[nodes[0]]:
        if isinstance(name, str) and name not in ("node", kind) and all(name in source.nodes[node] for node in nodes):
            input_graph.data[name] = _column([source.nodes[node][name] for node in nodes], name, "vertex")
    for name in edges[0][2] if edges else ():
        if isinstance(name, str) and name != slot and all(name in attributes for _, _, attributes in edges):
            add_edge_data(input_graph, name, _column([attributes[name] for _, _, attributes in edges], name, "edge"))
    return input_graph


def to_networkx(source: InputGraph) -> Any:
    """The input graph as a networkx `MultiDiGraph`, with edges from children to parents.

    Edges have the attribute `slot`, nodes `kind` if the graph has kinds, and both an attribute for each array in `data` that has
    a row for each of them. `from_networkx(to_networkx(g), kind="kind", slot="slot")` is g again, but for the order of edges:
    networkx lists them by their child, and in their order only where that is the same.

    Raises:
        GraphError: the graph has arcs of several children, or `data` has "slot" of edges, or "kind" of vertices that have kinds,
            or not a row for each vertex, or edge.
    """
    import networkx

    refuse_arcs(source, "a graph of networkx, whose edges have one source")
    if "slot" in source.edge_names:
        raise GraphError("edges have data 'slot', where to_networkx writes the slots; rename it")
    if source.kinds is not None and "kind" in source.data:
        raise GraphError("vertices have data 'kind', where to_networkx writes the kinds; rename it")
    data, edge_names = join_data([source])
    digraph = networkx.MultiDiGraph()
    kinds = source.kind
    node_data = {name: rows for name, rows in data.items() if name not in ("node", *edge_names)}
    edge_data = {name: data[name] for name in edge_names}
    for vertex in range(source.num_vertices):
        attributes = {name: rows[vertex] for name, rows in node_data.items()}
        digraph.add_node(vertex, **attributes, **({} if kinds is None else {"kind": kinds[vertex].item()}))
    slots = source.slot if source.edge is None else source.slot[np.argsort(source.edge)]
    for edge, (child, parent) in enumerate(source.edge_index.T.tolist()):
        key = digraph.add_edge(child, parent)
        digraph.edges[child, parent, key].update(
            {name: rows[edge] for name, rows in edge_data.items()}, slot=int(slots[edge])
        )
    return digraph


@uncompiled
def from_edge_index(source: Any, num_vertices: int | None = None, kind: Any = None, slots: Any = None) -> InputGraph:
    """An input graph from edges as PyTorch Geometric and DGL have them, from source (child) to target (parent).

    Args:
        source: an `edge_index` [2, E], a `torch_geometric.data.Data`, or a homogeneous DGL graph.
        num_vertices: how many vertices there are; needed for an `edge_index` whose last vertices have no edge.
        kind, slots: as in `vf.graph`.

    Returns:
        The graph. Tensors of a `Data` or a DGL graph that have one row a node or an edge are arrays in `data`; `edge_names`
        are those of edges (`edge_attr`), whose rows stay in the order of the edges. A DGL graph's edge feature whose name
        nodes have, too, becomes `edge_<name>`.

    Raises:
        GraphError, InputTypeError: as in `vf.graph`.
        InputTypeError: an `InputGraph`.

    Example:
        >>> vf.from_edge_index(torch.tensor([[0, 1], [2, 2]]))  # vertex 2 has the children 0 and 1
        InputGraph(num_vertices=3)
    """
    rows: Mapping[str, Any] = {}
    edge_rows: Mapping[str, Any] = {}
    if isinstance(source, InputGraph):
        raise InputTypeError("from_edge_index was given an input graph, which is one already")
    if hasattr(source, "edge_index"):  # PyTorch Geometric
        edges, count = source.edge_index, source.num_nodes
        names = [name for name in source.keys() if name != "edge_index"]  # noqa: SIM118 - no mapping
        # Beside a single edge, any tensor of one row might be of that edge; a label of the graph, `y`, is more likely.
        single = isinstance(edges, torch.Tensor) and edges.shape[-1] == 1
        names_of_edges = [name for name in names if source.is_edge_attr(name) and not (single and "edge" not in name)]
        edge_rows = {name: source[name] for name in names_of_edges}
        rows = {name: source[name] for name in names if source.is_node_attr(name)}
    elif callable(getattr(source, "num_nodes", None)) and callable(getattr(source, "edges", None)):  # DGL
        edges, count, rows, edge_rows = torch.stack(source.edges()), source.num_nodes(), source.ndata, source.edata
    else:
        edges = source if isinstance(source, torch.Tensor) else np.asarray(source)
        count = int(edges.max()) + 1 if num_vertices is None and 0 not in edges.shape else 0
    input_graph = graph(count if num_vertices is None else num_vertices, edges, kind=kind, slots=slots)
    for name, value in rows.items():
        if isinstance(value, torch.Tensor) and value.dim() and len(value) == input_graph.num_vertices:
            input_graph.data[name] = value.detach().cpu().numpy()
    for name, value in edge_rows.items():
        # What Geometric joins along another dimension, such as `edge_label_index` [2, L], is no row an edge.
        if (
            isinstance(value, torch.Tensor)
            and "index" not in name
            and value.dim()
            and len(value) == input_graph.num_edges
        ):
            add_edge_data(input_graph, name, value.detach().cpu().numpy())
    return input_graph


def _attribute(attributes: Mapping[str, Any], name: str, owner: str) -> Any:
    if name not in attributes:
        raise GraphError(f"{owner} has no attribute {name!r}; give it to all of them")
    return attributes[name]


def _column(values: list[Any], name: str | None = None, owner: str = "vertex") -> np.ndarray[Any, Any]:
    """Numbers as an array; vectors, where they are an attribute and so have a `name`, as its rows; anything else as objects."""
    if all(isinstance(value, (bool, int, float, np.number, np.bool_)) for value in values):
        return np.array(values)
    if name is not None and all(isinstance(value, (list, np.ndarray, torch.Tensor)) for value in values):
        rows = [row for row in map(_vector, values) if row is not None]
        if len(rows) == len(values):
            differing = next((index for index, row in enumerate(rows) if row.shape != rows[0].shape), None)
            if differing is None:
                return np.stack(rows)
            raise GraphError(
                f"the attribute {name!r} has the shape {list(rows[0].shape)} at {owner} 0, but {list(rows[differing].shape)} at "
                f"{owner} {differing}; give all of them vectors of one length, or make them tuples to keep them as they are"
            )
    return np.fromiter(values, object, len(values))


def _vector(value: Any) -> np.ndarray[Any, Any] | None:
    """Numbers as an array; None for anything else."""
    try:
        row = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # a ragged list, a tensor that NumPy has no type for
        return None
    return row if row.dtype.kind in "biufc" else None
