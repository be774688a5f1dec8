"""A call that is like an earlier one on the same batch runs what that one was bound to.

The checks, traces, programs and the order that a call looks up follow from the version of the model, the batch, and what is
compared here.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._C._dynamo import guards

from . import programs
from .estimate import AsGiven, BoundCall
from .graph.inputs.pack import GraphBatch
from .kernels import autograd
from .kernels.compiled import Compiled
from .kernels.parts import BoundPart
from .kernels.plain import is_recorded, lie_in_memory
from .outputs import Outputs
from .programs import Programs, Version

Tensors = Mapping[str, Tensor]

# Compares tensors with earlier ones in all that decides what operations make of them: class, dtype, device, shape, strides,
# `requires_grad`, and whatever else they are than memory (sparse, a lazy negation, wrapped by a transform, ...).
_TensorGuards: Any = getattr(guards, "TensorGuards", None)


class Model(Protocol):
    """What of a vertex function decides how a call is bound, beside its version."""

    @property
    def _programs(self) -> Programs: ...

    policy: Any
    max_vertices: int | None
    state_dtype: Any


@dataclass(frozen=True, eq=False)
class Recall:
    """What a call was bound to, and all that decided it."""

    surroundings: list[Any]  # compared by identity
    names: list[str]  # see `_names`
    guards: Any  # of all these, and `outputs=`
    wanted: Tensor | None  # a copy of `outputs=`
    device: torch.device
    part: BoundPart
    flat: list[int]  # the positions of what is read, among tensors, then inputs
    as_given: AsGiven
    latest: Mapping[str, Compiled] | None

    def fits(
        self, model: Model, backend: str, names: Sequence[str], given: Sequence[Tensor], wanted: Tensor | None
    ) -> bool:
        """Whether a call with these tensors and inputs would be bound to the same."""
        return (
            names == self.names
            and (wanted is None) == (self.wanted is None)
            and all(map(operator.is_, _surroundings(model, backend, self.device), self.surroundings))
            and self.guards.check(*given, *(() if wanted is None else (wanted,)))
            and lie_in_memory(given)
            and (wanted is None or self.wanted is None or torch.equal(wanted, self.wanted))
        )


def run_again(
    model: Model,
    version: Version,
    tensors: Tensors,
    backend: str,
    batch: object,
    reverse: bool,
    inputs: Tensors,
    wanted: Tensor | None,
) -> Outputs | None:
    """What a call returns, if it is like an earlier one.

    `tensors` are parameters and buffers, `backend` is what `named_backend` says.
    """
    if type(batch) is not GraphBatch or is_recorded():
        return None
    recall: Recall | None = version.recalls.get(batch, {}).get((reverse, torch.is_grad_enabled()))
    given = [*tensors.values(), *inputs.values()]
    if recall is None or not recall.fits(model, backend, _names(tensors, inputs), given, wanted):
        return None
    model._programs.latest = recall.latest
    outputs = autograd.run_flat(recall.part.bound, recall.part.order, [given[at] for at in recall.flat], {})
    return Outputs(outputs if wanted is None else recall.as_given(outputs))


def keep(
    model: Model,
    version: Version,
    call: BoundCall,
    backend: str,
    batch: object,
    reverse: bool,
    inputs: Tensors,
    wanted: Tensor | None,
    result: Outputs,
) -> None:
    """Remember a call, if what it was bound to can be told from these arguments without waiting for a device."""
    is_told = model.state_dtype is None or isinstance(model.state_dtype, torch.dtype)  # a mapping may change
    is_told = is_told and (wanted is None or wanted.device.type == "cpu")
    given = [*call.tensors.values(), *inputs.values(), *(() if wanted is None else (wanted,))]
    are_different = len(set(map(id, given))) == len(given)  # guards refuse others
    if not (is_told and are_different and len(call.parts) == 1 and type(batch) is GraphBatch and _TensorGuards):
        return
    (part,), tensor_names, input_names = call.parts, list(call.tensors), list(inputs)
    if result.keys() != part.bound.pushes.keys():
        return  # outputs of kinds that are not in the batch were added
    flat = [tensor_names.index(name) for name in part.bound.params]
    flat += [len(tensor_names) + input_names.index(name) for name in part.bound.pulls]
    recall = Recall(
        _surroundings(model, backend, call.device),
        _names(call.tensors, inputs),
        _TensorGuards(*given, dynamic_dims_sizes=None, dynamic_dims_strides=None),
        None if wanted is None else wanted.clone(),
        call.device,
        part,
        flat,
        call.as_given,
        model._programs.latest,
    )
    version.recalls.setdefault(batch, {})[reverse, torch.is_grad_enabled()] = recall


def _names(tensors: Tensors, inputs: Tensors) -> list[str]:
    """The names of tensors, then those of inputs."""
    return [*tensors, "", *inputs]


def _surroundings(model: Model, backend: str, device: torch.device) -> list[Any]:
    """What decides how a call is bound, beside the model and its arguments."""
    kind = device.type
    return [
        model.policy,
        model.max_vertices,
        model.state_dtype,
        sys.intern(backend),
        torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None,
        torch.get_default_dtype(),
        programs.default_device(),
    ]
