"""Hypergraphs are what they were made of; others are refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vertexflow as vf

ARCS = [((0, 1), 3), ((3, 2), 4), ((0, -1), 4)]


@pytest.mark.parametrize(
    "given",
    [
        ARCS,
        tuple(ARCS),
        [[[0, 1], 3], [[3, 2], 4], [[0, -1], 4]],
        np.array([[0, 3, 0], [1, 2, -1], [3, 4, 4]], np.int16),
        torch.tensor([[0, 3, 0], [1, 2, -1], [3, 4, 4]]),
    ],
    ids=["list", "tuple", "lists", "array", "tensor"],
)
def test_arcs_are_given_in_several_ways(given):
    graph = vf.hypergraph(5, given)
    assert (graph.num_arcs, graph.arity, graph.num_edges, graph.num_slots) == (3, 2, 5, 3)
    assert graph.arcs.tolist() == [[0, 3, 0], [1, 2, -1], [3, 4, 4]]
    assert graph.edge_index.tolist() == [[0, 1, 3, 2, 0], [3, 3, 4, 4, 4]]


def test_arcs_in_no_order_come_back_as_they_were_given():
    arcs = [((-1, 3), 4), ((0, 1), 3), ((2, 2), 4), ((1, 0), 3), ((0, -1), 1)]
    table = [[-1, 0, 2, 1, 0], [3, 1, 2, 0, -1], [4, 3, 4, 3, 1]]
    graph = vf.hypergraph(5, arcs)
    assert graph.arcs.tolist() == table
    batch = vf.pack([graph, vf.chain(1), vf.hypergraph(1, []), graph])
    assert (batch.num_arcs, batch.arity) == (10, 2)
    moved = np.array(table) + 7 * (np.array(table) >= 0)
    assert np.array_equal(batch.arcs.numpy(), np.concatenate([table, moved], 1))


def test_shorter_arcs_lack_the_last_children():
    graph = vf.hypergraph(3, [((0,), 1), ((0, 1), 2)], arity=3)
    assert graph.arcs.tolist() == [[0, 0], [-1, 1], [-1, -1], [1, 2]]
    assert vf.hypergraph(1, [], arity=3).arity == 3
    assert vf.hypergraph(1, []).arcs.shape == (2, 0)
    assert vf.hypergraph(2, np.zeros((3, 0), int)).arity == 1


def test_arcs_of_one_child_are_edges():
    graph = vf.hypergraph(3, [((0,), 2), ((1,), 2)])
    assert graph.edge_index.tolist() == graph.arcs.tolist() == vf.graph(3, [(0, 2), (1, 2)]).arcs.tolist()
    vf.pack([graph, vf.chain(4)])


WRONG = {
    "no vertices": (lambda: vf.hypergraph(0, []), vf.GraphError, "no vertices"),
    "no list": (lambda: vf.hypergraph(3, 5), vf.InputTypeError, "arcs are pairs"),
    "edges": (lambda: vf.hypergraph(3, [(0, 2)]), vf.GraphError, r"arc 0 is \(0, 2\); give pairs"),
    "flat": (lambda: vf.hypergraph(3, [(0, 1, 2)]), vf.GraphError, "arc 0 is"),
    "two parents": (lambda: vf.hypergraph(3, [((0, 1), (2,))]), vf.GraphError, "arc 0 is"),
    "unequal": (lambda: vf.hypergraph(3, [((0, 1), 2), ((0,), 2)]), vf.GraphError, "arc 1 has 1 children, arc 0 2"),
    "more than the arity": (lambda: vf.hypergraph(3, [((0, 1), 2)], arity=1), vf.GraphError, "but arity is 1"),
    "an arity of 0": (lambda: vf.hypergraph(3, [], arity=0), vf.GraphError, "arity is 0"),
    "an arity of words": (lambda: vf.hypergraph(3, [], arity="two"), vf.InputTypeError, "arity is 'two'"),
    "too many": (lambda: vf.hypergraph(2, [((0,) * 2000, 1)]), vf.GraphError, "at most 1024"),
    "a child out of range": (lambda: vf.hypergraph(3, [((0, 3), 2)]), vf.GraphError, r"arc 0 \(\(0, 3\) -> 2\): child 3"),
    "a child of -2": (lambda: vf.hypergraph(3, [((0, -2), 2)]), vf.GraphError, "child -2 is out of range"),
    "a parent out of range": (lambda: vf.hypergraph(3, [((0, 1), 3)]), vf.GraphError, "parent 3 is out of range"),
    "no parent": (lambda: vf.hypergraph(3, [((0, 1), -1)]), vf.GraphError, "parent -1 is out of range"),
    "no children": (lambda: vf.hypergraph(3, [((-1, -1), 2)]), vf.GraphError, "arc 0 of vertex 2 has no children"),
    "a cycle": (lambda: vf.hypergraph(3, [((0, 1), 2), ((2, 0), 1)]), vf.GraphError, "cycle"),
    "itself": (lambda: vf.hypergraph(3, [((0, 2), 2)]), vf.GraphError, "a cycle through vertex 2"),
    "numbers with commas": (lambda: vf.hypergraph(3, [((0, 1.5), 2)]), vf.InputTypeError, "integers"),
    "words": (lambda: vf.hypergraph(3, [((0, "a"), 2)]), vf.InputTypeError, "integers"),
    "a vector": (lambda: vf.hypergraph(3, torch.zeros(3)), vf.GraphError, r"\[k \+ 1, A\]"),
    "kinds": (lambda: vf.hypergraph(3, ARCS[:1], kind=["a"]), vf.GraphError, "range|kinds"),
    "unequal graphs": (
        lambda: vf.pack([vf.hypergraph(5, ARCS), vf.chain(2)]), vf.GraphError, "graph 0 has arcs of 2 children, graph 1 edges"
    ),
    "data": (lambda: vf.hypergraph(5, ARCS).with_data(["w"], w=[1.0]), vf.GraphError, "1 rows for 3 arcs"),
    "reversed": (lambda: vf.pack([vf.hypergraph(5, ARCS)]).reversed(), vf.GraphError, "cannot be reversed"),
    "unrolled": (lambda: vf.unroll(vf.hypergraph(5, ARCS), 2), vf.GraphError, "cannot be taken by vf.unroll"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name):
    make, error, words = WRONG[name]
    with pytest.raises(error, match=words):
        make()
