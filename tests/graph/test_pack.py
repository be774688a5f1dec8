"""Packing graphs, and collating samples that hold more than a graph."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import vertexflow as vf

from ..strategies import structures


@given(st.lists(structures(), min_size=1, max_size=4))
def test_a_batch_is_its_graphs_side_by_side(parts):
    batch = vf.pack([part.graph() for part in parts])
    expected, base = [], 0
    for part in parts:
        expected += [(child + base, parent + base, slot) for child, parent, slot in part.edges]
        base += part.num_vertices
    parent = np.repeat(np.arange(batch.num_vertices), np.diff(batch.offset))
    assert sorted(zip(batch.child.tolist(), parent.tolist(), batch.slot.tolist(), strict=True)) == sorted(expected)
    assert (len(batch), batch.num_vertices, batch.num_edges) == (len(parts), base, len(expected))
    consumed = {child for child, _, _ in expected}
    parents = {parent for _, parent, _ in expected}
    assert batch.roots.tolist() == [v for v in range(base) if v not in consumed]
    assert batch.leaves.tolist() == [v for v in range(base) if v not in parents]
    sizes = [part.num_vertices for part in parts]
    assert batch.graph_of_vertex.tolist() == [g for g, size in enumerate(sizes) for _ in range(size)]
    assert batch.num_slots == max((slot + 1 for _, _, slot in expected), default=0)


@given(st.lists(structures(), min_size=1, max_size=3))
def test_reversed_turns_every_edge_round(parts):
    batch = vf.pack([part.graph() for part in parts])
    back = batch.reversed()

    def pairs(b):
        parent = np.repeat(np.arange(b.num_vertices), np.diff(b.offset))
        return sorted(zip(b.child.tolist(), parent.tolist(), strict=True))

    assert pairs(back) == sorted((parent, child) for child, parent in pairs(batch))
    for vertex in range(back.num_vertices):
        slots = back.slot[back.offset[vertex] : back.offset[vertex + 1]]
        assert slots.tolist() == list(range(len(slots)))
    assert back is batch.reversed()


def test_roots_select_one_row_a_graph():
    batch = vf.pack([vf.tree(((0, 1), 2)), vf.chain(5)])
    assert batch.roots.dtype == torch.int64
    assert batch.roots.tolist() == [4, 9]


def test_data_that_all_graphs_have_is_joined():
    first, second = vf.chain(2), vf.chain(1)
    first.data.update(label=np.array([1, 2]), only=np.array([0, 0]))
    second.data.update(label=np.array([3]))
    assert vf.pack([first, second]).data.keys() == {"label"}
    assert vf.pack([first, second]).data["label"].tolist() == [1, 2, 3]


def test_kinds_are_joined():
    batch = vf.pack([vf.graph(1, [], ["leaf"]), vf.graph(2, [(0, 1)], ["leaf", "node"])])
    assert batch.kind.tolist() == ["leaf", "leaf", "node"]


def test_a_batch_can_be_pickled_without_its_cache():
    batch = vf.pack([vf.chain(3)])
    batch.cache["schedule"] = lambda: None
    batch.reversed()
    copy = pickle.loads(pickle.dumps(batch))
    assert copy.cache == {}
    assert copy.roots.tolist() == [2]
    assert copy.reversed().roots.tolist() == [0]


def test_to_keeps_the_batch_where_it_is_already():
    batch = vf.pack([vf.chain(3)])
    assert batch.to("cpu") is batch
    moved = batch.to("meta")
    assert moved.roots.device.type == moved.graph_of_vertex.device.type == "meta"
    assert batch.roots.device.type == "cpu"


@pytest.mark.parametrize(
    ("graphs", "error", "message"),
    [
        ([], vf.GraphError, "empty list"),
        ([vf.chain(1), "tree"], vf.InputTypeError, "element 1 of the list is a str"),
        (vf.chain(1), vf.InputTypeError, r"vf\.pack\(\[graph\]\)"),
        ([vf.graph(1, [], ["a"]), vf.chain(1)], vf.GraphError, "graph 1 has no kinds"),
    ],
)
def test_pack_refuses(graphs, error, message):
    with pytest.raises(error, match=message):
        vf.pack(graphs)


def samples():
    return [
        {"tree": vf.chain(n), "x": torch.full((n, 2), float(n)), "y": n, "z": torch.tensor(n / 2), "name": f"chain {n}"}
        for n in (1, 3, 2)
    ]


def test_collate_packs_joins_and_stacks():
    batch = vf.collate(samples())
    assert batch["tree"].num_vertices == 6
    assert batch["x"][:, 0].tolist() == [1, 3, 3, 3, 2, 2]
    assert batch["y"].tolist() == [1, 3, 2]
    assert batch["z"].tolist() == [0.5, 1.5, 1.0]
    assert batch["name"] == ["chain 1", "chain 3", "chain 2"]


def test_collate_takes_tuples_and_plain_graphs():
    assert isinstance(vf.collate([vf.chain(1), vf.chain(2)]), vf.GraphBatch)
    graphs, rows = vf.collate([(vf.chain(1), np.array([5])), (vf.chain(2), np.array([6, 7]))])
    assert len(graphs) == 2
    assert rows.tolist() == [5, 6, 7]


def test_collate_serves_a_data_loader_with_workers():
    loader = DataLoader(samples(), batch_size=2, collate_fn=vf.collate, num_workers=1)
    assert [batch["tree"].num_vertices for batch in loader] == [4, 2]


@pytest.mark.parametrize(
    ("items", "error", "message"),
    [
        ([], vf.InputError, "no samples"),
        ([(vf.chain(1), 1), (vf.chain(1), "a")], vf.InputTypeError, r"sample\[1\]: str in sample 1, but int"),
        ([{"a": 1}, {"b": 1}], vf.InputError, r"sample 1 has the keys \['b'\]"),
        ([(1,), (1, 2)], vf.InputError, "sample 1 has 2 fields"),
        ([(torch.zeros(1, 2),), (torch.zeros(1, 3),)], vf.InputError, r"sample\[0\]: the shapes \(1, 2\), \(1, 3\)"),
    ],
)
def test_collate_names_the_field_that_it_refuses(items, error, message):
    with pytest.raises(error, match=message):
        vf.collate(items)
