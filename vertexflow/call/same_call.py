"""Whether a call is like an earlier one: what decides how it is bound, beside the version of the model and the structure."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._dynamo import guards

from ..kernels.bound import Bound
from . import programs

# Compares tensors with earlier ones in all that decides what operations make of them: class, dtype, device, shape, strides,
# `requires_grad`, and whatever else they are than memory (sparse, a lazy negation, wrapped by a transform, ...).
TensorGuards: Any = getattr(guards, "TensorGuards", None)


def surroundings(state_dtype: Any, backend: str, device: torch.device) -> list[Any]:
    """What decides how a call is bound, beside tensors and the version of the model: compared by identity."""
    kind = device.type
    return [
        state_dtype,
        sys.intern(backend),
        torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None,
        torch.get_default_dtype(),
        programs.default_device(),
    ]


def can_be_told(state_dtype: Any, given: Sequence[Tensor]) -> bool:
    """Whether surroundings and guards of these tensors tell all that decides a call."""
    is_fixed = state_dtype is None or isinstance(state_dtype, torch.dtype)  # a mapping may change
    are_different = len(set(map(id, given))) == len(given)  # guards refuse others
    return bool(given) and is_fixed and are_different and TensorGuards is not None


def positions(bound: Bound, tensors: Iterable[str], inputs: Iterable[str]) -> list[int]:
    """Where what programs read, parameters and then inputs, is among these tensors and, after them, inputs."""
    of_tensors, of_inputs = list(tensors), list(inputs)
    flat = [of_tensors.index(name) for name in bound.params]
    return flat + [len(of_tensors) + of_inputs.index(name) for name in bound.pulls]
