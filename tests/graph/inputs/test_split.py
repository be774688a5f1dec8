"""Batches in parts of whole graphs."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vertexflow as vf
from tests.scheduler.random_graphs import graphs
from vertexflow.graph.inputs.build import InputGraph

FIELDS = ("num_graphs", "num_vertices", "child", "slot", "offset", "graph_offset", "num_slots", "kinds", "kind_index")


@given(st.booleans().flatmap(lambda kinds: st.lists(graphs(kinds), min_size=1, max_size=6)), st.integers(1, 30))
def test_parts_are_what_their_graphs_are_packed_alone(items: list[InputGraph], max_vertices: int) -> None:
    batch = vf.pack(items)
    parts = vf.split(batch, max_vertices)
    for part in parts:
        alone = vf.pack(items[part.graphs])
        for name in FIELDS:
            np.testing.assert_equal(getattr(part.batch, name), getattr(alone, name), name)
        assert torch.equal(part.batch.edge_index, alone.edge_index)
        assert torch.equal(part.batch.edge_index + part.vertices.start, batch.edge_index[:, part.edges])
        assert torch.equal(part.batch.roots, alone.roots)
        assert part.batch.num_vertices <= max_vertices or part.batch.num_graphs == 1


@given(st.lists(graphs(), min_size=2, max_size=6), st.integers(1, 30))
def test_every_graph_is_in_one_part_and_no_two_parts_would_fit_into_one(items: list[InputGraph], most: int) -> None:
    batch = vf.pack(items)
    parts = vf.split(batch, most)
    whole = {"graphs": batch.num_graphs, "vertices": batch.num_vertices, "edges": batch.num_edges}
    for name, count in whole.items():
        slices = [getattr(part, name) for part in parts]
        assert [number for one in slices for number in range(one.start, one.stop)] == list(range(count))
    for part, after in pairwise(parts):
        assert part.batch.num_vertices + items[after.graphs.start].num_vertices > most


@pytest.mark.parametrize("wanted", [None, "roots", "other vertices of each part"])
@pytest.mark.cases(1)
def test_parts_of_one_structure_are_scheduled_and_prepared_once(wanted: str | None) -> None:
    """Sequences of one length, with data of their own; a kind, a slot or the order of edges makes another structure."""
    items = [vf.chain(3) for _ in range(12)]
    for number, item in enumerate(items):
        item.data["x"] = np.full((3, 2), number)
    items += [vf.graph(3, [(0, 1), (1, 2)]), vf.graph(3, [(1, 2), (0, 1)]), vf.graph(3, [(0, 1), (0, 2)])]
    batch, model = vf.pack(items), vf.nn.TreeFC(2)
    parts = vf.split(batch, 3)
    assert len({id(part.batch.child) for part in parts}) == len({id(part.batch.derived.orders) for part in parts}) == 3
    assert [part.batch.data["x"][0, 0] for part in vf.split(vf.pack(items[:12]), 3)] == list(range(12))
    outputs = {None: None, "roots": batch.roots, "other vertices of each part": torch.arange(0, 45, 4)}[wanted]
    x = torch.randn(45, 2)
    expected = model(batch, x=x, outputs=outputs).h
    expected.sum().backward()
    grads = [parameter.grad for parameter in model.parameters()]
    model.max_vertices = 3
    for _ in range(2):
        model.zero_grad()
        found = model(batch, x=x, outputs=outputs).h
        found.sum().backward()
        assert torch.allclose(found, expected, atol=1e-6)
        assert all(torch.allclose(p.grad, g, atol=1e-5) for p, g in zip(model.parameters(), grads, strict=True))
    (orders,) = {id(part.batch.derived.orders): part.batch.derived.orders for part in parts[:12]}.values()
    (kept,) = orders.values()
    kinds_of_selection = {None: 0, "roots": 1, "other vertices of each part": 4}[
        wanted
    ]  # 0 and 1 of 3 rows, or neither, 2
    assert len(kept.order._selecting) == kinds_of_selection


def test_reversed_batches_and_batches_from_workers() -> None:
    items = [vf.tree(((None, None), None)), vf.chain(3), vf.chain(2)]
    for number, item in enumerate(items):
        item.data["x"] = np.full(item.num_vertices, number)
        item.data["weight"] = np.full((item.num_edges, 2), number)
        item.edge_names.append("weight")
    for batch in (vf.pack(items), pickle.loads(pickle.dumps(vf.pack(items))), vf.pack(items).reversed()):
        first, second = vf.split(batch, 5)
        assert [part.batch.data["x"].tolist() for part in (first, second)] == [[0] * 5, [1, 1, 1, 2, 2]]
        assert second.batch.data["weight"].tolist() == [[1, 1], [1, 1], [2, 2]]
        assert second.batch.edge_names == {"weight"}
    assert second.batch.roots.tolist() == [0, 3]
    assert second.batch.edge_index.tolist() == [[1, 2, 4], [0, 1, 3]]


def test_a_small_batch_is_itself_with_its_schedule_and_parts_are_kept() -> None:
    batch = vf.collate([vf.chain(3), vf.chain(4)])
    (part,) = vf.split(batch, 7)
    assert part.batch is batch
    assert batch.schedule is not None
    assert vf.split(batch, 4) is vf.split(batch, 4)
    assert vf.split(batch, 4) is not vf.split(batch, 3)


def test_kinds_of_a_part_are_those_that_occur_there() -> None:
    batch = vf.pack([vf.graph(2, [(0, 1)], kind=["b", "c"]), vf.graph(1, [], kind=["a"])])
    assert [part.batch.kinds for part in vf.split(batch, 2)] == [("b", "c"), ("a",)]


def test_losses_by_hand_add_up() -> None:
    torch.manual_seed(0)
    model = vf.nn.ChildSumTreeLSTM(3, 4).double()
    batch = vf.pack([vf.chain(3), vf.tree(((None, None), None)), vf.chain(1), vf.chain(2)])
    x, targets = torch.randn(batch.num_vertices, 3, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)
    (model(batch, x=x).h[batch.roots] - targets).square().mean().backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    for part in vf.split(batch, 4):
        roots = model(part.batch, x=x[part.vertices]).h[part.batch.roots]
        ((roots - targets[part.graphs]).square().sum() / targets.numel()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


@pytest.mark.parametrize(
    ("max_vertices", "error", "message"),
    [
        (0, vf.InputError, "max_vertices is 0; give 1 or more"),
        (-3, vf.InputError, "max_vertices is -3; give 1 or more"),
        (2.5, vf.InputTypeError, r"max_vertices is 2\.5; give an integer"),
        (True, vf.InputTypeError, "max_vertices is True; give an integer"),
        ("10", vf.InputTypeError, "max_vertices is '10'; give an integer"),
    ],
)
def test_what_is_no_number_of_vertices_is_refused(max_vertices: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        vf.split(vf.pack([vf.chain(3)]), max_vertices)  # type: ignore[arg-type]


def test_what_is_no_batch_is_refused() -> None:
    with pytest.raises(vf.InputTypeError, match=r"vf\.split takes a GraphBatch, not list; pack graphs with vf\.pack"):
        vf.split([vf.chain(3)], 2)  # type: ignore[arg-type]
    with pytest.raises(vf.GraphError, match="split it before"):
        vf.split(vf.pack([vf.chain(3), vf.chain(3)]).with_initial(), 3)
