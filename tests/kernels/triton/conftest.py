"""For all tests of this folder: what is skipped, and memory that nobody has written to."""

from __future__ import annotations

import importlib.util

import pytest
import torch


def pytest_collection_modifyitems(items):
    for item in items:
        if "triton" in item.path.parent.parts[-2:] and importlib.util.find_spec("triton") is None:
            item.add_marker(pytest.mark.skip(reason="Triton is not installed, of which there is none for this system"))


@pytest.fixture(autouse=True)
def _poisoned():
    """Memory that nobody has written to is NaN."""
    torch.use_deterministic_algorithms(True)  # which fills it
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
