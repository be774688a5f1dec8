"""What is timed of batch sizes: runs that are chosen and fixed, each to its end."""

from __future__ import annotations

import pytest

from benchmarks.goodput import main


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_runs_of_chosen_and_fixed_sizes(capsys, optimizer):
    task = ["--train-size", "600", "--hidden", "4", "--max-depth", "1", "--accuracy", "0.02", "--limit", "2"]
    main([*task, "--optimizer", optimizer, "--sizes", "16", "128"])
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[2:]] == ["chosen", "16", "128"]
