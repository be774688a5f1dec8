"""The states of a vertex: their shapes and dtypes, as the user asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import torch

from ..errors import InputError
from .reserved import check_state_name

Shape = tuple[int, ...]
Dtypes = Mapping[str, torch.dtype]


def shapes_of(state: Mapping[str, int | Sequence[int]]) -> dict[str, Shape]:
    """The shape of one vertex's state, by name.

    Raises:
        InputError: a name or a size that cannot be one.
    """
    return {name: _shape(name, size) for name, size in state.items()}


def dtypes_of(
    state: Mapping[str, Shape], asked: torch.dtype | Dtypes | None, usual: torch.dtype
) -> dict[str, torch.dtype]:
    """The dtype of each state: what is asked for, of all or by name, else the usual one.

    Raises:
        InputError: what is asked for is no floating dtype, or no state has that name.
    """
    named = dict.fromkeys(state, asked) if isinstance(asked, torch.dtype) else dict(asked or {})
    for name, dtype in named.items():
        if name not in state:
            known = ", ".join(map(repr, state)) or "none"
            raise InputError(f"state_dtype has {name!r}, but there is no such state; the states are {known}")
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise InputError(f"state_dtype of {name!r} is {dtype}; give a floating dtype, such as torch.float32")
    return {name: named.get(name, usual) for name in state}


def widest(dtypes: Dtypes, usual: torch.dtype) -> torch.dtype:
    """A dtype that holds the numbers of all states."""
    return reduce(torch.promote_types, dtypes.values()) if dtypes else usual


def _shape(name: str, size: int | Sequence[int]) -> Shape:
    check_state_name(name)
    shape = (size,) if isinstance(size, int) else tuple(size)
    if not all(isinstance(extent, int) and extent > 0 for extent in shape):
        raise InputError(f"state {name!r} has size {size!r}; give one vertex's size, or a shape of positive integers")
    return shape
