"""A state that few vertices have, in memory and in the estimate of it."""

from __future__ import annotations

import pytest

from benchmarks.partial_states import MIB, measure, text
from vertexflow.kernels import native


def test_every_sentence_reads_its_last_word_and_the_sentence_before():
    graph = text(2, 3)
    assert list(graph.kind) == ["word"] * 3 + ["sentence"] + ["word"] * 3 + ["sentence"]


@pytest.mark.slow
@pytest.mark.skipif(native.compiler() is None, reason="needs a C++ compiler")
def test_what_is_left_out_takes_no_memory():
    left_out, zeros = (measure(100, 20, 1024, "native", 1, leaves_out) for leaves_out in (True, False))
    rows = 100 * 4 * 20 * 1024 * 4
    assert zeros["peak"] - left_out["peak"] > 0.8 * rows > 20 * MIB
