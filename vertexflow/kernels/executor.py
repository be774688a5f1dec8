"""Run programs over a schedule: eager parts once, cores step by step, lazy parts once, over buffers in row order.

Each group of rows, which is all vertices of a kind, has its own program; they meet in the states and in what is sent back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..graph.symbolic.roles import CHILDREN
from .arguments import By, Gathered, Received
from .compiled import Compiled
from .edges import ChildRows, EdgeRows, Exchange
from .memory import Values, cut, first_gathered, first_row, room_for, slots_of
from .order import Ints, Order, RowGroup, Step
from .run import Run


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
    trace = compiled[0].program.trace
    states: dict[str, Tensor] = {}
    for name, node in trace.scatters.items():
        states[name] = room_for(node, (order.num_rows + order.num_external + 1, *trace.state[name]))
        states[name][-1].zero_()  # the row that a missing child reads
        if order.num_external:
            states[name][order.num_rows : -1].copy_((external or {})[name])
    runs = [_Forward(*of_group, states) for of_group in zip(compiled, order.groups, values, strict=True)]
    for group, first, end in order.runs:
        runs[group].steps.run(order.table[first:end])
    for run in runs:
        run.finish()


class _Steps:
    """The steps of a core, whose arguments are bound when the first is computed."""

    def __init__(self, compiled: Compiled, core: str, run: Run) -> None:
        self.loop, self.bound_to = compiled.loops[core], run
        self.arguments: Any = None

    def run(self, steps: Ints) -> None:
        """Compute steps, all of this group."""
        if self.arguments is None:
            self.arguments = self.loop.bind(self.bound_to)
        self.loop.run(self.arguments, steps)


def _run_once(compiled: Compiled, stage: str, run: Run) -> None:
    """Compute a stage's parts: over all rows, then, for what leaves do not need, over rows with children."""
    for name, rows in ((stage, run.group.all_rows), (f"{stage}_inner", run.group.inner_rows)):
        if name in compiled.loops:
            loop = compiled.loops[name]
            loop.run(loop.bind(run), rows)


class _Forward:
    """The forward parts over one group of rows."""

    def __init__(self, compiled: Compiled, group: RowGroup, values: Values, states: Mapping[str, Tensor]) -> None:
        self.compiled, self.run = compiled, Run(group, values, states)
        program, trace = compiled.program, compiled.program.trace
        _give_counts(self.run, compiled)
        for name, node in trace.scatters.items():
            values[node] = states[name][group.start : group.start + group.num_rows]
        values.arenas = compiled.forward_arenas(group)
        _run_once(compiled, "eager", self.run)
        for name in trace.state:
            if first_gathered(program, group, slots_of(program.gathers, name)) == 0:  # leaves have rows, too
                values.buffer(Gathered(name, By.SLOT))[: group.num_leaves * group.num_slots].zero_()
        self.steps = _Steps(compiled, "core", self.run)

    def finish(self) -> None:
        """Compute what no step does."""
        if not self.steps.loop.keeps:
            self._gather()
        _run_once(self.compiled, "lazy", self.run)

    def _gather(self) -> None:
        """Gather what others than the core read."""
        program, group, values = self.compiled.program, self.run.group, self.run.values
        for name, shape in program.trace.state.items():
            nodes, every = slots_of(program.gathers, name), program.gathers.get((name, CHILDREN))
            base = first_gathered(program, group, nodes)
            if base >= 0:
                rows = EdgeRows(values.buffer(Gathered(name, By.SLOT)), nodes, group, shape, base)
                rows.gather_all(self.run.states[name])
            if every is not None and every in program.kept:
                kids = ChildRows(values.buffer(Gathered(name, By.EDGE)), every, group, kept=True)
                kids.read(self.run.states[name], 0, group.num_edges)


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
    exchange = Exchange.between([one.program for one in compiled], order, state_grads or {})
    runs = [_Backward(*of_group, exchange) for of_group in zip(compiled, order.groups, values, strict=True)]
    last = len(order.steps)
    for group, first, end in reversed(order.runs):
        runs[group].steps.run(order.backwards[last - end : last - first])
    for run in runs:
        run.receive()
    outside = exchange.sent_outside(compiled[0].program.trace.state, order)
    for run in runs:
        run.forget_sent()
    exchange.clear()  # its memory serves the gradients of weights
    for run in runs:
        run.finish()
    return outside


class _Backward:
    """The derivative over one group of rows."""

    def __init__(self, compiled: Compiled, group: RowGroup, values: Values, exchange: Exchange) -> None:
        self.compiled, self.run = compiled, Run(group, values, exchange=exchange)
        _give_counts(self.run, compiled)
        values.arenas.append(compiled.backward_arena(group))
        _run_once(compiled, "grad_eager", self.run)
        self._send_early()
        self.steps = _Steps(compiled, "grad_core", self.run)

    def _send_early(self) -> None:
        """Find the places of what is sent, and send what no core makes."""
        program, run, group, values = self.compiled.program, self.run, self.run.group, self.run.values
        for name, data in run.exchange.sent[By.SLOT].items():
            nodes = slots_of(program.gather_grads, name)
            run.sent[name] = EdgeRows.for_gradients(nodes, group, data)
            if any(program.made_by[node] == "grad_eager" for node in nodes):
                for node, place in run.sent[name].views(group.num_leaves, group.num_rows).items():
                    if program.made_by[node] == "grad_eager":
                        inner = cut(program, node, group, group.num_leaves)
                        place.copy_(values[node] if inner is None else values[node].narrow(*inner))
        for name, data in run.exchange.sent[By.EDGE].items():
            every = program.gather_grads.get((name, CHILDREN))
            if every is None:
                assert group.edges is not None
                data[group.edges.start : group.edges.start + group.edges.num_edges].zero_()
                continue
            run.sent_by_edge[name] = ChildRows.for_gradients(every, group, data)
            if program.made_by[every] == "grad_eager":
                run.sent_by_edge[name].data.copy_(values[every])

    def receive(self) -> None:
        """What others than a core read of the gradients that come to the rows, if no core keeps it."""
        program, run = self.compiled.program, self.run
        for name, node in program.state_grads.items() if not self.steps.loop.keeps else ():
            if node in program.kept:
                base = first_row(program, run.group, node)
                step = Step(base, run.group.num_rows)
                run.exchange.receive(name, run.group, step, run.values.buffer(Received(name)), base)

    def forget_sent(self) -> None:
        """Let go of what was sent."""
        self.run.sent.clear()
        self.run.sent_by_edge.clear()
        self.steps.arguments = None

    def finish(self) -> None:
        """Compute what no step does."""
        _run_once(self.compiled, "grad_lazy", self.run)


def _give_counts(run: Run, compiled: Compiled) -> None:
    counts = compiled.program.trace.counts
    if counts is not None:
        assert run.group.edges is not None
        run.values[counts] = run.group.edges.counts
