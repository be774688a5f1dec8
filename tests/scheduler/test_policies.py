"""A policy gives each vertex a step, and every child an earlier one than its parents."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given

from tests.scheduler.random_graphs import batches, by_hand, longest_path_down
from vertexflow.graph.build import chain, graph, tree
from vertexflow.graph.pack import GraphBatch, pack
from vertexflow.scheduler.policies import POLICIES, Policy, depth


def steps(batch: GraphBatch, policy: Policy = depth) -> list[int]:
    return policy(batch.num_vertices, batch.child, batch.offset, batch.kind).tolist()


@given(batches())
def test_depth_is_the_longest_path_from_a_leaf(batch: GraphBatch) -> None:
    assert steps(batch) == longest_path_down(batch)


@pytest.mark.parametrize("name", POLICIES)
@given(batch=batches())
def test_every_policy_puts_children_first(name: str, batch: GraphBatch) -> None:
    step = np.array(steps(batch, POLICIES[name]))
    assert step.shape == (batch.num_vertices,)
    assert (step >= 0).all()
    parent = np.repeat(np.arange(batch.num_vertices), np.diff(batch.offset))
    assert (step[batch.child] < step[parent]).all()


def test_depth_of_a_tree() -> None:
    assert steps(pack([tree(((0, 1), 2))])) == [0, 0, 0, 1, 2]


def test_depth_of_a_diamond_takes_the_longer_way() -> None:
    assert steps(pack([graph(4, [(0, 1), (1, 2), (0, 3), (2, 3)])])) == [0, 1, 2, 3]


def test_a_child_in_two_slots_of_one_vertex() -> None:
    assert steps(pack([graph(2, [(0, 1), (0, 1)])])) == [0, 1]


def test_a_single_vertex() -> None:
    assert steps(pack([chain(1)])) == [0]


@pytest.mark.parametrize("length", [2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 100])
def test_chains_of_lengths_about_the_powers_of_two(length: int) -> None:
    assert steps(pack([chain(length)])) == list(range(length))


def test_a_chain_of_100000_and_its_reverse_take_no_time() -> None:
    batch = pack([chain(100_000)])
    start = time.perf_counter()
    assert steps(batch) == list(range(100_000))
    assert steps(batch.reversed()) == list(range(100_000))[::-1]
    assert time.perf_counter() - start < 2


def test_a_dag_10000_deep() -> None:
    skips = [(v - back, v) for v in range(2, 10_000) for back in (1, 2)]
    assert steps(pack([graph(10_000, [(0, 1), *skips])])) == list(range(10_000))


@pytest.mark.parametrize(
    ("edges", "on_cycle"),
    [
        ([(0, 0)], {0}),
        ([(0, 1), (1, 0)], {0, 1}),
        ([(0, 1), (1, 2), (2, 1)], {1, 2}),  # in a DAG: 1 has two children, 0 stays ready
        ([(3, 0), (0, 1), (1, 2), (2, 0)], {0, 1, 2}),  # a tail that leads into the cycle
        ([(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)], {0, 1, 2, 3, 4}),
        ([(0, 1), (1, 0), (0, 2)], {0, 1, 2}),  # 2 waits for the cycle for ever
    ],
)
def test_what_a_cycle_keeps_from_being_ready_gets_minus_one(edges: list[tuple[int, int]], on_cycle: set[int]) -> None:
    step = steps(by_hand(5, edges))
    assert {v for v in range(5) if step[v] < 0} == on_cycle
