"""Contestants of every workload compute the same, and so are right: they have little in common."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import vertexflow as vf
from benchmarks.harness import OURS, Settings, agree, measure
from benchmarks.levels import children_of, generations, levels
from benchmarks.workloads import WORKLOADS, treefc, treelstm

DATA = os.environ.get("VERTEXFLOW_DATA")
TINY = Settings(hidden=6, batch=3, dtype=torch.float64, data=Path(DATA) if DATA else None)


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.slow
def test_contestants_agree(name):
    if WORKLOADS[name].needs_data and DATA is None:
        pytest.skip("set VERTEXFLOW_DATA to a folder of real data (docs/environment.md)")
    case = treefc.complete_trees(TINY, leaves=16) if name == "treefc" else WORKLOADS[name].make(TINY)
    assert case.contestants[0].name == OURS
    assert len(case.contestants) >= 2
    assert max(agree(case).values()) < 1e-12


@pytest.mark.slow
def test_a_compiled_peer_agrees(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # traced only: it is faster
    case = treelstm.random_trees(replace(TINY, compile=True))
    assert "by hand, torch.compile" in agree(case)


@pytest.mark.parametrize("name", ["treelstm", "childsum", "varlstm", "circuits"])
def test_floor_has_the_products_of_the_model(name):
    """Every weight matrix of the model is in the floor, with all of its elements: for some rows at least."""
    case = WORKLOADS[name].make(TINY)
    matrices = [parameter for parameter in case.model.parameters() if parameter.dim() == 2]
    elements = sum(product.inputs * product.outputs for product in case.products)
    assert elements == sum(matrix.numel() for matrix in matrices)
    assert all(0 <= product.sends <= product.rows for product in case.products)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["treelstm", "varlstm"])
def test_forward_alone(name, monkeypatch):
    monkeypatch.setenv("VERTEXFLOW_BACKEND", "torch")  # nothing to compile
    case = WORKLOADS[name].make(TINY)
    before = [parameter.clone() for parameter in case.model.parameters()]
    measured = measure(case, rounds=1, forward=True)
    assert measured["kept_bytes"] == 0
    torch.testing.assert_close(list(case.model.parameters()), before, rtol=0, atol=0)


def test_levels():
    """A DAG by hand: vertex 4 reads 0 and 3, 3 reads 2 and 1, 2 reads 0."""
    batch = vf.pack([vf.graph(5, [(0, 4), (3, 4), (2, 3), (1, 3), (0, 2)])])
    by_depth = levels(batch)
    assert by_depth.order.tolist() == [0, 1, 2, 3, 4]
    assert by_depth.bounds == [(0, 2), (2, 3), (3, 4), (4, 5)]
    assert by_depth.edges == [(0, 0), (0, 1), (1, 3), (3, 5)]
    assert by_depth.child.tolist() == [0, 2, 1, 0, 3]
    assert by_depth.parent.tolist() == [2, 3, 3, 4, 4]
    assert by_depth.roots.tolist() == [4]
    assert children_of(batch) == [[], [], [0], [2, 1], [0, 3]]


def test_generations():
    """Trees ((a, b), c) and (d, e): two roots, then three leaves and one inner vertex, then two leaves."""
    batch = vf.pack([vf.tree(((0, 1), 2)), vf.tree((0, 1))])
    by_generation = generations(batch)
    assert by_generation.num_leaves == 5
    assert [(level.leaves, level.inner) for level in by_generation.young_first] == [(2, 0), (3, 1), (0, 2)]
    assert [level.parent.tolist() for level in by_generation.young_first] == [[0, 0], [0, 0, 1, 1], []]
    assert by_generation.young_first[1].place.tolist() == [
        0,
        1,
        2,
        3,
    ]  # the first child of the first root is the inner one
    children = children_of(batch)
    assert by_generation.order[:2].tolist() == children[children[batch.roots[0]][0]]
