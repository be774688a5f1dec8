"""`with_kind` and `with_data`: copies of an input graph."""

from __future__ import annotations

import numpy as np
import pytest

import vertexflow as vf

SORTED, SHUFFLED = [(0, 2), (1, 2)], [(1, 2), (0, 1)]


@pytest.mark.parametrize("edges", [SORTED, SHUFFLED, []])
def test_other_kinds_are_those_that_the_graph_might_have_been_made_with(edges):
    kinds = ["b", "a", "b"]
    plain, wanted = vf.graph(3, edges), vf.graph(3, edges, kind=kinds)
    for graph in (plain.with_kind(kinds), vf.graph(3, edges, kind=["c"] * 3).with_kind(kinds)):
        assert np.array_equal(graph.structure, wanted.structure)
        assert graph.kind.tolist() == kinds
    assert np.array_equal(wanted.with_kind(None).structure, plain.structure)
    assert wanted.kind.tolist() == kinds
    assert plain.kind is None
    assert vf.pack([plain.with_kind(kinds)]).kind.tolist() == kinds
    with pytest.raises(vf.GraphError, match="2 kinds for 3 vertices"):
        plain.with_kind(["a", "b"])


def test_data_of_vertices_and_of_edges():
    graph = vf.graph(3, SHUFFLED).with_data(["weight"], word=[4, 1, 2], weight=[0.5, 2.0])
    other = graph.with_data(word=[7, 8, 9], weight=[1, 2, 3]).with_kind(["a"] * 3)
    assert graph.data["word"].tolist() == [4, 1, 2]
    assert graph.edge_names == ["weight"]
    assert other.edge_names == []
    assert other.data["word"].tolist() == [7, 8, 9]
    batch = vf.pack([graph, graph])
    assert batch.data["weight"].tolist() == [0.5, 2.0, 0.5, 2.0]
    assert batch.edge_names == {"weight"}
    with pytest.raises(vf.GraphError, match="data 'x' has 2 rows for 3 vertices"):
        graph.with_data(x=[1, 2])
    with pytest.raises(vf.GraphError, match="data 'x' has one value for 2 edges"):
        graph.with_data(["x"], x=1)
    with pytest.raises(vf.GraphError, match="'y' is among the names of edges"):
        graph.with_data(["y"], x=[1, 2, 3])
