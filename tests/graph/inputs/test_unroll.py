"""Graphs with cycles, unrolled over rounds."""

from __future__ import annotations

import types

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vertexflow as vf


@st.composite
def with_cycles(draw):
    count = draw(st.integers(1, 6))
    vertices = st.integers(0, count - 1)
    return count, draw(st.lists(st.tuples(vertices, vertices), max_size=12))


@given(with_cycles(), st.integers(1, 4))
def test_a_vertex_reads_itself_and_then_its_sources_in_their_order(graph, rounds):
    count, edges = graph
    unrolled = vf.unroll(graph, rounds)
    assert unrolled.num_vertices == count * (rounds + 1)
    assert unrolled.kind.tolist() == ["start"] * count + ["round"] * count * rounds
    assert unrolled.data["vertex"].tolist() == list(range(count)) * (rounds + 1)
    assert unrolled.data["round"].tolist() == [at for at in range(rounds + 1) for _ in range(count)]
    numbers = vf.unrolled_edges(graph, rounds)
    entry = numbers if unrolled.edge is None else numbers[unrolled.edge]
    assert len(numbers) == unrolled.num_edges == rounds * (count + len(edges))
    for vertex in range(unrolled.num_vertices):
        first, end = unrolled.offset[vertex : vertex + 2]
        at, own = divmod(vertex, count)
        into = [number for number, (_, target) in enumerate(edges) if target == own]
        expected = [(at - 1) * count + u for u in (own, *(edges[number][0] for number in into))] if at else []
        assert unrolled.child[first:end].tolist() == expected
        assert unrolled.slot[first:end].tolist() == list(range(len(expected)))
        assert entry[first:end].tolist() == ([-1, *into] if at else [])


@given(with_cycles(), st.integers(1, 3))
def test_it_is_what_vf_graph_makes_of_the_same_edges(graph, rounds):
    """Round after round: every vertex to itself, and then the graph's own edges in their order."""
    unrolled = vf.unroll(graph, rounds)
    count, edges = graph
    pairs = []
    for at in range(rounds):
        for source, target in [*((vertex, vertex) for vertex in range(count)), *edges]:
            pairs.append((at * count + source, (at + 1) * count + target))
    again = vf.graph(unrolled.num_vertices, pairs, kind=unrolled.kind)
    assert unrolled.edge_index.T.tolist() == [list(pair) for pair in pairs]
    assert again.structure.tolist() == unrolled.structure.tolist()
    assert again.kinds == unrolled.kinds


def test_the_roots_are_the_vertices_after_the_last_round():
    batch = vf.pack([vf.unroll((2, [(0, 1), (1, 0)]), 3), vf.unroll((1, []), 2)])
    assert batch.roots.tolist() == [6, 7, 10]
    assert batch.leaves.tolist() == [0, 1, 8]
    assert batch.data["round"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 0, 1, 2]


def test_graphs_of_other_libraries():
    edges = [(0, 1), (1, 2), (2, 0), (2, 2)]
    wanted = vf.unroll((3, edges), 2).structure.tolist()
    index = torch.tensor(edges).T
    geometric = types.SimpleNamespace(edge_index=index, num_nodes=3)
    dgl = types.SimpleNamespace(num_nodes=lambda: 3, edges=lambda: (index[0], index[1]))
    for graph in (networkx.DiGraph(edges), geometric, dgl, (3, index.numpy())):
        assert vf.unroll(graph, 2).structure.tolist() == wanted
    tree = vf.tree(((0, 1), 2))
    assert (
        vf.unroll(tree, 1).structure.tolist() == vf.unroll((5, [(0, 3), (1, 3), (3, 4), (2, 4)]), 1).structure.tolist()
    )


def test_an_undirected_edge_runs_both_ways():
    graph = networkx.Graph([("a", "b"), ("b", "c")])
    both = [(0, 1), (1, 2), (1, 0), (2, 1)]
    assert vf.unroll(graph, 1).structure.tolist() == vf.unroll((3, both), 1).structure.tolist()
    assert vf.unrolled_edges(graph, 1).tolist() == vf.unrolled_edges((3, both), 1).tolist()


@pytest.mark.slow
def test_a_large_graph():
    """Arrays alone: ten rounds over 300,000 vertices and a million edges."""
    edges = np.random.default_rng(0).integers(0, 300_000, (2, 1_000_000))
    unrolled = vf.unroll((300_000, edges), 10)
    assert unrolled.num_vertices == 3_300_000
    assert unrolled.num_edges == 13_000_000


@pytest.mark.parametrize(
    ("graph", "rounds", "error", "match"),
    [
        ((3, []), 0, vf.GraphError, "rounds is 0; give at least 1"),
        ((3, []), 1.5, vf.InputTypeError, "rounds is 1.5; give an integer"),
        ((0, []), 1, vf.GraphError, "no vertices"),
        (("3", []), 1, vf.InputTypeError, "the number of vertices is '3'"),
        ((3, [(0, 3)]), 1, vf.GraphError, r"edge 0 \(0 -> 3\): target 3 is out of range; the vertices are 0 to 2"),
        ((3, [(0, 1), (-1, 0)]), 1, vf.GraphError, r"edge 1 \(-1 -> 0\): source -1 is out of range"),
        ((3, []), 2**31, vf.GraphError, "rounds make .* use fewer rounds"),
        ("graph", 1, vf.InputTypeError, "vf.unroll takes .* not str"),
    ],
)
def test_what_is_wrong_is_said(graph, rounds, error, match):
    for function in (vf.unroll, vf.unrolled_edges):
        with pytest.raises(error, match=match):
            function(graph, rounds)
