"""What is timed of runs that grow: contestants give the same loss, which the command checks."""

from __future__ import annotations

import pytest

from benchmarks.growing import extension, main


def test_an_extension():
    assert 0 < extension(hidden=4, rows=2, rounds=1, extensions=3) < 10


@pytest.mark.slow
def test_contestants_agree(capsys):
    main(["--hidden", "8", "--rounds", "1"])
    printed = capsys.readouterr().out
    assert "parser hidden    8: growing" in printed
    assert "beam   hidden    8: growing" in printed
