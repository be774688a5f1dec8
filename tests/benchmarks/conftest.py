"""Fixtures for tests of benchmarks."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _weightless(monkeypatch):
    """Memory is not weighed, which makes the process slower for good; its own test does so in another one."""
    monkeypatch.setattr("benchmarks.harness.peak", lambda run, make_room, device: 5 * 2**20)
