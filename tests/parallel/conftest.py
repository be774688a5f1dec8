"""Fixtures for tests of plans."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def _without_compiler():
    """Where nothing runs, nothing is compiled: calls of PyTorch are planned like any program, in less time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERTEXFLOW_BACKEND", "torch")
        yield
