"""Parts as calls of PyTorch: cores once a step, on slices of all rows; other parts once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

from torch import Tensor, fx

from ...graph.symbolic.nodes import on_edges
from ...graph.symbolic.program import CORES, Part, Program
from ...graph.symbolic.roles import is_over_edges
from ..arguments import By, Gathered, Received
from ..edges import ChildRows, EdgeRows
from ..memory.layout import Buffers, cut, first_gathered, first_row, positions_of, slots_of
from ..order import Extent, Ints, RowGroup, Step
from ..run import Run
from .calls import Calls


def loops_of(program: Program, done: Collection[str]) -> dict[str, Once | Steps]:
    """Loops for the parts of a program that are not `done` by another backend."""
    loops: dict[str, Once | Steps] = {}
    for name, part in program.parts.items():
        if name in done or name.endswith("_leaf"):
            continue
        calls, leaf = _calls(program, part), program.parts.get(f"{name}_leaf")
        if name in CORES:
            loops[name] = Steps(program, calls, None if leaf is None else _calls(program, leaf))
        else:
            loops[name] = Once(program, calls)
    return loops


def _calls(program: Program, part: Part) -> Calls:
    return Calls.of(part, _written(program, part))


def _written(program: Program, part: Part) -> dict[fx.Node, bool]:
    """The outputs that a part writes into given memory (all outputs of cores, and states), and whether that is contiguous."""
    trace = program.trace
    states = set(program.scatters.values())
    columns = {
        node
        for (_, slot), node in program.gather_grads.items()
        if (is_over_edges(slot) and trace.side_by_side > 1) or (slot >= 0 and trace.num_slots > 1)
    }
    result = {}
    for node in part.outputs:
        if "core" in part.name or node in states:
            layout = node.meta.get("rows")
            result[node] = node not in columns and (layout is None or layout.dim == 0)
    return result


class _Loop:
    """What both kinds of loops have in common."""

    def describe(self, part: str) -> str:
        """In a few words, how a part runs."""
        return "calls of PyTorch"

    def scratch(self, group: RowGroup, extent: Extent) -> Buffers:
        """The further buffers that one run needs; no more than `extent` is computed at a time."""
        return {}


@dataclass(frozen=True, eq=False)
class Once(_Loop):
    """A part that is computed once, over all rows or over those with children."""

    program: Program
    calls: Calls
    in_arenas = keeps = False
    # For each group of rows: the inputs and written outputs, and which of their rows are used.
    cuts: WeakKeyDictionary[RowGroup, list[tuple[fx.Node, tuple[int, int, int] | None]]] = field(
        default_factory=WeakKeyDictionary
    )

    @property
    def text(self) -> str:
        return self.calls.text

    def bind(self, run: Run) -> Run:
        """The arguments of one run."""
        return run

    def run(self, arguments: Run, steps: Ints) -> None:
        """Compute one step."""
        ((start, stop, _, _, _, first, end),) = steps.tolist()
        calls, group, values = self.calls, arguments.group, arguments.values
        cuts = self.cuts.get(group)
        if cuts is None:
            read = [*calls.part.inputs, *calls.written]
            cuts = self.cuts[group] = [(node, cut(self.program, node, group, start)) for node in read]
        arguments_of_calls = [values[node] if rows is None else values[node].narrow(*rows) for node, rows in cuts]
        results = calls(self.program.trace, stop - start, end - first, arguments_of_calls)
        results_returned = (node for node in calls.part.outputs if node not in calls.written)
        values.update(zip(results_returned, results, strict=True))


# For each value of a core: the tensor with all of its rows, their dimension, the entries of a row, and the first row (-1: the
# rows are edges).
_Slices = list[tuple[fx.Node, "Tensor | None", int, int, int]]


class _Exchange(Protocol):
    """What steps read from children or parents, and write for them."""

    def of_step(self, step: Step, is_leaf: bool) -> dict[fx.Node, Tensor]:
        """The values that are gathered, received or sent in one step."""

    def finish(self, steps: Sequence[Step]) -> None:
        """Complete the values that other parts read."""


@dataclass(frozen=True)
class _Arguments:
    group: RowGroup
    inner: _Slices
    leaf: _Slices
    exchange: _Exchange


@dataclass(frozen=True, eq=False)
class Steps(_Loop):
    """A core: for vertices with children, and for leaves, for which there may be nothing to compute."""

    program: Program
    inner: Calls
    leaf: Calls | None
    in_arenas = keeps = True

    @property
    def text(self) -> str:
        return "\n".join(calls.text for calls in (self.inner, self.leaf) if calls is not None)

    def bind(self, run: Run) -> _Arguments:
        """The arguments of one run."""
        leaf = [] if self.leaf is None else self._slices(self.leaf, run)
        exchange: _Exchange
        if self.inner.part.name == "core":
            exchange = _Gathers.of(self.program, run)
        else:
            exchange = _Receives.of(self.program, run, set() if self.leaf is None else set(self.leaf.part.inputs))
        return _Arguments(run.group, self._slices(self.inner, run), leaf, exchange)

    def run(self, arguments: _Arguments, steps: Ints) -> None:
        """Compute these steps, one after the other."""
        all_steps = [Step._make(line) for line in steps.tolist()]
        for step in all_steps:
            is_leaf = step.start < arguments.group.num_leaves
            calls, slices = (self.leaf, arguments.leaf) if is_leaf else (self.inner, arguments.inner)
            exchanged = arguments.exchange.of_step(step, is_leaf)
            if calls is not None and step.start < step.stop:
                values = [_slice(step, exchanged, *value_slice) for value_slice in slices]
                calls(self.program.trace, step.stop - step.start, step.edge_stop - step.edge_start, values)
        arguments.exchange.finish(all_steps)

    def _slices(self, calls: Calls, run: Run) -> _Slices:
        slices = []
        for node in [*calls.part.inputs, *calls.part.outputs]:
            layout = node.meta.get("rows")
            base = -1 if on_edges(node) else first_row(self.program, run.group, node)
            dim, per_vertex = (layout.dim, layout.per_vertex) if layout else (-1, 0)
            slices.append((node, run.values.find(node), dim, per_vertex, base))
        return slices


def _slice(
    step: Step,
    exchanged: Mapping[fx.Node, Tensor],
    node: fx.Node,
    value: Tensor | None,
    dim: int,
    per_vertex: int,
    base: int,
) -> Tensor | None:
    """A value in one step: one that is exchanged, or the step's rows of `value`."""
    if node in exchanged:
        return exchanged[node]
    if dim < 0 or value is None:
        return value
    start, stop = (step.edge_start, step.edge_stop) if base < 0 else (step.start - base, step.stop - base)
    if dim == 0 and per_vertex == 1:
        return value[start:stop]
    return value.narrow(dim, start * per_vertex, (stop - start) * per_vertex)


@dataclass(frozen=True)
class _Gathers:
    """The gathered states of children: by slot, and over edges."""

    states: Mapping[str, Tensor]
    rows: dict[str, EdgeRows]
    kids: dict[str, ChildRows]

    @classmethod
    def of(cls, program: Program, run: Run) -> _Gathers:
        """Take the buffers for gathered rows from a run."""
        rows, kids = {}, {}
        for name, shape in program.trace.state.items():
            nodes, over_edges = slots_of(program.gathers, name), positions_of(program.gathers, name)
            if nodes:
                buffer, base = run.values.buffer(Gathered(name, By.SLOT)), first_gathered(program, run.group, nodes)
                rows[name] = EdgeRows(buffer, nodes, run.group, shape, base)
            if over_edges:
                buffer, all_steps = (
                    run.values.buffer(Gathered(name, By.EDGE)),
                    over_edges.keys() & set(program.buffered),
                )
                kids[name] = ChildRows(buffer, over_edges, run.group, bool(all_steps))
        return cls(run.states, rows, kids)

    def of_step(self, step: Step, is_leaf: bool) -> dict[fx.Node, Tensor]:
        """The rows that a step gathers."""
        gathered: dict[fx.Node, Tensor] = {}
        if not is_leaf:
            for name, rows in self.rows.items():
                gathered.update(rows.read(self.states[name], rows.group.child_rows_in(name), step))
            for name, kids in self.kids.items():
                gathered.update(
                    kids.read(self.states[name], kids.group.edge_rows_in(name), step.edge_start, step.edge_stop)
                )
        return gathered

    def finish(self, steps: Sequence[Step]) -> None:
        """Gather the rows that steps read in place, for other parts."""
        for name, rows in self.rows.items():
            rows.fill(self.states[name], rows.group.child_rows_in(name), steps)


@dataclass(frozen=True)
class _Receives:
    """The gradients of states that come from parents, and those that are sent to children."""

    run: Run
    received: dict[str, tuple[fx.Node, Tensor, int]]  # by state: the value, its buffer, and the buffer's first row
    read_at_leaves: set[fx.Node]

    @classmethod
    def of(cls, program: Program, run: Run, leaf_reads: set[fx.Node]) -> _Receives:
        """Take the buffers for received gradients from a run."""
        received = {}
        for name, node in program.state_grads.items():
            base = first_row(program, run.group, node) if node in program.buffered else -1
            received[name] = (node, run.values.buffer(Received(name)), base)
        nodes = [node for node, _, _ in received.values()]
        return cls(run, received, {node for node in nodes if node in program.leaf_rows or node in leaf_reads})

    def of_step(self, step: Step, is_leaf: bool) -> dict[fx.Node, Tensor]:
        """The gradients that the rows of a step receive, and the memory for those that they send."""
        values, run = {}, self.run
        for name, (node, buffer, base) in self.received.items():
            if not is_leaf or node in self.read_at_leaves:
                values[node] = run.exchange.receive(name, run.group, step, buffer, base)
        if not is_leaf:
            for rows in run.sent.values():
                values.update(rows.views(step.start, step.stop))
            for kids in run.sent_by_edge.values():
                values.update(kids.columns(step.edge_start, step.edge_stop))
        return values

    def finish(self, steps: Sequence[Step]) -> None:
        """Nothing is left to do."""
