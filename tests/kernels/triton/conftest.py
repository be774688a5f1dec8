"""Triton's interpreter, for all tests in this folder but those that start processes of their own."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from vertexflow.kernels import triton


def pytest_collection_modifyitems(items):
    for item in items:
        if "triton" in item.path.parent.parts[-1:] and importlib.util.find_spec("triton") is None:
            item.add_marker(pytest.mark.skip(reason="Triton is not installed, of which there is none for this system"))


@pytest.fixture(autouse=True)
def _poisoned():
    """Memory that nobody has written to is NaN."""
    torch.use_deterministic_algorithms(True)  # which fills it
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def interpreter(monkeypatch):
    """Kernels run on the CPU, and round as a GPU does: the interpreter would cut bfloat16 off."""
    if not triton.interprets():
        pytest.skip("TRITON_INTERPRET is 0: kernels run on a GPU (make test-gpu)")
    from triton import language
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def rounding(values, given, wanted, mode):
        if (given, wanted) == (language.float32, language.bfloat16):
            return torch.from_numpy(values).bfloat16().view(torch.int16).numpy()
        return convert(values, given, wanted, mode)

    monkeypatch.setattr(interpreter, "_convert_float", rounding)
