"""`backend="eager"`: a batch, or a run that grows, through the user's own methods on real tensors; nothing is traced."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from . import log
from .eager_methods import MethodCall, own_tensors, probe, run_empty
from .errors import VertexFunctionError
from .frontier import Frontier
from .graph.inputs.build import InputGraph
from .graph.inputs.pack import GraphBatch, pack
from .graph.symbolic.states import StateDtypes, dtypes_of, usual_dtype
from .growth import Addition, Growth
from .input_rows import InputRows
from .inputs import check_inputs, check_shared, initial_states
from .kernels.eager import (
    Computation,
    Ints,
    Pieces,
    Uses,
    in_batch_order,
    note_pushes,
    run_steps,
    settle_pushes,
)
from .kernels.order import order_on
from .kinds import (
    check_rows,
    check_together,
    count_rows,
    group_by_method,
    methods_in,
    refuse_edge_outputs,
    refuse_edges,
)
from .orders import Reads, order_of
from .scheduler import EdgeLists, edge_lists, schedule
from .selection import pushing, selection_of

if TYPE_CHECKING:
    from .function import VertexFunction


def run_eager(
    model: VertexFunction,
    tensors: Mapping[str, Tensor] | None,
    graphs: GraphBatch | Sequence[InputGraph],
    reverse: bool,
    initial: Mapping[str, Tensor] | None,
    inputs: Mapping[str, Tensor],
    shared: Mapping[str, Tensor] | None,
    wanted: Tensor | None = None,
) -> dict[str, Tensor]:
    """What `model(graphs, ...)` pushes, by name, with `tensors` as the model's parameters and buffers; None: its own."""
    tensors = own_tensors(model) if tensors is None else tensors
    batch = graphs if isinstance(graphs, GraphBatch) else pack(graphs)
    methods = methods_in(batch, model._methods)
    device = check_inputs(tensors, inputs)
    shared = check_shared(tensors, inputs, shared)
    usual = usual_dtype({**tensors, **shared}, inputs)
    dtypes = dtypes_of(model.state, model.state_dtype, usual)
    selection = None if wanted is None else selection_of(batch, wanted)
    batch = batch.reversed() if reverse else batch
    counts = count_rows(batch, methods)
    external: dict[str, Tensor] = {}
    if initial is not None:
        batch = batch.with_initial()
        external = initial_states(initial, model.state, batch.num_external, dtypes, device)
    if not batch.num_graphs:
        return run_empty(model, tensors, dtypes, inputs, shared, external, device)
    reads = dict.fromkeys(methods, Reads(0, ragged=True))
    order, group_methods = order_of(batch, methods, reads, model.policy, batch.schedule, device)
    assert order.lists is not None
    slots = _slots(batch, order.lists)
    calls = {name: MethodCall(model, name, tensors) for name in dict.fromkeys(model._methods.values())}
    uses = {name: Uses(call.code) for name, call in calls.items()}

    def ask(name: str, into: Uses) -> None:
        probe(calls[name], into, model, dtypes, inputs, shared, device)

    rows = InputRows(order, group_methods, counts, inputs, uses, model._methods, initial is not None, ask)
    states = Pieces.of_rows(order.num_rows + order.num_external, device)
    if external:
        states.add(np.arange(order.num_rows, order.num_rows + order.num_external), external)
    group_calls = [calls[name] for name in group_methods]
    computation = Computation(
        group_calls, [uses[name] for name in group_methods], model.state, dtypes, inputs, shared, rows.select
    )  # fmt: skip
    pushed = run_steps(order, slots, computation, states)
    for name in calls:
        if name not in group_methods:  # no vertex of its kinds is in this batch
            rows.ask(name)
    known, known_shared = [*inputs], [*shared]
    if rows.failed:  # nothing is known of what those methods read, so that nothing can be called superfluous
        known = [name for name in inputs if any(name in use.pulls for use in uses.values())]
        known_shared = [name for name in shared if any(name in use.shared for use in uses.values())]
    settle_pushes(uses, rows.ask, rows.answers)
    _check_calls(uses, {name: inputs[name] for name in known}, known_shared, counts, model._methods, "the batch")
    if initial is not None:
        refuse_edges(uses)
    rows.check()
    _check_slots(batch, methods, group_methods, uses)
    edge_outputs = {name for use in uses.values() for name in use.pushes if use.is_edge_output(name)}
    outputs = {}
    for name, parts in pushed.items():
        methods_pushing, per_edge = {group_methods[part.group] for part in parts}, name in edge_outputs
        num_rows = sum(counts[method][per_edge] for method in methods_pushing)
        outputs[name] = in_batch_order(order, name, parts, per_edge, num_rows)
    for method_uses in uses.values():
        for name, like in method_uses.pushes.items():
            outputs.setdefault(name, like.clone())
    return outputs if selection is None else selection.of_all(outputs, pushing(batch, methods, uses))


def _slots(structure: GraphBatch | Growth, lists: EdgeLists) -> Ints:
    """The slot of each entry of the edge lists."""
    if structure.edge is None:
        return structure.slot[lists.edge].astype(np.int64)
    by_number = np.empty(len(structure.slot), np.int64)
    by_number[structure.edge] = structure.slot
    return by_number[lists.edge]


def _check_calls(
    uses: Mapping[str, Uses],
    inputs: Mapping[str, Tensor],
    shared: Iterable[str],
    counts: Mapping[str, tuple[int, int]],
    kinds: Mapping[Any, str],
    where: str,
) -> None:
    """Make the checks that are made of traces before they run; without traces, they wait until all methods have run."""
    check_together(uses, inputs, shared)
    check_rows(uses, inputs, counts, kinds, where)


def _check_slots(
    batch: GraphBatch | Growth, methods: tuple[str, ...], group_methods: tuple[str, ...], uses: Mapping[str, Uses]
) -> None:
    """Refuse children in slots that the method did not gather."""
    structure = batch
    if isinstance(batch, GraphBatch):
        structure, group_methods = group_by_method(batch, methods)
    slots = [uses[name].num_slots for name in group_methods]
    if batch.num_slots > min(slots):  # else there are no such children
        schedule(structure, "depth", slots, [uses[name].reads_edges for name in group_methods])


class EagerFrontier(Frontier):
    """A run that grows, with vertices computed by the user's method itself."""

    def __init__(self, model: VertexFunction, device: torch.device, shared: Mapping[str, Tensor]) -> None:
        self._model = model
        self._shared = shared
        self._device = device
        self._states = Pieces(device)
        self._pushes = Pieces(device)
        self._uses: Uses | None = None
        self._zeros = {}

    @property
    def num_vertices(self) -> int:
        return len(self._states.piece)

    def _compute(self, addition: Addition, inputs: Mapping[str, Tensor]) -> Callable[[str], bool]:
        model = self._model
        growth, external = addition.growth()
        tensors = own_tensors(model)
        device = check_inputs(tensors, inputs)
        dtypes = dtypes_of(model.state, model.state_dtype, usual_dtype({**tensors, **self._shared}, inputs))
        (name,) = model._methods.values()
        call = MethodCall(model, name, tensors)
        uses = Uses(call.code)
        growth_schedule = schedule(growth, model.policy, 0, True)
        log.show("schedule", growth_schedule)
        lists = edge_lists(growth, growth_schedule)
        order = order_on(growth_schedule, device, lists=lists)
        num_new, num_external = growth.num_vertices, growth.num_external
        counts = {name: (num_new, len(growth.child))}
        states = Pieces.of_rows(num_new + num_external, device)
        selection = self._states.select(external)
        states.add(
            np.arange(num_new, num_new + num_external),
            {state: self._states.read(selection, state, shape, dtypes[state]) for state, shape in model.state.items()},
        )

        def select(pulled: str, is_edge_input: bool, group: int) -> Tensor:
            check_rows({name: uses}, {pulled: inputs[pulled]}, counts, model._methods, "the extension")
            return order.batch_rows([group], is_edge_input)[0]

        computation = Computation([call], [uses], model.state, dtypes, inputs, self._shared, select)
        pushed = run_steps(order, _slots(growth, lists), computation, states)
        self._settle(name, call, uses, dtypes, inputs)
        _check_calls({name: uses}, inputs, self._shared, counts, model._methods, "the extension")
        refuse_edge_outputs({name: uses})
        _check_slots(growth, (name,), (name,), {name: uses})
        outputs = {
            pushed_name: in_batch_order(order, pushed_name, parts, False, num_new)
            for pushed_name, parts in pushed.items()
        }
        if self._uses is not None:
            if outputs.keys() != self._uses.pushes.keys():
                raise VertexFunctionError(
                    f"this extension pushed {sorted(outputs)}, those before {sorted(self._uses.pushes)}; push the same always"
                )
            note_pushes(self._uses, outputs, {pushed_name: {False} for pushed_name in outputs})
        all_rows = states.select(growth_schedule.row.astype(np.int64))
        self._states.append(
            {state: states.read(all_rows, state, shape, dtypes[state]) for state, shape in model.state.items()}, num_new
        )
        self._pushes.append(outputs, num_new)
        self._uses = uses
        return uses.is_edge_input

    def _settle(
        self, name: str, call: MethodCall, uses: Uses, dtypes: StateDtypes, inputs: Mapping[str, Tensor]
    ) -> None:
        answers: dict[str, Uses] = {}

        def ask(method: str) -> None:
            answer = Uses(uses.code)
            with contextlib.suppress(Exception):
                probe(call, answer, self._model, dtypes, inputs, self._shared, self._device)
                answers[method] = answer

        settle_pushes({name: uses}, ask, answers)

    def _read(self, index: Tensor) -> dict[str, Tensor]:
        if self._uses is None:
            return {}
        selection = self._pushes.select(index.cpu().numpy())
        return {
            name: self._pushes.read(selection, name, like.shape[1:], like.dtype)
            for name, like in self._uses.pushes.items()
        }
