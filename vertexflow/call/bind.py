"""A call of a vertex function, bound: checked, traced, compiled and scheduled, so that nothing is left but to run it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from ..graph.inputs.pack import GraphBatch
from ..graph.inputs.split import split
from ..graph.symbolic.draws import refuse_shared_noise
from ..graph.symbolic.roles import shared_key
from ..graph.symbolic.trace import Trace
from ..kernels import autograd
from ..kernels.compile import named_backend
from ..kernels.compiled import Compiled
from ..kernels.memory.held import held_bytes
from ..kernels.memory.partial_states import with_partial_states
from ..kernels.parts import BoundPart, run_parts
from . import arcs, kinds, readouts
from .arguments import Arguments
from .inputs import check_inputs, check_shared, initial_states
from .orders import Reads, order_of
from .outputs import Outputs
from .programs import Request, Version
from .readouts import InTwo
from .selection import are_of_edges, pushing, selection_of

if TYPE_CHECKING:
    from ..function import VertexFunction

Tensors = Mapping[str, Tensor]
AsGiven = Callable[[Tensors], dict[str, Tensor]]


@dataclass(frozen=True)
class BoundCall:
    """A call that is checked, traced, compiled and scheduled.

    `run` takes `tensors` (parameters, buffers and shared tensors), inputs and `external` (states of external vertices);
    `as_given` puts outputs into the order in which vertices were asked for.
    """

    run: Callable[[Tensors, Tensors, Tensors], dict[str, Tensor]]
    tensors: Tensors
    external: Tensors
    device: torch.device
    as_given: AsGiven
    parts: Sequence[BoundPart] = ()
    given: Sequence[object] = ()  # what was known of the structure before the call: graphs, or the arrays of a batch
    divided: InTwo | None = None  # where the readout of some vertices is computed apart

    def results(self, inputs: Tensors, traces: Iterable[Trace]) -> Outputs:
        """What the call returns, with outputs of kinds that are not in the batch."""
        outputs = self.run(self.tensors, inputs, self.external)
        autograd.add_missing(outputs, traces, [*self.tensors.values(), *inputs.values()], self.device)
        return Outputs(self.as_given(outputs))

    @property
    def whole_parts(self) -> Sequence[BoundPart]:
        """The one part of the call, or its trunk and its readout; nothing if one of these is in parts, or a method has no vertex
        in the readout."""
        if self.divided is None:
            return self.parts if len(self.parts) == 1 else ()
        is_whole = len(self.parts) == 2 and not self.divided.absent
        return self.parts if is_whole else ()

    @property
    def bytes_of_structure(self) -> int:
        """The memory of index arrays, and of what is written down of passes, beside the batch's own arrays."""
        known = (thing for part in self.parts for thing in part.known_of_structure())
        calls = {prepared: prepared.bytes_of_calls for part in self.parts if (prepared := part.prepared) is not None}
        return held_bytes(known, self.given, (Compiled,)) + sum(calls.values())


def bind_call(
    model: VertexFunction,
    version: Version,
    tensors: Tensors,
    call: Arguments,
    how: Callable[..., dict[str, Tensor]] = run_parts,
    backend: str | None = None,
    in_two: bool = False,
) -> tuple[BoundCall, dict[str, Trace]]:
    """Bind a call with these parameters and buffers; returns the traces of all methods as well.

    `how` runs the parts of the batch, with programs of a `backend`, by default the model's. With `in_two`, what only outputs
    need may be computed apart, for the vertices that are wanted.
    """
    inputs, shared = call.inputs, check_shared(tensors, call.inputs, call.shared)
    tensors = {**tensors, **{shared_key(name): value for name, value in shared.items()}} if shared else tensors
    batch = call.batch()
    methods = kinds.methods_in(batch, model._methods)
    device = check_inputs(tensors, inputs)
    traces = model._trace(version, inputs, tensors, shared, device)
    selection = None if call.wanted is None else selection_of(batch, call.wanted)
    batch = batch.reversed() if call.reverse else batch
    arcs.check(traces, methods, batch)
    if selection is not None:
        selection.check_names(are_of_edges(traces.values()))
    kinds.check_rows(traces, inputs, kinds.count_rows(batch, methods), model._methods, "the batch")
    parts, starts = _in_parts(batch, model.max_vertices, traces)
    external: dict[str, Tensor] = {}
    if call.initial is not None:
        kinds.refuse_edges(traces)
        parts = [part.with_initial() for part in parts]
        dtypes = next(iter(traces.values())).state_dtypes
        count = sum(part.num_external for part in parts)
        external = initial_states(call.initial, model.state, count, dtypes, device)
    reads = {name: Reads.of(trace) for name, trace in traces.items()}
    through = any(value.requires_grad for value in external.values())
    if not batch.num_graphs:
        bound = model._bind(version, traces, inputs, tensors, device, through, methods, backend)
        run_empty = functools.partial(autograd.run_empty, bound, device)
        return BoundCall(run_empty, tensors, external, device, dict), traces

    cut, of_trunk = None, selection
    trunk: Mapping[str, Trace] = traces
    if in_two and model._runs_in_two and selection is not None:
        cut = readouts.cut(version, traces, batch, methods, selection, inputs, tensors, device)
    if cut is not None:
        trunk, of_trunk = cut.divided.trunk, cut.of_trunk

    def bind_part(part: GraphBatch, start: int) -> BoundPart:
        methods = kinds.methods_in(part, model._methods)
        ahead = part.schedule
        if ahead is not None and ahead.num_slots != tuple(reads[name].num_slots for name in methods):
            ahead = None  # it was made for another model
        order, group_methods = order_of(part, methods, reads, model.policy, ahead, device)
        is_whole = not part.num_external
        bound = model._bind(version, trunk, inputs, tensors, device, through, group_methods, backend, is_whole=is_whole)
        order = with_partial_states(order, bound)
        if of_trunk is not None:
            order = order.selecting(of_trunk.within(start, start + part.num_vertices), part.derived.num_alike)
        counts = kinds.count_inputs(traces, inputs, kinds.count_rows(part, methods)) if len(parts) > 1 else {}
        return BoundPart(bound, order, counts, part.num_external)

    bound_parts = list(map(bind_part, parts, starts))
    run: Callable[[Tensors, Tensors, Tensors], dict[str, Tensor]] = functools.partial(how, bound_parts)
    as_given, call_in_two = cast(AsGiven, dict), None
    if cut is not None:
        request = Request.of(tensors, inputs, through, backend or named_backend(model.backend), device)
        call_in_two = readouts.bind(model, version, cut, bound_parts, request, batch, methods)
        run, bound_parts = call_in_two.run, [*bound_parts, *call_in_two.readout]
    if selection is not None and not selection.is_ascending:
        as_given = functools.partial(selection.as_given, is_pushed=pushing(batch, methods, traces))
    given: list[object] = [call.graphs]
    if isinstance(call.graphs, GraphBatch):
        given = [value for name, value in vars(call.graphs).items() if name != "derived"]
    return BoundCall(run, tensors, external, device, as_given, bound_parts, given, call_in_two), traces


def _in_parts(
    batch: GraphBatch, max_vertices: int | None, traces: Mapping[str, Trace]
) -> tuple[list[GraphBatch], list[int]]:
    """The parts that are computed one after the other, and the first vertex of each."""
    if max_vertices is None:
        return [batch], [0]
    pieces = split(batch, max_vertices)
    if len(pieces) > 1:
        refuse_shared_noise(traces.values())
    return [piece.batch for piece in pieces], [piece.vertices.start for piece in pieces]
