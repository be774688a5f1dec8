"""A pool of large pieces of CPU memory.

The C library returns large pieces to the system when they are freed, and the system fills fresh ones with zeros, page by page:
in a training step of a large batch that takes a third as long as the matrix products. A piece comes back to the pool when
the last tensor in it is gone, whoever had it.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from . import rehearsal

LARGE = 4 << 20  # bytes; smaller pieces are kept by the C library itself
LARGE_OF_A_CALL = 1 << 20  # for the time of a call: pieces of the pool leave no gaps between what stays
LARGE_OF_PARTS = 256 << 10  # the same while one part of a batch is computed after the other
KEPT = 1 << 30  # bytes in free pieces, at most

_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}

_Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class _HasSize(Protocol):
    @property
    def nbytes(self) -> int: ...


Sized = TypeVar("Sized", bound=_HasSize)


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """Memory of the system."""

    memory: _Bytes
    address: int
    nbytes: int


_free: list[Piece] = []
_returned: SimpleQueue[Piece] = SimpleQueue()  # a finalizer may run anywhere, also while this thread holds the lock
_lock = Lock()


class _OfThread(threading.local):
    takes_smaller = False


_of_thread = _OfThread()


def is_large(size: int) -> bool:
    """Whether a piece of so many bytes is the pool's."""
    return size >= (LARGE_OF_PARTS if _of_thread.takes_smaller else LARGE)


@contextmanager
def smaller_pieces() -> Iterator[None]:
    """Smaller pieces are the pool's as well. The C library would fill gaps between them with what each part of a batch leaves
    behind, and take fresh memory for the next part: it grows as if the parts were computed at once."""
    before, _of_thread.takes_smaller = _of_thread.takes_smaller, True
    try:
        yield
    finally:
        _of_thread.takes_smaller = before


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Like `torch.empty`, in memory of the pool."""
    size = math.prod(shape) * dtype.itemsize
    on_cpu = device.type == "cpu" or (device.type == "meta" and rehearsal.current() is not None)
    if not on_cpu or not is_large(size):
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    return _bytes(size, 2 * size).view(dtype).view(tuple(shape)).detach()  # no view: users may change it in place


def take_for_a_call(size: int) -> Piece:
    """A piece of at least so many bytes for the time of one call: soon given back (`give_back`), it may be one of any size."""
    return _take(size, KEPT)


def rehearse_for_a_call(size: int) -> Tensor:
    """What stands for that in a rehearsal."""
    return _bytes(size, KEPT)


def _bytes(size: int, max_size: int) -> Tensor:
    """Bytes in a piece of at most `max_size`, which goes back to the pool when the tensor is freed."""
    rehearsed = rehearsal.current()
    if rehearsed is not None:
        for gone in _keep_to_limit(rehearsed.free):
            rehearsed.let_go(gone)
        free_piece, evicted = _choose(rehearsed.free, size, max_size)
        if evicted is not None:
            rehearsed.let_go(evicted)
        return rehearsed.in_piece(
            size, rehearsal.Piece(_room(size), _in_huge_pages(size)) if free_piece is None else free_piece
        )
    piece = _take(size, max_size)
    used = piece.memory[:size]
    weakref.finalize(used, give_back, piece).atexit = False
    return torch.from_numpy(used)


def clear() -> None:
    """Return all free pieces to the system."""
    with _lock:
        _collect()
        _free.clear()


def give_back(piece: Piece) -> None:
    """Whoever took a piece needs it no longer."""
    _returned.put(piece)
    if _lock.acquire(blocking=False):
        try:
            _collect()
        finally:
            _lock.release()


def _take(size: int, max_size: int) -> Piece:
    """A piece of at least `size`: a free one of at most `max_size`, else a new one."""
    with _lock:
        _collect()
        piece, _ = _choose(_free, size, max_size)
    return _of_the_system(_room(size), _in_huge_pages(size)) if piece is None else piece


def _choose(free: list[Sized], size: int, max_size: int) -> tuple[Sized | None, Sized | None]:
    """Take the smallest free piece of at least `size` and at most `max_size`; else, for the new one that is then made, let go of
    the largest that is too small. Returns both."""
    fitting = [number for number, piece in enumerate(free) if size <= piece.nbytes <= max_size]
    if fitting:
        return free.pop(min(fitting, key=lambda number: free[number].nbytes)), None
    too_small = [number for number, piece in enumerate(free) if piece.nbytes < size]
    if too_small:
        return None, free.pop(max(too_small, key=lambda number: free[number].nbytes))
    return None, None


def _room(size: int) -> int:
    """The size of a new piece for so many bytes: the next batch may be a little larger."""
    return size + size // 8


def _in_huge_pages(size: int) -> int:
    """How many of so many bytes lie in huge pages, of which none reaches beyond them: it would take memory that nobody uses."""
    return size // rehearsal.HUGE_PAGE * rehearsal.HUGE_PAGE if size >= rehearsal.HUGE else 0


def _of_the_system(size: int, in_huge_pages: int) -> Piece:
    """A new piece that goes back to the system when it is freed; the C library would keep those below 32 MiB to itself, and
    often ask the system for the next, larger one all the same."""
    try:
        memory = mmap.mmap(-1, size, **_PRIVATE)
    except OSError as error:
        raise MemoryError(f"no memory for {size:,} bytes: {error}") from error
    if in_huge_pages and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a system without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE, 0, in_huge_pages)
    whole = np.frombuffer(memory, np.uint8)
    return Piece(whole, whole.ctypes.data, size)


def _collect() -> None:
    """Make returned pieces free ones, up to the limit; the caller holds the lock."""
    if _returned.empty():
        return
    while not _returned.empty():  # nobody else takes one meanwhile
        _free.append(_returned.get_nowait())
    _keep_to_limit(_free)


def _keep_to_limit(free: list[Sized]) -> list[Sized]:
    """Let go of free pieces above the limit; returns them."""
    first, size = 0, sum(piece.nbytes for piece in free)
    while size > KEPT:
        size -= free[first].nbytes
        first += 1
    gone = free[:first]
    del free[:first]
    return gone


def _renew_lock() -> None:
    """In a forked process, the lock may be held by a thread that is not there."""
    global _lock
    _lock = Lock()


os.register_at_fork(after_in_child=_renew_lock)
