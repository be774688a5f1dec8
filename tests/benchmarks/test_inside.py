"""The contestants of the inside algorithm compute the same."""

from __future__ import annotations

import pytest
import torch

from benchmarks.inside import TOLERANCE, chart, difference, make, measure


@pytest.mark.parametrize("size", [0, 3])
@pytest.mark.cases(1)
def test_contestants_agree(size):
    task = make(size, 4, (1, 6), torch.float64)
    assert difference(task) < TOLERANCE[torch.float64]
    assert min(measure(task, 1)) > 0


def test_charts():
    graph = chart(4)
    assert (graph.num_vertices, graph.num_arcs, graph.arity) == (10, 10, 2)
    assert graph.arcs[:, -3:].tolist() == [[0, 4, 7], [8, 6, 3], [9, 9, 9]]
    assert chart(1).num_arcs == 0
