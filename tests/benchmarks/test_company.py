"""The measurement beside a busy process runs, and leaves none behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.company import main


def children():
    file = Path(f"/proc/self/task/{os.getpid()}/children")
    return set(file.read_text().split()) if file.exists() else set()


@pytest.mark.slow
def test_it_says_how_much_longer_a_step_takes(capsys):
    before = children()
    assert main(["--hidden", "4", "--graphs", "1", "--rounds", "1", "--seconds", "0.01"]) == 0
    assert "times as long" in capsys.readouterr().out
    assert children() <= before
