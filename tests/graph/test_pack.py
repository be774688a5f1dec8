"""Graphs packed side by side: one numbering, what can be asked of a batch, and the form a DataLoader wants."""

from __future__ import annotations

import pickle
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tests.scheduler.random_graphs import batches, children, graphs
from vertexflow.collate import collate
from vertexflow.errors import GraphError, InputError, InputTypeError
from vertexflow.graph.build import InputGraph, chain, graph, tree, tree_from_parents
from vertexflow.graph.pack import GraphBatch, pack

ARRAYS = ("child", "slot", "offset", "graph_offset")


def same(one: GraphBatch, other: GraphBatch) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ARRAYS)


class TestPack:
    @given(st.lists(graphs(), min_size=1, max_size=5))
    def test_vertices_are_numbered_on_from_graph_to_graph(self, items: list[InputGraph]) -> None:
        batch = pack(items)
        expected: list[list[tuple[int, int]]] = []
        for item in items:
            first = len(expected)
            expected += [[(slot, child + first) for slot, child in below] for below in children(item)]
        assert children(batch) == expected
        assert batch.num_graphs == len(batch) == len(items)
        assert batch.num_vertices == len(expected)
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


class TestReversed:
    @given(batches())
    def test_every_edge_is_turned_round(self, batch: GraphBatch) -> None:
        forward = [(child, parent) for parent, below in enumerate(children(batch)) for _, child in below]
        back = [(parent, child) for parent, below in enumerate(children(batch.reversed())) for _, child in below]
        assert sorted(back) == sorted(forward)
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
    def test_an_empty_list(self) -> None:
        with pytest.raises(GraphError, match="an empty list of graphs; a batch needs at least one"):
            pack([])

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


Sample = namedtuple("Sample", ["graph", "label"])


class TestCollate:
    def test_graphs_are_packed(self) -> None:
        assert same(collate([chain(2), chain(3)]), pack([chain(2), chain(3)]))

    def test_a_tuple_of_graph_rows_and_label(self) -> None:
        made = collate([(chain(2), torch.ones(2, 4), 1), (chain(3), torch.zeros(3, 4), 0)])
        assert isinstance(made, tuple)
        batch, x, label = made
        assert batch.num_vertices == len(x) == 5
        assert x.sum() == 8
        assert label.tolist() == [1, 0]
        assert label.dtype == torch.int64

    def test_dicts_lists_and_named_tuples_keep_their_form(self) -> None:
        made = collate([{"g": chain(2), "more": [1.5, Sample(chain(1), "a")]}] * 2)
        assert made.keys() == {"g", "more"}
        numbers, sample = made["more"]
        assert numbers.tolist() == [1.5, 1.5]
        assert isinstance(sample, Sample)
        assert len(sample.graph) == 2
        assert sample.label == ["a", "a"]

    @pytest.mark.parametrize(
        ("items", "expected"),
        [
            ([torch.tensor(1.0), torch.tensor(2.0)], torch.tensor([1.0, 2.0])),
            ([torch.tensor([1]), torch.tensor([2, 3])], torch.tensor([1, 2, 3])),
            ([np.array([1, 2]), np.array([3])], torch.tensor([1, 2, 3])),
            ([np.array([1, 2])[::-1], np.array([3])], torch.tensor([2, 1, 3])),
            ([np.array(1.0), np.array(2.0)], torch.tensor([1.0, 2.0], dtype=torch.float64)),
            ([np.array([True]), np.array([False])], torch.tensor([True, False])),
            ([1, 2], torch.tensor([1, 2])),
            ([1, 2.5], torch.tensor([1.0, 2.5])),
            ([True, False], torch.tensor([True, False])),
            ([np.int64(1), 2], torch.tensor([1, 2])),
            ([np.bool_(True), np.bool_(False)], torch.tensor([True, False])),
        ],
    )
    def test_numbers_become_tensors(self, items: list[Any], expected: torch.Tensor) -> None:
        made = collate(items)
        assert made.dtype == expected.dtype
        assert torch.equal(made, expected)

    def test_strings_and_other_things_are_listed(self) -> None:
        assert collate(["a", "b"]) == ["a", "b"]
        assert collate([None, None]) == [None, None]

    def test_arrays_of_words_stay_arrays(self) -> None:
        made = collate([np.array(["a"], dtype=object), np.array(["b", "c"], dtype=object)])
        assert made.dtype == object
        assert made.tolist() == ["a", "b", "c"]

    def test_rows_that_want_gradients_get_them(self) -> None:
        x = torch.ones(2, 1, requires_grad=True)
        _, joined = collate([(chain(2), x), (chain(2), x)])
        joined.sum().backward()
        assert x.grad.tolist() == [[2.0], [2.0]]

    @pytest.mark.parametrize("workers", [0, 1])
    def test_with_a_data_loader(self, workers: int) -> None:
        samples = [(chain(length), torch.full((length, 2), float(length)), length) for length in (1, 2, 3)]
        loader = DataLoader(samples, batch_size=2, collate_fn=collate, num_workers=workers)
        first, second = list(loader)
        assert first[0].graph_offset.tolist() == [0, 1, 3]
        assert first[0].roots.tolist() == [0, 2]
        assert first[1][:, 0].tolist() == [1.0, 2.0, 2.0]
        assert second[2].tolist() == [3]

    @pytest.mark.parametrize(
        ("samples", "error", "message"),
        [
            ([], InputError, "vf.collate got no samples"),
            ([(chain(1), 1), (chain(1), "b")], InputTypeError, r"sample\[1\]: str in sample 1, but int in the first"),
            ([(1,), [1]], InputTypeError, "sample: list in sample 1, but tuple in the first; all samples"),
            ([(1, 2), (1, 2), (1,)], InputError, "sample: sample 2 has 1 fields, the first 2"),
            ([{"x": 1}, {"y": 1}], InputError, r"sample: sample 1 has the keys \['y'\], the first \['x'\]"),
            (
                [{"x": [torch.ones(2, 3)]}, {"x": [torch.ones(2, 4)]}],
                InputError,
                r"sample\['x'\]\[0\]: the shapes \(2, 3\), \(2, 4\) cannot be joined",
            ),
            ([np.ones((2, 3)), np.ones(2)], InputError, r"sample: the shapes \(2, 3\), \(2,\) cannot be joined"),
            ([torch.tensor(1), torch.ones(2)], InputError, r"sample: the shapes \(\), \(2,\) cannot be joined"),
            ([torch.ones(1, n) for n in range(1, 7)], InputError, r"\(1, 4\), \.\.\. cannot be joined"),
            ([1, 1 << 70], InputError, "sample: the numbers cannot be joined"),
        ],
    )
    def test_samples_that_do_not_fit_together(self, samples: list[Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            collate(samples)
