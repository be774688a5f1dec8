"""The random graphs that benchmarks run on are what they say."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

import vertexflow as vf
from benchmarks import structures
from vertexflow.scheduler.optimal import lower_bound

MAKERS = {
    structures.kind_trees: {"leaf", "node"},
    structures.tagged_trees: {"leaf", "node", "output"},
    structures.lattice: {"char", "word"},
    structures.encoder_decoder: {"encode", "decode", "predict"},
    structures.grid: {"cell"},
}


def below(graph: vf.InputGraph) -> list[dict[int, int]]:
    """Of each vertex, the child in each slot."""
    ends = graph.offset.tolist()
    pairs = list(zip(graph.slot.tolist(), graph.child.tolist(), strict=True))
    return [dict(pairs[start:end]) for start, end in itertools.pairwise(ends)]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_graphs_have_the_kinds_said_and_differ(make: Callable[..., vf.InputGraph]) -> None:
    rng = np.random.default_rng(0)
    graphs = [make(rng) for _ in range(20)]
    assert {kind for graph in graphs for kind in graph.kinds} == MAKERS[make]
    assert len({graph.structure.tobytes() for graph in graphs}) > 10
    again = make(np.random.default_rng(0))
    assert np.array_equal(again.structure, graphs[0].structure)
    assert vf.pack(graphs).num_graphs == 20


def test_trees_are_binary() -> None:
    rng = np.random.default_rng(1)
    for graph in (structures.kind_trees(rng, leaves=(1, 9)) for _ in range(50)):
        children = below(graph)
        kinds = graph.kind.tolist()
        assert [len(slots) for slots in children] == [2 * (kind == "node") for kind in kinds]
        assert sorted(graph.child.tolist()) == list(range(graph.num_vertices - 1))  # all but the root, each once
        spans = [range(v, v + 1) for v in range(kinds.count("leaf"))]
        for slots in children[len(spans) :]:
            left, right = spans[slots[0]], spans[slots[1]]
            assert left.stop == right.start
            spans.append(range(left.start, right.stop))


def test_every_node_of_a_tagged_tree_has_an_output() -> None:
    graph = structures.tagged_trees(np.random.default_rng(2))
    kinds, children = graph.kind.tolist(), below(graph)
    outputs = [slots[0] for slots, kind in zip(children, kinds, strict=True) if kind == "output"]
    assert outputs == [v for v, kind in enumerate(kinds) if kind == "node"]


def test_words_span_the_characters_between_their_ends() -> None:
    rng = np.random.default_rng(3)
    for graph in (structures.lattice(rng, word=(2, 3), density=1.5) for _ in range(20)):
        kinds, children = graph.kind.tolist(), below(graph)
        chars = kinds.count("char")
        assert [slots.get(0) for slots in children[:chars]] == [None, *range(chars - 1)]
        ends = [(slot, word, char) for char in range(chars) for slot, word in children[char].items() if slot]
        assert sorted(word for _, word, _ in ends) == list(range(chars, graph.num_vertices))
        for slot, word, char in ends:
            assert slot in (1, 2)
            assert list(children[word]) == [0]
            assert char - children[word][0] + 1 in (2, 3)


def test_encoder_and_decoder_are_one_chain() -> None:
    graph = structures.encoder_decoder(np.random.default_rng(4), source=(3, 3), target=(2, 2))
    assert graph.kind.tolist() == ["encode"] * 3 + ["decode", "predict"] * 2
    assert below(graph) == [{}, {0: 0}, {0: 1}, {0: 2}, {0: 3}, {0: 3, 1: 4}, {0: 5}]
    graph = structures.encoder_decoder(np.random.default_rng(4), source=(3, 3), target=(2, 2), feedback=False)
    assert below(graph) == [{}, {0: 0}, {0: 1}, {0: 2}, {0: 3}, {0: 3}, {0: 5}]
    assert lower_bound(graph.num_vertices, graph.child, graph.offset, np.array([0, 0, 0, 1, 2, 1, 2])) == 6


def test_a_cell_has_the_one_above_and_the_one_to_the_left() -> None:
    graph = structures.grid(np.random.default_rng(5), rows=(2, 2), columns=(3, 3))
    assert below(graph) == [{}, {1: 0}, {1: 1}, {0: 0}, {0: 1, 1: 3}, {0: 2, 1: 4}]
