"""The rows that a readout reduces, graph by graph: of all vertices, of those of some kinds, or of those that were named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ...errors import InputError, InputTypeError

if TYPE_CHECKING:
    from .pack import GraphBatch


class Grouped(NamedTuple):
    """Rows, those of the first graph first: int64 [num_graphs], how many each graph has; and the place of each row as it was
    given, None: they were given so."""

    values: Tensor
    counts: Tensor
    back: Tensor | None

    def as_given(self, rows: Tensor) -> Tensor:
        """Rows like these in the order in which these were given."""
        return rows if self.back is None else rows.index_select(0, self.back)


def grouped(batch: GraphBatch, values: Tensor, kinds: tuple[Any, ...], of: Tensor | None, call: str) -> Grouped:
    """The rows that `batch.<call>(values, *kinds, of=of)` reduces.

    Raises:
        InputError, InputTypeError: `values` has another number of rows than vertices were named, or these are no vertices.
    """
    graph = None if of is None else graphs_of(batch, kinds, of, call)
    rows = batch._num_rows(kinds) if graph is None else len(graph)
    if not isinstance(values, Tensor) or values.dim() == 0 or len(values) != rows:
        has_rows = isinstance(values, Tensor) and values.dim()
        given = f"{len(values)} rows" if has_rows else repr(type(values).__name__)
        clause = f" of kind {' or '.join(map(repr, kinds))}" if kinds else " in `of`" if of is not None else ""
        names = [*map(repr, batch.kinds or ())] if not kinds and of is None else []
        advice = (
            f"; name those that have rows, of the kinds {', '.join(names)}: batch.{call}(values, {names[0]})"
            if names
            else ""
        )
        raise InputError(f"batch.{call} takes one row for each of {rows} vertices{clause}, not {given}{advice}")
    if graph is None:
        return Grouped(values, batch._graph_sizes(kinds), None)
    order = torch.argsort(graph, stable=True)
    counts = torch.bincount(graph, minlength=batch.num_graphs)
    return Grouped(values.index_select(0, order), counts, torch.argsort(order))


def graphs_of(batch: GraphBatch, kinds: tuple[Any, ...], of: Tensor, call: str) -> Tensor:
    """int64: the graph of each of the vertices `of`."""
    if kinds:
        raise InputError(f"batch.{call} was given kinds and `of`; give one of them")
    if not isinstance(of, Tensor) or of.dim() != 1 or of.is_floating_point() or of.is_complex():
        given = f"{str(of.dtype)[6:]} {list(of.shape)}" if isinstance(of, Tensor) else type(of).__name__
        raise InputTypeError(
            f"batch.{call}(of=...) takes vertices as int64 [count], such as batch.roots, or booleans [num_vertices], not {given}"
        )
    if of.device != batch.graph_of_vertex.device:
        raise InputError(
            f"batch.{call}(of=...) is on {of.device}, the batch on {batch.graph_of_vertex.device}; move one"
        )
    count = batch.num_vertices
    if of.dtype == torch.bool:
        if len(of) != count:
            raise InputError(f"batch.{call}(of=...) has {len(of)} booleans for {count} vertices; give one a vertex")
        of = of.nonzero().squeeze(1)
    if of.device.type == "cpu" and len(of) and not 0 <= int(of.min()) <= int(of.max()) < count:
        raise InputError(
            f"batch.{call}(of=...) has the vertices {int(of.min())} to {int(of.max())}; the batch has 0 to {count - 1}"
        )
    return batch.graph_of_vertex.index_select(0, of.long())
