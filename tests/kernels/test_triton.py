"""Generated Triton kernels, in Triton's interpreter: what they compute, and what happens where there are none."""

from __future__ import annotations

from hypothesis import given, settings

from ..agreement import check
from ..ragged import ragged_cases
from ..strategies import OPERATIONS, cases
from ..test_against_reference import SLOW_TO_TRACE

HAS = sorted(set(OPERATIONS) - {"cumsum", "roll"})


@settings(SLOW_TO_TRACE, max_examples=60)
@given(cases(HAS))
def test_random_functions(case):
    case.model.backend = "triton"
    check(case)
    if case.model.state["m"] != (3, 3):
        assert "core: calls of PyTorch" not in case.model.explain(), case.model.explain()


@settings(SLOW_TO_TRACE, max_examples=60)
@given(ragged_cases(HAS))
def test_random_functions_of_any_number_of_children(case):
    case.model.backend = "triton"
    check(case)
    if case.model.state["m"] != (3, 3):
        assert "core: calls of PyTorch" not in case.model.explain(), case.model.explain()
