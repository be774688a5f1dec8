"""Random vertex functions as generated Triton kernels, against the reference in float64."""

from __future__ import annotations

import pytest
from hypothesis import given

from ...agreement import check
from ...budget import tries
from ...ragged import ragged_cases
from ...strategies import OPERATIONS, cases

HAS = sorted(OPERATIONS)
FEW_EXAMPLES = tries(5)  # the interpreter is slow

pytestmark = pytest.mark.usefixtures("interpreter")


def check_kernels(case):
    """The case agrees, and its cores are kernels."""
    case.model.backend = "triton"
    check(case)
    assert "core: calls of PyTorch" not in case.model.explain(), case.model.explain()


@FEW_EXAMPLES
@given(cases(HAS))
def test_of_few_elements(case):
    check_kernels(case)


@FEW_EXAMPLES
@given(cases(HAS, size=36))
def test_of_more_elements_than_tiles_are_multiples_of(case):
    check_kernels(case)


@FEW_EXAMPLES
@given(ragged_cases(HAS))
def test_of_any_number_of_children(case):
    check_kernels(case)


@FEW_EXAMPLES
@given(ragged_cases(HAS, size=36))
def test_of_any_number_of_children_and_more_elements(case):
    check_kernels(case)
