"""Rows that belong to edges: the states that a step gathers from children, and the gradients that it sends to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from ..graph.symbolic.program import Program
from ..graph.symbolic.roles import ALL_SLOTS, is_over_edges
from ..graph.symbolic.trace import Trace
from .arguments import By
from .memory.layout import empty_for
from .order import Order, Parents, RowGroup, Step


@dataclass(frozen=True)
class EdgeRows:
    """`num_slots` rows side by side for each row with children of a group; `nodes` are the values that are columns of this."""

    data: Tensor  # [count * num_slots, *shape]
    nodes: dict[fx.Node, int]  # the slot of each value, or ALL_SLOTS
    group: RowGroup
    shape: tuple[int, ...]
    base: int  # the row that `data` begins with; -1: it holds one step at a time

    @classmethod
    def for_gradients(cls, nodes: dict[fx.Node, int], group: RowGroup, sent: Tensor, first: int) -> EdgeRows:
        """The part of a group in the gradients that all groups send to children, which begins at row `first`."""
        data = sent[first : first + group.num_inner * group.num_slots]
        slots = set(nodes.values())
        if slots != {ALL_SLOTS} and len(slots) < group.num_slots:
            data.zero_()  # nothing is sent through some slots
        return cls(data, nodes, group, tuple(sent.shape[1:]), group.num_leaves)

    def read(self, state: Tensor, child_rows: Tensor, step: Step) -> dict[fx.Node, Tensor]:
        """The children's rows of `state`, `child_rows` of it: a slice where they are consecutive, else gathered."""
        if step.reads_from >= 0:
            count = (step.stop - step.start) * self.group.num_slots
            return self._columns(state[step.reads_from : step.reads_from + count], step.stop - step.start)
        self._gather(state, child_rows, step.start, step.stop)
        return self.views(step.start, step.stop)

    def gather_all(self, state: Tensor, child_rows: Tensor) -> None:
        """Gather all rows, to be read later."""
        self._gather(state, child_rows, self.group.num_leaves, self.group.num_rows)

    def fill(self, state: Tensor, child_rows: Tensor, steps: Iterable[Step]) -> None:
        """Gather what these steps have read as slices, if the buffer is kept for later parts."""
        runs: list[tuple[int, int]] = []
        for step in steps if self.base >= 0 else ():
            if step.reads_from >= 0:
                joins = bool(runs) and runs[-1][1] == step.start
                runs.append((runs.pop()[0] if joins else step.start, step.stop))
        for start, stop in runs:
            self._gather(state, child_rows, start, stop)

    def _gather(self, state: Tensor, child_rows: Tensor, start: int, stop: int) -> None:
        first, slots = self.group.num_leaves, self.group.num_slots
        index = child_rows[(start - first) * slots : (stop - first) * slots]
        torch.index_select(state, 0, index, out=self._part(start, stop))

    def views(self, start: int, stop: int) -> dict[fx.Node, Tensor]:
        """The columns of rows [start, stop)."""
        return self._columns(self._part(start, stop), stop - start)

    def _part(self, start: int, stop: int) -> Tensor:
        slots = self.group.num_slots
        if self.base < 0:
            return self.data[: (stop - start) * slots]
        return self.data[(start - self.base) * slots : (stop - self.base) * slots]

    def _columns(self, part: Tensor, rows: int) -> dict[fx.Node, Tensor]:
        slots = self.group.num_slots
        columns = {}
        for node, slot in self.nodes.items():
            if slot == ALL_SLOTS:
                columns[node] = part.view(rows, slots * self.shape[0])
            else:
                columns[node] = part if slots == 1 else part.view(rows, slots, *self.shape)[:, slot]
        return columns


@dataclass(frozen=True)
class ChildRows:
    """A row for each child of each edge to a group's children: one, or those of an arc side by side; `nodes` are the values that
    are columns of this."""

    data: Tensor
    nodes: Mapping[fx.Node, int]  # the position of each value
    group: RowGroup
    all_steps: bool  # whether `data` has the edges of all steps, or of one at a time

    @classmethod
    def for_gradients(cls, nodes: Mapping[fx.Node, int], group: RowGroup, sent: Tensor, first: int) -> ChildRows:
        """The part of a group in the gradients that all groups send to children, which begins at row `first`."""
        edges = group.edges
        assert edges is not None
        data = sent[first : first + edges.num_edges * edges.side_by_side]
        if len(nodes) < edges.side_by_side:
            data.zero_()  # nothing is sent to the children at some positions
        return cls(data, nodes, group, all_steps=True)

    @property
    def _side_by_side(self) -> int:
        assert self.group.edges is not None
        return self.group.edges.side_by_side

    def columns(self, first: int, end: int) -> dict[fx.Node, Tensor]:
        """The columns of edges [first, end)."""
        part, count = self._part(first, end), self._side_by_side
        if count == 1:
            return dict.fromkeys(self.nodes, part)
        rows = part.view(end - first, count, *part.shape[1:])
        return {node: rows[:, position] for node, position in self.nodes.items()}

    def read(self, state: Tensor, child_rows: Tensor, first: int, end: int) -> dict[fx.Node, Tensor]:
        """Gather the children's rows of `state`, `child_rows` of it, for edges [first, end)."""
        index = child_rows[first * self._side_by_side : end * self._side_by_side]
        torch.index_select(state, 0, index, out=self._part(first, end))
        return self.columns(first, end)

    def _part(self, first: int, end: int) -> Tensor:
        count = self._side_by_side
        return self.data[first * count : end * count] if self.all_steps else self.data[: (end - first) * count]


def known_of_edges(trace: Trace, group: RowGroup) -> Iterator[tuple[fx.Node, Tensor]]:
    """The values that are known of a structure, of those that a trace reads."""
    if group.edges is not None:
        for node, array in ((trace.counts, "counts"), (trace.num_children, "num_children"), (trace.slots, "slots")):
            if node is not None:
                yield node, getattr(group.edges, array)


@dataclass(frozen=True)
class Exchange:
    """The gradients of states that all groups send to children.

    Each state has a row for each position in `child_rows`, and a row of zeros, which rows receive that nobody reads; where
    vertex functions read all children, it has a row for each edge.
    """

    parents: Mapping[By, Parents | None] = field(default_factory=dict)
    sent: Mapping[By, dict[str, Tensor]] = field(default_factory=dict)
    outside: Mapping[str, Tensor] = field(default_factory=dict)  # gradients that do not come from parents
    partial: Mapping[tuple[str, By], Parents] = field(default_factory=dict)  # of states that some groups lack

    @classmethod
    def between(cls, programs: Sequence[Program], order: Order, outside: Mapping[str, Tensor]) -> Exchange:
        """Allocate what the groups of an order send."""
        sent: dict[By, dict[str, Tensor]] = {By.SLOT: {}, By.EDGE: {}}
        for program in programs:
            for (name, slot), node in program.gather_grads.items():
                by = By.EDGE if is_over_edges(slot) else By.SLOT
                if name not in sent[by]:
                    sent[by][name] = empty_for(node, (order.num_sent(name, by), *program.trace.state[name]))
                    if order.row_of_zeros(name, by) is not None:
                        sent[by][name][-1].zero_()
        parents = {By.SLOT: order.parents, By.EDGE: order.edge_parents}
        return cls(parents, sent, outside, order.partial_parents)

    def parents_of(self, state: str | None, by: By) -> Parents | None:
        """Where what is sent to each row of a state lies; None: of a state that all groups have."""
        return self.partial.get((state, by), self.parents[by]) if state is not None else self.parents[by]

    def receive(self, name: str, group: RowGroup, step: Step, buffer: Tensor, base: int) -> Tensor:
        """The gradient of a state that the rows of a step receive, in `buffer`, which begins with row `base` (-1: with the
        step)."""
        by_slot, outside = self.sent[By.SLOT].get(name), self.outside.get(name)
        if (
            by_slot is not None
            and step.read_at >= 0
            and base < 0
            and outside is None
            and name not in self.sent[By.EDGE]
            and (name, By.SLOT) not in self.partial
        ):
            return by_slot[step.read_at : step.read_at + step.stop - step.start]
        out = buffer[step.start - base : step.stop - base] if base >= 0 else buffer[: step.stop - step.start]
        if step.stop > step.start:
            self._sum(name, group.start + step.start, group.start + step.stop, out)
            if outside is not None:
                out += outside[group.start + step.start : group.start + step.stop]
        return out

    def sent_to_external(self, state: Mapping[str, tuple[int, ...]], order: Order) -> dict[str, Tensor]:
        """The gradients of the states of external vertices."""
        first, count = order.num_rows, order.num_external
        sums = {}
        for name in state if count else ():
            sent = self.sent[By.SLOT].get(name, self.sent[By.EDGE].get(name))
            if sent is not None:
                sums[name] = sent.new_empty((count, *state[name]))
                self._sum(name, first, first + count, sums[name])
        return sums

    def clear(self) -> None:
        """Release the memory."""
        for sent in self.sent.values():
            sent.clear()

    def _sum(self, name: str, start: int, stop: int, out: Tensor) -> None:
        """Sum what all parents sent to rows [start, stop) of a state."""
        terms = [(sent[name], self.parents_of(name, by)) for by, sent in self.sent.items() if name in sent]
        if not terms:
            out.zero_()
        for number, (sent, parents) in enumerate(terms):
            assert parents is not None
            term = torch.empty_like(out) if number else out
            _sum_over_parents(sent, parents, start, stop, term)
            if number:
                out += term


def _sum_over_parents(sent: Tensor, parents: Parents, start: int, stop: int, out: Tensor) -> None:
    """Sum, in a fixed order, what parents sent to rows [start, stop) of a state.

    In a forest every row has one parent at most, and this is a copy; else it is a segment sum without atomics.
    """
    if parents.offset is None:
        torch.index_select(sent, 0, parents.places[start:stop], out=out)
        return
    assert parents.bounds is not None
    first, end = int(parents.bounds[start]), int(parents.bounds[stop])
    rows = sent.index_select(0, parents.places[first:end])
    offsets = parents.offset[start : stop + 1] - first
    out.copy_(torch.segment_reduce(rows, "sum", offsets=offsets, axis=0, initial=0))
