"""The states of a vertex: their shapes and dtypes, as the user asks for them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError, InputTypeError, VertexFunctionError
from .reserved import check_state_name

Shape = tuple[int, ...]
STATES = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
)  # fmt: skip
Dtypes = Mapping[str, torch.dtype]


class StateDtypes(dict[str, torch.dtype]):
    """The dtype of each state; `chosen` are the states whose dtype the user chose."""

    def __init__(self, dtypes: Dtypes, chosen: Iterable[str] = ()) -> None:
        super().__init__(dtypes)
        self.chosen = frozenset(chosen)


def shapes_of(state: Mapping[str, int | Sequence[int]]) -> dict[str, Shape]:
    """The shape of one vertex's state, by name.

    Raises:
        InputError, InputTypeError: a name or a size that cannot be one.
    """
    if not isinstance(state, Mapping):
        raise InputTypeError(f'the states are {state!r}; give a mapping from names to sizes, such as {{"h": 256}}')
    return {name: _shape(name, size) for name, size in state.items()}


def dtypes_of(
    state: Mapping[str, Shape], state_dtype: torch.dtype | Dtypes | None, default: torch.dtype
) -> StateDtypes:
    """The dtype of each state: that of `state_dtype`, which is one for all states or a mapping by name, else the default.

    Raises:
        InputError: a dtype is not of real numbers, integers or booleans, or no state has the name.
    """
    if not isinstance(state_dtype, (torch.dtype, Mapping, type(None))):
        raise InputTypeError(
            f"state_dtype is {state_dtype!r}; give a dtype, such as torch.float32, or a mapping from states to dtypes"
        )
    named = dict.fromkeys(state, state_dtype) if isinstance(state_dtype, torch.dtype) else dict(state_dtype or {})
    for name, dtype in named.items():
        if name not in state:
            known = ", ".join(map(repr, state)) or "none"
            raise InputError(f"state_dtype has {name!r}, but there is no such state; the states are {known}")
        if not isinstance(dtype, torch.dtype) or dtype not in STATES:
            advice = "give a dtype of real numbers, integers or booleans, such as torch.float32 or torch.int64"
            if isinstance(dtype, torch.dtype) and dtype.is_complex:
                advice = "states are not complex: keep torch.view_as_real(value), a state with a last dimension of 2"
            raise InputError(f"state_dtype of {name!r} is {dtype}; {advice}")
    return StateDtypes({name: named.get(name, default) for name in state}, named)


def usual_dtype(tensors: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> torch.dtype:
    """The default dtype of states: that of the first parameter, buffer or input of real numbers."""
    floating = (tensor.dtype for tensor in (*tensors.values(), *inputs.values()) if tensor.is_floating_point())
    return next(floating, torch.get_default_dtype())


def becomes_state(name: str, value: Tensor, dtypes: StateDtypes) -> bool:
    """Whether a value may be converted to the dtype of its state although the user did not write the conversion.

    It may if the state's dtype holds the value exactly. Real numbers may also lose digits: under autocast, and where
    `state_dtype` chose the dtype of some state of real numbers, since the dtypes of the others are then intended as well. Nothing
    becomes another sort of number.
    """
    dtype, state_dtype = value.dtype, dtypes[name]
    is_same_sort = (
        dtype.is_complex == state_dtype.is_complex and dtype.is_floating_point == state_dtype.is_floating_point
    )
    is_same_sort &= (dtype == torch.bool) == (state_dtype == torch.bool)
    is_intended = any(dtypes[state].is_floating_point for state in dtypes.chosen)
    is_intended |= torch.is_autocast_enabled(value.device.type)
    return is_same_sort and (
        torch.promote_types(dtype, state_dtype) == state_dtype or (state_dtype.is_floating_point and is_intended)
    )


def as_state(name: str, value: Tensor, dtypes: StateDtypes) -> Tensor:
    """A value that is scattered as a state, converted to the state's dtype.

    Raises:
        VertexFunctionError: the state does not hold the value as it is.
    """
    dtype, state_dtype = value.dtype, dtypes[name]
    if becomes_state(name, value, dtypes):
        return value.to(state_dtype)
    state_type, value_type = str(state_dtype)[6:], str(dtype)[6:]
    advice = f', or VertexFunction(..., state_dtype={{"{name}": {dtype}}})' if dtype in STATES else ""
    if dtype.is_complex:
        advice = ", or keep torch.view_as_real(value), a state with a last dimension of 2"
    raise VertexFunctionError(
        f"v.scatter({name}=...): the value is of {value_type}, but the state is of {state_type}, which does not hold it exactly; "
        f"write {name}=value.to({state_dtype}) if that is meant{advice}"
    )


def widest(dtypes: Dtypes, usual: torch.dtype) -> torch.dtype:
    """A dtype that holds the numbers of all states."""
    return reduce(torch.promote_types, dtypes.values()) if dtypes else usual


def _shape(name: str, size: int | Sequence[int]) -> Shape:
    check_state_name(name)
    sizes: Any = size
    try:
        shape = tuple(map(_extent, sizes if isinstance(sizes, Sequence) and not isinstance(sizes, str) else [sizes]))
    except TypeError:
        raise InputTypeError(
            f"state {name!r} has size {size!r}; give one vertex's size, or a shape, as integers"
        ) from None
    if not all(extent > 0 for extent in shape):
        why = ": it would hold nothing; leave it out" if 0 in shape else ""
        raise InputError(f"state {name!r} has size {size!r}{why or '; give positive integers'}")
    return shape


def _extent(size: Any) -> int:
    if isinstance(size, bool):
        raise TypeError
    return operator.index(size)
