"""Rows that belong to edges: what a step gathers from children, and the gradients that it sends back to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from ..graph.simplify import ALL_SLOTS
from .order import Parents, RowGroup, Step


@dataclass(frozen=True)
class EdgeRows:
    """`num_slots` rows side by side for each inner row of a group; `nodes` are the values that are columns of it."""

    data: Tensor  # [count * num_slots, *shape]
    nodes: dict[fx.Node, int]  # the slot of each value, or ALL_SLOTS
    group: RowGroup
    shape: tuple[int, ...]
    base: int  # the row that `data` begins with; -1: it holds one step at a time

    @classmethod
    def for_gradients(cls, nodes: dict[fx.Node, int], group: RowGroup, sent: Tensor) -> EdgeRows:
        """The places of a group among all gradients that are sent to children."""
        data = sent[group.position : group.position + group.num_inner * group.num_slots]
        slots = set(nodes.values())
        if slots != {ALL_SLOTS} and len(slots) < group.num_slots:
            data.zero_()  # nothing is sent through some slots
        return cls(data, nodes, group, tuple(sent.shape[1:]), group.num_leaves)

    def read(self, state: Tensor, step: Step) -> dict[fx.Node, Tensor]:
        """The children's rows of `state`: gathered, or a slice of it where they are one."""
        if step.reads_from >= 0:
            count = (step.stop - step.start) * self.group.num_slots
            return self._columns(state[step.reads_from : step.reads_from + count], step.stop - step.start)
        self._gather(state, step.start, step.stop)
        return self.views(step.start, step.stop)

    def fill(self, state: Tensor, everything: bool = False) -> None:
        """Gather what steps have read as slices, or everything, where somebody reads it later."""
        if self.base < 0:
            return
        if everything:
            self._gather(state, self.group.num_leaves, self.group.num_rows)
            return
        runs: list[tuple[int, int]] = []
        for step in self.group.steps:
            if step.reads_from >= 0:
                joins = bool(runs) and runs[-1][1] == step.start
                runs.append((runs.pop()[0] if joins else step.start, step.stop))
        for start, stop in runs:
            self._gather(state, start, stop)

    def _gather(self, state: Tensor, start: int, stop: int) -> None:
        first, slots = self.group.num_leaves, self.group.num_slots
        index = self.group.child_rows[(start - first) * slots : (stop - first) * slots]
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
    """A row for each edge to a group's children, of all steps if they are kept, else of one step at a time."""

    data: Tensor
    node: fx.Node
    group: RowGroup
    kept: bool

    @classmethod
    def for_gradients(cls, node: fx.Node, group: RowGroup, sent: Tensor) -> ChildRows:
        """The edges of a group among all gradients that are sent to children."""
        assert group.edges is not None
        return cls(sent[group.edges.start : group.edges.start + group.edges.num_edges], node, group, kept=True)

    def part(self, first: int, end: int) -> Tensor:
        """The rows of edges [first, end)."""
        return self.data[first:end] if self.kept else self.data[: end - first]

    def read(self, state: Tensor, first: int, end: int) -> Tensor:
        """Gather the children's rows of `state` for edges [first, end)."""
        assert self.group.edges is not None
        return torch.index_select(state, 0, self.group.edges.child_rows[first:end], out=self.part(first, end))


def sum_over_parents(sent: Tensor, parents: Parents, start: int, stop: int, out: Tensor) -> None:
    """The gradient of the state of rows [start, stop): what their parents sent, summed in a fixed order.

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
