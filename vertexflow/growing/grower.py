"""What computes the vertices that are added to a run: looked up once, and again when something that decides it has changed."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .. import _core
from ..call import kinds, programs
from ..call.inputs import check_inputs
from ..call.orders import Reads
from ..call.programs import Version
from ..call.same_call import TensorGuards, can_be_told, positions, surroundings
from ..call.unchanged import Unchanged
from ..graph.symbolic.roles import shared_key
from ..graph.symbolic.trace import Trace
from ..kernels.bound import Bound
from ..kernels.compile import named_backend
from ..kernels.compiled import Compiled
from ..kernels.growing.entered import State, state_of
from ..kernels.order import Order
from ..kernels.plain import are_rows_in_memory, check_real, lie_in_memory
from .growth import Addition, order_of, order_of_rows, order_on_device

if TYPE_CHECKING:
    from ..function import VertexFunction

# Methods, through, whether gradients are on, names of inputs, and of shared tensors.
Key = tuple[tuple[str, ...], bool, bool, tuple[str, ...], tuple[str, ...]]


class Growing(NamedTuple):
    """What an extension is computed with: the compiled programs, parameters and inputs in the order in which these read them,
    the state of parameters, the trace of each method, and how each method reads children."""

    bound: Bound
    flat: list[Tensor]
    state: State | None
    traces: dict[str, Trace]
    reads: tuple[Reads, ...]
    device: torch.device
    latest: Mapping[str, Compiled] | None
    unchanged: Unchanged | None  # all that decided this, as long as it can be told


@dataclass(frozen=True, eq=False)
class _Known:
    """What was looked up for an extension, and all that decided it."""

    version: Version
    surroundings: list[Any]  # compared by identity
    guards: Any  # of parameters, buffers and inputs; the last may have any number of rows
    traces: dict[str, Trace]
    reads: tuple[Reads, ...]
    bound: Bound
    flat: list[int]  # the positions of what is read, among all tensors
    latest: Mapping[str, Compiled] | None
    has_row_each: bool  # whether all inputs have a row for each new vertex


class _Again(NamedTuple):
    """What an extension was computed with, and stays what it is as long as all that decides it is unchanged."""

    known: _Known
    unchanged: Unchanged
    given: list[Tensor]  # parameters, buffers and shared tensors
    state: State | None  # of those that programs read
    device: torch.device


@dataclass(eq=False)
class Grower:
    """Looks up what computes the vertices that are added to one run of a model."""

    model: VertexFunction
    shared: Mapping[str, Tensor]
    _again: dict[Key, _Again] = field(default_factory=dict)

    def grow(self, addition: Addition, inputs: Mapping[str, Tensor], through: bool) -> Growing:
        """Check inputs, and look up how new vertices are computed; `through`: earlier vertices want gradients."""
        key = (addition.methods, through, torch.is_grad_enabled(), tuple(inputs), tuple(self.shared))
        values = list(inputs.values())
        again = self._again.get(key)
        if again is not None and self._is_again(again, addition, values):
            self.model._programs.latest = again.known.latest
            given, state, device = [*again.given, *values], again.state, again.device
            known = again.known
        else:
            known, given = self._look(key, addition, inputs, through)
            device = given[0].device if given else torch.device("cpu")
            state = state_of([given[at] for at in known.flat[: len(known.bound.params)]])
            self._note(key, known, given[: len(given) - len(inputs)], state, device)
            again = self._again.get(key)
        flat, unchanged = [given[at] for at in known.flat], None if again is None else again.unchanged
        return Growing(known.bound, flat, state, known.traces, known.reads, device, known.latest, unchanged)

    def _is_again(self, again: _Again, addition: Addition, inputs: list[Tensor]) -> bool:
        """Whether nothing has changed since, and inputs are like those before."""
        return _core.is_unchanged(again.unchanged, inputs) and are_rows_in_memory(inputs, addition.num_vertices)

    def _note(self, key: Key, known: _Known, given: list[Tensor], state: State | None, device: torch.device) -> None:
        """Note what an extension is computed with, for others like it."""
        self._again.pop(key, None)
        seen = self.model._programs.seen
        if known.guards is None or seen is None or seen.version is not known.version:
            return
        if known.has_row_each and seen.snapshot.modules[0]() is self.model:
            unchanged = Unchanged.of(seen, given, known.guards.check)
            if unchanged is not None:
                self._again[key] = _Again(known, unchanged, given, state, device)

    def _look(
        self, key: Key, addition: Addition, inputs: Mapping[str, Tensor], through: bool
    ) -> tuple[_Known, list[Tensor]]:
        """What computes an extension, and all tensors that it is given."""
        model, shared = self.model, self.shared
        version, tensors = programs.see(model._programs, model)
        if shared:
            tensors = {**tensors, **{shared_key(name): value for name, value in shared.items()}}
        given = [*tensors.values(), *inputs.values()]
        known: _Known | None = version.growing.get(key)
        if known is None or not self._fits(known, version, given, addition, inputs):
            known = self._look_up(version, tensors, addition, inputs, through)
            if known.guards is not None:
                version.growing[key] = known
        model._programs.latest = known.latest
        return known, given

    def order(self, growing: Growing, addition: Addition) -> tuple[Order, Tensor]:
        """The order of new vertices, and the rows of earlier ones that they read."""
        model, (reads, *others) = self.model, growing.reads
        if addition.on_device is not None and not others and not reads.ragged:
            return order_on_device(
                addition.on_device, addition.start, reads, model.policy, growing.device, model._programs.orders
            )
        addition = addition.on_host()
        return order_of(addition, growing.reads, model.policy, growing.device, model._programs.orders)

    def order_of_rows(self, growing: Growing, count: int) -> Order:
        """The order of so many vertices of one kind, each slot of which reads an earlier vertex."""
        model = self.model
        return order_of_rows(count, growing.reads, model.policy, growing.device, model._programs.orders)

    def _fits(
        self,
        known: _Known,
        version: Version,
        given: Sequence[Tensor],
        addition: Addition,
        inputs: Mapping[str, Tensor],
    ) -> bool:
        """Whether an extension with these tensors is computed as the one that is known."""
        check_real()
        return (
            known.version is version
            and all(map(operator.is_, self._surroundings(given), known.surroundings))
            and known.has_row_each
            and forward_ad._current_level < 0
            and known.guards.check(*given)
            and lie_in_memory(given)
            and all(value.shape[0] == addition.num_vertices for value in inputs.values())
        )

    def _look_up(
        self,
        version: Version,
        tensors: Mapping[str, Tensor],
        addition: Addition,
        inputs: Mapping[str, Tensor],
        through: bool,
    ) -> _Known:
        model, methods = self.model, addition.methods
        device = check_inputs(tensors, inputs)
        traces = model._trace(version, inputs, tensors, self.shared, device, methods)
        kinds.refuse_edge_outputs(traces)
        counts = addition.counts(with_children=have_edge_inputs(traces.values(), inputs))
        kinds.check_rows(traces, inputs, counts, model._methods, "the extension")
        bound = model._bind(version, traces, inputs, tensors, device, through, methods, grows=True)
        given = [*tensors.values(), *inputs.values()]
        has_row_each = len(methods) == 1 and not any(traces[methods[0]].is_edge_input(name) for name in inputs)
        may_be_kept = has_row_each and can_be_told(model.state_dtype, given)
        return _Known(
            version,
            self._surroundings(given),
            _guards(given, len(inputs)) if may_be_kept else None,
            traces,
            tuple(map(Reads.of, traces.values())),
            bound,
            positions(bound, tensors, inputs),
            model._programs.latest,
            has_row_each,
        )

    def _surroundings(self, given: Sequence[Tensor]) -> list[Any]:
        """What decides how an extension is computed, beside the model's version and tensors."""
        device, backend = given[0].device if given else torch.device("cpu"), named_backend(self.model.backend)
        return [*surroundings(self.model.state_dtype, backend, device), torch.is_inference_mode_enabled()]


def _guards(given: Sequence[Tensor], num_inputs: int) -> Any:
    sizes: list[list[int | None]] = [list(tensor.shape) for tensor in given]
    strides: list[list[int | None]] = [list(tensor.stride()) for tensor in given]
    for shape, steps in zip(sizes[len(given) - num_inputs :], strides[len(given) - num_inputs :], strict=True):
        shape[0], steps[:] = None, [None] * len(steps)
    return TensorGuards(*given, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides)


def have_edge_inputs(used: Iterable[kinds.Used], inputs: Mapping[str, Tensor]) -> bool:
    """Whether any of these inputs has a row for each edge, as methods that pull it use it."""
    return any(use.is_edge_input(name) for use in used for name in inputs if name in use.pulls)
