"""Random structures of every sort: forests, chains, single vertices, DAGs with missing slots and repeated children."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from vertexflow.graph.inputs.build import InputGraph, chain, graph
from vertexflow.graph.inputs.pack import GraphBatch, pack

KINDS = ("leaf", "node", "gate")


@st.composite
def graphs(draw: st.DrawFn, with_kinds: bool = False, max_vertices: int = 12) -> InputGraph:
    """A graph whose vertices are numbered at random, so that children may come after their parents."""
    sort = draw(st.sampled_from(("forest", "dag", "chain", "single")))
    count = 1 if sort == "single" else draw(st.integers(1, max_vertices))
    if sort == "chain" and not with_kinds:
        return chain(count)
    names = draw(st.permutations(range(count)))
    edges: list[tuple[int, int]] = []
    slots: list[int] = []
    for rank in range(1, count):
        if sort == "forest":
            parent = draw(st.integers(rank, count))  # ranks grow upwards: vertex rank - 1 goes below one of the later
            if parent < count:
                slots.append(sum(above == names[parent] for _, above in edges))
                edges.append((names[rank - 1], names[parent]))
        else:
            below = [rank - 1] if sort == "chain" else draw(st.lists(st.integers(0, rank - 1), max_size=3))
            taken = draw(st.permutations(range(4)))[: len(below)]
            slots += taken
            edges += [(names[child], names[rank]) for child in below]
    kind = draw(st.lists(st.sampled_from(KINDS), min_size=count, max_size=count)) if with_kinds else None
    return graph(count, edges, kind=kind, slots=slots)


@st.composite
def batches(draw: st.DrawFn) -> GraphBatch:
    with_kinds = draw(st.booleans())
    return pack(draw(st.lists(graphs(with_kinds), min_size=1, max_size=5)))


def children(batch: GraphBatch | InputGraph) -> list[list[tuple[int, int]]]:
    """The (slot, child) pairs of each vertex, as Python lists: what the oracles of the tests walk over."""
    return [
        [(int(batch.slot[edge]), int(batch.child[edge])) for edge in range(batch.offset[v], batch.offset[v + 1])]
        for v in range(batch.num_vertices)
    ]


def by_hand(num_vertices: int, pairs: list[tuple[int, int]]) -> GraphBatch:
    """A batch that `vf.graph` would refuse, one slot an edge: (child, parent) pairs may run in a cycle."""
    pairs = sorted(pairs, key=lambda pair: pair[1])
    child = np.array([below for below, _ in pairs], dtype=np.int32)
    parent = np.array([above for _, above in pairs], dtype=np.int32)
    offset = np.searchsorted(parent, np.arange(num_vertices + 1)).astype(np.int32)
    slot = np.arange(len(child), dtype=np.int32) - offset[parent]
    ends = np.array([0, num_vertices], dtype=np.int32)
    return GraphBatch(1, num_vertices, child, slot, offset, ends, num_slots=int(slot.max(initial=-1)) + 1)
