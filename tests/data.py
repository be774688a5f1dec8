"""Real data for tests, from the folder that the environment variable VERTEXFLOW_DATA names."""

from __future__ import annotations

import os

import pytest

needs_data = pytest.mark.skipif(
    not os.environ.get("VERTEXFLOW_DATA"), reason="set VERTEXFLOW_DATA to a folder of real data (docs/environment.md)"
)
