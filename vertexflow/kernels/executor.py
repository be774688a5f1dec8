"""Run programs over a schedule: eager parts once, cores step by step, lazy parts once, over buffers in row order.

Each group of rows, which are the vertices of one kind, has its own program; groups read each other's states, and send each
other gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .arguments import By, Gathered, Received
from .compiled import Compiled, NoSteps, RunsTogether
from .edges import ChildRows, EdgeRows, Exchange, known_of_edges
from .memory.layout import Values, cut, empty_for, first_gathered, first_row, positions_of, slots_of
from .order import Ints, Order, RowGroup, Step
from .ranges import is_profiling, named, step_numbers
from .run import Run


def run_forward(
    compiled: Sequence[Compiled],
    order: Order,
    values: Sequence[Values],
    external: Mapping[str, Tensor] | None = None,
) -> None:
    """Compute the values of the forward parts and add them to `values`; `compiled` and `values` have an entry for each group.

    At first, `values` hold parameters, buffers and inputs, the latter in row order; `external` are the states of the external
    vertices.
    """
    trace = compiled[0].program.trace
    states: dict[str, Tensor] = {}
    for name, node in trace.scatters.items():
        states[name] = empty_for(node, (order.num_rows_in(name) + 1, *trace.state[name]))
        states[name][-1].zero_()  # the row that a missing child reads
        if order.num_external:
            states[name][-1 - order.num_external : -1].copy_((external or {})[name])
    passes = [
        _Forward(program, group, values_of_group, states)
        for program, group, values_of_group in zip(compiled, order.groups, values, strict=True)
    ]
    runs = [(number, order.table[first:end]) for number, first, end in order.runs]
    _run_steps([forward.steps for forward in passes], runs, order.table, order.table)
    for forward in passes:
        forward.finish()


class _Steps:
    """The steps of a core, whose arguments are bound when the first is computed."""

    def __init__(self, compiled: Compiled, core: str, run: Run) -> None:
        self.loop, self.core, self.bound_to = compiled.loops[core], core, run
        self.arguments: Any = None

    def run(self, steps: Ints, table: Ints) -> None:
        """Compute steps, all of this group; `table` has all steps, of all groups."""
        arguments = self.bound()
        if not is_profiling():
            self.loop.run(arguments, steps)
            return
        for at, number in enumerate(step_numbers(table, steps)):
            with named(self.core, number):
                self.loop.run(arguments, steps[at : at + 1])

    def bound(self) -> Any:
        """The loop's arguments."""
        if self.arguments is None:
            self.arguments = self.loop.bind(self.bound_to)
        return self.arguments


def _run_steps(kinds: Sequence[_Steps], runs: Sequence[tuple[int, Ints]], steps: Ints, table: Ints) -> None:
    """Compute the steps of all kinds: all of them at once, where the loops can, else those of one kind that follow each other.

    `runs` are the latter, each with the number of its kind; `steps` all of them in this order; `table` those of the forward pass.
    """
    turns = [number for number, _ in runs if not isinstance(kinds[number].loop, NoSteps)]
    loops = {number: (kinds[number].loop, kinds[number].bound) for number in sorted(set(turns))}
    if len(turns) > 1 and not is_profiling():
        first, _ = loops[min(loops)]
        if isinstance(first, RunsTogether) and first.run_together(loops, steps):
            return
    for number, lines in runs:
        kinds[number].run(lines, table)


def _run_once(compiled: Compiled, stage: str, run: Run) -> None:
    """Compute a stage's parts: over all rows, then, for what leaves do not need, over rows with children."""
    for name, rows in ((stage, run.group.all_rows), (f"{stage}_inner", run.group.inner_rows)):
        if name in compiled.loops:
            loop = compiled.loops[name]
            with named(name):
                loop.run(loop.bind(run), rows)


class _Forward:
    """The forward parts over one group of rows."""

    def __init__(self, compiled: Compiled, group: RowGroup, values: Values, states: Mapping[str, Tensor]) -> None:
        self.compiled, self.run = compiled, Run(group, values, states)
        program, trace = compiled.program, compiled.program.trace
        _give_counts(self.run, compiled)
        for name, node in program.scatters.items():
            start = group.start_in(name)
            assert start is not None, name
            values[node] = states[name][start : start + group.num_rows]
        values.arenas = compiled.forward_arenas(group)
        _run_once(compiled, "eager", self.run)
        for name in trace.state:
            if first_gathered(program, group, slots_of(program.gathers, name)) == 0:  # leaves have rows, too
                values.buffer(Gathered(name, By.SLOT))[: group.num_leaves * group.num_slots].zero_()
        self.steps = _Steps(compiled, "core", self.run)

    def finish(self) -> None:
        """Run the parts that follow the steps."""
        if not self.steps.loop.keeps:
            self._gather()
        _run_once(self.compiled, "lazy", self.run)

    def _gather(self) -> None:
        """Gather the states that parts other than the core read."""
        program, group, values = self.compiled.program, self.run.group, self.run.values
        for name, shape in program.trace.state.items():
            nodes, over_edges = slots_of(program.gathers, name), positions_of(program.gathers, name)
            base = first_gathered(program, group, nodes)
            if base >= 0:
                rows = EdgeRows(values.buffer(Gathered(name, By.SLOT)), nodes, group, shape, base)
                rows.gather_all(self.run.states[name], group.child_rows_in(name))
            if over_edges.keys() & set(program.buffered):
                kids = ChildRows(values.buffer(Gathered(name, By.EDGE)), over_edges, group, all_steps=True)
                kids.read(self.run.states[name], group.edge_rows_in(name), 0, group.num_edges)


def run_backward(
    compiled: Sequence[Compiled],
    order: Order,
    values: Sequence[Values],
    state_grads: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Compute the gradients of the programs and add them to `values`; returns those of the states of the external vertices.

    At first, `values` hold constants, saved forward values and the gradients of pushed outputs; `state_grads` are gradients of
    states that do not come from parents, in row order.
    """
    exchange = Exchange.between([function.program for function in compiled], order, state_grads or {})
    passes = [
        _Backward(program, group, values_of_group, exchange)
        for program, group, values_of_group in zip(compiled, order.groups, values, strict=True)
    ]
    num_steps = len(order.steps)
    runs = [
        (number, order.backwards[num_steps - end : num_steps - first]) for number, first, end in reversed(order.runs)
    ]
    _run_steps([backward.steps for backward in passes], runs, order.backwards, order.table)
    for backward in passes:
        backward.receive()
    external = exchange.sent_to_external(compiled[0].program.trace.state, order)
    for backward in passes:
        backward.forget_sent()
    exchange.clear()  # the gradients of weights can use its memory
    for backward in passes:
        backward.finish()
    return external


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
        """Locate the gradients that are sent to children, and send those that the core does not compute."""
        program, run, group, values = self.compiled.program, self.run, self.run.group, self.run.values
        for name, data in run.exchange.sent[By.SLOT].items():
            nodes, first = slots_of(program.gather_grads, name), group.sent_at(name, By.SLOT)
            if first is None:
                continue
            run.sent[name] = EdgeRows.for_gradients(nodes, group, data, first)
            if any(program.stage_of[node] == "grad_eager" for node in nodes):
                for node, column in run.sent[name].views(group.num_leaves, group.num_rows).items():
                    if program.stage_of[node] == "grad_eager":
                        inner = cut(program, node, group, group.num_leaves)
                        column.copy_(values[node] if inner is None else values[node].narrow(*inner))
        for name, data in run.exchange.sent[By.EDGE].items():
            first = group.sent_at(name, By.EDGE)
            if first is None:
                continue
            kids = run.sent_by_edge[name] = ChildRows.for_gradients(
                positions_of(program.gather_grads, name), group, data, first
            )
            for node, column in kids.columns(0, group.num_edges).items():
                if program.stage_of[node] == "grad_eager":
                    column.copy_(values[node])

    def receive(self) -> None:
        """Receive the gradients of states that parts other than the core read, unless the core keeps them."""
        program, run = self.compiled.program, self.run
        for name, node in program.state_grads.items() if not self.steps.loop.keeps else ():
            if node in program.buffered:
                base = first_row(program, run.group, node)
                step = Step(base, run.group.num_rows)
                run.exchange.receive(name, run.group, step, run.values.buffer(Received(name)), base)

    def forget_sent(self) -> None:
        """Release the gradients that were sent."""
        self.run.sent.clear()
        self.run.sent_by_edge.clear()
        self.steps.arguments = None

    def finish(self) -> None:
        """Run the parts that follow the steps."""
        _run_once(self.compiled, "grad_lazy", self.run)


def _give_counts(run: Run, compiled: Compiled) -> None:
    """Give the values that are known of a structure."""
    for node, value in known_of_edges(compiled.program.trace, run.group):
        run.values[node] = value
