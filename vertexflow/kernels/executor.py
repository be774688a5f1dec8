"""Run a program over a schedule: eager parts once, cores step by step, lazy parts once, over buffers in row order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from ..graph.nodes import on_edges
from ..graph.program import Program
from ..graph.trace import Trace
from ..graph.vertex import CHILDREN
from .edges import EdgeRows, Order, Step, sum_over_parents
from .ragged import ChildRows

Values = dict[fx.Node, Tensor]  # values of nodes of the joint graph, over all rows or over inner rows
Function = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Compiled:
    """A program whose parts are functions of one backend."""

    program: Program
    functions: Mapping[str, Function]
    sources: Mapping[str, str]  # the generated code of each part, to be read


def placed(program: Program, name: str) -> dict[fx.Node, bool]:
    """The outputs that a part writes into given memory, and whether that is contiguous; others are returned.

    Given are all outputs of cores, and states.
    """
    found = program.trace
    states = set(found.scatters.values())
    columns = {node for (_, slot), node in program.gather_grads.items() if slot >= 0 and found.num_slots > 1}
    result = {}
    for node in program.parts[name].outputs:
        if "core" in name or node in states:
            layout = node.meta.get("rows")
            result[node] = node not in columns and (layout is None or layout.dim == 0)
    return result


def run_forward(
    compiled: Compiled,
    order: Order,
    constants: Values,
    pulls: Mapping[str, Tensor],
    external: Mapping[str, Tensor] | None = None,
) -> Values:
    """Compute every value of the forward parts.

    `constants` are the parameters and buffers, `pulls` the inputs with their rows in row order, `external` the states of
    the external vertices.
    """
    program, found = compiled.program, compiled.program.trace
    values: Values = {**constants, **{node: pulls[name] for name, node in found.pulls.items()}}
    _give_counts(found, order, values)
    states: dict[str, Tensor] = {}
    for name, node in found.scatters.items():
        states[name] = _empty(node, (order.num_rows + order.num_external + 1, *found.state[name]))
        states[name][-1].zero_()  # the row that a missing child reads
        values[node] = states[name][: order.num_rows]
        if order.num_external:
            states[name][order.num_rows : -1].copy_((external or {})[name])
    _run_whole(compiled, "eager", order, values)

    gathers: dict[str, EdgeRows] = {}
    for name in found.state:
        nodes = {node: slot for (state, slot), node in program.gathers.items() if state == name and slot != CHILDREN}
        if nodes:
            gathers[name] = _edge_rows(program, nodes, order, values)
    ragged: dict[str, ChildRows] = {}
    for (name, slot), node in program.gathers.items():
        if slot == CHILDREN:
            ragged[name] = _child_rows(node, found.state[name], order, node in program.kept)
            if node in program.kept:
                values[node] = ragged[name].data
    steps = order.steps if "core" in program.parts else [_all_rows(order)]
    core = _Core(compiled, "core", order, values)
    for step in steps:
        given: Values = {}
        if step.start >= order.num_leaves:
            for name, rows in gathers.items():
                given.update(rows.read(states[name], step))
            for name, kids in ragged.items():
                given[kids.node] = kids.read(states[name], step.edge_start, step.edge_stop)
        core.run(step, given)
    for name, rows in gathers.items():
        rows.fill(states[name])
    _run_whole(compiled, "lazy", order, values)
    return values


def run_backward(
    compiled: Compiled,
    order: Order,
    values: Values,
    push_grads: Mapping[str, Tensor],
    state_grads: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Add to `values`, which holds constants and saved forward values, the gradients that the program wants.

    `push_grads` are the gradients of the pushed outputs, `state_grads` what comes to the states from elsewhere, both in
    row order. Returns the gradients of the states of the external vertices.
    """
    program, found = compiled.program, compiled.program.trace
    _give_counts(found, order, values)
    values.update({node: push_grads[name] for name, node in found.push_grads.items() if name in push_grads})
    _run_whole(compiled, "grad_eager", order, values)

    edges: dict[str, EdgeRows] = {}
    for name in found.state:
        nodes = {
            node: slot for (state, slot), node in program.gather_grads.items() if state == name and slot != CHILDREN
        }
        if nodes:
            edges[name] = EdgeRows.for_gradients(nodes, order, found.state[name])
            for node, place in edges[name].views(order.num_leaves, order.num_rows).items():
                if program.made_by[node] == "grad_eager":
                    place.copy_(_between(program, node, values[node], order, order.num_leaves, order.num_rows))
    ragged: dict[str, ChildRows] = {}
    for (name, slot), node in program.gather_grads.items():
        if slot == CHILDREN:
            ragged[name] = _child_rows(node, found.state[name], order, kept=True)
            if program.made_by[node] == "grad_eager":
                ragged[name].data.copy_(values[node])
    received = {node: _received(program, node, order, values) for node in program.state_grads.values()}
    leaf_reads = set(program.parts["grad_core_leaf"].inputs) if "grad_core_leaf" in program.parts else set()
    bounds = [_all_rows(order), Step(0, order.num_leaves)]
    core = _Core(compiled, "grad_core", order, values)
    for step in reversed(order.steps) if "grad_core" in program.parts else bounds:
        given, leaf = {}, step.start < order.num_leaves
        for name, node in program.state_grads.items():
            if not leaf or node in program.whole or node in leaf_reads:
                outside = (state_grads or {}).get(name)
                given[node] = _receive(edges.get(name), ragged.get(name), order, step, received[node], outside)
        if not leaf:
            for rows in edges.values():
                given.update(rows.views(step.start, step.stop))
            for kids in ragged.values():
                given[kids.node] = kids.part(step.edge_start, step.edge_stop)
        core.run(step, given)
    _run_whole(compiled, "grad_lazy", order, values)
    return _sent_outside(found.state, edges, ragged, order) if order.num_external else {}


def _give_counts(found: Trace, order: Order, values: Values) -> None:
    if found.counts is not None:
        assert order.edges is not None
        values[found.counts] = order.edges.counts


def _all_rows(order: Order) -> Step:
    """All rows with children as one step, where no core orders them."""
    return Step(order.num_leaves, order.num_rows, edge_stop=order.edges.num_edges if order.edges else 0)


def _receive(
    sent: EdgeRows | None,
    ragged: ChildRows | None,
    order: Order,
    step: Step,
    received: tuple[Tensor, int],
    outside: Tensor | None,
) -> Tensor:
    """The gradient of a state that comes to the rows of a step."""
    buffer, base = received
    if sent is not None and step.read_at >= 0 and base < 0 and outside is None and ragged is None:
        return sent.data[step.read_at : step.read_at + step.stop - step.start]
    out = buffer[step.start - base : step.stop - base] if base >= 0 else buffer[: step.stop - step.start]
    if step.stop > step.start:
        sum_over_parents(sent.data if sent is not None else None, order, step.start, step.stop, out)
        if ragged is not None:
            out += ragged.sum_over_parents(step.start, step.stop)
        if outside is not None:
            out += outside[step.start : step.stop]
    return out


def _sent_outside(
    state: Mapping[str, tuple[int, ...]], edges: Mapping[str, EdgeRows], ragged: Mapping[str, ChildRows], order: Order
) -> dict[str, Tensor]:
    sums = {}
    first, end = order.num_rows, order.num_rows + order.num_external
    for name, sent in edges.items():
        sums[name] = sent.data.new_empty((order.num_external, *state[name]))
        sum_over_parents(sent.data, order, first, end, sums[name])
    for name, kids in ragged.items():
        more = kids.sum_over_parents(first, end)
        sums[name] = sums[name] + more if name in sums else more
    return sums


class _Core:
    """The function of a core with its buffers, cut to the rows of one step at each call."""

    def __init__(self, compiled: Compiled, core: str, order: Order, values: Values) -> None:
        program = compiled.program
        self.order = order
        # Of each value: its dimension of rows, how many each has, and the row it begins with (-1: it has a row an edge).
        self.calls: list[tuple[Function, list[tuple[fx.Node, Tensor | None, int, int, int]]] | None] = []
        if core in program.parts:
            self._allocate(program, core, order, values)
        for name in (core, f"{core}_leaf"):
            if name not in program.parts:
                self.calls.append(None)
                continue
            part = program.parts[name]
            cuts = []
            for node in [*part.inputs, *part.outputs]:
                layout = node.meta.get("rows")
                base = -1 if on_edges(node) else 0 if program.is_whole(node) else order.num_leaves
                cuts.append(
                    (node, values.get(node), layout.dim if layout else -1, layout.per_vertex if layout else 0, base)
                )
            self.calls.append((compiled.functions[name], cuts))

    @staticmethod
    def _allocate(program: Program, core: str, order: Order, values: Values) -> None:
        exchanged = set(program.gather_grads.values())
        for node in program.parts[core].outputs:
            if node in values or node in exchanged:
                continue
            count = order.num_rows - (0 if program.is_whole(node) else order.num_leaves)
            layout = node.meta["rows"]
            if layout.edges:
                assert order.edges is not None
                count = order.edges.num_edges
            shape = list(node.meta["val"].shape)
            shape[layout.dim] = count * layout.per_vertex
            values[node] = _empty(node, shape)

    def run(self, step: Step, given: Values) -> None:
        """Compute the rows of a step; `given` are the values that belong to it alone."""
        call = self.calls[step.start < self.order.num_leaves]
        if call is None or step.start == step.stop:
            return
        function, cuts = call
        arguments: list[Tensor | None] = []
        for node, value, dim, per_vertex, base in cuts:
            start, stop = (step.edge_start, step.edge_stop) if base < 0 else (step.start - base, step.stop - base)
            if node in given:
                value = given[node]
            elif dim == 0 and per_vertex == 1:
                value = value[start:stop]  # type: ignore[index]
            elif dim >= 0:
                value = value.narrow(dim, start * per_vertex, (stop - start) * per_vertex)  # type: ignore[union-attr]
            arguments.append(value)
        function(step.stop - step.start, step.edge_stop - step.edge_start, *arguments)


def _run_whole(compiled: Compiled, stage: str, order: Order, values: Values) -> None:
    """Run a stage's parts once: over all rows, then, for what leaves do not need, over inner rows."""
    program = compiled.program
    for name, start in ((stage, 0), (f"{stage}_inner", order.num_leaves)):
        part = program.parts.get(name)
        if part is None:
            continue
        in_place = placed(program, name)
        arguments = [
            _between(program, node, values[node], order, start, order.num_rows) for node in [*part.inputs, *in_place]
        ]
        edges = order.edges.num_edges if order.edges is not None else 0
        results = compiled.functions[name](order.num_rows - start, edges, *arguments)
        values.update(zip((node for node in part.outputs if node not in in_place), results, strict=True))


def _between(program: Program, node: fx.Node, value: Tensor, order: Order, start: int, stop: int) -> Tensor:
    """Rows [start, stop) of a value; all of a value that has no rows."""
    layout = node.meta.get("rows")
    base = 0 if program.is_whole(node) else order.num_leaves
    if layout is None or layout.edges or (start == base and stop == order.num_rows):
        return value
    return value.narrow(layout.dim, (start - base) * layout.per_vertex, (stop - start) * layout.per_vertex)


def _edge_rows(program: Program, nodes: dict[fx.Node, int], order: Order, values: Values) -> EdgeRows:
    """The buffer into which one state is gathered: of all steps where somebody reads it later, else of one step."""
    found = program.trace
    name = next(state for (state, _), node in program.gathers.items() if node in nodes)
    kept = [node for node in nodes if node in program.kept]
    whole = any(program.is_whole(node) for node in kept)
    rows = EdgeRows.for_states(nodes, order, found.state[name], kept=bool(kept), leaves=whole)
    for node, view in rows.kept_views(program.is_whole).items():
        if node in kept:
            values[node] = view
    return rows


def _child_rows(node: fx.Node, shape: tuple[int, ...], order: Order, kept: bool) -> ChildRows:
    assert order.edges is not None
    widest = max((step.edge_stop - step.edge_start for step in order.steps), default=0)
    return ChildRows.like(node, shape, order.edges, widest, kept)


def _received(program: Program, node: fx.Node, order: Order, values: Values) -> tuple[Tensor, int]:
    """The buffer of a state's incoming gradients and its first row; -1 where one step's rows are enough."""
    shape = node.meta["val"].shape[1:]
    if node in program.kept:
        base = 0 if program.is_whole(node) else order.num_leaves
        values[node] = _empty(node, (order.num_rows - base, *shape))
        return values[node], base
    widest = max((step.stop - step.start for step in order.steps), default=0)
    return _empty(node, (widest, *shape)), -1


def _empty(node: fx.Node, shape: Iterable[int]) -> Tensor:
    value = node.meta["val"]
    return torch.empty(tuple(shape), dtype=value.dtype, device=value.device)
