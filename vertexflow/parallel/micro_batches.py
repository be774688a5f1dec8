"""The arguments of a model, cut between graphs into micro-batches."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten_with_path, tree_unflatten

from ..call.on_ranks import OnRanks
from ..errors import InputError
from ..graph.inputs.build import InputGraph
from ..graph.inputs.pack import GraphBatch, pack
from ..graph.inputs.split import cut_at

Cuts = tuple[int, ...]


class Cutter:
    """Cuts the arguments of the calls of one model.

    Nothing is cut because of how many rows it has: a table may have as many as a batch has vertices. `rows` says it, and what it
    says nothing of is given whole where no rows of the batch are as many, and refused where some are.

    Args:
        count: of micro-batches.
        rows: by arguments: what their rows are, "vertices", "edges", "graphs", "roots", "leaves", "vertices of kind 'leaf'" (of
            the second of several batches, "vertices of batch 1"); None of what is given whole. "inputs.x" is an entry of an
            argument that is a mapping; "inputs" all of them.
        names: of the arguments by position; of those after the last, there is only a number.
        has_parts: whether the model may be called with parts of graphs, which are given whole, as all beside them.
    """

    def __init__(
        self, count: int, rows: Mapping[str, str | None], names: Sequence[str], has_parts: bool = False
    ) -> None:
        self.count, self.rows, self.names, self.has_parts = count, dict(rows), names, has_parts

    def cut(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[tuple[Any, Any]], dict[str, tuple[int, ...]]]:
        """The arguments of each micro-batch, of which there are no more than graphs, and one at least; and how many rows of each
        sort the micro-batches have.

        Raises:
            InputError: an argument has not the rows that it was said to have, or perhaps has some of which nothing was said.
        """
        paths, spec = tree_flatten_with_path((tuple(args), dict(kwargs)))
        if any(isinstance(leaf, OnRanks) for _, leaf in paths):
            if self.has_parts:
                return [(tuple(args), dict(kwargs))], {}
            raise InputError(
                "a model in stages was called with a part of graphs (vf.parallel.divide), whose other vertices are on other "
                'ranks; a plan says so, Plan({"stages": 2, "vertices": 2}, ...).apply(model, mesh)'
            )
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
        is_cut = len(graphs) > 2
        columns: list[list[Any]] = []
        for path, leaf in paths:
            if isinstance(leaf, GraphBatch):
                columns.append([part.batch for part in cut_at(leaf, graphs)] if is_cut else [leaf])
                continue
            cuts = (
                self._cuts_of(self._name(path), leaf, bounds, is_cut)
                if isinstance(leaf, Tensor) and leaf.dim()
                else None
            )
            pairs = pairwise(graphs if cuts is None else cuts)
            columns.append([leaf if cuts is None else leaf[start:end] for start, end in pairs])
        pieces = [tree_unflatten([column[number] for column in columns], spec) for number in range(len(graphs) - 1)]
        row_counts = {sort: tuple(end - start for start, end in pairwise(cuts)) for sort, cuts in bounds.items()}
        return [(piece[0], piece[1]) for piece in pieces], row_counts

    def _name(self, path: Sequence[Any]) -> str:
        """What an argument, or an entry of it, is called."""
        of_keywords, first, *inner = (_key(entry) for entry in path)
        if not of_keywords:
            first = self.names[first] if first < len(self.names) else first
        return ".".join(map(str, (first, *inner)))

    def _cuts_of(self, name: str, value: Tensor, bounds: Mapping[str, Cuts], is_cut: bool) -> Cuts | None:
        outer = name
        while outer not in self.rows and "." in outer:
            outer = outer.rpartition(".")[0]
        if outer not in self.rows:
            fitting = [sort for sort, cuts in bounds.items() if cuts[-1] == len(value)]
            if not fitting or not len(value) or not is_cut:
                return None
            raise InputError(
                f"argument {name!r} of a model in stages has {len(value)} rows, as many as the batch has "
                f"{' and '.join(fitting)}. Whether it is cut with them into micro-batches, its size does not tell. Say what "
                f"its rows are, plan.apply(model, mesh, rows={{{name!r}: {fitting[0]!r}}}), or None if it is given whole"
            )
        sort = self.rows[outer]
        if sort is None:
            return None
        number_of_rows = bounds[sort][-1] if sort in bounds else 0
        if number_of_rows != len(value):
            raise InputError(
                f"argument {name!r} of a model in stages has {len(value)} rows, and the batch {number_of_rows} {sort}, which it "
                f"was said to have a row for; the batch has {', '.join(f'{cuts[-1]} {each}' for each, cuts in bounds.items())}"
            )
        return bounds.get(sort)


def _key(entry: Any) -> Any:
    """The number or name of an entry in a path."""
    return next(getattr(entry, name) for name in ("idx", "key", "name") if hasattr(entry, name))


def positions(module: nn.Module, rows: Mapping[str, str | None]) -> list[str]:
    """The names of the arguments of a model, by position.

    Raises:
        InputError: `rows` speaks of an argument that the model has not.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    names = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    is_open = any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters)
    known = [each.name for each in parameters]
    wrong = [name for name in rows if name.partition(".")[0] not in known]
    if wrong and not is_open:
        raise InputError(f"rows={{{wrong[0]!r}: ...}}: the model has no such argument; it has {', '.join(known)}")
    return names


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
