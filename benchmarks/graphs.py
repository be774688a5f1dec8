"""Random input graphs, of the sizes that real ones have."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

import vertexflow as vf


def random_tree(rng: random.Random, leaves: int) -> Any:
    """A random binary tree: split the leaves anywhere, again and again."""
    if leaves == 1:
        return None
    left = rng.randint(1, leaves - 1)
    return random_tree(rng, left), random_tree(rng, leaves - left)


def complete_tree(leaves: int) -> Any:
    """A complete binary tree; `leaves` is a power of two."""
    return None if leaves == 1 else (complete_tree(leaves // 2), complete_tree(leaves // 2))


def random_dependencies(rng: random.Random, words: int) -> vf.InputGraph:
    """A random tree with the words as vertices: each depends on one of those that came before it in a random order."""
    order = rng.sample(range(words), words)
    parents = [-1] * words
    for at in range(1, words):
        parents[order[at]] = order[rng.randrange(at)]
    return vf.tree_from_parents(parents)


def random_circuit(rng: random.Random, sources: int, gates: int) -> vf.InputGraph:
    """A random DAG: each gate reads two of the 32 vertices before it."""
    edges = []
    for gate in range(sources, sources + gates):
        first, second = rng.sample(range(max(0, gate - 32), gate), 2)
        edges += [(first, gate), (second, gate)]
    return vf.graph(sources + gates, edges)


def wide_circuit(seed: int, gates: int, width: int, reach: int = 16, levels_back: int = 3) -> vf.InputGraph:
    """A random DAG in levels of `width` gates: each reads a gate of the level before and one of some levels before, both at
    most `reach` places aside, as gates do that are placed near to each other."""
    rng = np.random.default_rng(seed)
    gate = np.arange(width, gates)
    level, place = np.divmod(gate, width)
    edges = []
    for back in (np.ones(len(gate), np.int64), rng.integers(1, levels_back + 1, len(gate))):
        beside = (place + rng.integers(-reach, reach + 1, len(gate))) % width
        edges.append(np.stack([np.maximum(level - back, 0) * width + beside, gate]))
    return vf.graph(gates, np.concatenate(edges, 1))
