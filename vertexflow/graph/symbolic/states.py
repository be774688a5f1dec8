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
    """The dtype of each state; `asked` are the states whose dtype the user chose."""

    def __init__(self, dtypes: Dtypes, asked: Iterable[str] = ()) -> None:
        super().__init__(dtypes)
        self.asked = frozenset(asked)


def shapes_of(state: Mapping[str, int | Sequence[int]]) -> dict[str, Shape]:
    """The shape of one vertex's state, by name.

    Raises:
        InputError, InputTypeError: a name or a size that cannot be one.
    """
    if not isinstance(state, Mapping):
        raise InputTypeError(f'the states are {state!r}; give a mapping from names to sizes, such as {{"h": 256}}')
    return {name: _shape(name, size) for name, size in state.items()}


def dtypes_of(state: Mapping[str, Shape], asked: torch.dtype | Dtypes | None, usual: torch.dtype) -> StateDtypes:
    """The dtype of each state: what is asked for, of all or by name, else the usual one.

    Raises:
        InputError: what is asked for is no dtype of real numbers, integers or booleans, or no state has that name.
    """
    if not isinstance(asked, (torch.dtype, Mapping, type(None))):
        raise InputTypeError(
            f"state_dtype is {asked!r}; give a dtype, such as torch.float32, or a mapping from states to dtypes"
        )
    named = dict.fromkeys(state, asked) if isinstance(asked, torch.dtype) else dict(asked or {})
    for name, dtype in named.items():
        if name not in state:
            known = ", ".join(map(repr, state)) or "none"
            raise InputError(f"state_dtype has {name!r}, but there is no such state; the states are {known}")
        if not isinstance(dtype, torch.dtype) or dtype not in STATES:
            advice = "give a dtype of real numbers, integers or booleans, such as torch.float32 or torch.int64"
            if isinstance(dtype, torch.dtype) and dtype.is_complex:
                advice = "states are not complex: keep torch.view_as_real(value), a state with a last dimension of 2"
            raise InputError(f"state_dtype of {name!r} is {dtype}; {advice}")
    return StateDtypes({name: named.get(name, usual) for name in state}, named)


def usual_dtype(tensors: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of states that none was asked for: that of the first parameter, buffer or input of real numbers."""
    floating = (tensor.dtype for tensor in (*tensors.values(), *inputs.values()) if tensor.is_floating_point())
    return next(floating, torch.get_default_dtype())


def becomes_state(name: str, value: Tensor, dtypes: StateDtypes) -> bool:
    """Whether a value may become a state by a change of its dtype that nobody wrote.

    Real numbers become shorter under autocast, and where `state_dtype` asks for real numbers of some state: the others then have
    their dtypes on purpose, too. Nothing becomes another sort of number.
    """
    dtype, to = value.dtype, dtypes[name]
    same_sort = dtype.is_complex == to.is_complex and dtype.is_floating_point == to.is_floating_point
    same_sort &= (dtype == torch.bool) == (to == torch.bool)
    on_purpose = any(dtypes[asked].is_floating_point for asked in dtypes.asked)
    on_purpose |= torch.is_autocast_enabled(value.device.type)
    return same_sort and (torch.promote_types(dtype, to) == to or (to.is_floating_point and on_purpose))


def as_state(name: str, value: Tensor, dtypes: StateDtypes) -> Tensor:
    """What is scattered as a state, in the dtype of that.

    Raises:
        VertexFunctionError: the state does not hold the value as it is.
    """
    dtype, to = value.dtype, dtypes[name]
    if becomes_state(name, value, dtypes):
        return value.to(to)
    ours, theirs = str(to)[6:], str(dtype)[6:]
    other = f', or VertexFunction(..., state_dtype={{"{name}": {dtype}}})' if dtype in STATES else ""
    if dtype.is_complex:
        other = ", or keep torch.view_as_real(value), a state with a last dimension of 2"
    raise VertexFunctionError(
        f"v.scatter({name}=...): the value is of {theirs}, but the state is of {ours}, which does not hold it exactly; write "
        f"{name}=value.to({to}) if that is meant{other}"
    )


def widest(dtypes: Dtypes, usual: torch.dtype) -> torch.dtype:
    """A dtype that holds the numbers of all states."""
    return reduce(torch.promote_types, dtypes.values()) if dtypes else usual


def _shape(name: str, size: int | Sequence[int]) -> Shape:
    check_state_name(name)
    given: Any = size
    try:
        shape = tuple(map(_extent, given if isinstance(given, Sequence) and not isinstance(given, str) else [given]))
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
