"""The forward pass once more, level by level, of operations that PyTorch differentiates: for what backends have no code for,
gradients of gradients and `torch.func`'s transforms.

The parts are those of the programs: eager and lazy ones run once over all rows. What autograd sees is what a careful author
writes by hand: no row of a state is read through a selection whose gradient would have the size of all states (`routes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx

from ...errors import VertexFlowError
from ...graph import transforms
from ...graph.symbolic.isolation import without_autocast
from ...graph.symbolic.nodes import has_rows, is_free, sources
from ...graph.symbolic.partition import partition
from ...graph.symbolic.passes.extract import extract
from ...graph.symbolic.program import Program
from ...graph.symbolic.roles import ALL_SLOTS
from ...graph.symbolic.trace import Trace
from ..arguments import By
from ..bound import Bound
from ..edges import known_of_edges
from ..memory.layout import cut, first_row, gathered_by, positions_of, slots_of
from ..order import Order, RowGroup, Step
from ..products import Matrix, matrix
from ..torch.calls import Calls
from .routes import EXTERNAL, Routes, order_of_few_routes, routes_of

_PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default}
_STAGES = ("eager", "eager_inner", "core", "core_leaf", "lazy", "lazy_inner")


@dataclass(frozen=True, eq=False)
class Differentiable:
    """The forward parts of a vertex function as calls of PyTorch that are differentiated as they run."""

    program: Program
    calls: dict[str, Calls]
    matrices: list[fx.Node]  # what rows of each step are multiplied with, in the core
    read_later: frozenset[fx.Node]  # values that parts behind the core read, or the caller


_kept: WeakKeyDictionary[Bound, list[Differentiable]] = WeakKeyDictionary()


def _differentiable(bound: Bound) -> list[Differentiable]:
    """The vertex function of each group of rows."""
    functions = _kept.get(bound)
    if functions is None:
        by_trace: dict[int, Differentiable] = {}
        for compiled in bound.compiled:
            trace = compiled.program.trace
            if id(trace) not in by_trace:
                by_trace[id(trace)] = _make(trace)
        functions = _kept[bound] = [by_trace[id(compiled.program.trace)] for compiled in bound.compiled]
    return functions


def _make(trace: Trace) -> Differentiable:
    refuse(trace)
    trace = trace.with_stops or trace
    program = partition(trace, (), (), False, ())
    matrices = _collect_products(program)
    calls = {name: Calls.of(program.parts[name], {}, True) for name in _STAGES if name in program.parts}
    later = {node for name in ("lazy", "lazy_inner") if name in calls for node in program.parts[name].inputs}
    return Differentiable(program, calls, matrices, frozenset({*later, *trace.pushes.values()}))


def _collect_products(program: Program) -> list[fx.Node]:
    """Let the products of the core with matrices that all steps share be `products.product`; returns these matrices."""
    core, members = program.parts.get("core"), {node for node, stage in program.stage_of.items() if stage == "core"}
    if core is None:
        return []
    matrices = []
    for node in dict.fromkeys(node for member in members for node in member.all_input_nodes):
        users = [user for user in node.users if user in members or is_free(user)]
        is_shared = not has_rows(node) and not members.intersection(sources(node))
        if is_shared and all(_is_product(user, node) for user in users):
            matrices.append(node)
    part = program.parts["core"] = extract("core", core.outputs, members, program.trace, matrices)
    given = {image for image, node in part.placeholders.items() if node in matrices}
    for node in part.graph.nodes:
        if given.intersection(node.all_input_nodes):
            node.meta = {**node.meta, "collected": True}
    return [node for node in part.inputs if node in matrices]


def _is_product(node: fx.Node, matrix: fx.Node) -> bool:
    """Whether it is a product of rows with this matrix, of real numbers, perhaps with something added to each row."""
    if node.target not in _PRODUCTS or node.kwargs:
        return False
    *added, rows, by = node.args
    layout = rows.meta.get("rows") if isinstance(rows, fx.Node) else None
    is_of_rows = layout is not None and layout.dim == 0 and matrix.meta["val"].is_floating_point()
    return is_of_rows and by is matrix and matrix not in (rows, *added)


def refuse(trace: Trace) -> None:
    """Refuse a vertex function whose trace does not say how its derivative is differentiated."""
    if trace.hidden is not None:
        raise VertexFlowError(
            "gradients of gradients (create_graph=True, torch.func) of this vertex function cannot be made from its trace: "
            f"{trace.hidden}"
            '\n  backend="eager", which calls the method itself, has them'
        )
    for node in trace.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise VertexFlowError(
                "gradients of gradients (create_graph=True, torch.func) of a vertex function that draws random numbers are "
                'not supported by generated code; use model.eval(), or backend="eager"'
                f"\n  in the vertex function, {trace.where(node)}"
            )


def run(
    bound: Bound,
    order: Order,
    tensors: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    external: Mapping[str, Tensor],
    selects: bool = True,
) -> dict[str, Tensor]:
    """What `autograd.run` gives, out of operations that PyTorch differentiates; outputs of all vertices, or of those that the
    order `selects`."""
    with transforms.suspended():
        order = order_of_few_routes(order)
        functions, structure = _differentiable(bound), _structure_of(bound, order, selects)
    given = [dict(known) for known in structure.known]
    for number, function in enumerate(functions):
        trace = function.program.trace
        given[number].update({node: tensors[name] for name, node in trace.params.items()})
        given[number].update(trace.constants)
        for name, node in trace.pulls.items():
            given[number][node] = inputs[name].index_select(0, structure.pulled[number, name])
    with without_autocast(order.vertex.device.type):  # the graph has its casts in it
        groups = [_Group(*of_group) for of_group in zip(functions, order.groups, given, strict=True)]
        _run_steps(order, structure.routes, groups, external)
        for group in groups:
            group.finish()
        return {name: _output(bound, groups, name, *structure.pushed[name]) for name in bound.pushes}


@dataclass(frozen=True)
class _Structure:
    """What a run reads that does not depend on its tensors."""

    routes: Mapping[By, Routes]
    known: list[dict[fx.Node, Tensor]]  # of each group
    pulled: dict[tuple[int, str], Tensor]  # of each group and input: the rows of the input
    pushed: dict[
        str, tuple[Tensor, int]
    ]  # of each output: where its rows are among those of its groups, and how many are zeros


def _structure_of(bound: Bound, order: Order, selects: bool) -> _Structure:
    traces = [function.program.trace for function in _differentiable(bound)]
    pulled, pushed = {}, {}
    for name, groups in bound.pulls.items():
        for group, rows in zip(groups, order.batch_rows(groups, bound.is_edge_input(name)), strict=True):
            pulled[group, name] = rows
    for name, groups in bound.pushes.items():
        of_edges = bound.is_edge_output(name)
        others = order.other_edges(groups) if of_edges else None
        places = [*order.batch_rows(groups, of_edges), *([] if others is None else [others])]
        place = torch.cat(places).long()
        index = torch.empty_like(place)
        index[place] = torch.arange(len(place), device=place.device)
        chosen = order.selected_index(name, groups) if selects and not of_edges else None
        if chosen is not None:
            index = index.index_select(0, chosen)
        pushed[name] = index, 0 if others is None else len(others)
    known = [dict(known_of_edges(trace, group)) for trace, group in zip(traces, order.groups, strict=True)]
    return _Structure(routes_of(order), known, pulled, pushed)


def _run_steps(
    order: Order, routes: Mapping[By, Routes], groups: Sequence[_Group], external: Mapping[str, Tensor]
) -> None:
    """Compute all cores, step after step, and send states to the steps that read them."""
    read = {by: {name for group in groups for name in group.reads[by]} for by in By}
    arrived: dict[tuple[By, str, int], list[Tensor]] = {}

    def send(sender: int, states: Mapping[str, Tensor]) -> None:
        for by in By:
            sending = routes[by].sending.get(sender)
            for name in sorted(read[by]) if sending is not None else ():
                assert sending is not None
                rows = states[name] if sending.index is None else states[name].index_select(0, sending.index)
                parts = [rows] if len(sending.counts) == 1 else torch.split(rows, sending.counts)
                for reader, part in zip(sending.readers, parts, strict=True):
                    arrived.setdefault((by, name, reader), []).append(part)

    def receive(reader: int, by: By, name: str, group: _Group) -> Tensor:
        reading, like = routes[by].reading.get(reader), gathered_by(group.function.program, name, by)[0].meta["val"]
        shape = group.function.program.trace.state[name]
        parts = arrived.pop((by, name, reader), [])
        missing = 0 if reading is None else reading.missing
        if missing or not parts:
            parts = [*parts, torch.zeros((missing, *shape), dtype=like.dtype, device=like.device)]
        rows = parts[0] if len(parts) == 1 else torch.cat(parts)
        return rows if reading is None or reading.index is None else rows.index_select(0, reading.index)

    if order.num_external:
        send(EXTERNAL, external)
    for number, step in enumerate(order.steps):
        group = groups[step.group]
        gathered: dict[fx.Node, Tensor] = {}
        for by in By if step.start >= group.rows.num_leaves else ():
            for name in group.reads[by]:
                gathered.update(group.columns(receive(number, by, name, group), by, name, step))
        send(number + 1, group.run_step(step, gathered, read[By.SLOT] | read[By.EDGE]))


@dataclass(eq=False)
class _Group:
    """One group of rows in one run."""

    function: Differentiable
    rows: RowGroup
    values: dict[fx.Node, Tensor]
    # Of each value that the core reads, its rows of each step; what was made of those that are read later, apart for leaves; and
    # how many steps of leaves, and of others, are done.
    of_steps: dict[fx.Node, tuple[Tensor, ...]] = field(default_factory=dict)
    step_values: dict[tuple[fx.Node, bool], list[Tensor]] = field(default_factory=dict)
    matrices: dict[fx.Node, Matrix | Tensor] = field(default_factory=dict)
    num_done: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})

    def __post_init__(self) -> None:
        program = self.function.program
        self.reads = {by: [name for name in program.trace.state if gathered_by(program, name, by)] for by in By}
        self.steps = {
            is_leaf: [step for step in self.rows.steps if (step.start < self.rows.num_leaves) == is_leaf]
            for is_leaf in (True, False)
        }
        self._run_once("eager")
        for node in self.function.matrices:
            value = self._evaluate(node)
            self.matrices[node] = value if transforms.are_active() else matrix(value)

    def _evaluate(self, node: fx.Node) -> Tensor:
        """A value without rows, which may be a view of others."""
        if node in self.values or not is_free(node):
            return self.values[node]
        target: Any = node.target
        value: Tensor = target(*fx.map_arg(node.args, self._evaluate), **fx.map_arg(node.kwargs, self._evaluate))
        return value

    def _run_once(self, stage: str) -> None:
        for name, start in ((stage, 0), (f"{stage}_inner", self.rows.num_leaves)):
            calls = self.function.calls.get(name)
            if calls is not None:
                arguments = []
                for node in calls.part.inputs:
                    rows = cut(self.function.program, node, self.rows, start)
                    arguments.append(self.values[node] if rows is None else self.values[node].narrow(*rows))
                count = self.rows.num_rows - start
                results = calls(self.function.program.trace, count, self.rows.num_edges, arguments)
                self.values.update(zip(calls.part.outputs, results, strict=True))

    def columns(self, rows: Tensor, by: By, name: str, step: Step) -> dict[fx.Node, Tensor]:
        """The values that are a state of the children of a step, from the rows that it reads."""
        program, slots, count = self.function.program, self.rows.num_slots, step.stop - step.start
        if by is By.EDGE:
            assert self.rows.edges is not None
            width, shape = self.rows.edges.side_by_side, program.trace.state[name]
            by_position = [rows] if width == 1 else rows.reshape(-1, width, *shape).unbind(1)
            columns = {node: by_position[at] for node, at in positions_of(program.gathers, name).items()}
        else:
            nodes, shape = slots_of(program.gathers, name), program.trace.state[name]
            by_slot: Sequence[Tensor] = [rows]
            if slots > 1 and set(nodes.values()) != {ALL_SLOTS}:
                by_slot = rows.reshape(count, slots, *shape).unbind(1)
            columns = {
                node: rows.reshape(count, slots * shape[0]) if slot == ALL_SLOTS else by_slot[slot]
                for node, slot in nodes.items()
            }
        return columns

    def run_step(self, step: Step, gathered: Mapping[fx.Node, Tensor], states: Set[str]) -> dict[str, Tensor]:
        """Compute one step, which has `gathered` rows of children: these states of its rows."""
        trace, is_leaf = self.function.program.trace, step.start < self.rows.num_leaves
        number = self.num_done[is_leaf]
        self.num_done[is_leaf] += 1
        calls = self.function.calls.get("core_leaf" if is_leaf else "core")
        values = dict(gathered)
        if calls is not None:
            arguments: list[Any] = [
                gathered[node]
                if node in gathered
                else self.matrices[node]
                if node in self.matrices and not is_leaf
                else self._of_step(node, is_leaf, number)
                for node in calls.part.inputs
            ]
            rows, edges = step.stop - step.start, step.edge_stop - step.edge_start
            values.update(zip(calls.part.outputs, calls(trace, rows, edges, arguments), strict=True))
        for node in self.function.read_later & values.keys():
            self.step_values.setdefault((node, is_leaf), []).append(values[node])
        nodes = {name: trace.scatters[name] for name in states}
        return {
            name: values[node] if node in values else self._of_step(node, is_leaf, number)
            for name, node in nodes.items()
        }

    def _of_step(self, node: fx.Node, is_leaf: bool, number: int) -> Tensor:
        """The rows of a value in the step of this number, of those with children, or of those without."""
        layout, program = node.meta.get("rows"), self.function.program
        if layout is None:
            return self.values[node]
        if node not in self.of_steps:
            has_leaf_rows = not layout.edges and not first_row(program, self.rows, node)
            steps = [*(self.steps[True] if has_leaf_rows else ()), *self.steps[False]]
            sizes = [
                step.edge_stop - step.edge_start if layout.edges else (step.stop - step.start) * layout.per_vertex
                for step in steps
            ]
            self.of_steps[node] = torch.split(self.values[node], sizes, layout.dim)
        pieces = self.of_steps[node]
        return pieces[number if is_leaf else len(pieces) - len(self.steps[False]) + number]

    def finish(self) -> None:
        """Run the parts that follow the steps."""
        core = self.function.calls.get("core")
        of_steps = [*self.function.program.gathers.values(), *(core.part.outputs if core is not None else ())]
        for node in self.function.read_later.intersection(of_steps):
            layout, has_leaf_rows = node.meta["rows"], self.function.program.has_leaf_rows(node)
            pieces = list(self.step_values.get((node, False), []))
            if has_leaf_rows and not layout.edges and self.rows.num_leaves:
                pieces = [*(self.step_values.get((node, True)) or [self._zeros(node, self.rows.num_leaves)]), *pieces]
            pieces = pieces or [self._zeros(node, 0)]
            self.values[node] = pieces[0] if len(pieces) == 1 else torch.cat(pieces, layout.dim)
        self._run_once("lazy")

    def _zeros(self, node: fx.Node, count: int) -> Tensor:
        """So many rows of a value, for which nothing was computed."""
        value, layout = node.meta["val"], node.meta["rows"]
        shape = [count * layout.per_vertex if dim == layout.dim else int(size) for dim, size in enumerate(value.shape)]
        return torch.zeros(shape, dtype=value.dtype, device=value.device)


def _output(bound: Bound, groups: Sequence[_Group], name: str, index: Tensor, num_zeros: int) -> Tensor:
    """A pushed output, in the order of the batch: rows `index` of those of all groups that push it, and of so many zeros."""
    values = [
        groups[number].values[groups[number].function.program.trace.pushes[name]] for number in bound.pushes[name]
    ]
    if num_zeros:
        values.append(torch.zeros((num_zeros, *values[0].shape[1:]), dtype=values[0].dtype, device=values[0].device))
    joined = values[0] if len(values) == 1 else torch.cat(values)
    return joined.index_select(0, index)
