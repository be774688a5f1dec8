"""`vf.parallel.divide`: graphs cut into parts, the vertices of each of which one rank computes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import GraphError, InputError, InputTypeError
from ..graph.inputs.build import InputGraph
from ..graph.inputs.pack import GraphBatch, pack
from .divide_graph import crossings, levels_of, local_graph
from .graph_part import GraphPart, Ints


def divide(
    graphs: GraphBatch | Sequence[InputGraph],
    ranks: int,
    *,
    reverse: bool = False,
    rank_of: Any = None,
) -> list[GraphPart]:
    batch = graphs if isinstance(graphs, GraphBatch) else pack(graphs)
    rank_of = np.asarray(rank_of, np.int64)
    upward = _locals(batch, rank_of, ranks)
    downward = _locals(batch.reversed(), rank_of, ranks) if reverse else [None] * ranks
    checksum = zlib.crc32(rank_of.tobytes())
    for array in (batch.child, batch.slot, batch.offset, batch.kind_index):
        checksum = zlib.crc32(b"" if array is None else np.ascontiguousarray(array).tobytes(), checksum)
    parts = []
    is_read = np.bincount(batch.child, minlength=batch.num_vertices) > 0
    for rank in range(ranks):
        own = np.flatnonzero(rank_of == rank)
        arrays = {"own": own, "roots": np.flatnonzero(~is_read[own]), "leaves": np.flatnonzero(np.diff(batch.offset)[own] == 0)}
        if batch.kind_index is not None:
            arrays["kind_index"] = batch.kind_index[own]
        parts.append(GraphPart(rank, ranks, checksum, batch.num_graphs, batch.kinds, arrays, upward[rank], downward[rank]))
    return parts


def _locals(batch, rank_of, ranks):
    levels = levels_of(batch)
    crossed = crossings(batch, levels, rank_of, ranks)
    return [local_graph(batch, levels, rank_of, crossed, rank, ranks) for rank in range(ranks)]
