"""Edges in the order in which they were given: what a graph and a batch say of it, and what they refuse."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vertexflow as vf
from vertexflow.graph.inputs.derived import Derived
from vertexflow.graph.inputs.pack import replaced
from vertexflow.scheduler import edge_lists

from .test_build import edge_lists as drawn_edges

UNSORTED = vf.graph(4, [(2, 3), (0, 2), (1, 3), (1, 2)])


def pairs(graph):
    return [tuple(pair) for pair in graph.edge_index.T.tolist()]


@given(st.lists(st.tuples(drawn_edges(), st.booleans()), min_size=1, max_size=4))
def test_edges_are_in_the_order_given_graph_after_graph(items):
    graphs, expected, base = [], [], 0
    for (count, edges), turned in items:
        # With slots that fall, a parent's entries are kept in another order than its edges were given in.
        slots = list(range(len(edges), 0, -1)) if turned else None
        graphs.append(vf.graph(count, edges, slots=slots))
        assert pairs(graphs[-1]) == edges
        in_order = edges == sorted(edges, key=lambda edge: edge[1])
        if slots is None:
            assert (graphs[-1].edge is None) == in_order  # nothing is kept where the order is that of `child` already
        expected += [(child + base, parent + base) for child, parent in edges]
        base += count
    batch = vf.pack(graphs)
    assert pairs(batch) == expected
    assert (batch.edge is None) == all(graph.edge is None for graph in graphs)
    assert pairs(batch.reversed()) == [(parent, child) for child, parent in expected]
    assert pairs(batch.reversed().reversed()) == expected
    own = batch.with_initial().edge_index[:, : len(expected)]  # edges from external vertices come after all others
    assert [tuple(pair) for pair in own.T.tolist()] == expected
    assert batch.edge_index.dtype == graphs[0].edge_index.dtype == torch.int64


def test_the_order_of_graphs_that_are_given_without_a_list_of_edges():
    assert pairs(vf.chain(4)) == [(0, 1), (1, 2), (2, 3)]
    assert pairs(vf.tree(((0, 1), (2, 3)))) == [(0, 4), (1, 4), (2, 5), (3, 5), (4, 6), (5, 6)]
    assert pairs(vf.tree((0, (2, 1)))) == [(2, 3), (1, 3), (0, 4), (3, 4)]
    assert pairs(vf.tree_from_parents([3, 2, 3, -1, 3])) == [(0, 3), (1, 2), (2, 3), (4, 3)]
    assert pairs(vf.from_edge_index([[1, 0], [2, 1]])) == [(1, 2), (0, 1)]
    assert pairs(vf.from_ptb("(S (A a) (B (C c) (D d)))")[0]) == [(1, 3), (2, 3), (0, 4), (3, 4)]
    assert pairs(vf.from_aiger(b"aag 5 2 0 1 3\n2\n4\n10\n6 4 2\n10 8 6\n8 6 3\n")) == [
        (1, 2), (0, 2), (4, 3), (2, 3), (2, 4), (0, 4),
    ]  # fmt: skip
    assert pairs(vf.nn.lattice(3, [(0, 2)])) == [(0, 1), (1, 2), (0, 3), (3, 2)]


def test_what_travels_keeps_the_order():
    batch = vf.pack([UNSORTED, vf.chain(2)])
    expected = [(2, 3), (0, 2), (1, 3), (1, 2), (4, 5)]
    loader = torch.utils.data.DataLoader([UNSORTED, vf.chain(2)], batch_size=2, num_workers=1, collate_fn=vf.collate)
    for again in (pickle.loads(pickle.dumps(batch)), vf.collate([UNSORTED, vf.chain(2)]), *loader):
        assert pairs(again) == expected
        assert pairs(again.reversed()) == [(parent, child) for child, parent in expected]
    assert batch.to("meta").edge_index.device == torch.device("meta")
    assert pairs(pickle.loads(pickle.dumps(UNSORTED))) == expected[:4]


def with_edges(graph, *rows, name="w"):
    graph.data[name] = np.array(rows)
    graph.edge_names.append(name)
    return graph


def test_data_of_edges_is_joined_and_stays_where_it_is():
    graphs = [with_edges(vf.graph(3, [(1, 2), (0, 1)]), 5, 6), with_edges(vf.chain(2), 7)]
    for at, graph in enumerate(graphs):
        graph.data["number"] = np.full(graph.num_vertices, at)
    batch = vf.pack(graphs)
    for same in (
        batch,
        batch.reversed(),
        pickle.loads(pickle.dumps(batch)),
        pickle.loads(pickle.dumps(batch)).reversed(),
    ):
        assert {name: rows.tolist() for name, rows in same.data.items()} == {"w": [5, 6, 7], "number": [0, 0, 0, 1, 1]}
        assert same.edge_names == {"w"}


def test_data_that_does_not_fit_is_refused():
    of_vertices = vf.chain(2)
    of_vertices.data["w"] = np.zeros(2)
    with pytest.raises(
        vf.GraphError, match="data 'w' of graph 1 has a row for each vertex, that of graph 0 for each edge"
    ):
        _ = vf.pack([with_edges(vf.chain(3), 1, 2), of_vertices]).data
    with pytest.raises(vf.GraphError, match="data 'w' of graph 0 has 3 rows for 2 edges; give one for each edge"):
        _ = vf.pack([with_edges(vf.chain(3), 1, 2, 3)]).data


NO_ORDERS = {
    "twice": lambda edge: np.where(edge == 0, 1, edge),
    "negative": lambda edge: edge - 1,
    "out of range": lambda edge: edge + 1,
    "shorter": lambda edge: edge[:-1].copy(),
    "longer": lambda edge: np.append(edge, len(edge)).astype(np.int32),
}


@pytest.mark.parametrize("damage", NO_ORDERS)
def test_an_order_that_names_no_edge_once_is_refused_wherever_it_is_read(damage):
    batch = vf.pack([UNSORTED])
    schedule = vf.schedule(batch)
    damaged = replaced(batch, edge=NO_ORDERS[damage](batch.edge).astype(np.int32), derived=Derived())
    for read in (lambda: damaged.edge_index, damaged.reversed, lambda: edge_lists(damaged, schedule)):
        with pytest.raises(vf.GraphError, match="edge"):
            read()
