"""How much memory Python's objects take that hang on some others: what is known of a structure, and written down of its passes.

Each object counts what Python says of it, an array or tensor what it lies in; each byte of that counts once, however many look at
it.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

_OF_A_TENSOR = 512  # bytes: what C++ has of it, beside its numbers, as measured
_OF_AN_ARRAY = 32  # the same of an array, and of any other memory of the C library
_ALIGNED = 16  # Python's own allocator gives multiples of this

# What is there whatever the structure.
_ELSEWHERE = (
    type, ModuleType, FunctionType, BuiltinFunctionType, fx.Node, fx.Graph, torch.nn.Module, torch.dtype, torch.device,
)  # fmt: skip


def held_bytes(roots: Iterable[object], before: Iterable[object], elsewhere: tuple[type, ...] = ()) -> int:
    """The bytes of `roots` and of all that can be reached from them, beside what is reached from `before`, through no module,
    function, type, or object of these classes that are `elsewhere`."""
    seen: set[int] = set()
    _, lies_before = _reached(before, seen, elsewhere)
    size, lies = _reached(roots, seen, elsewhere)
    return size + _length(lies + lies_before) - _length(lies_before)


def _reached(roots: Iterable[object], seen: set[int], elsewhere: tuple[type, ...]) -> tuple[int, list[tuple[int, int]]]:
    """What the objects take that can be reached and were not seen, and where the numbers of arrays and tensors lie."""
    waiting, size, lies = list(roots), 0, []
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, (*_ELSEWHERE, *elsewhere)):
            continue
        seen.add(id(each))
        if isinstance(each, Tensor):
            storage = each.untyped_storage()
            lies.append((storage.data_ptr(), storage.data_ptr() + storage.nbytes()))
            size += sys.getsizeof(each) + _OF_A_TENSOR
        elif isinstance(each, np.ndarray):
            start = each.__array_interface__["data"][0]
            lies.append((start, start + (each.nbytes if each.flags.contiguous else 0)))
            size += object.__sizeof__(each) + _OF_AN_ARRAY
            waiting.append(each.base)
        else:
            referents = gc.get_referents(each)
            size += _size(each, len(referents))
            waiting += referents
    return size, lies


def _size(each: Any, num_referents: int) -> int:
    size = sys.getsizeof(each)
    if type(each).__dictoffset__ and not isinstance(each, type):  # attributes, which lie beside the object
        size += 8 * num_referents
    return -(-size // _ALIGNED) * _ALIGNED


def _length(lies: list[tuple[int, int]]) -> int:
    """How many bytes are in any of these places."""
    total = end = 0
    for start, stop in sorted(lies):
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total
