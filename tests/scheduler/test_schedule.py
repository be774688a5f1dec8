"""A schedule: every vertex has a row, every step is a slice of rows, and the index arrays say who reads what."""

from __future__ import annotations

import itertools
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scheduler import oracle
from tests.scheduler.random_graphs import batches, by_hand, children
from vertexflow.errors import BackendError, GraphError, InputTypeError
from vertexflow.graph.inputs.build import chain, graph, tree, tree_from_parents
from vertexflow.graph.inputs.pack import GraphBatch, pack
from vertexflow.graph.inputs.readers.read import from_ptb
from vertexflow.scheduler import FSM, Schedule, schedule
from vertexflow.scheduler.policies import POLICIES, Structure


class Steps:
    """A policy that answers what it was given."""

    def __init__(self, *step: int) -> None:
        self.step = np.array(step)

    def steps(self, structure: Structure) -> np.ndarray:
        return self.step


def step_of_row(scheduled: Schedule) -> list[int]:
    """For each row, the place of its step in the order of execution; each row must be in exactly one."""
    of_row = [-1] * len(scheduled.order)
    for number, (start, stop) in enumerate(scheduled.steps.tolist()):
        assert start < stop
        for row in range(start, stop):
            assert of_row[row] == -1
            of_row[row] = number
    assert -1 not in of_row
    return of_row


@given(batches())
def test_every_vertex_has_one_row(batch: GraphBatch) -> None:
    scheduled = schedule(batch)
    assert sorted(scheduled.order) == list(range(batch.num_vertices))
    assert (scheduled.row[scheduled.order] == np.arange(batch.num_vertices)).all()


@given(batches())
def test_rows_are_grouped_by_kind_and_a_group_begins_with_the_vertices_without_children(batch: GraphBatch) -> None:
    scheduled = schedule(batch)
    below = children(batch)
    kind = [None] * batch.num_vertices if batch.kind is None else batch.kind.tolist()
    assert len(scheduled.groups) == len(batch.kinds or (None,))
    assert scheduled.groups[0].start == 0
    assert scheduled.groups[-1].stop == batch.num_vertices
    for group, name in zip(scheduled.groups, batch.kinds or (None,), strict=True):
        assert set(scheduled.order[group.start : group.stop]) == {
            v for v, kind_of_vertex in enumerate(kind) if kind_of_vertex == name
        }
        assert all(not below[v] for v in scheduled.order[group.start : group.inner])
        assert all(below[v] for v in scheduled.order[group.inner : group.stop])


@given(batches())
def test_every_child_is_in_an_earlier_step(batch: GraphBatch) -> None:
    scheduled = schedule(batch)
    of_row = step_of_row(scheduled)
    for parent, below in enumerate(children(batch)):
        for _, child in below:
            assert of_row[scheduled.row[child]] < of_row[scheduled.row[parent]]


@given(batches())
def test_a_step_is_of_one_kind_and_either_of_leaves_or_of_inner_vertices(batch: GraphBatch) -> None:
    scheduled = schedule(batch)
    for (start, stop), number in zip(scheduled.steps.tolist(), scheduled.step_kinds, strict=True):
        group = scheduled.groups[number]
        assert group.start <= start <= stop <= group.inner or group.inner <= start <= stop <= group.stop
        if batch.kind is not None:
            assert set(batch.kind[scheduled.order[start:stop]]) == {batch.kinds[number]}


@pytest.mark.parametrize("policy", [*POLICIES, "fsm"])
@given(batch=batches(), data=st.data())
@pytest.mark.cases(1)
def test_every_array_agrees_with_the_oracle(policy: str, batch: GraphBatch, data: st.DataObject) -> None:
    slots = [group.slots + data.draw(st.integers(0, 2)) for group in schedule(batch).groups]
    scheduled = schedule(batch, policy, slots)
    step = FSM.learn([batch]).steps(batch) if policy == "fsm" else POLICIES[policy].steps(batch)
    expected = oracle.place(batch, step.tolist(), slots)
    for name in ("order", "row", "steps", "step_kinds", "reads_from", "read_at", "child_rows"):
        assert getattr(scheduled, name).tolist() == expected[name], name
    assert list(scheduled.groups) == expected["groups"]
    edges = expected["edges"]
    if scheduled.is_tree:
        nowhere = scheduled.num_positions
        assert scheduled.parent_edge_of_row.tolist() == [one[0] if one else nowhere for one in edges]
        assert scheduled.parent_edge is scheduled.parent_offset is None
    else:
        assert scheduled.parent_edge_of_row is None
        assert [scheduled.parent_edge[a:b].tolist() for a, b in itertools.pairwise(scheduled.parent_offset)] == edges


@given(batches())
def test_there_are_no_more_steps_than_depths_and_kinds(batch: GraphBatch) -> None:
    kinds = batch.kind.tolist() if batch.kind is not None else [None] * batch.num_vertices
    assert schedule(batch).num_steps == len(set(zip(oracle.depth(batch), kinds, strict=True)))


@given(batches(), st.integers(0, 3))
def test_child_rows_are_the_rows_of_the_children_slot_by_slot(batch: GraphBatch, spare: int) -> None:
    slots = batch.num_slots + spare
    scheduled = schedule(batch, num_slots=slots)
    below = children(batch)
    assert scheduled.num_slots == (slots,) * len(scheduled.groups)
    for group in scheduled.groups:
        for at, vertex in enumerate(scheduled.order[group.inner : group.stop]):
            rows = [batch.num_vertices] * slots
            for slot, child in below[vertex]:
                rows[slot] = int(scheduled.row[child])
            first = group.position + at * slots
            assert scheduled.child_rows[first : first + slots].tolist() == rows


@given(batches())
def test_a_kind_has_as_many_slots_as_it_uses(batch: GraphBatch) -> None:
    kind = [0] * batch.num_vertices if batch.kind_index is None else batch.kind_index.tolist()
    used = [0] * len(batch.kinds or (None,))
    for vertex, below in enumerate(children(batch)):
        used[kind[vertex]] = max([used[kind[vertex]], *(slot + 1 for slot, _ in below)])
    assert schedule(batch).num_slots == tuple(used)


@given(batches())
def test_parent_edges_are_where_a_row_is_read_in_ascending_order(batch: GraphBatch) -> None:
    scheduled = schedule(batch)
    if scheduled.is_tree:
        return
    flat = scheduled.child_rows.tolist()
    for row in range(batch.num_vertices):
        edges = scheduled.parent_edge[scheduled.parent_offset[row] : scheduled.parent_offset[row + 1]]
        assert edges.tolist() == [position for position, read in enumerate(flat) if read == row]
    assert scheduled.parent_offset[0] == 0
    assert scheduled.parent_offset[-1] == len(scheduled.parent_edge) == batch.num_edges


@given(batches())
def test_in_a_forest_each_row_knows_the_one_place_it_is_read(batch: GraphBatch) -> None:
    scheduled = schedule(batch)
    consumers = np.bincount(batch.child, minlength=batch.num_vertices)
    assert scheduled.is_tree == bool((consumers <= 1).all())
    if not scheduled.is_tree:
        assert scheduled.parent_edge_of_row is None
        return
    flat = scheduled.child_rows.tolist()
    nowhere = len(flat)
    assert scheduled.parent_edge_of_row is not None
    assert scheduled.parent_edge_of_row.tolist() == [
        flat.index(row) if row in flat else nowhere for row in range(batch.num_vertices)
    ]


@given(batches())
def test_the_reversed_batch_has_a_schedule_too(batch: GraphBatch) -> None:
    scheduled = schedule(batch.reversed())
    of_row = step_of_row(scheduled)
    for parent, below in enumerate(children(batch)):
        for _, child in below:
            assert of_row[scheduled.row[parent]] < of_row[scheduled.row[child]]


def test_all_arrays_are_int32() -> None:
    for batch in (pack([chain(1)]), pack([tree((0, 1))]), pack([graph(3, [(0, 1), (0, 2)], kind=["a", "b", "b"])])):
        scheduled = schedule(batch)
        assert scheduled.arrays.dtype == scheduled.table.dtype == np.int32


def test_an_example_by_hand() -> None:
    scheduled = schedule(pack([tree(((0, 1), 2)), chain(2)]))
    # Vertices 0 to 4 are the tree's, 5 and 6 the chain's, which has fewer steps and stands before the tree in each. The
    # root 4 reads 3 and the leaf 2, the last of the leaves; then 3 reads 0 and 1.
    assert scheduled.order.tolist() == [5, 0, 1, 2, 6, 3, 4]
    assert scheduled.steps.tolist() == [[0, 4], [4, 6], [6, 7]]
    assert scheduled.num_leaves == 4
    assert scheduled.child_rows.tolist() == [0, 7, 1, 2, 5, 3]
    assert scheduled.is_tree
    assert scheduled.parent_edge_of_row is not None
    assert scheduled.parent_edge_of_row.tolist() == [0, 2, 3, 5, 6, 4, 6]
    assert (
        str(scheduled) == "policy depth: 7 vertices (4 without children) in 3 steps of 4, 2, 1; 0 read a slice of rows"
    )


def test_chains_read_slices_in_every_step() -> None:
    scheduled = schedule(pack([chain(3), chain(5), chain(2)]))
    assert scheduled.steps.tolist() == [[0, 3], [3, 6], [6, 8], [8, 9], [9, 10]]
    assert scheduled.reads_from.tolist() == [-1, 0, 4, 7, 8]  # the first chain to end stands first in its last step


def test_complete_trees_read_slices_in_every_step_and_are_read_so() -> None:
    scheduled = schedule(pack([tree((((0, 1), (2, 3)), ((4, 5), (6, 7))))] * 3))
    assert scheduled.reads_from.tolist() == [-1, 0, 24, 36]
    assert scheduled.read_at.tolist() == [0, 24, 36, -1]


def test_vertices_without_edges_are_one_step_of_leaves() -> None:
    scheduled = schedule(pack([chain(1), chain(1)]))
    assert scheduled.steps.tolist() == [[0, 2]]
    assert scheduled.num_leaves == 2
    assert scheduled.child_rows.size == 0
    assert scheduled.is_tree


def test_a_child_read_twice_by_one_parent_is_no_tree() -> None:
    scheduled = schedule(pack([graph(2, [(0, 1), (0, 1)])]))
    assert not scheduled.is_tree
    assert scheduled.parent_edge.tolist() == [0, 1]


@pytest.mark.parametrize("scale", [1, 10, 2**40])
def test_an_object_with_a_method_steps_is_a_policy_and_its_steps_may_be_any_rising_numbers(scale: int) -> None:
    scheduled = schedule(pack([tree(((0, 1), 2))]), policy=Steps(*(scale * v for v in range(5))))
    assert scheduled.policy == "Steps"
    assert scheduled.steps.tolist() == [[row, row + 1] for row in range(5)]


def test_steps_are_in_the_order_of_execution_and_rows_are_not_where_leaves_come_late() -> None:
    # Vertex 1 is computed from 0; the leaf 2 only after that.
    scheduled = schedule(pack([tree_from_parents([1, -1, -1])]), policy=Steps(0, 1, 2))
    assert scheduled.order.tolist() == [0, 2, 1]
    assert scheduled.steps.tolist() == [[0, 1], [2, 3], [1, 2]]


def test_leaves_and_inner_vertices_of_one_step_are_two_slices() -> None:
    scheduled = schedule(pack([tree_from_parents([1, -1, -1])]), policy=Steps(0, 1, 1))
    assert scheduled.steps.tolist() == [[0, 1], [1, 2], [2, 3]]


def test_many_kinds_in_many_steps() -> None:
    """More buckets than vertices: a chain in which each vertex is of its own kind."""
    batch = pack([graph(200, [(v, v + 1) for v in range(199)], kind=list(range(200)))])
    scheduled = schedule(batch)
    assert scheduled.order.tolist() == list(range(200))
    assert scheduled.num_steps == 200


def test_a_schedule_can_be_pickled() -> None:
    scheduled = schedule(pack([tree(((0, 1), 2))]))
    again = pickle.loads(pickle.dumps(scheduled))
    assert again.child_rows.tolist() == scheduled.child_rows.tolist()
    assert str(again) == str(scheduled)


def test_a_chain_of_100000_is_scheduled_within_a_second_or_so() -> None:
    batch = pack([chain(100_000)])
    start = time.perf_counter()
    scheduled = schedule(batch)
    assert time.perf_counter() - start < 2
    assert scheduled.num_steps == 100_000
    assert scheduled.child_rows.tolist() == list(range(99_999))


def test_batches_of_the_sentiment_treebank() -> None:
    data = os.environ.get("VERTEXFLOW_DATA")
    if not data:
        pytest.skip("VERTEXFLOW_DATA names no folder with sst/dev.txt")
    trees = from_ptb(Path(data) / "sst" / "dev.txt", num_labels=5)
    for start in range(0, len(trees), 64):
        batch = pack(trees[start : start + 64])
        scheduled = schedule(batch, num_slots=2)
        assert scheduled.is_tree
        assert scheduled.num_leaves == len(batch.leaves)
        assert (scheduled.child_rows < batch.num_vertices).all()  # binary throughout
        first_row_of_parent = np.repeat(scheduled.steps[1:, 0], np.diff(scheduled.steps[1:]).reshape(-1))
        assert (scheduled.child_rows.reshape(-1, 2) < first_row_of_parent[:, None]).all()


# What is wrong is said, where it is, and what to do.


def test_more_children_than_slots_gathered() -> None:
    batch = pack([chain(2), graph(4, [(0, 3), (1, 3), (2, 3)])])
    with pytest.raises(GraphError, match="more children than slots gathered: graph 1, vertex 3 has a child in slot 2"):
        schedule(batch, num_slots=2)
    with pytest.raises(GraphError, match="gathers slots 0 to 1; gather that slot too"):
        schedule(batch, num_slots=2)


def test_more_children_than_slots_gathered_of_a_kind() -> None:
    batch = pack([graph(3, [(0, 1), (0, 2), (1, 2)], kind=["a", "a", "b"])])
    assert schedule(batch, num_slots=(1, 2)).num_slots == (1, 2)
    message = "graph 0, vertex 2 has a child in slot 1, but the vertex function gathers slots 0 to 0"
    with pytest.raises(GraphError, match=message):
        schedule(batch, num_slots=(1, 1))
    assert schedule(batch, num_slots=(1, 1), ragged=(False, True)).num_slots == (1, 1)
    with pytest.raises(GraphError, match="has a child in slot 0, but the vertex function gathers no child"):
        schedule(batch, num_slots=(0, 1), ragged=(False, True))
    with pytest.raises(GraphError, match="num_slots has 1 entries for 2 kinds"):
        schedule(batch, num_slots=(1,))


def test_children_where_none_is_gathered() -> None:
    with pytest.raises(GraphError, match=r"graph 0, vertex 1 .* gathers no child"):
        schedule(pack([chain(2)]), num_slots=0)


def test_a_cycle() -> None:
    with pytest.raises(GraphError, match=r"a cycle: graph 0, vertex [12] depends on itself"):
        schedule(by_hand(3, [(1, 2), (2, 1)]))


def test_an_unknown_policy_lists_the_known() -> None:
    with pytest.raises(BackendError, match="no policy 'best'; choose one of 'depth'"):
        schedule(pack([chain(2)]), policy="best")


def test_a_policy_that_is_neither_a_name_nor_has_the_method() -> None:
    with pytest.raises(InputTypeError, match=r"a name or an object with a method steps\(structure\), not int"):
        schedule(pack([chain(2)]), policy=3)


def test_a_policy_that_puts_a_child_too_late() -> None:
    message = "policy 'Steps' puts graph 0, vertex 1 no later than its child, graph 0, vertex 0; children come first"
    with pytest.raises(GraphError, match=message):
        schedule(pack([chain(3)]), policy=Steps(2, 1, 0))


def test_a_policy_with_a_negative_step_is_not_blamed_on_the_graph() -> None:
    with pytest.raises(GraphError, match="policy 'Steps' puts graph 0, vertex 0 in step -1; steps count from 0"):
        schedule(pack([chain(3)]), policy=Steps(-1, 0, 1))


@pytest.mark.parametrize("answer", [np.zeros(2, np.int64), np.zeros(3), np.zeros((3, 1), np.int64)])
def test_a_policy_that_does_not_answer_for_each_vertex(answer: np.ndarray) -> None:
    policy = Steps()
    policy.step = answer
    with pytest.raises(GraphError, match="must return one integer for each of 3 vertices, not an array of shape"):
        schedule(pack([chain(3)]), policy=policy)
