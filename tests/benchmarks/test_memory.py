"""What must be kept, and what the memory of a process rises by."""

from __future__ import annotations

import pytest

from benchmarks.harness import OURS
from benchmarks.memory import MIB, OneModel, kept_bytes, measure
from benchmarks.workloads import treefc


def test_what_must_be_kept_is_states_weight_gradients_and_index_arrays():
    case = treefc.complete_trees(OneModel(hidden=8, batch=2), leaves=4)
    states, weights, indices = 2 * 3 * 8, 16 * 8 + 8, 2 * (14 + 12)
    assert kept_bytes(case) == 4 * (states + weights + indices)


def test_cases_of_one_model_share_it():
    settings = OneModel(hidden=8, batch=1)
    first, second = (treefc.complete_trees(settings, leaves=leaves) for leaves in (2, 4))
    assert first.model is second.model


@pytest.mark.parametrize("contestant", [OURS, "by hand, reshaped"])
def test_a_step_is_weighed_by_what_the_process_holds(contestant):
    """64 KiB a vertex and array, so that what it takes is told from what a process takes anyway."""
    figures = measure("treefc", OneModel(hidden=64, batch=32), contestant, 2)
    assert len(figures["steps"]) == 2
    for step in figures["steps"]:
        assert step["peak"] >= step["forward"] >= MIB  # h of 8,160 vertices in 64 columns takes two
        assert step["peak"] >= step["retained"]
