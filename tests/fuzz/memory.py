"""Memory as a hostile allocator gives it, filled with NaN when it is taken and when it is left; and passes in small windows."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor

from vertexflow.kernels.memory import layout, pool, rehearsal
from vertexflow.kernels.prepared import passes, state_rows, windows

NAN = 0xFF  # in each byte, of any dtype of floats
LARGE = 64  # bytes, from which on memory is the pool's


@contextmanager
def memory(window: int, poisoned: bool) -> Iterator[None]:
    """Windows of so many rows, if any; memory that is `poisoned` when it is given, and when it is given back."""
    with pytest.MonkeyPatch.context() as patch:
        if window:
            patch.setattr(windows, "rows_of_a_window", lambda rows, width: window)
            patch.setattr(state_rows, "PAYS", 0)
        if poisoned:
            _poison(patch)
        yield


def _poison(patch: pytest.MonkeyPatch) -> None:
    for module in (pool, passes):
        for name in ("LARGE_OF_A_CALL", "LARGE_OF_PARTS"):
            patch.setattr(module, name, LARGE)
    patch.setattr(pool, "LARGE", LARGE)
    give_back, take_for_a_call = pool.give_back, pool.take_for_a_call

    def poison_and_give_back(piece: pool.Piece) -> None:
        piece.memory.fill(NAN)
        give_back(piece)

    def take_and_poison(size: int) -> pool.Piece:
        piece = take_for_a_call(size)
        piece.memory.fill(NAN)
        return piece

    for module in (pool, passes):
        patch.setattr(module, "give_back", poison_and_give_back)
    patch.setattr(passes, "take_for_a_call", take_and_poison)
    patch.setattr(pool, "empty", filled(pool.empty))
    for module in (layout, passes):
        patch.setattr(module, "empty", pool.empty)
    patch.setattr(passes.Fresh, "make", filled(passes.Fresh.make))


def filled(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same function, whose tensors are filled with NaN."""

    def poisoned(*arguments: Any) -> Tensor:
        tensor = make(*arguments)
        if rehearsal.current() is None and tensor.device.type == "cpu" and tensor.numel():
            assert tensor.is_contiguous()
            ctypes.memset(tensor.data_ptr(), NAN, tensor.numel() * tensor.element_size())
        return tensor

    return poisoned
