"""What the native core refused about a list of graphs, as an error of ours."""

from __future__ import annotations

from typing import Any

from ...errors import GraphError, InputTypeError, VertexFlowError
from .edge_arrays import LARGEST


def refusal(error: Exception, graphs: list[Any]) -> VertexFlowError:
    """The error that says why `graphs` cannot be packed."""
    problem, number, _ = error.args
    if problem == "not a graph":
        return InputTypeError(
            f"element {number} of the list is a {type(graphs[number]).__name__}, not an input graph; "
            "make one with vf.graph, vf.tree, vf.chain or a reader"
        )
    if problem == "too large":
        return GraphError(f"{number} vertices or edges in one batch; a batch has at most {LARGEST}: pack fewer graphs")
    return GraphError(
        f"a graph's structure is no such array ({number} elements); make graphs with vf.graph and its like"
    )
