"""The arguments of a model, cut between graphs into micro-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_unflatten

from ..errors import InputError
from ..graph.inputs.build import InputGraph
from ..graph.inputs.pack import GraphBatch, pack
from ..graph.inputs.split import cut_at

Cuts = tuple[int, ...]


class Cutter:
    """Cuts the arguments of the calls of one model.

    A tensor with as many rows as the batch has vertices (edges, graphs, roots, leaves, vertices of a kind) is cut with them; any
    other is given to all micro-batches as it is. What a tensor is, the first batch decides in which no two of these are as many:
    it stays so, and a batch in which it does not fit is refused.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.sorts: dict[str, str] = {}  # of each argument, by its path: what its rows are; "" has none of the batch

    def cut(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[Any, Any]]:
        """The arguments of each micro-batch; there are no more of them than graphs, and one at least."""
        paths, spec = tree_flatten_with_path((tuple(args), dict(kwargs)))
        batches = [leaf for _, leaf in paths if isinstance(leaf, GraphBatch)]
        if not batches:
            raise InputError("a model in stages is called on graphs: give it a GraphBatch, or a list of input graphs")
        first = batches[0]
        if any(batch.num_graphs != first.num_graphs for batch in batches):
            raise InputError(
                f"a model in stages is called on batches of {[batch.num_graphs for batch in batches]} graphs; micro-batches are "
                "of the same graphs in all of them"
            )
        graphs = _cuts(first, self.count)
        bounds = _bounds(batches, graphs)
        columns: list[list[Any]] = []
        for path, leaf in paths:
            if isinstance(leaf, GraphBatch):
                columns.append([leaf] if len(graphs) == 2 else [part.batch for part in cut_at(leaf, graphs)])
                continue
            cuts = self._cuts_of(keystr(path), leaf, bounds) if isinstance(leaf, Tensor) and leaf.dim() else None
            pairs = pairwise(graphs if cuts is None else cuts)
            columns.append([leaf if cuts is None else leaf[start:end] for start, end in pairs])
        pieces = [tree_unflatten([column[number] for column in columns], spec) for number in range(len(graphs) - 1)]
        return [(piece[0], piece[1]) for piece in pieces]

    def _cuts_of(self, path: str, value: Tensor, bounds: Mapping[str, Cuts]) -> Cuts | None:
        fitting = {sort: cuts for sort, cuts in bounds.items() if cuts[-1] == len(value)}
        sort = self.sorts.get(path)
        if sort is not None:
            if sort and sort not in fitting:
                raise InputError(
                    f"argument {path} of a model in stages had a row for each of the {sort} until now, and has {len(value)} rows "
                    f"for {bounds[sort][-1] if sort in bounds else 0} of them"
                )
            return bounds[sort] if sort else None
        if len(set(fitting.values())) > 1:
            raise InputError(
                f"argument {path} of a model in stages has {len(value)} rows, and the batch as many {' and '.join(fitting)}: "
                "which of them its rows are is not known. Call the model first on a batch in which these differ"
            )
        if len(fitting) < 2:
            self.sorts[path] = next(iter(fitting), "")
        return next(iter(fitting.values()), None)


def packed(tree: Any) -> Any:
    """Nested arguments with lists of input graphs packed."""
    if isinstance(tree, (list, tuple)) and tree and all(isinstance(item, InputGraph) for item in tree):
        return pack(list(tree))
    if type(tree) in (list, tuple):
        return type(tree)(packed(item) for item in tree)
    return {name: packed(item) for name, item in tree.items()} if type(tree) is dict else tree


def _cuts(batch: GraphBatch, count: int) -> Cuts:
    """The first graph of each micro-batch, and the number of graphs: cut where vertices come closest to equal parts."""
    count = max(1, min(count, batch.num_graphs))
    wanted = np.arange(1, count) * (batch.num_vertices / count)
    nearest = np.abs(np.asarray(batch.graph_offset)[:, None] - wanted).argmin(0) if count > 1 else wanted
    cuts = [0, *nearest.tolist(), batch.num_graphs]
    for number in range(1, count):  # each has a graph
        cuts[number] = min(max(cuts[number], cuts[number - 1] + 1), batch.num_graphs - count + number)
    return tuple(cuts)


def _bounds(batches: Sequence[GraphBatch], graphs: Cuts) -> dict[str, Cuts]:
    """Where the rows of each sort are cut."""
    bounds: dict[str, Cuts] = {}
    for number, batch in enumerate(batches):
        suffix = f" of batch {number}" if number else ""
        vertices = np.asarray(batch.graph_offset)[list(graphs)]
        bounds[f"vertices{suffix}"] = tuple(vertices.tolist())
        bounds[f"edges{suffix}"] = tuple(np.asarray(batch.arcs_before)[vertices].tolist())
        bounds[f"graphs{suffix}"] = graphs
        for name, rows in (("roots", batch.roots), ("leaves", batch.leaves)):
            bounds[f"{name}{suffix}"] = tuple(np.searchsorted(np.sort(rows.cpu().numpy()), vertices).tolist())
        for kind in batch.kinds or ():
            of_kind = batch.of_kind(kind).cpu().numpy()
            bounds[f"vertices of kind {kind!r}{suffix}"] = tuple(np.searchsorted(of_kind, vertices).tolist())
    return bounds
