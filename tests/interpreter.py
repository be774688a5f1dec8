"""Triton's interpreter as strict as a GPU: it rounds as one does, and keeps every launch within its arguments."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import torch

from vertexflow.kernels import triton
from vertexflow.kernels.triton.loop import Call
from vertexflow.kernels.triton.persistent import launch


@pytest.fixture
def interpreter(monkeypatch):
    """Kernels run on the CPU."""
    pytest.importorskip("triton", reason="Triton is not installed, of which there is none for this system")
    if not triton.interprets():
        pytest.skip("TRITON_INTERPRET is 0: kernels run on a GPU (make test-gpu)")
    from triton.runtime import interpreter

    round_to_bfloat16(monkeypatch, interpreter)
    refuse_strangers(monkeypatch, interpreter._interpreter)
    keep_dtypes(monkeypatch, interpreter)
    with language_of(monkeypatch, interpreter):
        yield


@pytest.fixture
def backends(request) -> tuple[str, ...]:
    """All that run traced programs; Triton's where it is installed."""
    try:
        request.getfixturevalue("interpreter")
    except pytest.skip.Exception:
        return ("torch", "native")
    return ("torch", "native", "triton")


@contextmanager
def language_of(monkeypatch, interpreter):
    """Triton's language is replaced by the interpreter's once; it would be at each launch and each call of a function."""
    from triton import language

    replace, scopes = interpreter._patch_lang, {}

    def replaced(function):
        seen = tuple(any(value is one for value in function.__globals__.values()) for one in (language, language.core))
        if seen not in scopes:
            scopes[seen] = replace(function)
        return interpreter._LangPatchScope()  # which has nothing to put back

    monkeypatch.setattr(interpreter, "_patch_lang", replaced)
    try:
        yield
    finally:
        for scope in reversed(scopes.values()):
            scope.restore()


def keep_dtypes(monkeypatch, interpreter):
    """NumPy's dtype of each of Triton's is looked up in a table that is made once."""
    cached = cache(interpreter._get_np_dtype)

    def dtype_of(given):
        element = given.scalar
        return np.dtype(np.uint64) if element.is_ptr() else cached(element)

    monkeypatch.setattr(interpreter, "_get_np_dtype", dtype_of)


def round_to_bfloat16(monkeypatch, interpreter):
    """The interpreter would cut off what a GPU rounds."""
    from triton import language

    convert = interpreter._convert_float

    def rounding(values, given, wanted, mode):
        if (given, wanted) == (language.float32, language.bfloat16):
            return torch.from_numpy(values).bfloat16().view(torch.int16).numpy()
        return convert(values, given, wanted, mode)

    monkeypatch.setattr(interpreter, "_convert_float", rounding)


def refuse_strangers(monkeypatch, memory):
    """No launch reads or writes anything but its own arguments: on a GPU that could end the process."""
    load, store, start, interpret = memory.load, memory.store, Call.start, launch.interpret
    bounds = np.zeros((0, 2), np.uint64)

    def started(call, *arguments):
        note(call.pointers)
        start(call, *arguments)

    def interpreted(form, programs, arguments):
        note(arguments)
        interpret(form, programs, arguments)

    def note(arguments):
        nonlocal bounds
        given = [value for value in arguments if isinstance(value, torch.Tensor)]
        bounds = np.array(sorted((value.data_ptr(), value.data_ptr() + extent(value)) for value in given), np.uint64)
        bounds[:, 1] = np.maximum.accumulate(bounds[:, 1])

    def check(places, mask, size):
        places, mask = np.broadcast_arrays(places, mask)
        wanted = places[mask.astype(bool)].astype(np.uint64)
        first = np.searchsorted(bounds[:, 0], wanted, side="right")
        assert (first > 0).all(), "before all arguments"
        assert (wanted + np.uint64(size) <= bounds[first - 1, 1]).all(), "behind an argument"

    def loading(places, mask, other, dtype):
        check(places, mask, np.dtype(dtype).itemsize)
        return load(places, mask, other, dtype)

    def storing(places, values, mask):
        check(places, mask, values.dtype.itemsize)
        return store(places, values, mask)

    monkeypatch.setattr(Call, "start", started)
    monkeypatch.setattr(launch, "interpret", interpreted)
    monkeypatch.setattr(memory, "load", loading)
    monkeypatch.setattr(memory, "store", storing)


def extent(value):
    """The bytes from the first element to the last."""
    if not value.numel():
        return 0
    return (
        1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    ) * value.itemsize
