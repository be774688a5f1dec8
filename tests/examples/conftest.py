"""Fixtures for tests of the examples."""

from __future__ import annotations

import pytest


@pytest.fixture
def eager(monkeypatch):
    """Nothing is traced or compiled: for tests of commands and data, to which it is the same how vertices are computed."""
    monkeypatch.setenv("VERTEXFLOW_BACKEND", "eager")
