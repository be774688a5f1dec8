"""Random input graphs with kinds, for benchmarks of scheduling: what batches well by depth, and what does not.

Each function draws one graph from a NumPy generator. A size is a pair (least, most), both included. Children have smaller
numbers than their parents, except in `lattice`.
"""

from __future__ import annotations

import numpy as np

import vertexflow as vf

Range = tuple[int, int]


def kind_trees(rng: np.random.Generator, leaves: Range = (5, 35)) -> vf.InputGraph:
    """A binary tree, split anywhere again and again. Kinds: "leaf", and "node" with two children.

    The leaves are the vertices 0 .. L - 1 from left to right, the root is the last.
    """
    count = _draw(rng, leaves)
    return vf.graph(2 * count - 1, _binary_tree(rng, count), kind=["leaf"] * count + ["node"] * (count - 1))


def tagged_trees(rng: np.random.Generator, leaves: Range = (5, 35)) -> vf.InputGraph:
    """A tree as in `kind_trees` with a vertex of kind "output" on top of every node, so that each node has a result.

    Nodes and outputs are ready at almost every depth: by depth that is nearly twice the steps that are needed, as all
    outputs can wait for the root and run in one step.
    """
    count = _draw(rng, leaves)
    size = 2 * count - 1
    edges = _binary_tree(rng, count) + [(node, node + count - 1) for node in range(count, size)]
    return vf.graph(size + count - 1, edges, kind=["leaf"] * count + ["node"] * (count - 1) + ["output"] * (count - 1))


def lattice(
    rng: np.random.Generator, length: Range = (10, 40), word: Range = (2, 4), density: float = 0.4
) -> vf.InputGraph:
    """The lattice of characters and dictionary words of a Lattice LSTM (Zhang and Yang, ACL 2018, arXiv 1805.02023).

    Kinds: "char", the vertices 0 .. N - 1 in a chain (slot 0), and "word". A word spans as many characters as `word`
    says. It has its first character in slot 0, and the last one has it in a slot from 1 on.

    Args:
        rng: draws the graph.
        length: how many characters.
        word: how many characters a word spans.
        density: how many words end at a character, on average; every span ends one with the same probability.
    """
    count = _draw(rng, length)
    shortest, longest = word
    edges: list[tuple[int, int]] = []
    slots: list[int] = []
    size = count
    for char in range(1, count):
        edges.append((char - 1, char))
        slots.append(0)
        spans = np.arange(shortest, min(longest, char + 1) + 1)
        for at, span in enumerate(spans[rng.random(len(spans)) < density / (longest - shortest + 1)]):
            edges += [(char + 1 - int(span), size), (size, char)]
            slots += [0, 1 + at]
            size += 1
    return vf.graph(size, edges, kind=["char"] * count + ["word"] * (size - count), slots=slots)


def encoder_decoder(
    rng: np.random.Generator, source: Range = (5, 30), target: Range = (5, 30), feedback: bool = True
) -> vf.InputGraph:
    """A chain of kind "encode", then one of kind "decode", each with a vertex of kind "predict" on top.

    A decode vertex has the vertex before it in its chain in slot 0 (the first has the last that encodes), and with
    `feedback` also the prediction before it in slot 1. Without feedback all predictions can run in one step.
    """
    encoded, decoded = _draw(rng, source), _draw(rng, target)
    edges = [(v, v + 1) for v in range(encoded - 1)]
    before = encoded - 1
    for decode in range(encoded, encoded + 2 * decoded, 2):
        edges.append((before, decode))
        if feedback and decode > encoded:
            edges.append((decode - 1, decode))
        edges.append((decode, decode + 1))
        before = decode
    return vf.graph(encoded + 2 * decoded, edges, kind=["encode"] * encoded + ["decode", "predict"] * decoded)


def grid(rng: np.random.Generator, rows: Range = (5, 20), columns: Range = (5, 20)) -> vf.InputGraph:
    """A grid of kind "cell", as in a two-dimensional LSTM: the cell above is in slot 0, the one to the left in slot 1."""
    height, width = _draw(rng, rows), _draw(rng, columns)
    cells = np.arange(height * width).reshape(height, width)
    down = np.stack((cells[:-1].ravel(), cells[1:].ravel()))
    right = np.stack((cells[:, :-1].ravel(), cells[:, 1:].ravel()))
    slots = np.repeat([0, 1], [down.shape[1], right.shape[1]])
    return vf.graph(height * width, np.concatenate((down, right), axis=1), kind=["cell"] * cells.size, slots=slots)


def _draw(rng: np.random.Generator, size: Range) -> int:
    return int(rng.integers(size[0], size[1] + 1))


def _binary_tree(rng: np.random.Generator, leaves: int) -> list[tuple[int, int]]:
    """The edges of a random binary tree: leaves 0 .. L - 1 from left to right, then nodes, children first."""
    edges: list[tuple[int, int]] = []
    node = 2 * leaves - 1
    stack = [(0, leaves, node)]  # the first leaf of a subtree, how many there are, and the parent
    while stack:
        first, count, parent = stack.pop()
        vertex = first
        if count > 1:
            node -= 1
            vertex = node
            left = int(rng.integers(1, count))
            stack += [(first + left, count - left, vertex), (first, left, vertex)]
        if parent < 2 * leaves - 1:
            edges.append((vertex, parent))
    return edges
