"""Vertex functions over arcs agree with the reference: outputs and every gradient."""

from __future__ import annotations

from hypothesis import given

from .agreement import check
from .budget import tries
from .hyper import hyper_cases


@tries(8)
@given(hyper_cases())
def test_random_functions_over_random_hypergraphs(case):
    check(case, "eager", "torch", "native")
