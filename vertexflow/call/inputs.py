"""What a model is given: tensors, on one device."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, InputTypeError
from ..graph.symbolic.states import StateDtypes, becomes_state
from ..kernels.plain import check_plain, check_real


def check_arguments(unnamed: tuple[object, ...], reverse: object) -> None:
    """Refuse inputs that were given without a name, and a `reverse` that is no bool."""
    if unnamed:
        types = ", ".join(type(argument).__name__ for argument in unnamed)
        raise InputTypeError(
            f"the model was given {types} without a name after the graphs; give inputs by the names that the vertex "
            "function pulls: model(batch, x=x)"
        )
    if not isinstance(reverse, (bool, np.bool_)):
        raise InputTypeError(f"reverse is {reverse!r}; give True or False (an input cannot have this name)")


def check_shared(
    tensors: Mapping[str, Tensor], inputs: Mapping[str, Tensor], shared: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """The tensors that all vertices share, by name; refuses what is no plain tensor, or lies elsewhere than others."""
    if shared is None:
        return {}
    if not isinstance(shared, Mapping):
        raise InputTypeError(
            f'shared is a {type(shared).__name__}; give a mapping from names to tensors, {{"W": weight}}'
        )
    others = (value for value in (*tensors.values(), *inputs.values(), *shared.values()) if isinstance(value, Tensor))
    device = next((value.device for value in others), None)
    for name, value in shared.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputTypeError(
                f"shared has {name!r}: {type(value).__name__}; give names, and a torch.Tensor for each that all vertices share"
            )
        if value.device != device:
            raise InputError(
                f"the shared tensor {name!r} is on {value.device}, but the model (or an earlier tensor) is on {device}; move one "
                "with .to(...)"
            )
        check_plain("the shared tensor", {name: value}, closely=True)
    return dict(shared)


def check_inputs(tensors: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> torch.device:
    """The device of the parameters and inputs; refuses inputs that are no plain tensors with rows, or lie elsewhere."""
    check_real()
    check_plain("parameter or buffer", tensors)
    device = next((tensor.device for tensor in tensors.values()), None)
    for name, value in inputs.items():
        if not isinstance(value, Tensor):
            raise InputTypeError(
                f"input {name!r} is a {type(value).__name__}; give a torch.Tensor of one row a vertex, or an edge"
                f"{'; torch.as_tensor(...) makes one of it' if isinstance(value, np.ndarray) else ''}"
            )
        if device is not None and value.device != device:
            raise InputError(
                f"input {name!r} is on {value.device}, but the model (or an earlier input) is on {device}; "
                "move one with .to(...)"
            )
        check_plain("input", {name: value}, closely=True)
        if value.dim() == 0:
            raise InputError(f"input {name!r} has no dimension; give one row a vertex, or an edge")
        device = value.device
    return device if device is not None else torch.device("cpu")


def initial_states(
    initial: Mapping[str, Tensor],
    state: Mapping[str, tuple[int, ...]],
    count: int,
    dtypes: StateDtypes,
    device: torch.device,
) -> dict[str, Tensor]:
    """The rows that vertices without children read of every state."""
    if not isinstance(initial, Mapping):
        raise InputTypeError(f'initial is a {type(initial).__name__}; give a mapping from states, {{"h": h0}}')
    for name, value in initial.items():
        if name not in state:
            known = ", ".join(map(repr, state)) or "none"
            raise InputError(f"initial has {name!r}, but there is no such state; the states are {known}")
        if isinstance(value, Tensor):
            check_plain("the initial state", {name: value}, closely=True)
        shape_wanted = (count, *state[name])
        if not isinstance(value, Tensor) or tuple(value.shape) != shape_wanted or value.device != device:
            actual = f"{list(value.shape)} on {value.device}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"initial[{name!r}] is {actual}; give a tensor of shape {list(shape_wanted)} on {device}, one row for each "
                "vertex without children"
            )
        if not becomes_state(name, value, dtypes):
            raise InputError(
                f"initial[{name!r}] is of {str(value.dtype)[6:]}, but the state is of {str(dtypes[name])[6:]}; give "
                f"initial[{name!r}].to({dtypes[name]})"
            )
    return {
        name: initial[name].to(dtypes[name])
        if name in initial
        else torch.zeros((count, *shape), dtype=dtypes[name], device=device)
        for name, shape in state.items()
    }
