"""What the native core refused about a list of graphs, as an error of ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ...errors import GraphError, InputTypeError, VertexFlowError
from .build import InputGraph
from .edge_arrays import LARGEST


def list_of(graphs: Any) -> list[Any]:
    """The list of what `vf.pack` was given; refuses what is a graph itself, ours or another library's, or no list."""
    if isinstance(graphs, InputGraph):
        raise InputTypeError("vf.pack takes a list of input graphs; for one graph write vf.pack([graph])")
    if _reader(graphs) or isinstance(graphs, (str, Mapping)) or not isinstance(graphs, Iterable):
        advice = f"; {_maker(graphs)}, and give a list of such" if _reader(graphs) else ""
        raise InputTypeError(f"vf.pack takes a list of input graphs, not {type(graphs).__name__}{advice}")
    return list(graphs)


def _maker(value: Any) -> str:
    return f"make one with {_reader(value) or 'vf.graph, vf.tree, vf.chain or a reader'}"


def _reader(value: Any) -> str | None:
    """The reader that takes this graph, or these edges, of another library."""
    if type(value).__module__.startswith("networkx"):
        return "vf.from_networkx"
    is_geometric, is_dgl = hasattr(value, "edge_index"), callable(getattr(value, "num_nodes", None))
    return "vf.from_edge_index" if is_geometric or is_dgl or isinstance(value, Tensor) else None


def refusal(error: Exception, graphs: list[Any]) -> VertexFlowError:
    """The error that says why `graphs` cannot be packed."""
    problem, number, _ = error.args
    if problem == "not a graph":
        return InputTypeError(
            f"element {number} of the list is a {type(graphs[number]).__name__}, not an input graph; {_maker(graphs[number])}"
        )
    if problem == "too large":
        return GraphError(f"{number} vertices or edges in one batch; a batch has at most {LARGEST}: pack fewer graphs")
    return GraphError(
        f"a graph's structure is no such array ({number} elements); make graphs with vf.graph and its like"
    )
