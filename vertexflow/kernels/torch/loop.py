"""Parts as calls of PyTorch: cores once a step, on slices of all rows; others once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

from torch import Tensor, fx

from ...graph.symbolic.nodes import on_edges
from ...graph.symbolic.program import CORES, Part, Program
from ...graph.symbolic.roles import CHILDREN
from ..arguments import By, Gathered, Received
from ..edges import ChildRows, EdgeRows
from ..memory import Buffers, cut, first_gathered, first_row, slots_of
from ..order import Extent, Ints, RowGroup, Step
from ..run import Run
from .calls import Calls


def loops_of(program: Program, others: Collection[str]) -> dict[str, Once | Steps]:
    """The parts of a program but for `others`."""
    loops: dict[str, Once | Steps] = {}
    for name, part in program.parts.items():
        if name in others or name.endswith("_leaf"):
            continue
        made, leaf = _calls(program, part), program.parts.get(f"{name}_leaf")
        if name in CORES:
            loops[name] = Steps(program, made, None if leaf is None else _calls(program, leaf))
        else:
            loops[name] = Once(program, made)
    return loops


def _calls(program: Program, part: Part) -> Calls:
    return Calls.of(part, _written(program, part))


def _written(program: Program, part: Part) -> dict[fx.Node, bool]:
    """The outputs that a part writes into given memory, and whether that is contiguous: all of cores, and states."""
    trace = program.trace
    states = set(trace.scatters.values())
    columns = {node for (_, slot), node in program.gather_grads.items() if slot >= 0 and trace.num_slots > 1}
    result = {}
    for node in part.outputs:
        if "core" in part.name or node in states:
            layout = node.meta.get("rows")
            result[node] = node not in columns and (layout is None or layout.dim == 0)
    return result


class _Loop:
    """What is the same of all loops here."""

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
    # For each group of rows: which of the rows of each input are read.
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
        given = [values[node] if rows is None else values[node].narrow(*rows) for node, rows in cuts]
        results = calls(self.program.trace, stop - start, end - first, given)
        made = (node for node in calls.part.outputs if node not in calls.written)
        values.update(zip(made, results, strict=True))


# Of each value of a core: all its rows, their dimension, how many each has, and the first of them (-1: it has a row an edge).
_Slices = list[tuple[fx.Node, "Tensor | None", int, int, int]]


class _Exchange(Protocol):
    """What steps read of children or parents, and write for them."""

    def of_step(self, step: Step, is_leaf: bool) -> dict[fx.Node, Tensor]:
        """The values that are of one step."""

    def finish(self, steps: Sequence[Step]) -> None:
        """See to it that they are there for others, too."""


@dataclass(frozen=True)
class _Arguments:
    group: RowGroup
    inner: _Slices
    leaf: _Slices
    exchange: _Exchange


@dataclass(frozen=True, eq=False)
class Steps(_Loop):
    """A core: of vertices with children, and of others, of which there may be nothing to compute."""

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
        each = [Step._make(line) for line in steps.tolist()]
        for step in each:
            is_leaf = step.start < arguments.group.num_leaves
            calls, slices = (self.leaf, arguments.leaf) if is_leaf else (self.inner, arguments.inner)
            given = arguments.exchange.of_step(step, is_leaf)
            if calls is not None and step.start < step.stop:
                values = [_slice(step, given, *one) for one in slices]
                calls(self.program.trace, step.stop - step.start, step.edge_stop - step.edge_start, values)
        arguments.exchange.finish(each)

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
    given: Mapping[fx.Node, Tensor],
    node: fx.Node,
    value: Tensor | None,
    dim: int,
    per_vertex: int,
    base: int,
) -> Tensor | None:
    """A value in one step: one of the `given` ones, or some of its rows."""
    if node in given:
        return given[node]
    if dim < 0 or value is None:
        return value
    start, stop = (step.edge_start, step.edge_stop) if base < 0 else (step.start - base, step.stop - base)
    if dim == 0 and per_vertex == 1:
        return value[start:stop]
    return value.narrow(dim, start * per_vertex, (stop - start) * per_vertex)


@dataclass(frozen=True)
class _Gathers:
    """What is gathered of the states of children: in slots, and over edges."""

    states: Mapping[str, Tensor]
    rows: dict[str, EdgeRows]
    kids: dict[str, ChildRows]

    @classmethod
    def of(cls, program: Program, run: Run) -> _Gathers:
        """With room for what is gathered."""
        rows, kids = {}, {}
        for name, shape in program.trace.state.items():
            nodes, every = slots_of(program.gathers, name), program.gathers.get((name, CHILDREN))
            if nodes:
                room, base = run.values.buffer(Gathered(name, By.SLOT)), first_gathered(program, run.group, nodes)
                rows[name] = EdgeRows(room, nodes, run.group, shape, base)
            if every is not None:
                room = run.values.buffer(Gathered(name, By.EDGE))
                kids[name] = ChildRows(room, every, run.group, every in program.kept)
        return cls(run.states, rows, kids)

    def of_step(self, step: Step, is_leaf: bool) -> dict[fx.Node, Tensor]:
        """The rows that a step gathers."""
        given: dict[fx.Node, Tensor] = {}
        if not is_leaf:
            for name, rows in self.rows.items():
                given.update(rows.read(self.states[name], step))
            for name, kids in self.kids.items():
                given[kids.node] = kids.read(self.states[name], step.edge_start, step.edge_stop)
        return given

    def finish(self, steps: Sequence[Step]) -> None:
        """Gather what was read where it is."""
        for name, rows in self.rows.items():
            rows.fill(self.states[name], steps)


@dataclass(frozen=True)
class _Receives:
    """The gradients of states that come from parents, and those that are sent to children."""

    run: Run
    received: dict[str, tuple[fx.Node, Tensor, int]]  # with the row that the room begins with
    of_leaves: set[fx.Node]

    @classmethod
    def of(cls, program: Program, run: Run, leaf_reads: set[fx.Node]) -> _Receives:
        """With room for what is received."""
        received = {}
        for name, node in program.state_grads.items():
            base = first_row(program, run.group, node) if node in program.kept else -1
            received[name] = (node, run.values.buffer(Received(name)), base)
        return cls(
            run, received, {node for node, _, _ in received.values() if node in program.whole or node in leaf_reads}
        )

    def of_step(self, step: Step, is_leaf: bool) -> dict[fx.Node, Tensor]:
        """What rows of a step receive, and where what they send belongs."""
        given, run = {}, self.run
        for name, (node, room, base) in self.received.items():
            if not is_leaf or node in self.of_leaves:
                given[node] = run.exchange.receive(name, run.group, step, room, base)
        if not is_leaf:
            for rows in run.sent.values():
                given.update(rows.views(step.start, step.stop))
            for kids in run.sent_by_edge.values():
                given[kids.node] = kids.part(step.edge_start, step.edge_stop)
        return given

    def finish(self, steps: Sequence[Step]) -> None:
        """All is there."""
