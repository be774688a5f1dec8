"""What the benchmark of half precision compares is the same computation, in native code."""

from __future__ import annotations

import re

import pytest

from benchmarks.half import main


@pytest.mark.slow
def test_the_command_shows_each_way(capsys):
    main(["--hidden", "16", "--graphs", "2", "--repeat", "1"])
    shown = capsys.readouterr().out
    assert re.findall(r"^  (\w+) .*times as fast", shown, re.MULTILINE) == ["float32", "bfloat16", "autocast"]
    off = [float(number) for number in re.findall(r"off by (\S+)$", shown, re.MULTILINE)]
    assert off[0] < 1e-6 < off[1] < 0.02
    assert off[2] < 0.02
