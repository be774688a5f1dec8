"""Many input graphs as one `GraphBatch` of flat arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import GraphError, InputError, InputTypeError
from .build import InputGraph, Ints


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Input graphs packed side by side: the vertices of the first, then of the second, and so on.

    Attributes:
        num_graphs, num_vertices: G and V.
        child, slot, offset: as in `InputGraph`, with the batch's vertex numbers; int64 [E], [E], [V + 1].
        graph_offset: int64 [G + 1]; the vertices of graph g are `graph_offset[g]:graph_offset[g + 1]`.
        kind: an array [V], or None.
        data: the arrays of one row a vertex that all graphs have, joined.
        device: where `roots`, `leaves` and `graph_of_vertex` live.
        cache: what others derive from the structure (schedules); left behind when the batch is pickled.
    """

    num_graphs: int
    num_vertices: int
    child: Ints = field(repr=False)
    slot: Ints = field(repr=False)
    offset: Ints = field(repr=False)
    graph_offset: Ints = field(repr=False)
    kind: np.ndarray[Any, Any] | None = field(default=None, repr=False)
    data: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict, repr=False)
    device: torch.device = field(default=torch.device("cpu"))
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.num_graphs

    @property
    def num_edges(self) -> int:
        return len(self.child)

    @cached_property
    def num_slots(self) -> int:
        """The largest slot in use plus one; 0 without edges."""
        return int(self.slot.max()) + 1 if len(self.slot) else 0

    @cached_property
    def roots(self) -> Tensor:
        """int64: the vertices that no vertex consumes, in the order of the graphs (one a graph, for trees)."""
        return self._tensor(np.flatnonzero(np.bincount(self.child, minlength=self.num_vertices) == 0))

    @cached_property
    def leaves(self) -> Tensor:
        """int64: the vertices without children."""
        return self._tensor(np.flatnonzero(np.diff(self.offset) == 0))

    @cached_property
    def graph_of_vertex(self) -> Tensor:
        """int64 [V]: the graph of each vertex."""
        return self._tensor(np.repeat(np.arange(self.num_graphs), np.diff(self.graph_offset)))

    @cached_property
    def _reversed(self) -> GraphBatch:
        parent = np.repeat(np.arange(self.num_vertices), np.diff(self.offset))
        order = np.argsort(self.child, kind="stable")
        counts = np.bincount(self.child, minlength=self.num_vertices)
        offset = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)))
        slot = np.arange(len(order)) - offset[self.child[order]]
        return replace(self, child=parent[order], slot=slot, offset=offset, cache={})

    def reversed(self) -> GraphBatch:
        """The batch with every edge turned round; slots are numbered in the order of the consumers."""
        return self._reversed

    def to(self, device: torch.device | str, non_blocking: bool = False) -> GraphBatch:
        """The batch with its index tensors on `device`. The arrays themselves stay where the scheduler reads them."""
        device = torch.device(device)
        if device == self.device:
            return self
        moved = replace(self, device=device)
        for name in ("roots", "leaves", "graph_of_vertex"):
            moved.__dict__[name] = getattr(self, name).to(device, non_blocking=non_blocking)
        return moved

    def locate(self, vertex: int) -> str:
        """The graph of a vertex and its number there, for messages: `graph 3, vertex 5`."""
        graph = int(np.searchsorted(self.graph_offset, vertex, side="right")) - 1
        return f"graph {graph}, vertex {int(vertex - self.graph_offset[graph])}"

    def _tensor(self, array: Ints) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def __getstate__(self) -> dict[str, Any]:
        names = self.__dataclass_fields__
        return {name: value for name, value in self.__dict__.items() if name in names} | {"cache": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def pack(graphs: Sequence[InputGraph]) -> GraphBatch:
    """Join input graphs into one batch.

    Raises:
        GraphError: the list is empty, only some of the graphs have kinds, or their kinds or data do not fit together.
        InputTypeError: an element is no input graph.

    Example:
        >>> batch = vf.pack([vf.tree(((0, 1), 2)), vf.chain(5)])
        >>> batch.num_vertices, batch.roots
        (10, tensor([4, 9]))
    """
    if isinstance(graphs, InputGraph):
        raise InputTypeError("vf.pack takes a list of input graphs; for one graph write vf.pack([graph])")
    if not isinstance(graphs, Iterable):
        raise InputTypeError(f"vf.pack takes a list of input graphs, not {type(graphs).__name__}")
    graphs = list(graphs)
    if not graphs:
        raise GraphError("an empty list of graphs; a batch needs at least one")
    for index, item in enumerate(graphs):
        if not isinstance(item, InputGraph):
            raise InputTypeError(
                f"element {index} of the list is a {type(item).__name__}, not an input graph; "
                "make one with vf.graph, vf.tree, vf.chain or a reader"
            )
    sizes = np.array([graph.num_vertices for graph in graphs])
    edges = np.array([graph.num_edges for graph in graphs])
    graph_offset = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
    edge_offset = np.concatenate((np.zeros(1, np.int64), np.cumsum(edges)))
    child = np.concatenate([graph.child for graph in graphs]) + np.repeat(graph_offset[:-1], edges)
    offset = np.concatenate([graph.offset[:-1] for graph in graphs]) + np.repeat(edge_offset[:-1], sizes)
    return GraphBatch(
        num_graphs=len(graphs),
        num_vertices=int(graph_offset[-1]),
        child=child,
        slot=np.concatenate([graph.slot for graph in graphs]),
        offset=np.concatenate((offset, edge_offset[-1:])),
        graph_offset=graph_offset,
        kind=_join_kinds(graphs),
        data=_join_data(graphs),
    )


def collate(samples: Iterable[Any]) -> Any:
    """`vf.pack` for samples with more than a graph: the `collate_fn` of a `torch.utils.data.DataLoader`.

    Samples are input graphs, or tuples, lists or dicts of them and other values, all of one form. Graphs are packed;
    tensors and arrays are concatenated along their first dimension (one row a vertex, as a model's inputs); numbers and
    tensors without dimensions are stacked (one a graph); anything else is kept in a list. What holds numbers becomes a
    tensor; arrays of strings or objects stay arrays.

    Raises:
        InputError: no samples, or samples that do not fit together; the message names the field.
        InputTypeError: samples of different forms.
        GraphError: as in `vf.pack`.

    Example:
        >>> loader = DataLoader([(graph, tokens, label), ...], batch_size=64, collate_fn=vf.collate)
        >>> for batch, tokens, labels in loader: ...
    """
    samples = list(samples)
    if not samples:
        raise InputError("vf.collate got no samples")
    return _collate(samples, "sample")


def _collate(items: list[Any], where: str) -> Any:
    first = items[0]
    for index, item in enumerate(items):
        if type(item) is not type(first) and not (_is_number(item) and _is_number(first)):
            raise InputTypeError(
                f"{where}: {type(item).__name__} in sample {index}, but {type(first).__name__} in the first; "
                "all samples must have one form"
            )
    if isinstance(first, InputGraph):
        return pack(items)
    if isinstance(first, Mapping):
        for index, item in enumerate(items):
            if item.keys() != first.keys():
                raise InputError(f"{where}: sample {index} has the keys {list(item)}, the first {list(first)}")
        return {key: _collate([item[key] for item in items], f"{where}[{key!r}]") for key in first}
    if isinstance(first, (tuple, list)):
        for index, item in enumerate(items):
            if len(item) != len(first):
                raise InputError(f"{where}: sample {index} has {len(item)} fields, the first {len(first)}")
        fields = [_collate([item[at] for item in items], f"{where}[{at}]") for at in range(len(first))]
        return type(first)(*fields) if hasattr(first, "_fields") else type(first)(fields)
    if isinstance(first, (Tensor, np.ndarray)):
        try:
            return _join(items)
        except (RuntimeError, ValueError) as error:
            shapes = ", ".join(str(tuple(item.shape)) for item in items[:4])
            more = ", ..." if len(items) > 4 else ""
            raise InputError(f"{where}: the shapes {shapes}{more} cannot be joined: {error}") from error
    if not _is_number(first):
        return items
    try:
        return torch.tensor(items)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: the numbers cannot be joined: {error}") from error


def _join(items: list[Any]) -> Any:
    if isinstance(items[0], Tensor):
        return torch.stack(items) if items[0].dim() == 0 else torch.cat(items)
    joined = np.stack(items) if items[0].ndim == 0 else np.concatenate(items)
    return torch.from_numpy(joined) if joined.dtype.kind in "biufc" else joined


def _is_number(item: object) -> bool:
    return isinstance(item, (int, float, np.number, np.bool_))


def _join_data(graphs: list[InputGraph]) -> dict[str, np.ndarray[Any, Any]]:
    joined = {}
    for name in graphs[0].data:
        if not all(name in graph.data for graph in graphs):
            continue
        rows = [graph.data[name] for graph in graphs]
        for index, graph in enumerate(graphs):
            if len(rows[index]) != graph.num_vertices:
                raise GraphError(
                    f"data {name!r} of graph {index} has {len(rows[index])} rows for {graph.num_vertices} vertices; "
                    "give one for each vertex"
                )
        try:
            joined[name] = np.concatenate(rows)
        except ValueError as error:
            raise GraphError(f"data {name!r} cannot be joined: {error}; give its rows one shape everywhere") from error
    return joined


def _join_kinds(graphs: list[InputGraph]) -> np.ndarray[Any, Any] | None:
    without = next((index for index, graph in enumerate(graphs) if graph.kind is None), None)
    if without is None:
        kinds = [graph.kind for graph in graphs if graph.kind is not None]
        for index, kind in enumerate(kinds):
            if kind.dtype.kind != kinds[0].dtype.kind:  # NumPy would turn numbers into strings without a word
                raise GraphError(f"graph {index} has kinds of {kind.dtype}, graph 0 of {kinds[0].dtype}; use one type")
        return np.concatenate(kinds)
    if any(graph.kind is not None for graph in graphs):
        raise GraphError(f"graph {without} has no kinds, but others have; give all graphs kinds, or none")
    return None
