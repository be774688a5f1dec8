"""What computes the vertices that are added to a run: looked up once, and again when something that decides it has changed."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch._C._dynamo import guards
from torch.autograd import forward_ad

from . import kinds, programs
from .graph.symbolic.roles import shared_key
from .graph.symbolic.trace import Trace
from .growth import Addition, order_of
from .inputs import check_inputs
from .kernels.bound import Bound
from .kernels.compile import named_backend
from .kernels.compiled import Compiled
from .kernels.order import Order
from .kernels.plain import check_real
from .orders import Reads
from .programs import Version

if TYPE_CHECKING:
    from .function import VertexFunction

# Compares tensors with earlier ones in all that decides what operations make of them: class, dtype, device, shape, strides,
# `requires_grad`, and whatever else they are than memory (sparse, a lazy negation, wrapped by a transform, ...).
_TensorGuards: Any = getattr(guards, "TensorGuards", None)

_HIGH = 1 << 32  # a smaller "address" is an offset into freed memory, or that of a tensor without elements

Key = tuple[tuple[str, ...], bool, bool, tuple[str, ...]]  # methods, through, whether gradients are on, names of inputs


class Growing(NamedTuple):
    """What an extension is computed with: the compiled programs, parameters and inputs in the order in which these read them,
    the order of the new vertices, the rows of earlier ones that they read, and the trace of each method."""

    bound: Bound
    flat: list[Tensor]
    order: Order
    earlier: Tensor
    traces: dict[str, Trace]


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


@dataclass(eq=False)
class Grower:
    """Looks up what computes the vertices that are added to one run of a model."""

    model: VertexFunction
    shared: Mapping[str, Tensor]
    _known: dict[Key, _Known] = field(default_factory=dict)

    def grow(self, addition: Addition, inputs: Mapping[str, Tensor], through: bool) -> Growing:
        """Check inputs, and look up how new vertices are computed; `through`: earlier vertices want gradients."""
        model, shared = self.model, self.shared
        version, tensors = programs.see(model._programs, model)
        if shared:
            tensors = {**tensors, **{shared_key(name): value for name, value in shared.items()}}
        given = [*tensors.values(), *inputs.values()]
        key = (addition.methods, through, torch.is_grad_enabled(), tuple(inputs))
        known = self._known.get(key)
        if known is None or not self._fits(known, version, given, addition, inputs):
            known = self._look_up(version, tensors, addition, inputs, through)
            if known.guards is not None:
                self._known[key] = known
        model._programs.latest = known.latest
        device = given[0].device if given else torch.device("cpu")
        order, earlier = order_of(addition, known.reads, model.policy, device, model._programs.orders)
        return Growing(known.bound, [given[at] for at in known.flat], order, earlier, known.traces)

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
            and min(map(Tensor.data_ptr, given)) >= _HIGH
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
        kinds.check_rows(traces, inputs, addition.counts(), model._methods, "the extension")
        bound = model._bind(version, traces, inputs, tensors, device, through, methods)
        names, given = [*tensors, *inputs], [*tensors.values(), *inputs.values()]
        flat = [names.index(name) for name in bound.params]
        flat += [len(tensors) + [*inputs].index(name) for name in bound.pulls]
        has_row_each = len(methods) == 1 and not any(traces[methods[0]].is_edge_input(name) for name in inputs)
        is_told = model.state_dtype is None or isinstance(model.state_dtype, torch.dtype)  # a mapping may change
        are_different = len(set(map(id, given))) == len(given)  # guards refuse others
        may_be_kept = is_told and are_different and has_row_each and given and _TensorGuards is not None
        return _Known(
            version,
            self._surroundings(given),
            _guards(given, len(inputs)) if may_be_kept else None,
            traces,
            tuple(map(Reads.of, traces.values())),
            bound,
            flat,
            model._programs.latest,
            has_row_each,
        )

    def _surroundings(self, given: Sequence[Tensor]) -> list[Any]:
        """What decides how an extension is computed, beside the model's version and tensors."""
        kind = given[0].device.type if given else "cpu"
        return [
            self.model.state_dtype,
            _names.setdefault(*(named_backend(self.model.backend),) * 2),
            torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None,
            torch.get_default_dtype(),
            programs.default_device(),
            torch.is_inference_mode_enabled(),
        ]


_names: dict[str, str] = {}  # of backends, each once


def _guards(given: Sequence[Tensor], num_inputs: int) -> Any:
    sizes: list[list[int | None]] = [list(tensor.shape) for tensor in given]
    strides: list[list[int | None]] = [list(tensor.stride()) for tensor in given]
    for shape, steps in zip(sizes[len(given) - num_inputs :], strides[len(given) - num_inputs :], strict=True):
        shape[0], steps[:] = None, [None] * len(steps)
    return _TensorGuards(*given, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides)
