"""Input graphs from edges, nested tuples, parents and lengths; and what is said where they are malformed."""

from __future__ import annotations

import itertools
import pickle
import re
import time
from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vertexflow.errors import GraphError, InputTypeError, VertexFlowError
from vertexflow.graph.inputs.build import InputGraph, chain, graph, tree, tree_from_parents

Edges = list[tuple[int, int, int]]


def edges_of(input_graph: InputGraph) -> Edges:
    """The (parent, slot, child) triples, in the order of the arrays."""
    parent = np.repeat(np.arange(input_graph.num_vertices), np.diff(input_graph.offset))
    return list(zip(parent.tolist(), input_graph.slot.tolist(), input_graph.child.tolist(), strict=True))


def assert_well_formed(input_graph: InputGraph) -> None:
    assert input_graph.child.dtype == input_graph.slot.dtype == input_graph.offset.dtype == np.int32
    assert len(input_graph.child) == len(input_graph.slot) == input_graph.num_edges
    assert input_graph.offset.shape == (input_graph.num_vertices + 1,)
    assert input_graph.offset[0] == 0
    assert input_graph.offset[-1] == input_graph.num_edges
    triples = edges_of(input_graph)
    assert triples == sorted(triples)


@st.composite
def edge_lists(draw: st.DrawFn, acyclic: bool = True) -> tuple[int, list[tuple[int, int]]]:
    count = draw(st.integers(1, 8))
    names = draw(st.permutations(range(count)))
    ends = st.integers(0, count - 1)
    pairs = draw(st.lists(st.tuples(ends, ends), max_size=16))
    if acyclic:
        pairs = [(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]]
    return count, [(names[child], names[parent]) for child, parent in pairs]


class TestGraph:
    def test_children_are_sorted_by_parent_and_take_slots_in_the_order_of_the_edges(self) -> None:
        input_graph = graph(5, [(1, 4), (3, 4), (0, 3), (2, 4), (1, 3)])
        assert input_graph.child.tolist() == [0, 1, 1, 3, 2]
        assert input_graph.slot.tolist() == [0, 1, 0, 1, 2]
        assert input_graph.offset.tolist() == [0, 0, 0, 0, 2, 5]
        assert input_graph.num_edges == 5
        assert input_graph.kind is None
        assert input_graph.data == {}

    @given(edge_lists())
    def test_the_kth_pair_of_a_parent_fills_its_slot_k(self, given: tuple[int, list[tuple[int, int]]]) -> None:
        count, pairs = given
        input_graph = graph(count, pairs)
        assert_well_formed(input_graph)
        expected = []
        for parent in range(count):
            below = [child for child, above in pairs if above == parent]
            expected += [(parent, slot, child) for slot, child in enumerate(below)]
        assert edges_of(input_graph) == expected

    @pytest.mark.parametrize(
        "edges",
        [
            ((0, 2), (1, 2)),
            [[0, 2], [1, 2]],
            (pair for pair in [(0, 2), (1, 2)]),
            [torch.tensor([0, 2]), torch.tensor([1, 2])],
            np.array([[0, 1], [2, 2]]),
            np.array([[0, 1], [2, 2]], dtype=np.uint8),
            torch.tensor([[0, 1], [2, 2]]),
            torch.tensor([[0, 1], [2, 2]], dtype=torch.int32),
        ],
        ids=["tuples", "lists", "generator", "pairs of tensors", "array", "uint8", "tensor", "int32"],
    )
    def test_pairs_in_any_iterable_are_pairs_and_arrays_are_two_rows(self, edges: Any) -> None:
        input_graph = graph(3, edges)
        assert_well_formed(input_graph)
        assert edges_of(input_graph) == [(2, 0, 0), (2, 1, 1)]

    @pytest.mark.parametrize("edges", [[], (), np.zeros((2, 0)), torch.zeros(2, 0, dtype=torch.int64)])
    def test_no_edges(self, edges: Any) -> None:
        input_graph = graph(2, edges)
        assert_well_formed(input_graph)
        assert input_graph.num_edges == 0

    def test_slots_leave_a_left_child_out(self) -> None:
        input_graph = graph(4, [(0, 3), (1, 3), (2, 1)], slots=[2, 0, 1])
        assert edges_of(input_graph) == [(1, 1, 2), (3, 0, 1), (3, 2, 0)]

    @pytest.mark.parametrize("slots", [np.array([1]), torch.tensor([1]), (1,), np.array([1], dtype=np.int16)])
    def test_slots_of_any_integers(self, slots: Any) -> None:
        assert edges_of(graph(2, [(0, 1)], slots=slots)) == [(1, 1, 0)]

    def test_one_child_may_fill_two_slots(self) -> None:
        assert edges_of(graph(2, [(0, 1), (0, 1)])) == [(1, 0, 0), (1, 1, 0)]

    @pytest.mark.parametrize("kind", [["leaf", "node"], ("leaf", "node"), np.array(["leaf", "node"])])
    def test_kinds(self, kind: Any) -> None:
        input_graph = graph(2, [(0, 1)], kind=kind)
        assert input_graph.kind is not None
        assert input_graph.kind.tolist() == ["leaf", "node"]

    def test_kinds_as_a_tensor(self) -> None:
        input_graph = graph(2, [], kind=torch.tensor([3, 4]))
        assert input_graph.kind is not None
        assert input_graph.kind.tolist() == [3, 4]

    def test_the_callers_arrays_are_not_shared_where_they_would_be_changed(self) -> None:
        edges = np.array([[0, 1], [2, 2]])
        input_graph = graph(3, edges)
        edges[:] = 0
        assert edges_of(input_graph) == [(2, 0, 0), (2, 1, 1)]

    def test_it_is_small_to_print_and_can_be_pickled(self) -> None:
        input_graph = graph(3, [(0, 2), (1, 2)], kind=["a", "a", "b"])
        assert repr(input_graph) == "InputGraph(num_vertices=3)"
        again = pickle.loads(pickle.dumps(input_graph))
        assert edges_of(again) == edges_of(input_graph)
        assert again.kind.tolist() == ["a", "a", "b"]

    @given(edge_lists(acyclic=False))
    def test_a_cycle_is_found_exactly_where_there_is_one(self, given: tuple[int, list[tuple[int, int]]]) -> None:
        count, pairs = given
        reference = nx.DiGraph()
        reference.add_nodes_from(range(count))
        reference.add_edges_from(pairs)
        if nx.is_directed_acyclic_graph(reference):
            assert_well_formed(graph(count, pairs))
            return
        with pytest.raises(GraphError, match="cycle") as caught:
            graph(count, pairs)
        shown = re.search(r"vertex (\d+), ([\d> -]+);", str(caught.value))
        assert shown
        path = [int(vertex) for vertex in shown[2].split(" -> ")]
        assert path[0] == path[-1] == int(shown[1])
        assert all(edge in pairs for edge in itertools.pairwise(path))

    def test_vertices_may_be_numbered_against_the_edges(self) -> None:
        numbers = np.arange(100_000)
        start = time.perf_counter()
        input_graph = graph(100_000, np.stack([numbers[1:], numbers[:-1]]))
        assert time.perf_counter() - start < 2
        assert input_graph.child.tolist() == list(range(1, 100_000))


REFUSED: dict[str, tuple[Callable[[], object], type[VertexFlowError], str]] = {
    "no vertices": (lambda: graph(0, []), GraphError, r"a graph with no vertices \(num_vertices=0\)"),
    "fewer than none": (lambda: graph(-1, []), GraphError, "a graph with no vertices"),
    "vertices of no integer": (lambda: graph(2.0, []), InputTypeError, "num_vertices is 2.0; give an integer"),
    "child out of range": (
        lambda: graph(3, [(0, 1), (3, 2)]),
        GraphError,
        r"edge 1 \(3 -> 2\): child 3 is out of range; the vertices are 0 to 2",
    ),
    "child negative": (lambda: graph(3, [(-1, 2)]), GraphError, r"edge 0 \(-1 -> 2\): child -1 is out of range"),
    "parent out of range": (lambda: graph(3, [(0, 5)]), GraphError, r"edge 0 \(0 -> 5\): parent 5 is out of range"),
    "parent negative": (lambda: graph(3, [(0, -2)]), GraphError, r"edge 0 \(0 -> -2\): parent -2 is out of range"),
    "edges of floats": (
        lambda: graph(3, [(0.5, 1)]),
        InputTypeError,
        "children of edges must be integers, not float64",
    ),
    "an array of floats": (lambda: graph(3, torch.ones(2, 1)), InputTypeError, "must be integers, not float32"),
    "edges of truths": (lambda: graph(3, [(True, False)]), InputTypeError, "must be integers, not bool"),
    "edges of strings": (lambda: graph(3, [("a", "b")]), InputTypeError, "must be integers, not <U1"),
    "an edge of three": (lambda: graph(3, [(0, 1), (0, 1, 2)]), GraphError, r"edge 1 is \(0, 1, 2\); give pairs"),
    "an edge of one": (lambda: graph(3, [0, 1]), GraphError, r"edge 0 is \(0,\); give pairs \(child, parent\)"),
    "an edge of lists": (
        lambda: graph(3, [(0, [1])]),
        GraphError,
        r"\(0, \[1\]\) are no pairs \(child, parent\) of numbers",
    ),
    "edges that are no list": (
        lambda: graph(3, 7),
        InputTypeError,
        r"edges are pairs .* or an array \[2, E\], not int",
    ),
    "an array on its side": (
        lambda: graph(3, np.zeros((3, 2), int)),
        GraphError,
        r"has the shape \[2, E\] \(children, then parents\), not \[3, 2\]; transpose it",
    ),
    "an array of another shape": (lambda: graph(3, np.zeros(4, int)), GraphError, r"shape \[2, E\] .* not \[4\]$"),
    "slot negative": (lambda: graph(2, [(0, 1)], slots=[-1]), GraphError, r"edge 0 \(0 -> 1\): slot -1 is negative"),
    "slot used twice": (
        lambda: graph(4, [(0, 3), (1, 3), (2, 3)], slots=[1, 0, 1]),
        GraphError,
        r"slot 1 of vertex 3 is used twice: by child 0 \(edge 0\) and by child 2 \(edge 2\)",
    ),
    "too few slots": (lambda: graph(3, [(0, 1), (1, 2)], slots=[0]), GraphError, "1 slots for 2 edges"),
    "slots of floats": (lambda: graph(2, [(0, 1)], slots=[0.0]), InputTypeError, "slots must be integers, not float64"),
    "slots in two dimensions": (
        lambda: graph(2, [(0, 1)], slots=[[0]]),
        GraphError,
        "slots must be one list of numbers",
    ),
    "too few kinds": (lambda: graph(2, [], kind=["a"]), GraphError, "1 kinds for 2 vertices; give one for each"),
    "kinds in two dimensions": (
        lambda: graph(2, [], kind=np.zeros((2, 1))),
        GraphError,
        r"not an array of shape \(2, 1\)",
    ),
    "a vertex that is its own child": (lambda: graph(2, [(1, 1)]), GraphError, "a cycle through vertex 1, 1 -> 1;"),
    "a cycle in a forest": (lambda: graph(3, [(0, 1), (1, 2), (2, 0)]), GraphError, r"vertex 1, 1 -> 2 -> 0 -> 1;"),
    "a cycle in a DAG": (
        lambda: graph(4, [(0, 1), (3, 1), (0, 2), (1, 2), (2, 3)]),
        GraphError,
        "a cycle through vertex",
    ),
    "a long cycle": (
        lambda: graph(20, [(v, (v + 1) % 20) for v in range(20)]),
        GraphError,
        r"(\d+ -> ){8}\.\.\. -> \d+; no vertex can depend on itself",
    ),
    "an empty tuple": (
        lambda: tree(((0, 1), ())),
        GraphError,
        r"an empty tuple in \(\(0, 1\), \(\)\); a vertex without",
    ),
    "nothing but an empty tuple": (lambda: tree(()), GraphError, r"an empty tuple in \(\)"),
    "a leaf twice": (lambda: tree(((0, 1), 1)), GraphError, r"leaves of \(\(0, 1\), 1\) are not 0 to 2, each once"),
    "a leaf missing": (lambda: tree((0, 2)), GraphError, r"leaves of \(0, 2\) are not 0 to 1, each once"),
    "a leaf negative": (lambda: tree((0, -1)), GraphError, r"leaves of \(0, -1\) are not 0 to 1"),
    "a single leaf that is not 0": (lambda: tree(3), GraphError, "leaves of 3 are not 0 to 0"),
    "leaves of words": (
        lambda: tree(("a", "b")),
        InputTypeError,
        r"a leaf of \('a', 'b'\) is 'a'; leaves are the numbers",
    ),
    "leaves of truths": (lambda: tree((True, False)), InputTypeError, "is True; leaves are the numbers"),
    "numbers and None": (lambda: tree((0, None)), InputTypeError, r"a leaf of \(0, None\) is None; .* or all None"),
    "a long pattern": (
        lambda: tree(tuple(range(1, 99))),
        GraphError,
        r"leaves of \(1, 2, [\d, ]+\.\.\. are not 0 to 97",
    ),
    "no parents": (lambda: tree_from_parents([]), GraphError, "a graph with no vertices"),
    "a parent out of range": (
        lambda: tree_from_parents([1, 4, -1]),
        GraphError,
        "the parent of vertex 1 is 4, which is out of range; give a vertex from 0 to 2, or -1 for a root",
    ),
    "a parent below -1": (lambda: tree_from_parents([1, -2]), GraphError, "the parent of vertex 1 is -2"),
    "its own parent": (lambda: tree_from_parents([0]), GraphError, "a cycle through vertex 0, 0 -> 0"),
    "parents in a cycle": (lambda: tree_from_parents([1, 2, 1, -1]), GraphError, "a cycle through vertex"),
    "parents of floats": (
        lambda: tree_from_parents([1.0, -1]),
        InputTypeError,
        "parents must be integers, not float64",
    ),
    "a chain of none": (lambda: chain(0), GraphError, "a graph with no vertices: a chain of length 0; give at least 1"),
    "a chain of a fraction": (lambda: chain(1.5), InputTypeError, "the length of a chain is 1.5; give an integer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_malformed_is_refused_and_named(case: str) -> None:
    make, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        make()


def nested_trees() -> st.SearchStrategy[Any]:
    return st.recursive(st.none(), lambda below: st.lists(below, min_size=1, max_size=3).map(tuple), max_leaves=12)


def post_order(nested: Any) -> tuple[int, Edges]:
    """The number of vertices and the (parent, slot, child) triples of `tree(nested)`, by recursion."""
    leaves, inner, edges = 0, 0, []

    def visit(node: Any) -> tuple[str, int]:
        nonlocal leaves, inner
        if node is None:
            leaves += 1
            return "leaf", leaves - 1
        below = [visit(item) for item in node]
        inner += 1
        edges.extend((inner - 1, slot, child) for slot, child in enumerate(below))
        return "inner", inner - 1

    visit(nested)
    number = {"leaf": 0, "inner": leaves}
    return leaves + inner, [(leaves + parent, slot, number[sort] + child) for parent, slot, (sort, child) in edges]


class TestTree:
    def test_leaves_then_inner_vertices_in_post_order(self) -> None:
        input_graph = tree(((0, 1), 2))
        assert input_graph.num_vertices == 5
        assert edges_of(input_graph) == [(3, 0, 0), (3, 1, 1), (4, 0, 3), (4, 1, 2)]

    def test_leaves_may_be_in_any_order(self) -> None:
        assert edges_of(tree((2, (1, 0)))) == [(3, 0, 1), (3, 1, 0), (4, 0, 2), (4, 1, 3)]

    def test_leaves_of_none_are_numbered_from_left_to_right(self) -> None:
        assert edges_of(tree((None, (None, None)))) == edges_of(tree((0, (1, 2))))

    def test_lists_and_any_number_of_children(self) -> None:
        assert edges_of(tree([[0], 1, [2, 3, 4]])) == edges_of(tree(((0,), 1, (2, 3, 4))))
        assert edges_of(tree(((0,), 1, 2))) == [(3, 0, 0), (4, 0, 3), (4, 1, 1), (4, 2, 2)]

    @pytest.mark.parametrize("leaf", [0, None, np.int64(0)])
    def test_a_single_leaf_is_one_vertex(self, leaf: Any) -> None:
        input_graph = tree(leaf)
        assert_well_formed(input_graph)
        assert input_graph.num_vertices == 1

    @given(nested_trees())
    def test_it_is_what_recursion_finds(self, nested: Any) -> None:
        input_graph = tree(nested)
        assert_well_formed(input_graph)
        assert (input_graph.num_vertices, edges_of(input_graph)) == post_order(nested)

    @pytest.mark.parametrize("right", [False, True])
    def test_50000_deep(self, right: bool) -> None:
        depth = 50_000
        nested: Any = None
        for _ in range(depth):
            nested = (None, nested) if right else (nested, None)
        input_graph = tree(nested)
        assert_well_formed(input_graph)
        assert input_graph.num_vertices == 2 * depth + 1
        inner_child = input_graph.child[input_graph.slot == int(right)]
        assert inner_child[1:].tolist() == list(range(depth + 1, 2 * depth))

    def test_an_error_50000_deep_is_still_an_error_of_ours(self) -> None:
        nested: Any = ()
        for _ in range(50_000):
            nested = (nested, None)
        with pytest.raises(GraphError, match=r"an empty tuple in \(\(\(\("):
            tree(nested)


class TestTreeFromParents:
    def test_children_take_slots_in_the_order_of_their_numbers(self) -> None:
        input_graph = tree_from_parents([4, 0, 4, 0, -1])
        assert edges_of(input_graph) == [(0, 0, 1), (0, 1, 3), (4, 0, 0), (4, 1, 2)]

    def test_a_forest_has_several_roots(self) -> None:
        input_graph = tree_from_parents([1, -1, 3, -1])
        assert edges_of(input_graph) == [(1, 0, 0), (3, 0, 2)]

    @pytest.mark.parametrize("parents", [np.array([1, -1]), torch.tensor([1, -1]), (1, -1)])
    def test_arrays_and_tensors(self, parents: Any) -> None:
        assert edges_of(tree_from_parents(parents)) == [(1, 0, 0)]

    @given(st.lists(st.integers(0, 5), max_size=20))
    def test_each_vertex_is_among_the_children_of_its_parent(self, back: list[int]) -> None:
        parents = [vertex - step if step else -1 for vertex, step in enumerate(back)]
        parents = [parent if parent >= 0 else -1 for parent in [*parents, -1]]
        input_graph = tree_from_parents(parents)
        assert_well_formed(input_graph)
        assert sorted((child, parent) for parent, _, child in edges_of(input_graph)) == [
            (vertex, parent) for vertex, parent in enumerate(parents) if parent >= 0
        ]


class TestChain:
    def test_each_vertex_has_the_one_before(self) -> None:
        assert edges_of(chain(4)) == [(1, 0, 0), (2, 0, 1), (3, 0, 2)]

    @pytest.mark.parametrize("length", [1, 2, 7, np.int64(3)])
    def test_it_is_the_tree_of_those_parents(self, length: int) -> None:
        input_graph = chain(length)
        assert_well_formed(input_graph)
        assert edges_of(input_graph) == edges_of(tree_from_parents([*range(1, length), -1]))
