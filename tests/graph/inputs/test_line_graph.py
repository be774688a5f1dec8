"""Messages along the edges of trees, in both directions."""

from __future__ import annotations

import itertools

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import vertexflow as vf


@st.composite
def forests(draw):
    """Edges in any direction and order."""
    count = draw(st.integers(1, 8))
    parents = [draw(st.integers(-1, vertex - 1)) for vertex in range(count)]
    edges = [draw(st.permutations([vertex, parent])) for vertex, parent in enumerate(parents) if parent >= 0]
    return count, [tuple(edge) for edge in draw(st.permutations(edges))]


def children_of(graph: vf.InputGraph) -> list[list[int]]:
    return [graph.child[first:end].tolist() for first, end in itertools.pairwise(graph.offset)]


@given(forests(), st.booleans())
def test_a_message_reads_those_that_reach_its_source_but_for_its_answer(graph, both_ways):
    count, edges = graph
    lines = vf.line_graph(graph, both_ways)
    messages = edges + [(target, source) for source, target in edges] * both_ways
    assert lines.kind.tolist() == ["message"] * len(messages) + ["vertex"] * count
    expected = [
        [at for at, (s, t) in enumerate(messages) if t == source and (s != target or not both_ways)]
        for source, target in messages
    ]
    expected += [[at for at, (_, t) in enumerate(messages) if t == vertex] for vertex in range(count)]
    assert children_of(lines) == expected
    assert lines.data["vertex"].tolist() == [*(s for s, _ in messages), *range(count)]
    assert lines.data["target"].tolist() == [*(t for _, t in messages), *range(count)]
    assert lines.data["edge"].tolist() == [*(2 * [*range(len(edges))])[: len(messages)], *[-1] * count]


class BeliefPropagation(vf.VertexFunction):
    """Sums and products over a tree of variables with K values: log messages, and the marginals of all variables."""

    def __init__(self, values: int):
        super().__init__(state={"m": values})
        self.pair = nn.Parameter(torch.randn(values, values, dtype=torch.float64))

    @vf.vertex("message")
    def message(self, v):
        own = v.pull("score") + v.sum(v.children.m)
        v.scatter(m=(own[:, :, None] + self.pair + self.pair.T).logsumexp(1))

    @vf.vertex("vertex")
    def variable(self, v):
        v.push(marginal=(v.pull("score") + v.sum(v.children.m)).softmax(-1))


@pytest.mark.slow
def test_marginals_of_a_tree_are_those_of_all_its_assignments():
    torch.manual_seed(0)
    count, edges, values = 5, [(1, 0), (1, 2), (3, 1), (3, 4)], 3
    model, scores = BeliefPropagation(values).double(), torch.randn(count, values, dtype=torch.float64)
    lines = vf.line_graph((count, edges))
    out = model([lines], score=scores[torch.from_numpy(lines.data["vertex"])])
    pair, expected = (model.pair + model.pair.T).detach(), torch.zeros(count, values, dtype=torch.float64)
    for chosen in itertools.product(range(values), repeat=count):
        score = sum(scores[at, value] for at, value in enumerate(chosen))
        weight = torch.exp(score + sum(pair[chosen[s], chosen[t]] for s, t in edges))
        for at, value in enumerate(chosen):
            expected[at, value] += weight
    torch.testing.assert_close(out.marginal, expected / expected.sum(-1, keepdim=True))


def test_graphs_of_other_sorts():
    edges = [(0, 1), (1, 2), (1, 3)]
    expected = vf.line_graph((4, edges))
    for graph in (vf.graph(4, edges), networkx.Graph(edges), networkx.DiGraph(edges)):
        assert vf.line_graph(graph).structure.tolist() == expected.structure.tolist()


def test_a_graph_without_edges_is_its_vertices():
    lines = vf.line_graph((2, []))
    assert (lines.num_vertices, lines.num_edges, lines.kind.tolist()) == (2, 0, ["vertex"] * 2)


@pytest.mark.parametrize("edges", [[(0, 1), (1, 2), (2, 0)], [(0, 1), (0, 2), (1, 2)], [(0, 1), (0, 1)], [(1, 1)]])
def test_cycles_are_refused(edges):
    with pytest.raises(vf.GraphError, match=r"form a cycle(?s:.*)give a tree or forest, or both_ways=False"):
        vf.line_graph((3, edges))


def test_along_the_edges_a_graph_may_be_any_without_cycles():
    lines = vf.line_graph((3, [(0, 1), (0, 2), (1, 2)]), both_ways=False)
    assert children_of(lines) == [[], [], [0], [], [0], [1, 2]]
    with pytest.raises(vf.GraphError, match=r"form a cycle(?s:.*)give a tree or forest; vf.unroll"):
        vf.line_graph((2, [(0, 1), (1, 0)]), both_ways=False)


def test_what_is_no_graph():
    with pytest.raises(vf.InputTypeError, match=r"vf.line_graph takes"):
        vf.line_graph([(0, 1)])
    with pytest.raises(vf.GraphError, match=r"edge 1 .* target 5 is out of range"):
        vf.line_graph((3, [(0, 1), (1, 5)]))
    star = np.stack([np.arange(1, 60_000), np.zeros(59_999, np.int64)])
    with pytest.raises(vf.GraphError, match="119998 messages with 3599820002 messages before them"):
        vf.line_graph((60_000, star))
