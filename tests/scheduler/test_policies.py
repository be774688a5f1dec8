"""A policy gives each vertex a step, and every child an earlier one than its parents."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scheduler import oracle
from tests.scheduler.random_graphs import KINDS, batches, by_hand
from vertexflow.errors import GraphError
from vertexflow.graph.inputs.build import chain, graph, tree
from vertexflow.graph.inputs.pack import GraphBatch, pack
from vertexflow.scheduler import FSM, POLICIES, schedule
from vertexflow.scheduler.policies import Depth, Height


@given(batches())
def test_depth_is_the_longest_path_from_a_leaf(batch: GraphBatch) -> None:
    assert Depth().steps(batch).tolist() == oracle.depth(batch)


@given(batches())
def test_height_puts_every_vertex_as_late_as_it_can_be(batch: GraphBatch) -> None:
    assert Height().steps(batch).tolist() == oracle.height(batch)


@given(batches())
def test_agenda_runs_the_ready_kind_of_lowest_average_depth(batch: GraphBatch) -> None:
    assert POLICIES["agenda"].steps(batch).tolist() == oracle.greedy(batch, None)


@given(batches(), st.dictionaries(st.lists(st.sampled_from(KINDS), unique=True).map(tuple), st.sampled_from(KINDS)))
def test_a_machine_does_what_its_table_says(batch: GraphBatch, actions: dict[tuple[str, ...], str]) -> None:
    assert FSM(actions).steps(batch).tolist() == oracle.greedy(batch, actions)


@pytest.mark.parametrize("name", [*POLICIES, "fsm"])
@given(batch=batches())
@pytest.mark.cases(1)
def test_every_policy_puts_children_first(name: str, batch: GraphBatch) -> None:
    step = (FSM.learn([batch], episodes=20) if name == "fsm" else POLICIES[name]).steps(batch)
    assert step.shape == (batch.num_vertices,)
    assert (step >= 0).all()
    parent = np.repeat(np.arange(batch.num_vertices), np.diff(batch.offset))
    assert (step[batch.child] < step[parent]).all()


def test_depth_of_a_tree() -> None:
    assert Depth().steps(pack([tree(((0, 1), 2))])).tolist() == [0, 0, 0, 1, 2]


def test_height_of_a_tree() -> None:
    assert Height().steps(pack([tree(((0, 1), 2))])).tolist() == [0, 0, 1, 1, 2]


def test_depth_of_a_diamond_takes_the_longer_way() -> None:
    assert Depth().steps(pack([graph(4, [(0, 1), (1, 2), (0, 3), (2, 3)])])).tolist() == [0, 1, 2, 3]


def test_a_child_in_two_slots_of_one_vertex() -> None:
    assert Depth().steps(pack([graph(2, [(0, 1), (0, 1)])])).tolist() == [0, 1]


@pytest.mark.parametrize("policy", [Depth(), Height()])
def test_a_single_vertex(policy: Depth | Height) -> None:
    assert policy.steps(pack([chain(1)])).tolist() == [0]


@pytest.mark.parametrize("policy", [Depth(), Height()])
def test_a_chain_of_a_million_and_its_reverse_take_no_time(policy: Depth | Height) -> None:
    batch = pack([chain(1_000_000)])
    start = time.perf_counter()
    assert (policy.steps(batch) == np.arange(1_000_000)).all()
    assert (policy.steps(batch.reversed()) == np.arange(1_000_000)[::-1]).all()
    assert time.perf_counter() - start < 2


def test_a_dag_10000_deep() -> None:
    skips = [(v - back, v) for v in range(2, 10_000) for back in (1, 2)]
    assert Depth().steps(pack([graph(10_000, [(0, 1), *skips])])).tolist() == list(range(10_000))


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(
    "edges",
    [
        [(0, 0)],
        [(0, 1), (1, 0)],
        [(0, 1), (1, 2), (2, 1)],  # in a DAG: 1 has two children, 0 stays ready
        [(3, 0), (0, 1), (1, 2), (2, 0)],  # a tail that leads into the cycle
        [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)],
        [(0, 1), (1, 0), (0, 2)],  # 2 waits for the cycle for ever
    ],
)
def test_a_cycle_is_refused_and_one_of_its_vertices_named(name: str, edges: list[tuple[int, int]]) -> None:
    with pytest.raises(GraphError, match=r"a cycle: graph 0, vertex [0-4] depends on itself") as caught:
        schedule(by_hand(5, edges), name)
    named = int(str(caught.value).split("vertex ")[1].split()[0])
    reached, frontier = set(), {named}
    while frontier:  # the vertex named is among those that depend on it
        frontier = {parent for child, parent in edges if child in frontier} - reached
        reached |= frontier
    assert named in reached
