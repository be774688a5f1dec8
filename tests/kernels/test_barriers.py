"""Where the threads of a team wait for each other: where one reads what another has made, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import fx

from vertexflow.kernels.lower.loops import Columns, Matrix, Outer, Over, Product
from vertexflow.kernels.native.barriers import BARRIER, phases_of
from vertexflow.kernels.native.body import write_statements

GRAPH = fx.Graph()
X, Y, Z, WEIGHT, GRAD = (GRAPH.placeholder(name) for name in ("x", "y", "z", "weight", "grad"))
for node in GRAPH.nodes:
    node.meta["val"] = torch.empty(1)  # of float32
MATRIX = Matrix(WEIGHT, 0, 4, 4, transposed=False)


def product(out, a, first=0):
    return Product(Over.ROWS, 1, Columns(out, first), Columns(a, 0), MATRIX, None)


def barriers(statements, arriving=None):
    """Which lines of these statements have a barrier in front; the one at the end of a step is left out."""
    names = {node: node.name for node in GRAPH.nodes}
    *lines, last = write_statements(statements, names, {MATRIX: "w"}, arriving or {})
    assert last == BARRIER
    calls = [line for line in lines if line.startswith(("product", "outer"))]
    return [lines[lines.index(call) - 1] == BARRIER and lines.index(call) > 0 for call in calls], lines


def test_products_of_one_value_do_not_wait():
    assert barriers([product(Y, X), product(Y, X, 4), product(Z, X, 8)])[0] == [False, False, False]


def test_a_product_of_a_product_waits():
    assert barriers([product(Y, X), product(Z, Y)])[0] == [False, True]


def test_a_sum_over_rows_of_a_product_waits():
    outer = Outer(Over.ROWS, 1, Columns(GRAD, 0), Columns(X, 0), 4, Columns(Y, 0), 4)
    assert barriers([product(Y, X), outer])[0] == [False, True]


@pytest.mark.parametrize(("arrives", "waits"), [("rows", True), ("edges", True)])
def test_a_product_of_what_was_received_waits(arrives, waits):
    assert barriers([product(Y, X)], {X: arrives})[0] == [waits]


def test_a_product_of_what_was_gathered_waits_if_it_was():
    _, lines = barriers([product(Y, X)], {X: "gathered", Z: "gathered"})
    assert lines[:3] == ["if (reads_from < 0) {", BARRIER, "}"]
    assert len(lines) == 4


def test_phases_begin_where_all_threads_have_met():
    statements = [product(Y, X), product(Z, X), product(GRAD, Y)]
    assert phases_of(statements, {}) == {X: (0, 0), WEIGHT: (0, 1), Y: (0, 1), Z: (0, 0), GRAD: (1, 1)}
    assert phases_of([product(Y, X)], {X: "rows"})[Y] == (1, 1)


def test_a_barrier_that_may_be_left_out_begins_no_phase():
    assert phases_of([product(Y, X)], {X: "gathered"})[Y] == (0, 0)
