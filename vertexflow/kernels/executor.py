"""Run programs over a schedule: eager parts once, cores step by step, lazy parts once, over buffers in row order.

Each group of rows, which is all vertices of a kind, has its own program; they meet in the states and in what is sent back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..graph.program import Program
from ..graph.vertex import CHILDREN
from .core import Compiled, Core, Values, between, empty, run_whole
from .edges import ChildRows, EdgeRows, sum_over_parents
from .native.loop import Arguments
from .order import Order, RowGroup, Step


def run_forward(
    compiled: Sequence[Compiled],
    order: Order,
    values: Sequence[Values],
    external: Mapping[str, Tensor] | None = None,
) -> None:
    """Add to `values` every value of the forward parts; `compiled` and `values` are those of each group of rows.

    `values` hold the parameters, buffers and inputs, with their rows in row order; `external` are the states of the
    external vertices.
    """
    found = compiled[0].program.trace
    states: dict[str, Tensor] = {}
    for name, node in found.scatters.items():
        states[name] = empty(node, (order.num_rows + order.num_external + 1, *found.state[name]))
        states[name][-1].zero_()  # the row that a missing child reads
        if order.num_external:
            states[name][order.num_rows : -1].copy_((external or {})[name])
    runs = [_Forward(*of_group, states) for of_group in zip(compiled, order.groups, values, strict=True)]
    for group, first, end in order.runs:
        runs[group].run(order, first, end)
    for run in runs:
        run.finish()


class _Forward:
    """The forward parts over one group of rows."""

    def __init__(self, compiled: Compiled, group: RowGroup, values: Values, states: Mapping[str, Tensor]) -> None:
        self.compiled, self.group, self.values, self.states = compiled, group, values, states
        program, found = compiled.program, compiled.program.trace
        _give_counts(program, group, values)
        for name, node in found.scatters.items():
            values[node] = states[name][group.start : group.start + group.num_rows]
        run_whole(compiled, "eager", group, values)
        self.gathers: dict[str, EdgeRows] = {}
        self.ragged: dict[str, ChildRows] = {}
        for name, shape in found.state.items():
            nodes = _of_state(program.gathers, name)
            if nodes:
                self.gathers[name] = _edge_rows(program, nodes, group, shape, values)
            every = program.gathers.get((name, CHILDREN))
            if every is not None:
                self.ragged[name] = ChildRows.for_states(every, group, shape, kept=every in program.kept)
                if every in program.kept:
                    values[every] = self.ragged[name].data
        self.core = Core(compiled, "core", group, values)
        self.in_steps = "core" in program.parts
        self.arguments: Arguments | None = None

    def run(self, order: Order, first: int, end: int) -> None:
        """Compute steps, all of this group."""
        loop = self.compiled.loops.get("core")
        if loop is not None:
            self.arguments = loop.bind(self._argument, self.group.known) if self.arguments is None else self.arguments
            loop.run(self.arguments, order.table[first:end])
        elif self.in_steps:
            for step in order.steps[first:end]:
                self._compute(step)

    def _argument(self, role: str, what: Any) -> Tensor | int:
        """What native code is given, by its role."""
        if role == "state":
            return self.states[what]
        if role == "gathered":
            return self.gathers[what].data
        if role == "listed":
            return self.ragged[what].data
        return self.core.argument(role, what)

    def finish(self) -> None:
        if not self.in_steps:
            self._compute(_inner_rows(self.group))
        for name, rows in self.gathers.items() if self.arguments is None else ():  # native code copies slices, too
            rows.fill(self.states[name])
        run_whole(self.compiled, "lazy", self.group, self.values)

    def _compute(self, step: Step) -> None:
        given: Values = {}
        if step.start >= self.group.num_leaves:
            for name, rows in self.gathers.items():
                given.update(rows.read(self.states[name], step))
            for name, kids in self.ragged.items():
                given[kids.node] = kids.read(self.states[name], step.edge_start, step.edge_stop)
        self.core.run(step, given)


def run_backward(
    compiled: Sequence[Compiled],
    order: Order,
    values: Sequence[Values],
    state_grads: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Add to `values`, those of each group, the gradients that the programs want.

    `values` hold constants, saved forward values and the gradients of pushed outputs; `state_grads` are what comes to the
    states from elsewhere, in row order. Returns the gradients of the states of the external vertices.
    """
    exchange = _Exchange.between(compiled, order, state_grads or {})
    runs = [_Backward(*of_group, exchange) for of_group in zip(compiled, order.groups, values, strict=True)]
    for group, first, end in reversed(order.runs):
        runs[group].run(order, first, end)
    for run in runs:
        run.finish()
    return exchange.sent_outside(compiled[0].program.trace.state)


@dataclass(frozen=True)
class _Exchange:
    """The gradients of states between all groups: of each state, a row for each place in `child_rows`, and one of zeros for
    those that nobody reads; and, for vertex functions that read all children, a row for each edge."""

    order: Order
    by_place: dict[str, Tensor]
    by_edge: dict[str, Tensor]
    outside: Mapping[str, Tensor]

    @classmethod
    def between(cls, compiled: Sequence[Compiled], order: Order, outside: Mapping[str, Tensor]) -> _Exchange:
        by_place: dict[str, Tensor] = {}
        by_edge: dict[str, Tensor] = {}
        for one in compiled:
            for (name, slot), node in one.program.gather_grads.items():
                shape = one.program.trace.state[name]
                if slot == CHILDREN and name not in by_edge:
                    by_edge[name] = empty(node, (order.num_edges, *shape))
                elif slot != CHILDREN and name not in by_place:
                    by_place[name] = empty(node, (order.num_positions + 1, *shape))
                    by_place[name][-1].zero_()
        return cls(order, by_place, by_edge, outside)

    def receive(self, name: str, group: RowGroup, step: Step, buffer: Tensor, base: int) -> Tensor:
        """The gradient of a state that comes to the rows of a step, in `buffer`, which begins with row `base` (-1: with
        the step)."""
        placed, listed, outside = self.by_place.get(name), self.by_edge.get(name), self.outside.get(name)
        if placed is not None and step.read_at >= 0 and base < 0 and outside is None and listed is None:
            return placed[step.read_at : step.read_at + step.stop - step.start]
        out = buffer[step.start - base : step.stop - base] if base >= 0 else buffer[: step.stop - step.start]
        if step.stop > step.start:
            self._sum(name, group.start + step.start, group.start + step.stop, out)
            if outside is not None:
                out += outside[group.start + step.start : group.start + step.stop]
        return out

    def sent_outside(self, state: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """What was sent to external vertices."""
        first, count = self.order.num_rows, self.order.num_external
        sums = {}
        for name in state if count else ():
            sent = self.by_place.get(name, self.by_edge.get(name))
            if sent is not None:
                sums[name] = sent.new_empty((count, *state[name]))
                self._sum(name, first, first + count, sums[name])
        return sums

    def _sum(self, name: str, start: int, stop: int, out: Tensor) -> None:
        """What all parents sent to rows [start, stop) of a state."""
        if name in self.by_place:
            sum_over_parents(self.by_place[name], self.order.parents, start, stop, out)
        else:
            out.zero_()
        if name in self.by_edge:
            assert self.order.edge_parents is not None
            more = torch.empty_like(out)
            sum_over_parents(self.by_edge[name], self.order.edge_parents, start, stop, more)
            out += more


class _Backward:
    """The derivative over one group of rows."""

    def __init__(self, compiled: Compiled, group: RowGroup, values: Values, exchange: _Exchange) -> None:
        self.compiled, self.group, self.values, self.exchange = compiled, group, values, exchange
        program = compiled.program
        _give_counts(program, group, values)
        run_whole(compiled, "grad_eager", group, values)
        self.sent: list[EdgeRows] = []
        self.ragged: list[ChildRows] = []
        for name, data in exchange.by_place.items():
            nodes = _of_state(program.gather_grads, name)
            rows = EdgeRows.for_gradients(nodes, group, data)
            self.sent.append(rows)
            for node, place in rows.views(group.num_leaves, group.num_rows).items():
                if program.made_by[node] == "grad_eager":
                    place.copy_(between(program, node, values[node], group, group.num_leaves, group.num_rows))
        for name, data in exchange.by_edge.items():
            every = program.gather_grads.get((name, CHILDREN))
            if every is None:
                assert group.edges is not None
                data[group.edges.start : group.edges.start + group.edges.num_edges].zero_()
                continue
            kids = ChildRows.for_gradients(every, group, data)
            self.ragged.append(kids)
            if program.made_by[every] == "grad_eager":
                kids.data.copy_(values[every])
        self.received = {name: _received(program, node, group, values) for name, node in program.state_grads.items()}
        leaf = program.parts.get("grad_core_leaf")
        self.leaf_reads = set(leaf.inputs) if leaf is not None else set()
        self.core = Core(compiled, "grad_core", group, values)
        self.in_steps = "grad_core" in program.parts
        self.arguments: Arguments | None = None

    def run(self, order: Order, first: int, end: int) -> None:
        """Compute steps, all of this group, the last one first."""
        loop = self.compiled.loops.get("grad_core")
        if loop is not None:
            self.arguments = loop.bind(self._argument, self.group.known) if self.arguments is None else self.arguments
            loop.run(self.arguments, order.backwards[len(order.steps) - end : len(order.steps) - first])
        elif self.in_steps:
            for step in reversed(order.steps[first:end]):
                self._compute(step)

    def _argument(self, role: str, what: Any) -> Tensor | int:
        """What native code is given, by its role."""
        exchange = self.exchange
        if role == "received":
            return self.received[what][0]
        if role == "send":
            sent = next(rows for name, rows in zip(exchange.by_place, self.sent, strict=True) if name == what)
            return sent.data
        if role == "send_edges":
            every = self.compiled.program.gather_grads[what, CHILDREN]
            return next(kids.data for kids in self.ragged if kids.node is every)
        if role in ("outside", "placed_sent", "listed_sent"):
            return {"outside": exchange.outside, "placed_sent": exchange.by_place, "listed_sent": exchange.by_edge}[
                role
            ].get(what, 0)
        if role.startswith(("placed_", "listed_")):
            parents = exchange.order.parents if role.startswith("placed") else exchange.order.edge_parents
            found = None if parents is None else parents.places if role.endswith("places") else parents.offset
            return 0 if found is None else found
        return self.core.argument(role, what)

    def finish(self) -> None:
        if not self.in_steps:
            self._compute(_inner_rows(self.group))
            self._compute(Step(0, self.group.num_leaves))
        run_whole(self.compiled, "grad_lazy", self.group, self.values)

    def _compute(self, step: Step) -> None:
        program, group = self.compiled.program, self.group
        given, leaf = {}, step.start < group.num_leaves
        for name, node in program.state_grads.items():
            if not leaf or node in program.whole or node in self.leaf_reads:
                given[node] = self.exchange.receive(name, group, step, *self.received[name])
        if not leaf:
            for rows in self.sent:
                given.update(rows.views(step.start, step.stop))
            for kids in self.ragged:
                given[kids.node] = kids.part(step.edge_start, step.edge_stop)
        self.core.run(step, given)


def _give_counts(program: Program, group: RowGroup, values: Values) -> None:
    if program.trace.counts is not None:
        assert group.edges is not None
        values[program.trace.counts] = group.edges.counts


def _inner_rows(group: RowGroup) -> Step:
    """All rows with children as one step, where no core orders them."""
    return Step(group.num_leaves, group.num_rows, edge_stop=group.edges.num_edges if group.edges else 0)


def _of_state(nodes: Mapping[tuple[str, int], fx.Node], name: str) -> dict[fx.Node, int]:
    """The values that one state's slots are, and their slots."""
    return {node: slot for (state, slot), node in nodes.items() if state == name and slot != CHILDREN}


def _edge_rows(
    program: Program, nodes: dict[fx.Node, int], group: RowGroup, shape: tuple[int, ...], values: Values
) -> EdgeRows:
    """The buffer into which one state is gathered: of all steps where somebody reads it later, else of one step."""
    kept = [node for node in nodes if node in program.kept]
    whole = any(program.is_whole(node) for node in kept)
    rows = EdgeRows.for_states(nodes, group, shape, kept=bool(kept), leaves=whole)
    for node, view in rows.kept_views(program.is_whole).items():
        if node in kept:
            values[node] = view
    return rows


def _received(program: Program, node: fx.Node, group: RowGroup, values: Values) -> tuple[Tensor, int]:
    """The buffer of a state's incoming gradients and its first row; -1 where one step's rows are enough."""
    shape = node.meta["val"].shape[1:]
    if node in program.kept:
        base = 0 if program.is_whole(node) else group.num_leaves
        values[node] = empty(node, (group.num_rows - base, *shape))
        return values[node], base
    steps = group.steps if "grad_core" in program.parts else [Step(0, group.num_rows)]
    return empty(node, (max((step.stop - step.start for step in steps), default=0), *shape)), -1
