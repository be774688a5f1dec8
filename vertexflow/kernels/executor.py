"""Run programs over a schedule: eager parts once, cores step by step, lazy parts once, over buffers in row order.

Each group of rows, which is all vertices of a kind, has its own program; they meet in the states and in what is sent back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..graph.program import BACKWARD, FORWARD, Program
from ..graph.vertex import CHILDREN
from .core import Compiled, Core, argument, cut, empty, run_whole
from .edges import ChildRows, EdgeRows, sum_over_parents
from .memory import Arena, Values, backward_layout, first_gathered, first_row, forward_layouts, slots_of
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
        known = group.known.setdefault(compiled, {})
        if "forward" not in known:
            parts = compiled.in_memory(FORWARD)
            known["forward"] = forward_layouts(program, group, parts, compiled.scratch(parts, group))
        self.arenas = [layout.allocate() for layout in known["forward"]]
        values.arenas = self.arenas
        run_whole(compiled, "eager", group, values)
        self.loop = compiled.loops.get("core")
        self.arguments: Any = None
        self.in_steps = "core" in program.parts
        self.gathers: dict[str, EdgeRows] = {}
        self.ragged: dict[str, ChildRows] = {}
        for name, shape in found.state.items():
            nodes = slots_of(program.gathers, name)
            base = first_gathered(program, group, nodes)
            if nodes and base == 0:  # leaves have rows, too
                self._buffer("gathered", name)[: group.num_leaves * group.num_slots].zero_()
            every = program.gathers.get((name, CHILDREN))
            if self.loop is not None and self.loop.gathers:
                continue
            by_calls = self.loop is None and self.in_steps
            if nodes and (by_calls or base >= 0):
                self.gathers[name] = EdgeRows(self._buffer("gathered", name), nodes, group, shape, base)
            if every is not None and (by_calls or every in program.kept):
                self.ragged[name] = ChildRows(self._buffer("listed", name), every, group, every in program.kept)
        if self.loop is None:
            self.core = Core(compiled, "core", group, values)

    def _buffer(self, role: str, name: str) -> Tensor:
        kept, rest = self.arenas
        arena: Arena = kept if (role, name) in kept.layout.places else rest
        return arena[role, name]

    def run(self, order: Order, first: int, end: int) -> None:
        """Compute steps, all of this group."""
        if self.loop is not None:
            if self.arguments is None:
                self.arguments = self.loop.bind(self._argument, self.arenas, self.group.known)
            self.loop.run(self.arguments, order.table[first:end])
        elif self.in_steps:
            for step in order.steps[first:end]:
                self._compute(step)

    def _argument(self, role: str, what: Any) -> Tensor | int:
        """What native code is given, by its role."""
        if role == "state":
            return self.states[what]
        return argument(self.group, self.values, role, what)

    def finish(self) -> None:
        if not self.in_steps:
            self._compute(_inner_rows(self.group))
        for name, rows in self.gathers.items():
            rows.fill(self.states[name], everything=self.loop is not None)
        if self.loop is not None and self.group.edges is not None:
            for name, kids in self.ragged.items():
                kids.read(self.states[name], 0, self.group.edges.num_edges)
        run_whole(self.compiled, "lazy", self.group, self.values)

    def _compute(self, step: Step) -> None:
        given: dict[fx.Node, Tensor] = {}
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
        run.send_rest()
    outside = exchange.sent_outside(compiled[0].program.trace.state)
    exchange.by_place.clear()  # their memory serves the gradients of weights
    exchange.by_edge.clear()
    for run in runs:
        run.finish()
    return outside


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
        known = group.known.setdefault(compiled, {})
        if "backward" not in known:
            parts = compiled.in_memory(BACKWARD)
            known["backward"] = backward_layout(program, group, parts, compiled.scratch(parts, group))
        self.arena: Arena = known["backward"].allocate()
        values.arenas.append(self.arena)
        run_whole(compiled, "grad_eager", group, values)
        self.sent: dict[str, EdgeRows] = {}
        self.ragged: dict[str, ChildRows] = {}
        for name, data in exchange.by_place.items():
            nodes = slots_of(program.gather_grads, name)
            self.sent[name] = EdgeRows.for_gradients(nodes, group, data)
            if any(program.made_by[node] == "grad_eager" for node in nodes):
                for node, place in self.sent[name].views(group.num_leaves, group.num_rows).items():
                    if program.made_by[node] == "grad_eager":
                        inner = cut(program, node, group, group.num_leaves)
                        place.copy_(values[node] if inner is None else values[node].narrow(*inner))
        for name, data in exchange.by_edge.items():
            every = program.gather_grads.get((name, CHILDREN))
            if every is None:
                assert group.edges is not None
                data[group.edges.start : group.edges.start + group.edges.num_edges].zero_()
                continue
            self.ragged[name] = ChildRows.for_gradients(every, group, data)
            if program.made_by[every] == "grad_eager":
                self.ragged[name].data.copy_(values[every])
        self.loop = compiled.loops.get("grad_core")
        self.arguments: Any = None
        self.in_steps = "grad_core" in program.parts
        if self.loop is None:
            self.received = {
                name: (self.arena["received", name], first_row(program, group, node) if node in program.kept else -1)
                for name, node in program.state_grads.items()
            }
            leaf = program.parts.get("grad_core_leaf")
            self.leaf_reads = set(leaf.inputs) if leaf is not None else set()
            self.core = Core(compiled, "grad_core", group, values)

    def run(self, order: Order, first: int, end: int) -> None:
        """Compute steps, all of this group, the last one first."""
        if self.loop is not None:
            if self.arguments is None:
                self.arguments = self.loop.bind(self._argument, self.values.arenas, self.group.known)
            self.loop.run(self.arguments, order.backwards[len(order.steps) - end : len(order.steps) - first])
        elif self.in_steps:
            for step in reversed(order.steps[first:end]):
                self._compute(step)

    def _argument(self, role: str, what: Any) -> Tensor | int:
        """What native code is given, by its role."""
        exchange = self.exchange
        if role == "send":
            return self.sent[what].data
        if role == "send_edges":
            return self.ragged[what].data
        if role in ("outside", "placed_sent", "listed_sent"):
            return {"outside": exchange.outside, "placed_sent": exchange.by_place, "listed_sent": exchange.by_edge}[
                role
            ].get(what, 0)
        if role.startswith(("placed_", "listed_")):
            parents = exchange.order.parents if role.startswith("placed") else exchange.order.edge_parents
            found = None if parents is None else parents.places if role.endswith("places") else parents.offset
            return 0 if found is None else found
        return argument(self.group, self.values, role, what)

    def send_rest(self) -> None:
        """What is sent to children where no core orders the steps."""
        if not self.in_steps:
            self._compute(_inner_rows(self.group))
            self._compute(Step(0, self.group.num_leaves))
        self.sent.clear()
        self.ragged.clear()
        self.arguments = None

    def finish(self) -> None:
        run_whole(self.compiled, "grad_lazy", self.group, self.values)

    def _compute(self, step: Step) -> None:
        program, group = self.compiled.program, self.group
        given, leaf = {}, step.start < group.num_leaves
        for name, node in program.state_grads.items():
            if not leaf or node in program.whole or node in self.leaf_reads:
                given[node] = self.exchange.receive(name, group, step, *self.received[name])
        if not leaf:
            for rows in self.sent.values():
                given.update(rows.views(step.start, step.stop))
            for kids in self.ragged.values():
                given[kids.node] = kids.part(step.edge_start, step.edge_stop)
        self.core.run(step, given)


def _give_counts(program: Program, group: RowGroup, values: Values) -> None:
    if program.trace.counts is not None:
        assert group.edges is not None
        values[program.trace.counts] = group.edges.counts


def _inner_rows(group: RowGroup) -> Step:
    """All rows with children as one step, where no core orders them."""
    return Step(group.num_leaves, group.num_rows, edge_stop=group.edges.num_edges if group.edges else 0)
