"""What vertices without children read in slot 0, where a call gives initial states."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .errors import InputError, InputTypeError
from .graph.symbolic.states import Shape, StateDtypes, becomes_state
from .kernels.plain import check_plain


def initial_states(
    state: Mapping[str, Shape],
    initial: Mapping[str, Tensor],
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
