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
def interpreter():
    """Kernels run on the CPU."""
    if not triton.interprets():
        pytest.skip("TRITON_INTERPRET is 0: kernels run on a GPU (make test-gpu)")
