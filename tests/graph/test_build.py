"""Input graphs: what the builders make, and what they refuse."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vertexflow as vf


def edges_of(graph):
    """All (child, parent, slot) of an input graph."""
    parent = np.repeat(np.arange(graph.num_vertices), np.diff(graph.offset))
    return sorted(zip(graph.child.tolist(), parent.tolist(), graph.slot.tolist(), strict=True))


def test_tree_numbers_leaves_as_written_and_inner_vertices_in_post_order():
    assert edges_of(vf.tree(((0, 1), 2))) == [(0, 3, 0), (1, 3, 1), (2, 4, 1), (3, 4, 0)]
    assert edges_of(vf.tree((2, (1, 0)))) == [(0, 3, 1), (1, 3, 0), (2, 4, 0), (3, 4, 1)]


def test_tree_of_unnumbered_leaves_counts_from_left_to_right():
    assert edges_of(vf.tree(((None, None), None))) == edges_of(vf.tree(((0, 1), 2)))
    assert edges_of(vf.tree([None, None, None])) == [(0, 3, 0), (1, 3, 1), (2, 3, 2)]


def test_a_single_leaf_is_a_tree():
    assert vf.tree(0).num_vertices == 1
    assert vf.tree(None).num_edges == 0


def test_a_tree_can_be_nested_deeper_than_python_recurses():
    nested = 0
    for leaf in range(1, 50_001):
        nested = (nested, leaf)
    assert vf.tree(nested).num_vertices == 100_001


@pytest.mark.parametrize(
    ("nested", "error", "message"),
    [
        (((0, 1), 1), vf.GraphError, r"\(\(0, 1\), 1\).*not 0 to 2"),
        ((0, 2), vf.GraphError, "not 0 to 1"),
        ((0, ()), vf.GraphError, r"empty tuple in \(0, \(\)\)"),
        (("the", "cat"), vf.InputTypeError, "'the'"),
        ((0, None), vf.InputTypeError, "None"),
        ((0, True), vf.InputTypeError, "True"),
    ],
)
def test_tree_repeats_the_pattern_that_it_refuses(nested, error, message):
    with pytest.raises(error, match=message):
        vf.tree(nested)


def test_chain():
    assert edges_of(vf.chain(3)) == [(0, 1, 0), (1, 2, 0)]
    assert vf.chain(1).num_edges == 0


@pytest.mark.parametrize("build", [lambda: vf.chain(0), lambda: vf.graph(0, []), lambda: vf.tree_from_parents([])])
def test_a_graph_with_no_vertices_is_refused(build):
    with pytest.raises(vf.GraphError, match="no vertices"):
        build()


@pytest.mark.parametrize(
    "edges",
    [
        [(0, 2), (1, 2), (2, 3)],
        iter([(0, 2), (1, 2), (2, 3)]),
        np.array([[0, 1, 2], [2, 2, 3]]),
        torch.tensor([[0, 1, 2], [2, 2, 3]]),
        np.array([[0, 1, 2], [2, 2, 3]], dtype=np.int32),
    ],
)
def test_graph_takes_pairs_or_an_array(edges):
    assert edges_of(vf.graph(4, edges)) == [(0, 2, 0), (1, 2, 1), (2, 3, 0)]


def test_graph_fills_slots_in_the_order_of_edges_unless_told_otherwise():
    assert edges_of(vf.graph(3, [(1, 2), (0, 2)])) == [(0, 2, 1), (1, 2, 0)]
    assert edges_of(vf.graph(3, [(1, 2), (0, 2)], slots=[3, 1])) == [(0, 2, 1), (1, 2, 3)]


def test_two_pairs_in_a_list_are_pairs():
    assert edges_of(vf.graph(3, [[0, 1], [1, 2]])) == [(0, 1, 0), (1, 2, 0)]


def test_a_graph_may_share_children():
    assert vf.graph(4, [(0, 1), (0, 2), (1, 3), (2, 3)]).num_edges == 4


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, [(0, 3)]), vf.GraphError, r"edge 0 \(0 -> 3\): parent 3 is out of range"),
        ((3, [(0, 1), (-1, 2)]), vf.GraphError, r"edge 1 \(-1 -> 2\): child -1 is out of range"),
        ((3, [(0, 1, 2)]), vf.GraphError, r"edge 0 is \(0, 1, 2\)"),
        ((3, np.zeros((3, 2), int)), vf.GraphError, r"\[2, E\].*\[3, 2\]"),
        ((3, [(0.5, 1)]), vf.InputTypeError, "integers"),
        ((3.0, []), vf.InputTypeError, "num_vertices"),
        ((3, 7), vf.InputTypeError, "int"),
        ((3, [(0, 1)], ["a"]), vf.GraphError, "1 kinds for 3 vertices"),
        ((3, [(0, 2), (1, 2)], None, [1, 1]), vf.GraphError, "slot 1 of vertex 2 is used twice.*child 0.*child 1"),
        ((3, [(0, 2), (1, 2)], None, [0, -1]), vf.GraphError, r"edge 1 \(1 -> 2\): slot -1 is negative"),
        ((3, [(0, 2), (1, 2)], None, [0]), vf.GraphError, "1 slots for 2 edges"),
    ],
)
def test_graph_names_what_it_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        vf.graph(*arguments)


@pytest.mark.parametrize(
    ("num_vertices", "edges", "on_it"),
    [
        (1, [(0, 0)], {0}),
        (5, [(0, 1), (1, 2), (2, 3), (3, 1), (3, 4)], {1, 2, 3}),
        (6, [(5, 4), (4, 5), (0, 1), (5, 3)], {4, 5}),
    ],
)
def test_a_cycle_is_refused_and_shown(num_vertices, edges, on_it):
    with pytest.raises(vf.GraphError, match="cycle through vertex") as caught:
        vf.graph(num_vertices, edges)
    shown = [int(word) for word in str(caught.value).split(": ")[1].split(";")[0].split(" -> ")]
    assert shown[0] == shown[-1]
    assert set(shown) == on_it
    assert all((child, parent) in edges for child, parent in zip(shown, shown[1:], strict=False))


def test_tree_from_parents():
    assert edges_of(vf.tree_from_parents([2, 2, -1])) == [(0, 2, 0), (1, 2, 1)]
    assert edges_of(vf.tree_from_parents(torch.tensor([-1, 0, 0, -1]))) == [(1, 0, 0), (2, 0, 1)]


@pytest.mark.parametrize(("parents", "message"), [([3, -1], "range"), ([-2], "-2"), ([1, 0], "cycle"), ([0], "cycle")])
def test_tree_from_parents_refuses(parents, message):
    with pytest.raises(vf.GraphError, match=message):
        vf.tree_from_parents(parents)


@given(st.lists(st.integers(0, 10**6), max_size=30))
def test_any_parents_after_their_children_make_a_tree(draws):
    count = len(draws) + 1
    parents = [v + 1 + draw % (count - v - 1) for v, draw in enumerate(draws)] + [-1]
    graph = vf.tree_from_parents(parents)
    assert sorted((child, parent) for child, parent, _ in edges_of(graph)) == sorted(
        (child, parent) for child, parent in enumerate(parents[:-1])
    )


def test_graphs_can_be_pickled():
    graph = vf.tree(((0, 1), 2))
    assert edges_of(pickle.loads(pickle.dumps(graph))) == edges_of(graph)
