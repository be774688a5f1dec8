"""Graphs packed side by side: one numbering, and what can be asked of a batch."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.scheduler import oracle
from tests.scheduler.random_graphs import batches, children, graphs
from vertexflow.errors import GraphError, InputTypeError
from vertexflow.graph.inputs.build import InputGraph, chain, graph, tree, tree_from_parents
from vertexflow.graph.inputs.pack import GraphBatch, pack
from vertexflow.scheduler import schedule

ARRAYS = ("child", "slot", "offset", "graph_offset")


def same(one: GraphBatch, other: GraphBatch) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ARRAYS)


class TestPack:
    @given(st.lists(graphs(), min_size=1, max_size=5))
    def test_vertices_are_numbered_on_from_graph_to_graph(self, items: list[InputGraph]) -> None:
        batch = pack(items)
        expected = oracle.pack(items)
        assert {name: getattr(batch, name).tolist() for name in ARRAYS} == expected
        assert batch.num_graphs == len(batch) == len(items)
        assert batch.num_vertices == expected["graph_offset"][-1]
        assert batch.num_edges == sum(item.num_edges for item in items)
        assert np.diff(batch.graph_offset).tolist() == [item.num_vertices for item in items]
        assert {getattr(batch, name).dtype for name in ARRAYS} == {np.dtype(np.int32)}

    def test_an_example_by_hand(self) -> None:
        batch = pack([tree(((0, 1), 2)), chain(2)])
        assert batch.child.tolist() == [0, 1, 3, 2, 5]
        assert batch.slot.tolist() == [0, 1, 0, 1, 0]
        assert batch.offset.tolist() == [0, 0, 0, 0, 2, 4, 4, 5]
        assert batch.graph_offset.tolist() == [0, 5, 7]
        assert batch.roots.tolist() == [4, 6]
        assert batch.leaves.tolist() == [0, 1, 2, 5]
        assert batch.graph_of_vertex.tolist() == [0, 0, 0, 0, 0, 1, 1]
        assert batch.num_slots == 2
        assert batch.kind is None

    @given(batches())
    def test_roots_leaves_and_graphs_of_vertices(self, batch: GraphBatch) -> None:
        below = children(batch)
        consumed = {child for pairs in below for _, child in pairs}
        assert batch.roots.tolist() == [v for v in range(batch.num_vertices) if v not in consumed]
        assert batch.leaves.tolist() == [v for v in range(batch.num_vertices) if not below[v]]
        assert batch.num_slots == max((slot + 1 for pairs in below for slot, _ in pairs), default=0)
        for vertex, number in enumerate(batch.graph_of_vertex.tolist()):
            inside = vertex - batch.graph_offset[number]
            assert batch.locate(vertex) == f"graph {number}, vertex {inside}"
        assert {tensor.dtype for tensor in (batch.roots, batch.leaves, batch.graph_of_vertex)} == {torch.int64}

    def test_a_forest_gives_all_its_roots(self) -> None:
        assert pack([tree_from_parents([1, -1, -1]), chain(1)]).roots.tolist() == [1, 2, 3]

    def test_index_tensors_are_made_once(self) -> None:
        batch = pack([chain(3)])
        assert batch.roots is batch.roots
        assert batch.leaves is batch.leaves
        assert batch.graph_of_vertex is batch.graph_of_vertex

    def test_a_tuple_of_graphs(self) -> None:
        assert len(pack((chain(2), chain(3)))) == 2

    def test_kinds_are_joined(self) -> None:
        batch = pack([graph(1, [], kind=["leaf"]), graph(2, [(0, 1)], kind=["leaf", "internal"])])
        assert batch.kind is not None
        assert batch.kind.tolist() == ["leaf", "leaf", "internal"]

    def test_data_that_all_graphs_have_is_joined(self) -> None:
        one, other = chain(1), chain(2)
        one.data.update(label=np.array([7]), only_here=np.array([0]))
        other.data.update(label=np.array([8, 9]))
        batch = pack([one, other])
        assert batch.data.keys() == {"label"}
        assert batch.data["label"].tolist() == [7, 8, 9]

    def test_it_is_small_to_print(self) -> None:
        assert repr(pack([chain(2)])) == "GraphBatch(num_graphs=1, num_vertices=2, device=device(type='cpu'))"

    def test_pickling_keeps_the_structure_and_leaves_the_cache_behind(self) -> None:
        batch = pack([tree(((0, 1), 2)), chain(5)])
        batch.cache["schedule"] = lambda: "cannot be pickled"
        assert batch.roots.tolist() == [4, 9]
        again = pickle.loads(pickle.dumps(batch))
        assert same(again, batch)
        assert again.cache == {}
        assert again.roots.tolist() == [4, 9]
        assert batch.cache.keys() == {"schedule"}


class TestDevices:
    def test_index_tensors_live_on_the_device_of_the_batch(self) -> None:
        batch = pack([chain(3)]).to("meta")
        assert {batch.roots.device, batch.leaves.device, batch.graph_of_vertex.device} == {torch.device("meta")}
        assert batch.roots.shape == (1,)
        assert batch.child.tolist() == [0, 1]

    def test_the_same_device_is_the_same_batch(self) -> None:
        batch = pack([chain(3)])
        assert batch.to("cpu") is batch

    def test_moved_batches_share_what_was_derived_from_the_structure(self) -> None:
        batch = pack([chain(3)])
        assert batch.to("meta").cache is batch.cache

    @given(batches())
    def test_all_index_tensors_move_as_one(self, batch: GraphBatch) -> None:
        scheduled = schedule(batch)
        moved = batch.with_schedule(scheduled).to("meta")
        assert moved.indices is not None
        assert moved.indices.dtype == torch.int32
        own = len(batch.roots) + len(batch.leaves) + batch.num_vertices + batch.num_graphs
        assert len(moved.indices) == own + len(scheduled.arrays)
        assert moved.schedule_indices is not None
        assert moved.schedule_indices.shape == scheduled.arrays.shape
        assert moved.schedule_indices.untyped_storage()._cdata == moved.indices.untyped_storage()._cdata

    @given(batches())
    def test_pinned_batches_are_the_same_batches(self, batch: GraphBatch) -> None:
        """There is no page-locked memory without a GPU: calls of `pin_memory` are recorded, and return a copy instead."""
        pinned_sizes = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                torch.Tensor, "pin_memory", lambda tensor: pinned_sizes.append(tensor.numel()) or tensor.clone()
            )
            pinned = batch.with_schedule(schedule(batch)).pin_memory()
        assert pinned.indices is not None
        assert pinned_sizes == [len(pinned.indices)]
        for name in ("roots", "leaves", "graph_of_vertex"):
            assert torch.equal(getattr(pinned, name), getattr(batch, name))
            assert getattr(pinned, name).dtype == torch.int64
        assert pinned.schedule_indices is not None
        assert torch.equal(pinned.schedule_indices, torch.from_numpy(schedule(batch).arrays))


class TestReversed:
    @given(batches())
    def test_every_edge_is_turned_round(self, batch: GraphBatch) -> None:
        back = batch.reversed()
        expected = oracle.reverse(batch)
        assert {name: getattr(back, name).tolist() for name in expected} == expected
        assert back.num_slots == max(expected["slot"], default=-1) + 1
        assert batch.reversed().roots.tolist() == batch.leaves.tolist()
        assert batch.reversed().leaves.tolist() == batch.roots.tolist()

    @given(batches())
    def test_slots_count_the_consumers_in_their_order(self, batch: GraphBatch) -> None:
        for below in children(batch.reversed()):
            consumers = [consumer for _, consumer in below]
            assert [slot for slot, _ in below] == list(range(len(below)))
            assert consumers == sorted(consumers)

    def test_a_chain_runs_from_its_end(self) -> None:
        back = pack([chain(3), chain(2)]).reversed()
        assert children(back) == [[(0, 1)], [(0, 2)], [], [(0, 4)], []]

    def test_it_is_made_once_and_keeps_its_own_cache(self) -> None:
        batch = pack([graph(2, [(0, 1)], kind=["a", "b"])])
        batch.cache["schedule"] = "of the batch"
        assert batch.reversed() is batch.reversed()
        assert batch.reversed().cache == {}
        assert batch.reversed().kind_index is batch.kind_index


class TestRefused:
    def test_one_graph_without_a_list(self) -> None:
        with pytest.raises(InputTypeError, match=r"for one graph write vf\.pack\(\[graph\]\)"):
            pack(chain(2))

    def test_no_list_at_all(self) -> None:
        with pytest.raises(InputTypeError, match=r"vf\.pack takes a list of input graphs, not int"):
            pack(3)

    def test_an_element_that_is_no_graph(self) -> None:
        with pytest.raises(InputTypeError, match="element 1 of the list is a tuple, not an input graph; make one with"):
            pack([chain(2), ((0, 1), 2)])

    def test_kinds_in_some_graphs_only(self) -> None:
        with pytest.raises(GraphError, match="graph 1 has no kinds, but others have; give all graphs kinds, or none"):
            pack([graph(1, [], kind=["a"]), chain(2)])

    def test_kinds_of_two_types(self) -> None:
        with pytest.raises(GraphError, match="graph 1 has kinds of int, graph 0 of str; use one type"):
            pack([graph(1, [], kind=["leaf"]), graph(1, [], kind=[0])])

    def test_data_with_the_wrong_number_of_rows(self) -> None:
        one, other = chain(2), chain(3)
        one.data["label"] = np.zeros(2)
        other.data["label"] = np.zeros(2)
        with pytest.raises(GraphError, match="data 'label' of graph 1 has 2 rows for 3 vertices"):
            _ = pack([one, other]).data

    def test_data_whose_rows_differ_in_shape(self) -> None:
        one, other = chain(2), chain(3)
        one.data["x"] = np.zeros((2, 4))
        other.data["x"] = np.zeros((3, 5))
        with pytest.raises(GraphError, match=r"data 'x' cannot be joined: .*; give its rows one shape"):
            _ = pack([one, other]).data


@pytest.mark.parametrize("form", [lambda graph: graph, lambda graph: pack([graph])], ids=["a graph", "a batch"])
def test_graphs_and_batches_are_values_that_nobody_takes_apart(form):
    """Whoever converts tensors among inputs rebuilds dataclasses field by field, and a schedule that was made is lost."""
    value = form(graph(3, [(1, 2), (0, 2)], kind=["a", "a", "b"]))
    assert not dataclasses.is_dataclass(value)
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.kinds = None
    copies = [copy.copy(value), copy.deepcopy(value)]
    copies += [pickle.loads(pickle.dumps(value, protocol)) for protocol in range(2, 6)]
    for other in copies:
        assert type(other) is type(value)
        assert other.kind.tolist() == ["a", "a", "b"]
        assert other.edge_index.tolist() == [[1, 0], [2, 2]]
