"""Edge lists: every edge once, by the rows of parents, and who is read by which of them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scheduler.random_graphs import batches, children
from vertexflow.graph.inputs.build import chain, graph
from vertexflow.graph.inputs.pack import GraphBatch, pack
from vertexflow.scheduler import POLICIES, edge_lists, schedule


@pytest.mark.parametrize("policy", POLICIES)
@given(batch=batches())
@pytest.mark.cases(1)
def test_entries_are_the_edges_of_each_row_in_the_order_of_slots(policy: str, batch: GraphBatch) -> None:
    scheduled = schedule(batch, policy)
    lists = edge_lists(batch, scheduled)
    below = children(batch)
    inner = [vertex for vertex in scheduled.order if below[vertex]]
    for vertex, (first, end) in zip(inner, itertools.pairwise(lists.offset), strict=True):
        assert lists.child_row[first:end].tolist() == [scheduled.row[child] for _, child in below[vertex]]
        ends = batch.edge_index[:, lists.edge[first:end]].tolist()  # of the edges as they were given
        assert ends == [[child for _, child in below[vertex]], [vertex] * len(below[vertex])]
    assert lists.offset[-1] == batch.num_edges
    assert sorted(lists.edge) == list(range(batch.num_edges))


@given(batches())
def test_each_row_knows_the_entries_that_read_it(batch: GraphBatch) -> None:
    lists = edge_lists(batch, schedule(batch))
    for row, (first, end) in enumerate(itertools.pairwise(lists.parent_offset)):
        entries = lists.parent_edge[first:end].tolist()
        assert entries == [entry for entry, read in enumerate(lists.child_row) if read == row]
    assert lists.parent_offset[-1] == batch.num_edges


@given(batches(), st.integers(0, 2))
def test_slots_and_edge_lists_can_be_mixed(batch: GraphBatch, slots: int) -> None:
    """`child_rows` has the slots that are gathered, and the edge lists have everything."""
    scheduled = schedule(batch, num_slots=slots, ragged=True)
    below = children(batch)
    expected = []
    for vertex in (vertex for vertex in scheduled.order if below[vertex]):
        filled = dict(below[vertex])
        expected += [
            int(scheduled.row[filled[slot]]) if slot in filled else batch.num_vertices for slot in range(slots)
        ]
    assert scheduled.child_rows.reshape(-1).tolist() == expected
    reads = [[at for at, read in enumerate(expected) if read == row] for row in range(batch.num_vertices)]
    if scheduled.is_tree:
        assert scheduled.parent_edge_of_row.tolist() == [one[0] if one else len(expected) for one in reads]
    else:
        assert [scheduled.parent_edge[a:b].tolist() for a, b in itertools.pairwise(scheduled.parent_offset)] == reads
    assert len(edge_lists(batch, scheduled).edge) == batch.num_edges


def test_ten_thousand_children_need_no_table() -> None:
    batch = pack([graph(10_001, [(child, 10_000) for child in range(10_000)])] * 3)
    scheduled = schedule(batch, num_slots=0, ragged=True)
    assert scheduled.child_rows.size == 0
    assert edge_lists(batch, scheduled).offset.tolist() == [0, 10_000, 20_000, 30_000]


def test_a_schedule_of_another_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="this schedule is not of this batch"):
        edge_lists(pack([chain(3)]), schedule(pack([chain(1), chain(2)])))
    with pytest.raises(ValueError, match="order has 4 elements, not 3"):
        edge_lists(pack([chain(3)]), schedule(pack([chain(4)])))
