"""`backend="eager"`: a batch, or a run that grows, through the user's own methods on real tensors; nothing is traced."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import log
from ..call import arcs
from ..call.arguments import Arguments
from ..call.inputs import check_inputs, check_shared, initial_states
from ..call.kinds import (
    Used,
    check_rows,
    check_together,
    count_rows,
    group_by_method,
    methods_in,
    refuse_edge_outputs,
    refuse_edges,
)
from ..call.orders import Reads, order_of
from ..call.selection import are_of_edges, pushing, selection_of
from ..graph.inputs.pack import GraphBatch
from ..graph.symbolic.states import dtypes_of, usual_dtype
from ..growing.chosen import Chosen
from ..growing.frontier import Frontier
from ..growing.growth import Addition, Growth
from ..kernels.eager import Computation, Pieces, Uses, in_batch_order, note_pushes, run_steps, settle_pushes
from ..kernels.growing.grown import Usual
from ..kernels.order_on_device import order_on
from ..scheduler import edge_lists, schedule
from .input_rows import InputRows
from .methods import MethodCall, own_tensors, probe, run_empty

if TYPE_CHECKING:
    from ..function import VertexFunction


def run_eager(model: VertexFunction, call: Arguments) -> dict[str, Tensor]:
    """What a call pushes, by name."""
    tensors = own_tensors(model) if call.tensors is None else call.tensors
    batch, inputs, initial = call.batch(), call.inputs, call.initial
    methods = methods_in(batch, model._methods)
    device = check_inputs(tensors, inputs)
    shared = check_shared(tensors, inputs, call.shared)
    usual = usual_dtype({**tensors, **shared}, inputs)
    dtypes = dtypes_of(model.state, model.state_dtype, usual)
    selection = None if call.wanted is None else selection_of(batch, call.wanted)
    batch = batch.reversed() if call.reverse else batch
    counts = count_rows(batch, methods)
    external: dict[str, Tensor] = {}
    if initial is not None:
        batch = batch.with_initial()
        external = initial_states(initial, model.state, batch.num_external, dtypes, device)
    if not batch.num_graphs:
        return run_empty(model, tensors, dtypes, inputs, shared, external, device, selection)
    reads = dict.fromkeys(methods, Reads(0, ragged=True, side_by_side=batch.arity))
    order, group_methods = order_of(batch, methods, reads, model.policy, batch.schedule, device)
    assert order.lists is not None
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
    pushed = run_steps(order, computation, states)
    for name in calls:
        if name not in group_methods:  # no vertex of its kinds is in this batch
            rows.ask(name)
    known, known_shared = [*inputs], [*shared]
    if rows.failed:  # nothing is known of what those methods read, so that nothing can be called superfluous
        known = [name for name in inputs if any(name in use.pulls for use in uses.values())]
        known_shared = [name for name in shared if any(name in use.shared for use in uses.values())]
    arcs.check(uses, methods, batch)
    settle_pushes(uses, rows.ask, rows.answers)
    _check_calls(uses, {name: inputs[name] for name in known}, known_shared, counts, model._methods, "the batch")
    if selection is not None and not rows.failed:
        selection.check_names(are_of_edges(uses.values()))
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
    """A run that grows, with vertices computed by the user's methods themselves."""

    def __init__(self, model: VertexFunction, device: torch.device, shared: Mapping[str, Tensor]) -> None:
        self._model = model
        self._shared = shared
        self._states = Pieces(device)
        self._pushed = Pieces(device)
        self._uses: dict[str, Uses] = {}  # of each method, what it used when it was called last
        self._begin(model._methods, device, Usual())

    @property
    def num_vertices(self) -> int:
        return len(self._states.piece)

    def _compute(self, addition: Addition, inputs: Mapping[str, Tensor]) -> Mapping[str, Used]:
        model, methods = self._model, addition.methods
        addition = addition.on_host()
        growth, external = addition.growth()
        tensors = own_tensors(model)
        device = check_inputs(tensors, inputs)
        dtypes = dtypes_of(model.state, model.state_dtype, usual_dtype({**tensors, **self._shared}, inputs))
        calls = {name: MethodCall(model, name, tensors) for name in methods}
        uses = {name: Uses(call.code) for name, call in calls.items()}
        growth_schedule = schedule(growth, model.policy, [0] * len(methods), [True] * len(methods))
        log.show("schedule", growth_schedule)
        lists = edge_lists(growth, growth_schedule)
        order = order_on(growth_schedule, device, lists=lists)
        num_new, num_external = growth.num_vertices, growth.num_external
        counts = addition.counts()
        states = Pieces.of_rows(num_new + num_external, device)
        selection = self._states.select(external)
        states.add(
            np.arange(num_new, num_new + num_external),
            {state: self._states.read(selection, state, shape, dtypes[state]) for state, shape in model.state.items()},
        )

        def ask(name: str, into: Uses) -> None:
            probe(calls[name], into, model, dtypes, inputs, self._shared, device)

        rows = InputRows(order, methods, counts, inputs, uses, model._methods, False, ask, "the extension")
        computation = Computation(
            list(calls.values()), list(uses.values()), model.state, dtypes, inputs, self._shared, rows.select
        )
        pushed = run_steps(order, computation, states)
        self._settle(uses, ask)
        are_all = len(methods) == len(set(model._methods.values()))
        check_together(uses, inputs, self._shared, are_all)
        check_rows(uses, inputs, counts, model._methods, "the extension")
        rows.check()
        refuse_edge_outputs(uses)
        _check_slots(growth, methods, methods, uses)
        outputs = {}
        for name, parts in pushed.items():
            pushing = sorted({part.group for part in parts})
            count = sum(counts[methods[group]][0] for group in pushing)
            outputs[name] = in_batch_order(order, name, parts, False, count)
            vertices = order.vertices_of(pushing)
            if vertices is not None:
                zeros = outputs[name].new_zeros((num_new, *outputs[name].shape[1:]))
                outputs[name] = zeros.index_copy(0, vertices.long(), outputs[name])
        self._check(uses)
        for name, use in uses.items():
            if name in self._uses:
                note_pushes(self._uses[name], use.pushes, {pushed_name: {False} for pushed_name in use.pushes})
        all_rows = states.select(growth_schedule.row.astype(np.int64))
        self._states.append(
            {state: states.read(all_rows, state, shape, dtypes[state]) for state, shape in model.state.items()}, num_new
        )
        self._pushed.append(outputs, num_new)
        self._uses.update(uses)
        return uses

    def _settle(self, uses: Mapping[str, Uses], probe_into: Callable[[str, Uses], None]) -> None:
        answers: dict[str, Uses] = {}

        def ask(method: str) -> None:
            answer = Uses(uses[method].code)
            with contextlib.suppress(Exception):
                probe_into(method, answer)
                answers[method] = answer

        settle_pushes(uses, ask, answers)

    def _read(self, chosen: Chosen, names: Sequence[str]) -> dict[str, Tensor]:
        likes = {name: like for use in self._uses.values() for name, like in use.pushes.items()}
        index, on_host = chosen
        selection = self._pushed.select(index.cpu().numpy() if on_host is None else on_host)
        return {name: self._pushed.read(selection, name, likes[name].shape[1:], likes[name].dtype) for name in names}
