"""A rehearsal: a pass asks for all its memory and computes nothing, so that what it takes is known before.

The code that runs is the code of a real pass. Its tensors are on the device "meta", without memory; what would be computed by
native code is left out; and whatever would have taken memory is counted: pieces of the pool, by the pool's own rules, and all
else, which PyTorch and native code ask the C library for.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only

META = torch.device("meta")
RETURNED = 32 << 20  # bytes; what is smaller, the C library may keep when it is freed
ZEROS_UNTOUCHED = 4 << 20  # bytes; so many zeros are the system's own pages until they are written to

HUGE_PAGE = 2 << 20 if hasattr(mmap, "MADV_HUGEPAGE") else 1  # bytes; large memory comes in such pieces
HUGE = 4 << 20  # bytes; a piece of the pool that is made for so many asks for huge pages

_aten = torch.ops.aten
_ZEROS = {_aten.zeros.default, _aten.new_zeros.default, _aten.zeros_like.default}


@dataclass(eq=False)
class Piece:
    """A piece of the pool that is counted only."""

    nbytes: int
    in_huge_pages: int = 0  # of the bytes, the first ones
    touched: int = 0  # the bytes that were used so far


@dataclass(eq=False)
class Rehearsal:
    """What is in use, and what the process holds: also pieces that wait in the pool, and what the C library does not return."""

    in_use: int = 0
    most_in_use: int = 0
    most: int = 0  # the most that the process has held
    free: list[Piece] = field(default_factory=list)  # the pool
    in_pieces: int = 0  # touched bytes of all pieces
    large: int = 0  # of the C library, returned when it is freed
    small: int = 0  # of the C library, the rest
    most_small: int = 0
    known: set[int] = field(default_factory=set)  # the storages that are counted, or were there before, by address
    zeros: dict[int, int] = field(default_factory=dict)  # the sizes of those that were not written to yet

    @property
    def held(self) -> int:
        """What the process holds now."""
        return self.in_pieces + self.large + self.most_small

    def next_stage(self) -> int:
        """The most that was in use since the last call."""
        most, self.most_in_use = self.most_in_use, self.in_use
        return most

    def add(self, size: int) -> None:
        """Memory of the C library is in use."""
        self.large, self.small = (
            (self.large + size, self.small) if size >= RETURNED else (self.large, self.small + size)
        )
        self._use(size)

    def drop(self, size: int) -> None:
        """It was freed."""
        self.large, self.small = (
            (self.large - size, self.small) if size >= RETURNED else (self.large, self.small - size)
        )
        self.in_use -= size

    def in_piece(self, size: int, piece: Piece) -> Tensor:
        """Bytes in a piece, which is free again when the last tensor in it is gone."""
        touched = max(size, min(piece.in_huge_pages, -(-size // HUGE_PAGE) * HUGE_PAGE))
        self.in_pieces += max(0, touched - piece.touched)
        piece.touched = max(touched, piece.touched)
        self._use(size)
        with _disable_current_modes():
            tensor = torch.empty(size, dtype=torch.uint8, device=META)
        self._watch(tensor, self._give_back, size, piece)
        return tensor

    def let_go(self, piece: Piece) -> None:
        """The pool returns a piece to the system."""
        self.in_pieces -= piece.touched

    def note(self, tensor: Tensor, is_zero: bool = False) -> None:
        """Count the memory of a tensor, if it is new."""
        storage = tensor.untyped_storage()
        if storage._cdata in self.known:
            return
        size = storage.nbytes()
        if is_zero and size >= ZEROS_UNTOUCHED:
            self.zeros[storage._cdata] = size
            self._watch(tensor, self._drop_zeros, storage._cdata, size)
        else:
            self.add(size)
            self._watch(tensor, self.drop, size)

    def note_write(self, tensor: Tensor) -> None:
        """Count zeros that are written to."""
        self.add(self.zeros.pop(tensor.untyped_storage()._cdata, 0))

    def note_known(self, tensor: Tensor) -> None:
        """The tensor stands for one that is there anyway."""
        self._watch(tensor, lambda: None)

    def _use(self, size: int) -> None:
        self.in_use += size
        self.most_small = max(self.most_small, self.small)
        self.most_in_use = max(self.most_in_use, self.in_use)
        self.most = max(self.most, self.held)

    def _give_back(self, size: int, piece: Piece) -> None:
        self.in_use -= size
        self.free.append(piece)

    def _drop_zeros(self, address: int, size: int) -> None:
        if self.zeros.pop(address, None) is None:
            self.drop(size)

    def _watch(self, tensor: Tensor, forget: Any, *arguments: Any) -> None:
        storage = tensor.untyped_storage()
        self.known.add(storage._cdata)
        weakref.finalize(storage, _forget, self.known, storage._cdata, forget, arguments).atexit = False


def _forget(known: set[int], address: int, forget: Any, arguments: Sequence[Any]) -> None:
    known.discard(address)
    forget(*arguments)


class _OfThread(threading.local):
    rehearsal: Rehearsal | None = None


_of_thread = _OfThread()


def current() -> Rehearsal | None:
    """The rehearsal that is under way in this thread."""
    return _of_thread.rehearsal


@contextmanager
def rehearsed(known: Iterable[Tensor]) -> Iterator[Rehearsal]:
    """Rehearse what runs inside, in this thread; random numbers continue afterwards as if none had been drawn.

    The memory of `known` tensors is there before, and not counted.
    """
    rehearsal = Rehearsal()
    for tensor in known:
        rehearsal.note_known(tensor)
    with torch.random.fork_rng(devices=[]), _Counting(rehearsal):
        _of_thread.rehearsal = rehearsal
        try:
            yield rehearsal
        finally:
            _of_thread.rehearsal = None


@contextmanager
def interrupted() -> Iterator[None]:
    """What runs inside is real also in a rehearsal: it is kept for the passes that come after."""
    rehearsal = current()
    if rehearsal is None:
        yield
        return
    _of_thread.rehearsal = None
    try:
        with _disable_current_modes():
            yield
    finally:
        _of_thread.rehearsal = rehearsal


def stand_in(tensor: Tensor) -> Tensor:
    """A tensor without memory in the place of one that is there anyway."""
    with torch.no_grad():
        like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)
    return like.requires_grad_(tensor.requires_grad)


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets operations run on tensors without memory, and counts what they would allocate."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rehearsal = rehearsal

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(Tensor, self._without_memory, (args, dict(kwargs or {})))
        if "device" in kwargs and () not in map(_shape, args):  # a number without dimensions is real: it is looked at
            kwargs["device"] = META
        result = function(*args, **kwargs)
        if function._schema.is_mutable:
            for argument, value in zip(function._schema.arguments, args, strict=False):
                if argument.is_write and isinstance(value, Tensor):
                    self.rehearsal.note_write(value)
            for value in (kwargs.get(argument.name) for argument in function._schema.arguments if argument.is_write):
                if isinstance(value, Tensor):
                    self.rehearsal.note_write(value)
        tree_map_only(Tensor, lambda value: self._count(value, function in _ZEROS), result)
        return result

    def _without_memory(self, tensor: Tensor) -> Tensor:
        if tensor.device == META or not tensor.dim():
            return tensor
        like = stand_in(tensor.detach())
        self.rehearsal.note_known(like)
        return like

    def _count(self, tensor: Tensor, is_zero: bool) -> Tensor:
        if tensor.device == META:
            self.rehearsal.note(tensor, is_zero)
        return tensor


def _shape(argument: object) -> object:
    return tuple(argument) if isinstance(argument, (list, tuple)) else None


def size_of(tensors: Iterable[Tensor]) -> int:
    """The bytes of the memory in which tensors lie, each counted once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())
