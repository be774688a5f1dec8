"""What is timed of batch sizes: runs that are chosen and fixed, each to its end."""

from __future__ import annotations

import pytest

from benchmarks.goodput import SIZES, main


@pytest.mark.slow
def test_all_sizes_are_run(capsys):
    main(["--train-size", "600", "--hidden", "4", "--max-depth", "1", "--accuracy", "0.02", "--limit", "2"])
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[2:]] == ["chosen", *map(str, SIZES)]
