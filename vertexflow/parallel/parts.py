"""`vf.parallel.divide`: graphs cut into parts, whose vertices different ranks compute."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import GraphError, InputError, InputTypeError
from ..graph.inputs.arcs import refuse_arcs
from ..graph.inputs.build import InputGraph
from ..graph.inputs.pack import GraphBatch, pack
from .divide_graph import crossings, levels_of, local_graph
from .graph_part import GraphPart, Ints, LocalGraph
from .partition import StepCost, partition


def divide(
    graphs: GraphBatch | Sequence[InputGraph],
    ranks: int,
    *,
    reverse: bool = False,
    rank_of: Any = None,
    cost: StepCost | None = None,
) -> list[GraphPart]:
    """Cut graphs into parts, whose vertices different ranks compute: for graphs that are too large for one.

    A rank keeps the states and inputs of its own vertices, and states that it reads of others, which are sent to it between two
    levels. Which rank computes what is found by METIS (`pip install 'vertexflow[parallel]'`), such that few states cross and
    each rank has as much of each level as others, where that is predicted to be faster. All ranks can call this with the same
    graphs, and get the same; or one does, and saves the parts (`GraphPart.save`), so that no other needs memory for the whole.

    Args:
        graphs: a `GraphBatch`, or input graphs. Parts of several graphs are vertices of any of them.
        ranks: how many parts.
        reverse: whether models are called with `reverse=True` too.
        rank_of: the rank of each vertex, integers [num_vertices], in the place of what is found.
        cost: what levels and exchanges cost beside rows, `plan.step_cost` of a plan that was found; all ranks give the same.

    Returns:
        A part for each rank. `model(part, x=x[part.own])` is called on all ranks at the same time; see `GraphPart`.

    Raises:
        GraphError: a cycle, or hypergraphs (`vf.hypergraph`), whose arcs are not divided.
        InputError, InputTypeError: `ranks`, `rank_of` or `cost` are not as said.
        BackendError: METIS is not installed.

    Example:
        >>> parts = vf.parallel.divide(batch, 2)
        >>> [part.num_vertices for part in parts]
        [5, 5]
    """
    if isinstance(ranks, bool) or not isinstance(ranks, (int, np.integer)):
        raise InputTypeError(f"ranks is {ranks!r}; give an integer, the number of parts")
    if ranks < 1:
        raise InputError(f"ranks is {ranks}; give an integer from 1 up")
    if cost is not None and not isinstance(cost, StepCost):
        raise InputTypeError(f"cost is a {type(cost).__name__}; give a vf.parallel.StepCost, or None")
    batch = graphs if isinstance(graphs, GraphBatch) else pack(graphs)
    refuse_arcs(batch, "divided over ranks")
    if batch.num_external:
        raise GraphError("a batch that reads vertices outside it cannot be divided; divide it before")
    levels = levels_of(batch)
    step_cost = cost or StepCost()
    chosen = partition(batch, levels, int(ranks), step_cost) if rank_of is None else _checked(rank_of, batch, ranks)
    upward = _local_graphs(batch, levels, chosen, ranks)
    downward: Sequence[LocalGraph | None] = [None] * ranks
    if reverse:
        turned = batch.reversed()
        downward = _local_graphs(turned, levels_of(turned), chosen, ranks)
    kinds = np.frombuffer(repr(batch.kinds).encode(), np.uint8)
    checksum = _checksum([chosen, batch.child, batch.slot, batch.offset, batch.kind_index, kinds])
    is_read = np.bincount(batch.child, minlength=batch.num_vertices) > 0
    has_children = np.diff(batch.offset) > 0
    parts = []
    for rank in range(ranks):
        own = np.flatnonzero(chosen == rank)
        arrays: dict[str, Ints] = {
            "own": own, "roots": np.flatnonzero(~is_read[own]), "leaves": np.flatnonzero(~has_children[own])
        }  # fmt: skip
        if batch.kind_index is not None:
            arrays["kind_index"] = batch.kind_index[own]
        parts.append(
            GraphPart(rank, int(ranks), checksum, batch.num_graphs, batch.kinds, arrays, upward[rank], downward[rank])
        )
    return parts


def _local_graphs(batch: GraphBatch, levels: Ints, rank_of: Ints, ranks: int) -> list[LocalGraph]:
    crossed = crossings(batch, levels, rank_of, ranks)
    return [local_graph(batch, levels, rank_of, crossed, rank, ranks) for rank in range(ranks)]


def _checked(rank_of: Any, batch: GraphBatch, ranks: int) -> Ints:
    array = rank_of.cpu().numpy() if isinstance(rank_of, Tensor) else np.asarray(rank_of)
    if array.shape != (batch.num_vertices,) or array.dtype.kind not in "iu":
        raise InputError(
            f"rank_of is of {array.dtype} and shape {list(array.shape)}; give the rank of each of "
            f"{batch.num_vertices} vertices, as integers"
        )
    wrong = np.flatnonzero((array < 0) | (array >= ranks))
    if len(wrong):
        raise InputError(f"rank_of[{wrong[0]}] is {array[wrong[0]]}; ranks are 0 to {ranks - 1}")
    return array.astype(np.int64)


def _checksum(arrays: Iterable[np.ndarray[Any, Any] | None]) -> int:
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(b"" if array is None else np.ascontiguousarray(array).tobytes(), checksum)
    return checksum
