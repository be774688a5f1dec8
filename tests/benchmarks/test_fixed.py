"""The measurement of the fixed cost of a training step."""

from __future__ import annotations

import re

import pytest

from benchmarks import fixed
from vertexflow.kernels import native


@pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")
@pytest.mark.slow
def test_a_line_for_each_model(capsys):
    assert fixed.main(["--repeat", "2"]) == 0
    tree, sequence = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"five vertices +vertexflow \d+, its forward pass \d+, by the executor \d+, packed anew \d+, an empty function \d+",
        tree,
    )
    assert re.fullmatch(r"a sequence of 64 +vertexflow \d+, by the executor \d+, nn.LSTM \d+", sequence)
