"""For all tests of this folder."""

from __future__ import annotations

import pytest

from vertexflow.kernels.triton.persistent.launch import VARIABLE


@pytest.fixture
def one_launch(interpreter, monkeypatch):
    """All steps of a core are one launch, where that is possible."""
    monkeypatch.setenv(VARIABLE, "1")
