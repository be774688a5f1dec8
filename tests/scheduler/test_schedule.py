"""The schedule: every vertex once, children first, steps as slices of rows, and index arrays that agree with edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vertexflow as vf
from vertexflow.scheduler.policies import depth

from ..strategies import structures


def depth_oracle(batch):
    """The longest path from a leaf, vertex by vertex."""
    depths = {}
    while len(depths) < batch.num_vertices:
        for vertex in range(batch.num_vertices):
            children = batch.child[batch.offset[vertex] : batch.offset[vertex + 1]].tolist()
            if all(child in depths for child in children):
                depths[vertex] = 1 + max((depths[child] for child in children), default=-1)
    return [depths[vertex] for vertex in range(batch.num_vertices)]


@given(st.lists(structures(), min_size=1, max_size=4))
def test_rows_steps_and_edges(parts):
    batch = vf.pack([part.graph() for part in parts])
    made = vf.schedule(batch, num_slots=3)
    count, leaves = batch.num_vertices, made.num_leaves
    assert sorted(made.order.tolist()) == list(range(count))
    assert made.row[made.order].tolist() == list(range(count))
    # Leaves first; each step a slice; the slices cover all rows.
    assert sorted(made.order[:leaves].tolist()) == batch.leaves.tolist()
    covered = sorted(made.steps.tolist())
    assert [start for start, _ in covered] == [0, *(stop for _, stop in covered[:-1])]
    assert covered[-1][1] == count
    # Children in earlier steps, one depth a step.
    depths = depth_oracle(batch)
    step_of_row = np.empty(count, dtype=int)
    for number, (start, stop) in enumerate(made.steps.tolist()):
        step_of_row[start:stop] = number
        assert {depths[vertex] for vertex in made.order[start:stop]} == {number}
    # The index arrays say the same as the edges.
    expected = np.full((count - leaves, 3), count)
    readers = [[] for _ in range(count)]
    for vertex in range(count):
        for edge in range(batch.offset[vertex], batch.offset[vertex + 1]):
            row, slot, child = made.row[vertex], batch.slot[edge], made.row[batch.child[edge]]
            expected[row - leaves, slot] = child
            readers[child].append((row - leaves) * 3 + slot)
            assert step_of_row[child] < step_of_row[row]
    assert np.array_equal(made.child_rows, expected)
    for row in range(count):
        assert made.parent_edge[made.parent_offset[row] : made.parent_offset[row + 1]].tolist() == sorted(readers[row])
    assert made.is_tree == all(len(found) <= 1 for found in readers)
    if made.is_tree:
        nowhere = (count - leaves) * 3
        assert made.parent_edge_of_row.tolist() == [found[0] if found else nowhere for found in readers]
    else:
        assert made.parent_edge_of_row is None


def test_vertices_of_different_kinds_are_in_different_steps():
    batch = vf.pack([vf.graph(4, [(0, 2), (1, 3)], kind=["a", "b", "a", "a"])])
    made = vf.schedule(batch)
    assert [sorted(made.order[start:stop].tolist()) for start, stop in made.steps] == [[0], [1], [2, 3]]


def test_a_long_chain_and_a_wide_batch():
    assert vf.schedule(vf.pack([vf.chain(20_000)])).num_steps == 20_000
    assert vf.schedule(vf.pack([vf.chain(1)] * 20_000)).num_steps == 1


def height(num_vertices, child, offset, kind):
    """As late as possible: counted from the roots, by relaxation."""
    parent = np.repeat(np.arange(num_vertices), np.diff(offset))
    step = np.full(num_vertices, num_vertices)
    for _ in range(num_vertices):
        np.minimum.at(step, child, step[parent] - 1)
    return step - step.min()


@given(st.lists(structures(), min_size=1, max_size=3))
def test_a_policy_can_be_a_function(parts):
    batch = vf.pack([part.graph() for part in parts])
    made = vf.schedule(batch, policy=height)
    assert made.policy == "height"
    finished = set()
    for start, stop in made.steps.tolist():
        for vertex in made.order[start:stop]:
            assert set(batch.child[batch.offset[vertex] : batch.offset[vertex + 1]].tolist()) <= finished
        finished |= set(made.order[start:stop].tolist())


def test_wrong_policies_are_refused():
    batch = vf.pack([vf.chain(2), vf.chain(3)])
    with pytest.raises(vf.BackendError, match="no policy 'fastest'.*'depth'"):
        vf.schedule(batch, policy="fastest")
    with pytest.raises(vf.GraphError, match="shape"):
        vf.schedule(batch, policy=lambda *arrays: np.zeros(3, int))
    with pytest.raises(vf.GraphError, match="graph 0, vertex 1 in step 0, but its child, graph 0, vertex 0, in step 0"):
        vf.schedule(batch, policy=lambda *arrays: np.zeros(5, int))


def test_more_children_than_slots_gathered():
    batch = vf.pack([vf.chain(3), vf.tree((0, 1, 2))])
    with pytest.raises(vf.GraphError, match="graph 1, vertex 3 has a child in slot 2.*slots 0 to 1"):
        vf.schedule(batch, num_slots=2)
    with pytest.raises(vf.GraphError, match="graph 0, vertex 1 has a child in slot 0.*gathers no child"):
        vf.schedule(batch, num_slots=0)


def test_a_cycle_that_came_past_the_builders_is_named():
    graph = vf.chain(3)
    graph.child[:] = [2, 1]  # vertex 1 now depends on 2, and 2 on 1
    with pytest.raises(vf.GraphError, match="cycle: graph 1, vertex 1"):
        vf.schedule(vf.pack([vf.chain(2), graph]))


def test_depth_of_a_diamond():
    graph = vf.graph(5, [(0, 1), (0, 2), (1, 3), (2, 3), (0, 4), (3, 4)])
    assert depth(graph.num_vertices, graph.child, graph.offset).tolist() == [0, 1, 1, 2, 3]


def test_schedules_print():
    assert str(vf.schedule(vf.pack([vf.tree(((0, 1), 2))]))) == (
        "policy depth: 5 vertices (3 without children) in 3 steps of 3, 1, 1"
    )
