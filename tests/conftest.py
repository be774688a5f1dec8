"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

pytest_plugins = ["tests.interpreter"]
settings.register_profile("patient", settings(), deadline=None)  # other processes run beside this one
settings.load_profile("patient")
os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported; `make test-gpu` says 0


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # threads that wait for each other are slow where other work is done


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    """Compiled code of tests is kept for as long as they run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERTEXFLOW_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv(
            "VERTEXFLOW_CXXFLAGS", "-O0"
        )  # most of the time of tests is compiling; some ask for what users get
        yield


@pytest.fixture
def data() -> Path:
    """The folder of real data; tests that use it are marked `needs_data`."""
    return Path(os.environ["VERTEXFLOW_DATA"])
