"""Edges as users give them: read into arrays, and what is wrong with them in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np
import torch

from ...errors import GraphError, InputTypeError

Wide = np.ndarray[Any, np.dtype[np.int64]]

LARGEST = 2**31 - 1  # of vertices, and of edges


def int_array(values: Any, name: str) -> Wide:
    array = as_array(values, name)
    if array.size > LARGEST:
        raise GraphError(f"{name}: {array.size} of them; a graph has at most {LARGEST} vertices and edges")
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "iu":
        raise InputTypeError(f"{name} must be integers, not {array.dtype}")
    if array.ndim != 1:
        raise GraphError(f"{name} must be one list of numbers, not an array of shape {array.shape}")
    if array.dtype.kind == "u" and int(array.max()) > np.iinfo(np.int64).max:
        raise GraphError(f"{name}: {array.max()} is out of range; a graph has at most {LARGEST} vertices and edges")
    return np.ascontiguousarray(array, np.int64)


def as_array(values: Any, name: str) -> np.ndarray[Any, Any]:
    try:
        return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # a ragged list, a sparse tensor, one of bfloat16
        raise InputTypeError(f"{name} cannot be read as an array: {str(error).splitlines()[0]}") from error


def edge_arrays(edges: Any) -> tuple[Wide, Wide]:
    if isinstance(edges, torch.Tensor):
        edges = as_array(edges, "edges")
    if isinstance(edges, np.ndarray):
        if edges.ndim != 2 or edges.shape[0] != 2:
            hint = "; transpose it" if edges.ndim == 2 and edges.shape[1] == 2 else ""
            raise GraphError(
                f"an array of edges has the shape [2, E] (children, then parents), not {list(edges.shape)}{hint}"
            )
        rows = edges
    else:
        if not isinstance(edges, Iterable):
            raise InputTypeError(f"edges are pairs (child, parent) or an array [2, E], not {type(edges).__name__}")
        pairs = [tuple(pair) if isinstance(pair, Iterable) else (pair,) for pair in edges]
        wrong = next((index for index, pair in enumerate(pairs) if len(pair) != 2), None)
        if wrong is not None:
            raise GraphError(f"edge {wrong} is {pairs[wrong]!r}; give pairs (child, parent)")
        try:
            rows = np.array(pairs, dtype=None if pairs else np.int64).reshape(len(pairs), 2).T
        except ValueError as error:
            raise GraphError(f"edges such as {pairs[0]!r} are no pairs (child, parent) of numbers") from error
    return int_array(rows[0], "children of edges"), int_array(rows[1], "parents of edges")


def explain(error: Exception, num_vertices: int, child: Wide, parent: Wide, slots: Wide | None) -> NoReturn:
    """Turn what the core refused about the edges of a graph into a `GraphError`."""
    problem, index, *_ = error.args
    if problem in ("child", "parent"):
        raise GraphError(
            f"edge {index} ({child[index]} -> {parent[index]}): {problem} {(child if problem == 'child' else parent)[index]} is "
            f"out of range; the vertices are 0 to {num_vertices - 1}"
        ) from None
    if problem == "cycle":
        path = [*map(str, index[:8]), *["..."] * (len(index) > 8), str(index[0])]
        raise GraphError(
            f"the graph has a cycle through vertex {index[0]}, {' -> '.join(path)}; no vertex can depend on itself"
        ) from None
    if slots is not None and problem == "slot":
        fault = "negative" if slots[index] < 0 else "too large"
        raise GraphError(f"edge {index} ({child[index]} -> {parent[index]}): slot {slots[index]} is {fault}") from None
    if slots is not None and problem == "slot twice":
        order = np.lexsort((slots, parent))
        twice = np.flatnonzero((np.diff(parent[order]) == 0) & (np.diff(slots[order]) == 0))
        first, second = int(order[twice[0]]), int(order[twice[0] + 1])
        raise GraphError(
            f"slot {slots[first]} of vertex {parent[first]} is used twice: by child {child[first]} (edge {first}) "
            f"and by child {child[second]} (edge {second})"
        ) from None
    raise GraphError(
        f"{num_vertices} vertices and {len(child)} edges are too many; a graph has at most {LARGEST}"
    ) from None
