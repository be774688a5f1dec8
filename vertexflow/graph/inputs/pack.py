"""Many input graphs as one `GraphBatch` of flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ... import _core
from ...errors import GraphError, InputError, InputTypeError, VertexFlowError
from .. import segments, transforms
from ..uncompiled import uncompiled
from .arcs import arcs_before, arcs_of, common_arity, refuse_arcs
from .build import HAS_EDGES, HAS_KINDS, InputGraph, Ints
from .data import Rows, join_data
from .derived import Derived
from .drawn import Drawn
from .edge_index import edge_index_of
from .external import reading_external
from .kind_names import join_kinds
from .opaque import opaque
from .readout import graphs_of, grouped
from .refusal import list_of, refusal

if TYPE_CHECKING:
    from ...scheduler import Schedule


@opaque
@dataclass(frozen=True, eq=False)
class GraphBatch(Drawn):
    """Input graphs packed side by side: the vertices of the first, then of the second, and so on.

    Attributes:
        num_graphs, num_vertices: G and V.
        child, slot, offset: as in `InputGraph`, with the batch's vertex numbers; int32 [E], [E], [V + 1].
        graph_offset: int32 [G + 1]; the vertices of graph g are `graph_offset[g]:graph_offset[g + 1]`.
        num_slots: the largest slot in use plus one; 0 without edges.
        kinds, kind_index: the kinds that occur, sorted, and int32 [V], the number of each vertex's kind among them; or
            None.
        edge: int32 [E], the number that the user gave the edge of each entry of `child`: edges are numbered in the order in
            which they were given, graph after graph; None: that is the order of `child`. Edges that come from external
            vertices are numbered from the number of the graphs' own edges on.
        schedule: a schedule that was made ahead (`vf.collate` makes one), or None.
        device: where `roots`, `leaves`, `graph_of_vertex`, `edge_index` and `indices` live, and where readouts are
            computed.
        indices: int32, the first three, the graphs' sizes and the schedule's arrays in one tensor, once it was pinned or
            moved; else None.
        arity: how many children an arc has, in a batch of hypergraphs (`vf.hypergraph`): then edges are those of single children,
            and what has a row an edge has a row an arc; else 1, as edges are arcs of one child.
        num_external: how many vertices outside the batch it reads, numbered from V on; 0 but for `with_initial`.
        derived: what was derived from the structure so far, and `cache`, what users keep with the batch; not pickled.
    """

    num_graphs: int
    num_vertices: int
    child: Ints = field(repr=False)
    slot: Ints = field(repr=False)
    offset: Ints = field(repr=False)
    graph_offset: Ints = field(repr=False)
    num_slots: int = field(repr=False)
    kinds: tuple[Any, ...] | None = field(default=None, repr=False)
    kind_index: Ints | None = field(default=None, repr=False)
    edge: Ints | None = field(default=None, repr=False)
    schedule: Schedule | None = field(default=None, repr=False)
    device: torch.device = field(default=torch.device("cpu"))
    indices: Tensor | None = field(default=None, repr=False)
    derived: Derived = field(default_factory=Derived, repr=False)
    graphs: Sequence[InputGraph] = field(default=(), repr=False)  # for `data` alone; not pickled either
    num_external: int = field(default=0, repr=False)
    arity: int = field(default=1, repr=False)

    def __len__(self) -> int:
        return self.num_graphs

    @property
    def num_edges(self) -> int:
        return len(self.child)

    @property
    def num_arcs(self) -> int:
        return int(self.arcs_before[-1])

    @cached_property
    def arcs_before(self) -> Ints:
        """int32 [V + 1]: how many arcs lead to the vertices before each one."""
        return arcs_before(self.slot, self.offset, self.arity)

    @property
    def cache(self) -> dict[Any, Any]:
        return self.derived.user_cache

    @property
    def kind(self) -> np.ndarray[Any, Any] | None:
        """An array [V] with the kind of each vertex, or None."""
        return None if self.kinds is None else np.array(self.kinds)[self.kind_index]

    @property
    @uncompiled
    def data(self) -> dict[str, Rows]:
        """The arrays that all graphs have, joined when they are first asked for: of one row a vertex, in the order of their
        numbers, or, for the names in `edge_names`, of one row an edge, in the order of `edge_index`.

        Raises:
            GraphError: arrays of one name that do not have a row for each vertex, or edge, or that do not fit together.
        """
        return self._joined_data[0]

    @property
    def edge_names(self) -> frozenset[str]:
        """The names in `data` that have a row an edge."""
        return self._joined_data[1]

    @cached_property
    def _joined_data(self) -> tuple[dict[str, Rows], frozenset[str]]:
        return join_data(self.graphs)

    @cached_property
    @uncompiled
    def edge_index(self) -> Tensor:
        """int64 [2, E]: the child and the parent of each edge, in the order in which edges were given to `vf.graph` and its
        like, graph after graph: that of edge inputs. Of a reversed batch, the consumer is the child; the order is the same.
        """
        return self._moved(edge_index_of(self.child, self.offset, self.edge))

    @cached_property
    @uncompiled
    def arcs(self) -> Tensor:
        """int64 [arity + 1, A]: the children of each arc (-1: missing) and its parent, in the order in which arcs were given,
        graph after graph: that of inputs of arcs."""
        return self._moved(arcs_of(self.child, self.slot, self.offset, self.edge, self.arity))

    @cached_property
    @uncompiled
    def roots(self) -> Tensor:
        """int64: the vertices that no vertex consumes, in the order of the graphs (one a graph, for trees)."""
        return self._indices_part(0)

    @cached_property
    @uncompiled
    def leaves(self) -> Tensor:
        """int64: the vertices without children."""
        return self._indices_part(1)

    @cached_property
    @uncompiled
    def graph_of_vertex(self) -> Tensor:
        """int64 [V]: the graph of each vertex."""
        return self._indices_part(2)

    @uncompiled
    def of_kind(self, *kinds: Any) -> Tensor:
        """int64: the vertices of these kinds, in ascending order. Raises `GraphError` if the graphs have no kinds."""
        return torch.from_numpy(np.flatnonzero(self._is_of_kind(kinds))).to(self.device, non_blocking=True)

    # Readouts: each is one segment operation over the vertices of every graph.

    @uncompiled
    def sum(self, values: Tensor, *kinds: Any, of: Tensor | None = None) -> Tensor:
        """The sum over the vertices of each graph, `[num_vertices, ...]` -> `[num_graphs, ...]`.

        With `kinds`, here and below, `values` have a row for each vertex of these kinds only, as outputs that they push have;
        with `of`, for each of these vertices: numbers in any order (`batch.roots`, `batch.leaves`), or booleans, one a vertex.

        Raises:
            InputError, InputTypeError: `values` have another number of rows; `of` are no vertices of the batch.

        Example:
            >>> batch.sum(batch.softmax(scores) * out.h)     # attention over each graph's vertices; scores: [V, 1]
            >>> batch.mean(out.h[batch.roots], of=batch.roots)
        """
        rows = grouped(self, values, kinds, of, "sum")
        return segments.segment_sum(rows.values, rows.counts)

    @uncompiled
    def mean(self, values: Tensor, *kinds: Any, of: Tensor | None = None) -> Tensor:
        """The mean over the vertices of each graph, `[num_vertices, ...]` -> `[num_graphs, ...]`; of none: zeros."""
        rows = grouped(self, values, kinds, of, "mean")
        return segments.segment_sum(rows.values, rows.counts) / segments.column(rows.counts.clamp(min=1), values)

    @uncompiled
    def max(self, values: Tensor, *kinds: Any, of: Tensor | None = None) -> Tensor:
        """The maximum over the vertices of each graph, `[num_vertices, ...]` -> `[num_graphs, ...]`; of none: zeros."""
        rows = grouped(self, values, kinds, of, "max")
        return segments.segment_max(rows.values, rows.counts)

    @uncompiled
    def softmax(self, values: Tensor, *kinds: Any, of: Tensor | None = None) -> Tensor:
        """The softmax over the vertices of each graph, `[num_vertices, ...]` -> `[num_vertices, ...]`."""
        rows = grouped(self, values, kinds, of, "softmax")
        return rows.as_given(segments.segment_softmax(rows.values, rows.counts, len(values)))

    @uncompiled
    def expand(self, values: Tensor, *kinds: Any, of: Tensor | None = None) -> Tensor:
        """A value of each graph for each of its vertices, `[num_graphs, ...]` -> `[num_vertices, ...]`."""
        if len(values) != self.num_graphs:
            raise InputError(f"batch.expand takes one row for each of {self.num_graphs} graphs, not {len(values)}")
        if of is not None:
            return values.index_select(0, graphs_of(self, kinds, of, "expand"))
        return segments.expand(values, self._graph_sizes(kinds), self._num_rows(kinds))

    def _num_rows(self, kinds: tuple[Any, ...]) -> int:
        return int(self._is_of_kind(kinds).sum()) if kinds else self.num_vertices

    def _graph_sizes(self, kinds: tuple[Any, ...]) -> Tensor:
        """int64 [G]: how many vertices each graph has, of these kinds."""
        cached_sizes, key = self.derived.graph_sizes, (kinds, self.device)
        if key not in cached_sizes:
            sizes = self._indices_part(3)
            if kinds:
                graph_numbers = self._host_parts[2][self._is_of_kind(kinds)]
                sizes = self._moved(np.bincount(graph_numbers, minlength=self.num_graphs))
            cached_sizes[key] = sizes
        return cached_sizes[key]

    def _is_of_kind(self, kinds: tuple[Any, ...]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        if not self.num_graphs:
            return np.zeros(0, np.bool_)
        if self.kinds is None or self.kind_index is None:
            raise GraphError(f"the vertices of kind {kinds[0]!r} were asked for, but the graphs have no kinds")
        return np.isin(self.kind_index, [number for number, kind in enumerate(self.kinds) if kind in kinds])

    @cached_property
    def _host_parts(self) -> tuple[Ints, Ints, Ints, Ints]:
        roots = np.flatnonzero(np.bincount(self.child, minlength=self.num_vertices) == 0)
        leaves = np.flatnonzero(self.offset[1:] == self.offset[:-1])
        graph = np.repeat(np.arange(self.num_graphs, dtype=np.int32), np.diff(self.graph_offset))
        return roots.astype(np.int32), leaves.astype(np.int32), graph, np.diff(self.graph_offset)

    def _indices_part(self, number: int) -> Tensor:
        parts = self._host_parts
        if self.indices is None:
            return self._moved(parts[number].astype(np.int64))
        start = sum(len(part) for part in parts[:number])
        with torch.inference_mode(False), transforms.suspended():
            return self.indices[start : start + len(parts[number])].long()

    def _moved(self, array: np.ndarray[Any, Any]) -> Tensor:
        """The array as a tensor on the device; no inference tensor, so that autograd may save it later, and of no transform."""
        with torch.inference_mode(False), transforms.suspended():
            return torch.from_numpy(array).to(self.device, non_blocking=True)

    @property
    def schedule_indices(self) -> Tensor | None:
        """The schedule's arrays where `indices` are."""
        if self.indices is None or self.schedule is None:
            return None
        return self.indices[sum(len(part) for part in self._host_parts) :]

    def with_schedule(self, schedule: Schedule) -> GraphBatch:
        """The batch with a schedule that was made ahead; `model(batch, ...)` then uses it."""
        return self._changed(schedule=schedule, indices=None, device=torch.device("cpu"), derived=Derived())

    @uncompiled
    def reversed(self) -> GraphBatch:
        """The batch with every edge turned round; slots are numbered in the order of the consumers. Edges keep their order.

        Raises:
            GraphError: arrays that are no structure, or arcs of several children.
        """
        refuse_arcs(self, "reversed: they have several children, and one parent")
        batch = self.derived.reversed if self.num_graphs else self
        if batch is None:
            try:
                blob, num_slots = _core.reversed(self.child, self.slot, self.offset, self.edge)
            except (_core.Malformed, TypeError, ValueError) as error:
                problem = " ".join(map(str, error.args[:2]))
                raise GraphError(f"the structure's arrays are inconsistent: {problem}") from error
            start, edges = self.num_vertices + 1, self.num_edges
            offset, child, slot, edge = np.split(blob, (start, start + edges, start + 2 * edges))
            batch = self._restructured(child=child, slot=slot, offset=offset, edge=edge, num_slots=num_slots)
            self.derived.reversed = batch
        return batch

    def with_initial(self) -> GraphBatch:
        """The batch in which every vertex without children reads an external vertex in slot 0: its initial state."""
        batch = self.derived.with_initial
        if batch is None:
            batch = self.derived.with_initial = self._restructured(**reading_external(self))
        return batch

    def _restructured(self, **arrays: Any) -> GraphBatch:
        """The batch with other edges between its vertices: nothing derived is kept but the joined `data`."""
        changed = replaced(self, **arrays, schedule=None, indices=None, device=torch.device("cpu"), derived=Derived())
        if "_joined_data" in self.__dict__:
            changed.__dict__["_joined_data"] = self._joined_data
        return changed

    def pin_memory(self) -> GraphBatch:
        """The batch with its index tensors in one piece of page-locked memory; `DataLoader(pin_memory=True)` asks for it."""
        with torch.inference_mode(False):
            return self._changed(indices=self._joined().pin_memory())

    @uncompiled
    def to(self, device: torch.device | str, non_blocking: bool = False) -> GraphBatch:
        """The batch with its index tensors on `device`; they are moved as one. The arrays stay where they are."""
        device = torch.device(device)
        if device == self.device:
            return self
        with torch.inference_mode(False):
            moved = self._joined().to(device, non_blocking=non_blocking)
        return self._changed(indices=moved, device=moved.device)

    def _joined(self) -> Tensor:
        if self.indices is not None:
            return self.indices
        schedule = () if self.schedule is None else (self.schedule.arrays,)
        return torch.from_numpy(np.concatenate((*self._host_parts, *schedule)))

    def _changed(self, **changes: Any) -> GraphBatch:
        changed = replaced(self, **changes)
        for name in ("_joined_data", "_host_parts"):
            if name in self.__dict__:
                changed.__dict__[name] = self.__dict__[name]
        return changed

    def locate(self, vertex: int) -> str:
        """The graph of a vertex and its number there, for messages: `graph 3, vertex 5`."""
        graph = int(np.searchsorted(self.graph_offset, vertex, side="right")) - 1
        return f"graph {graph}, vertex {int(vertex - self.graph_offset[graph])}"

    def __getstate__(self) -> dict[str, Any]:
        return _fields(self) | {"derived": Derived(), "graphs": (), "_joined_data": self._joined_data}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def replaced(batch: GraphBatch, **changes: Any) -> GraphBatch:
    """The batch with other values in some of its fields; what was derived lazily is kept only where it is in `derived`."""
    return GraphBatch(**(_fields(batch) | changes))


def _fields(batch: GraphBatch) -> dict[str, Any]:
    return {name: batch.__dict__[name] for name in GraphBatch.__match_args__}


@uncompiled
def pack(graphs: Sequence[InputGraph]) -> GraphBatch:
    """Join input graphs into one batch; of no graphs, into the empty batch, on which every model gives outputs without rows,
    and gradients of zero.

    Raises:
        GraphError: only some of the graphs have kinds, or their kinds do not fit together, or arcs have different numbers of
            children, or there are 2**31 vertices or edges, or more.
        InputTypeError: an element is no input graph.

    Example:
        >>> batch = vf.pack([vf.tree(((0, 1), 2)), vf.chain(5)])
        >>> batch.num_vertices, batch.roots
        (10, tensor([4, 9]))
    """
    graphs = list_of(graphs)
    if not graphs:
        none, end = np.zeros(0, np.int32), np.zeros(1, np.int32)
        return GraphBatch(0, 0, child=none, slot=none, offset=end, graph_offset=end, num_slots=0)
    kinds, arity = None, 1
    try:
        packed = _core.pack(graphs, InputGraph, None)
        if packed is None:
            kinds, numbers = join_kinds([graph.kinds for graph in graphs])
            packed = _core.pack(graphs, InputGraph, numbers)
        assert packed is not None
        blob, graph_offset, num_edges, num_slots, flags = packed
        arity = common_arity(graphs)
    except _core.Malformed as error:
        raise refusal(error, graphs) from None
    except VertexFlowError:
        raise
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{error}; make graphs with vf.graph and its like") from None
    num_vertices = int(graph_offset[-1])
    ends = (num_vertices + 1, num_vertices + 1 + num_edges, num_vertices + 1 + 2 * num_edges)
    return GraphBatch(
        num_graphs=len(graphs),
        num_vertices=num_vertices,
        child=blob[ends[0] : ends[1]],
        slot=blob[ends[1] : ends[2]],
        offset=blob[: ends[0]],
        graph_offset=graph_offset,
        num_slots=num_slots,
        kinds=kinds or graphs[0].kinds,
        kind_index=blob[ends[2] : ends[2] + num_vertices] if flags & HAS_KINDS else None,
        edge=blob[len(blob) - num_edges :] if flags & HAS_EDGES else None,
        graphs=graphs,
        arity=arity,
    )
