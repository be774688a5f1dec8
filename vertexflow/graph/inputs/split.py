"""Batches cut between graphs into parts, for batches that are too large to be computed at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from ...errors import GraphError, InputError, InputTypeError
from ..uncompiled import uncompiled
from .build import Ints
from .derived import Derived
from .pack import GraphBatch, replaced

_ARRAYS = ("child", "slot", "offset", "graph_offset", "kind_index", "edge")  # that make a structure, with the kinds


@dataclass(frozen=True)
class BatchPart:
    """Some graphs of a batch, as a batch of their own.

    Attributes:
        batch: the graphs of this part; `batch.data` are their rows of the whole batch's.
        graphs, vertices, edges: which they are in the whole batch, as slices: `labels[part.graphs]`, `x[part.vertices]`,
            `weight[part.edges]` (edges in the order of `edge_index`, or arcs in that of `arcs`).
    """

    batch: GraphBatch
    graphs: slice
    vertices: slice
    edges: slice


@uncompiled
def split(batch: GraphBatch, max_vertices: int) -> tuple[BatchPart, ...]:
    """Cut a batch between graphs into parts of at most `max_vertices` vertices, in order.

    A graph is never cut: one that alone has more vertices is a part by itself. The parts are kept with the batch, and with
    them their schedules, so that the same batch is cut once.

    For training on batches that memory does not hold otherwise: gradients of a sum of losses are the sum of the parts'
    gradients, which `backward` adds up. (For a loss that needs the outputs of all graphs at once, and for no code at all,
    see `max_vertices` of `vf.VertexFunction`.)

    Raises:
        InputError, InputTypeError: `max_vertices` is no positive integer, `batch` no `GraphBatch`.

    Example:
        >>> for part in vf.split(batch, max_vertices=10_000):
        ...     out = model(part.batch, x=x[part.vertices])
        ...     logits = classify(out.h[part.batch.roots])
        ...     loss = F.cross_entropy(logits, labels[part.graphs], reduction="sum") / batch.num_graphs
        ...     loss.backward()                             # gradients of the whole batch's mean add up
        >>> optimizer.step()
    """
    if not isinstance(batch, GraphBatch):
        raise InputTypeError(f"vf.split takes a GraphBatch, not {type(batch).__name__}; pack graphs with vf.pack")
    if isinstance(max_vertices, bool) or not isinstance(max_vertices, (int, np.integer)):
        raise InputTypeError(f"max_vertices is {max_vertices!r}; give an integer, the most vertices of a part")
    if max_vertices < 1:
        raise InputError(f"max_vertices is {max_vertices}; give 1 or more, the most vertices of a part")
    if batch.num_vertices <= max_vertices:
        everything = slice(0, batch.num_graphs), slice(0, batch.num_vertices), slice(0, batch.num_arcs)
        return (BatchPart(batch, *everything),)
    parts = batch.derived.parts.get(max_vertices)
    if parts is None:
        if batch.num_external:
            raise GraphError("a batch that reads vertices outside it cannot be split; split it before")
        parts = batch.derived.parts[max_vertices] = _parts(batch, _cuts(batch.graph_offset, max_vertices))
    return parts


def cut_at(batch: GraphBatch, cuts: tuple[int, ...]) -> tuple[BatchPart, ...]:
    """Cut a batch into parts that begin with these graphs (0, ..., and the number of graphs at the end); kept with the batch."""
    parts = batch.derived.parts.get(cuts)
    if parts is None:
        parts = batch.derived.parts[cuts] = _parts(batch, cuts)
    return parts


def _cuts(graph_offset: Ints, max_vertices: int) -> list[int]:
    """The first graph of each part, and the number of graphs."""
    cuts, num_graphs = [0], len(graph_offset) - 1
    while cuts[-1] < num_graphs:
        largest = int(graph_offset[cuts[-1]]) + max_vertices
        end = int(np.searchsorted(graph_offset, largest, side="right")) - 1
        cuts.append(max(end, cuts[-1] + 1))
    return cuts


def _parts(batch: GraphBatch, cuts: Sequence[int]) -> tuple[BatchPart, ...]:
    """The parts that begin with these graphs. Those of the same structure have the same arrays, and share what is made of them:
    of sequences of one length, all parts but the last do."""
    parts = [_part(batch, first, end) for first, end in pairwise(cuts)]
    keys = [_structure(part.batch) for part in parts]
    counts, alike = Counter(keys), dict[Hashable, GraphBatch]()
    for at, (part, key) in enumerate(zip(parts, keys, strict=True)):
        if counts[key] > 1:
            known = alike.setdefault(key, part.batch)
            derived = Derived(orders=known.derived.orders, num_alike=counts[key])
            arrays = {name: getattr(known, name) for name in _ARRAYS}
            parts[at] = replace(part, batch=part.batch._changed(**arrays, derived=derived))
    return tuple(parts)


def _structure(batch: GraphBatch) -> Hashable:
    """Equal for batches of the same structure."""
    arrays = (getattr(batch, name) for name in _ARRAYS)
    return batch.kinds, *(None if array is None else array.tobytes() for array in arrays)


def _part(batch: GraphBatch, first: int, end: int) -> BatchPart:
    """The graphs `first` to `end` - 1."""
    vertices = slice(int(batch.graph_offset[first]), int(batch.graph_offset[end]))
    edges = slice(int(batch.offset[vertices.start]), int(batch.offset[vertices.stop]))
    arcs = slice(*map(int, batch.arcs_before[[vertices.start, vertices.stop]]))
    slot, kinds, kind_index = batch.slot[edges], batch.kinds, None
    if batch.kinds is not None and batch.kind_index is not None:
        numbers, kind_index = np.unique(batch.kind_index[vertices], return_inverse=True)
        kinds, kind_index = tuple(batch.kinds[number] for number in numbers), kind_index.astype(np.int32)
    part = replaced(
        batch,
        num_graphs=end - first,
        num_vertices=vertices.stop - vertices.start,
        child=batch.child[edges] - np.int32(vertices.start),
        slot=slot,
        offset=batch.offset[vertices.start : vertices.stop + 1] - np.int32(edges.start),
        graph_offset=batch.graph_offset[first : end + 1] - np.int32(vertices.start),
        num_slots=int(slot.max()) + 1 if len(slot) else 0,
        kinds=kinds,
        kind_index=kind_index,
        edge=None if batch.edge is None else batch.edge[edges] - np.int32(edges.start),
        graphs=batch.graphs[first:end],
        schedule=None,
        indices=None,
        device=torch.device("cpu"),
        derived=Derived(),
    )
    if "_joined_data" in batch.__dict__:
        rows, edge_names = batch._joined_data
        rows = {name: values[arcs if name in edge_names else vertices] for name, values in rows.items()}
        part.__dict__["_joined_data"] = rows, edge_names
    return BatchPart(part.to(batch.device), slice(first, end), vertices, arcs)
