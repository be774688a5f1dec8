"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def data() -> Path:
    """The folder of real data; tests that use it are marked `needs_data`."""
    return Path(os.environ["VERTEXFLOW_DATA"])
