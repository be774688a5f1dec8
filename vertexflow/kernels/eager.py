"""The backend "eager": the user's own methods over a schedule, step after step on real tensors, under PyTorch's autograd.

Nothing is traced. What a step scatters is kept as it is, as one piece, and what a later step gathers is selected from the
pieces, so that gradients, and gradients of gradients, are autograd's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import VertexFunctionError
from ..graph.symbolic.roles import Gather, NumChildren, Pull, Role, Slots, is_over_edges, position_of
from ..graph.symbolic.source_lines import placed
from ..graph.symbolic.states import Shape, StateDtypes
from ..graph.symbolic.vertex import Vertex
from .order import Order
from .ranges import named

Ints = np.ndarray[Any, np.dtype[np.int64]]
Method = Callable[[Vertex], object]


@dataclass(frozen=True)
class Selection:
    """How to read rows from several pieces: some rows of each piece, concatenated, then put in the order `order`."""

    pieces: list[tuple[int, Tensor | None, int]]  # number of the piece (-1: zeros), its rows (None: all), how many
    order: Tensor | None  # None: they are in order already


@dataclass
class Pieces:
    """Rows that are computed piece by piece: row r is row `at[r]` of piece `piece[r]` (-1: not computed)."""

    device: torch.device
    pieces: list[dict[str, Tensor]] = field(default_factory=list)
    piece: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    at: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of_rows(cls, count: int, device: torch.device) -> Pieces:
        """`count` rows, none of them computed yet."""
        return cls(device, [], np.full(count, -1, np.int64), np.zeros(count, np.int64))

    def add(self, rows: Ints, values: Mapping[str, Tensor]) -> None:
        """Add a piece, the values of these rows by name."""
        self.piece[rows] = len(self.pieces)
        self.at[rows] = np.arange(len(rows))
        self.pieces.append(dict(values))

    def append(self, values: Mapping[str, Tensor], count: int) -> None:
        """Add a piece of `count` rows that follow all others."""
        self.piece = np.concatenate([self.piece, np.full(count, len(self.pieces), np.int64)])
        self.at = np.concatenate([self.at, np.arange(count)])
        self.pieces.append(dict(values))

    def select(self, rows: Ints) -> Selection:
        """How to read these rows; -1 is a row of zeros."""
        piece = np.where(rows < 0, -1, self.piece[rows])
        by_piece = np.argsort(piece, kind="stable")
        numbers, starts, counts = np.unique(piece[by_piece], return_index=True, return_counts=True)
        parts: list[tuple[int, Tensor | None, int]] = []
        for number, start, count in zip(numbers.tolist(), starts.tolist(), counts.tolist(), strict=True):
            places = None if number < 0 else self._index(self.at[rows[by_piece[start : start + count]]])
            parts.append((number, places, count))
        is_sorted = len(parts) < 2 or bool((by_piece[1:] > by_piece[:-1]).all())
        return Selection(parts, None if is_sorted else self._index(np.argsort(by_piece)))

    def read(self, selection: Selection, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """The selected rows of the values of this name, as a new tensor."""
        parts = [
            torch.zeros((count, *shape), dtype=dtype, device=self.device)
            if places is None or name not in self.pieces[number]
            else self.pieces[number][name].index_select(0, places)
            for number, places, count in selection.pieces
        ]
        if not parts:
            return torch.zeros((0, *shape), dtype=dtype, device=self.device)
        joined = parts[0] if len(parts) == 1 else torch.cat(parts)
        return joined if selection.order is None else joined.index_select(0, selection.order)

    def _index(self, numbers: Ints) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers, np.int64)).to(self.device)


@dataclass
class Uses:
    """What a method was seen to use when it was called: all that is known of a method without a trace."""

    code: CodeType
    pulls: dict[str, bool] = field(default_factory=dict)  # by name: for vertices (False) or for edges (True)
    pushes: dict[str, Tensor] = field(default_factory=dict)  # by name: a tensor without rows, for shape and dtype
    # By name: whether what is pushed has a row a vertex (False) or an edge (True); both, while all steps had as many of each.
    push_sorts: dict[str, set[bool]] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)  # the names of what it shares with other vertices
    left_out: frozenset[str] | None = None  # the states that it scattered in no step; None: it was not called yet
    num_slots: int = 0
    first_slot: int | None = None  # of the children that are read over edges; None: none were yet
    arc_size: int | None = None  # how many children of each arc are read; None: no arcs are
    reads_edges: bool = False

    @property
    def filename(self) -> str:
        return self.code.co_filename

    def is_edge_input(self, name: str) -> bool:
        return self.pulls[name]

    def is_edge_output(self, name: str) -> bool:
        return self.reads_edges and self.push_sorts[name] == {True}

    def output(self, name: str) -> Tensor:
        return self.pushes[name]


class Pushed(NamedTuple):
    """What one step pushed under a name: for rows of a group, or edges."""

    group: int
    bounds: Mapping[bool, tuple[int, int]]  # the step's part of the group's rows (False) and edges (True)
    is_read: Ints  # for each of these edges, whether it is read
    rows: Tensor


@dataclass(frozen=True)
class Computation:
    """What is computed at a vertex: the method and what it used, for each group of rows; the states; the inputs."""

    methods: Sequence[Method]
    uses: Sequence[Uses]
    state: Mapping[str, Shape]
    state_dtypes: StateDtypes
    inputs: Mapping[str, Tensor]
    shared: Mapping[str, Tensor]
    # From an input's name, whether it is pulled for edges, and a group: the rows of the input that the group reads.
    select: Callable[[str, bool, int], Tensor]


def run_steps(order: Order, computation: Computation, states: Pieces) -> dict[str, list[Pushed]]:
    """Run every step of a schedule. Returns what each step pushed, by name; the states are left in `states`.

    `states` has the states of external vertices already.
    """
    assert order.lists is not None
    pushed: dict[str, list[Pushed]] = {}
    slots, arity = order.lists.slot.astype(np.int64), (order.lists.side_by_side or (1,))[0]
    child_rows = order.lists.child_row.astype(np.int64).reshape(-1, arity)
    child_rows[child_rows == order.num_rows + order.num_external] = -1  # missing in their arcs
    for step, (start, stop, _, _, number, edge_start, edge_stop) in enumerate(order.steps):
        group, uses = order.groups[number], computation.uses[number]
        assert group.edges is not None
        edges = slice(group.edges.start + edge_start, group.edges.start + edge_stop)
        counts, num_children = group.edges.counts[start:stop], group.edges.num_children[start:stop]
        owner = np.repeat(np.arange(stop - start), counts.cpu().numpy())
        bounds = {False: (start, stop), True: (edge_start, edge_stop)}
        leaf = _Leaf(
            computation, number, uses, bounds, states, child_rows[edges], slots[edges], owner, counts, num_children
        )
        v = Vertex(
            computation.state, computation.state_dtypes, computation.inputs, leaf, stop - start, leaf.count,
            computation.shared,
        )  # fmt: skip
        leaf.v.append(v)
        with placed(uses.code), named("vertex", step):
            v.finish(computation.methods[number](v))
        rows = np.arange(group.start + start, group.start + stop)
        states.add(rows, {name: value.to(computation.state_dtypes[name]) for name, value in v.scattered.items()})
        uses.shared |= v.shared_names
        uses.left_out = v.left_out if uses.left_out is None else uses.left_out & v.left_out
        leaf.note_first_slot()
        note_pushes(uses, v.pushed, v.push_sorts)
        for name, value in v.pushed.items():
            pushed.setdefault(name, []).append(Pushed(number, bounds, leaf.is_read(), value))
    return pushed


@dataclass(frozen=True)
class _Leaf:
    """Makes what a method gathers and pulls in one step: `leaf` of a `Vertex`."""

    computation: Computation
    group: int
    uses: Uses
    bounds: Mapping[bool, tuple[int, int]]  # the step's part of the group's rows (False) and edges (True)
    states: Pieces
    child_rows: Ints  # of the children of each edge of the step, as in `slots` and `owner` (the vertex of each edge)
    slots: Ints
    owner: Ints
    counts: Tensor
    num_children: Tensor
    selections: dict[int, Selection] = field(default_factory=dict)  # by slot
    v: list[Vertex] = field(default_factory=list)  # the vertex that this makes values for

    def count(self, first_slot: int) -> int:
        """How many edges there are, of those in this slot and later."""
        return int((self.slots >= first_slot).sum())

    def is_read(self) -> Ints:
        """For each edge of the step, whether it is read."""
        return (self.slots >= (self.v[0].first_slot or 0)).astype(np.int64)

    def note_first_slot(self) -> None:
        """Remember which children the method reads over edges, and refuse others than in an earlier step."""
        first_slot, arc_size = self.v[0].first_slot, self.v[0].arc_size
        if (
            first_slot is not None
            and self.uses.first_slot is not None
            and (arc_size is None) != (self.uses.arc_size is None)
        ):
            raise VertexFunctionError("v.arcs is read in one step, and v.children in another; read the same always")
        if arc_size is not None:
            self.uses.arc_size, self.uses.reads_edges = max(arc_size, self.uses.arc_size or 0), True
        if first_slot is None or self.uses.first_slot in (None, first_slot):
            self.uses.first_slot = self.uses.first_slot if first_slot is None else first_slot
            return
        raise VertexFunctionError(
            f"v.children[{first_slot}:] is read in one step, and v.children[{self.uses.first_slot}:] in another; read the same "
            "always"
        )

    def __call__(self, role: Role, shape: Shape, dtype: torch.dtype) -> Tensor:
        if isinstance(role, Gather):
            self.note_first_slot()
            return self.states.read(self._selection(role.slot), role.state, shape, dtype)
        self.note_first_slot()
        is_read = self.is_read().astype(bool)
        if isinstance(role, Slots):
            self.uses.reads_edges = True
            return torch.from_numpy(self.slots[is_read]).to(self.counts.device)
        if not isinstance(role, Pull):
            self.uses.reads_edges = True
            counts = np.bincount(self.owner[is_read], minlength=len(self.counts)).astype(np.int64)
            return (
                self.num_children.clone()
                if isinstance(role, NumChildren)
                else torch.from_numpy(counts).to(self.counts.device)
            )
        name, per_edge = role.name, role.per_edge
        self.uses.reads_edges |= per_edge
        if self.uses.pulls.setdefault(name, per_edge) is not per_edge:
            raise VertexFunctionError(
                f"input {name!r} is pulled for vertices and for edges; give two inputs of two names"
            )
        rows = self.computation.select(name, per_edge, self.group)[slice(*self.bounds[per_edge])]
        if per_edge and not is_read.all():
            rows = rows[torch.from_numpy(is_read).to(rows.device)]
        return self.computation.inputs[name].index_select(0, rows)

    def _selection(self, slot: int) -> Selection:
        if is_over_edges(slot):
            self.uses.reads_edges = True
        else:
            self.uses.num_slots = max(self.uses.num_slots, slot + 1)
        if slot not in self.selections:
            if is_over_edges(slot):
                position, is_read = position_of(slot), self.is_read().astype(bool)
                is_there = position < self.child_rows.shape[1]
                rows = self.child_rows[is_read, position] if is_there else np.full(is_read.sum(), -1, np.int64)
            else:
                rows = np.full(len(self.counts), -1, np.int64)
                chosen = self.slots == slot
                rows[self.owner[chosen]] = self.child_rows[chosen, 0]
            self.selections[slot] = self.states.select(rows)
        return self.selections[slot]


def note_pushes(uses: Uses, pushed: Mapping[str, Tensor], sorts: Mapping[str, set[bool]]) -> None:
    """Remember a method's outputs, and refuse an output whose shape or dtype differs from that in an earlier step."""
    for name, value in pushed.items():
        first = uses.pushes.setdefault(name, value.detach()[:0])
        first_sorts = uses.push_sorts.get(name, sorts[name])
        uses.push_sorts[name] = first_sorts & sorts[name]
        if first.shape[1:] != value.shape[1:] or first.dtype != value.dtype or not uses.push_sorts[name]:
            shown = [
                f"{str(x.dtype)[6:]} {['edges' if sort == {True} else 'rows', *x.shape[1:]]}".replace("'", "")
                for x, sort in ((first, first_sorts), (value, sorts[name]))
            ]
            raise VertexFunctionError(f"output {name!r} is {shown[0]} in one step and {shown[1]} in another")


def settle_pushes(uses: Mapping[str, Uses], ask: Callable[[str], None], answers: Mapping[str, Uses]) -> None:
    """Decide by a made-up vertex, which has no edge, whether an output has a row a vertex or an edge, where all steps had as many
    of each."""
    for method, use in uses.items():
        for name, sorts in use.push_sorts.items():
            if len(sorts) == 1 or not use.reads_edges:
                continue
            ask(method)
            if name not in (answers[method].push_sorts if method in answers else ()):
                raise VertexFunctionError(
                    f"every step of method `{method}` has as many vertices as edges, so that output {name!r} may have a row for "
                    "each of either, and the method cannot be asked: it fails, or pushes other outputs, for one vertex without "
                    "children; another backend knows"
                )
            use.push_sorts[name] = answers[method].push_sorts[name]


def in_batch_order(order: Order, name: str, parts: Sequence[Pushed], per_edge: bool, num_rows: int) -> Tensor:
    """What the steps pushed under a name, as one tensor of so many rows in the order of the batch; rows of edges that are not
    read are zeros."""
    groups = sorted({part.group for part in parts})
    missing = sum(order.groups[group].num_rows for group in groups)
    if missing - sum(stop - start for start, stop in (part.bounds[False] for part in parts)):
        raise VertexFunctionError(
            f"output {name!r} was pushed in some steps and not in others; push it for all vertices of a kind, or for none"
        )
    batch_rows = dict(zip(groups, order.batch_rows(groups, per_edge), strict=True))
    places = []
    for part in parts:
        rows = batch_rows[part.group][slice(*part.bounds[per_edge])]
        is_read = torch.from_numpy(part.is_read.astype(bool)).to(rows.device)
        places.append(rows[is_read] if per_edge and not is_read.all() else rows)
    joined, index = torch.cat([part.rows for part in parts]), torch.cat(places).long()
    if len(joined) == num_rows:
        return joined.index_select(0, torch.argsort(index))
    return joined.new_zeros((num_rows, *joined.shape[1:])).index_copy(0, index, joined)
