"""Random vertex functions that read any number of children, and structures for them."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import nn

import vertexflow as vf

from .strategies import MAX_VERTICES, OPERATIONS, SIZE, Case, RandomFunction, Structure, random_inputs, shapes

TO_ROWS = {
    "sum": lambda v, values: v.sum(values),
    "mean": lambda v, values: v.mean(values),
    "max": lambda v, values: v.max(values),
    "min": lambda v, values: v.min(values),
    "logsumexp": lambda v, values: v.logsumexp(values).clamp(min=-5),  # not -inf, which other operations make NaN of
}
TO_EDGES = ("expand", "softmax")


class RaggedFunction(RandomFunction):
    """Runs a drawn program over two lists of values, of vertices and of edges: (operation, on edges, operand, operand).

    Operations of `OPERATIONS` work on either; those of `TO_ROWS` read a value of edges and give one of vertices. Children
    are also read by slot if `slots` is not 0. The last two values of vertices become the state; those in `pushed` are pushed,
    beside values of edges at odd ones.
    """

    first_slot = 0  # of the children that are read over edges

    def __init__(self, program, pushed, slots, shape, seed, size=SIZE):
        super().__init__(program, pushed, slots, shape, seed, size)
        self.relation = nn.Linear(3, size).double()

    def vertex(self, v):
        kids = v.children[self.first_slot :] if self.first_slot else v.children
        rows = [v.pull("x"), self.embed(v.pull("k")), v.pull("weight")[:, None] * self.scale]
        for child in map(v.gather, range(self.slots)):
            rows += [child.h, self.as_vector(child.m)]
        edges = [kids.h, self.as_vector(kids.m), self.relation(kids.pull("relation")), self.embed(kids.pull("label"))]
        if self.first_slot:
            edges.append(self.embed(kids.slot.clamp(max=4)))
        for operation, on_edges, a, b in self.program:
            if operation in TO_ROWS:
                rows.append(TO_ROWS[operation](v, edges[a % len(edges)]))
            elif operation == "num_children":
                rows.append(rows[a % len(rows)] / (1 + v.num_children)[:, None])
            elif operation == "expand":
                edges.append(kids.expand(rows[a % len(rows)]))
            elif operation == "softmax":
                edges.append(v.softmax(edges[a % len(edges)]))
            else:
                values = edges if on_edges else rows
                values.append(OPERATIONS[operation](self, values[a % len(values)], values[b % len(values)]))
        v.scatter(h=torch.tanh(rows[-1]), m=torch.tanh(self.as_state(rows[-2])))
        v.push(**{f"out{index}": rows[index % len(rows)] for index in self.pushed})
        v.push(**{f"edge_{index}": edges[index // 2 % len(edges)] for index in self.pushed if index % 2})


@st.composite
def ragged_structures(draw, max_parents: int, max_children: int, max_vertices: int = 8) -> Structure:
    """Forests and DAGs numbered at random, with up to `max_children` children a vertex, and edges in any order.

    Slots are not always dense.
    """
    count = draw(st.integers(1, max_vertices))
    names = draw(st.permutations(range(count)))
    parents = [0] * count
    edges = []
    for parent in range(1, count):
        slot = 0
        for child in draw(st.lists(st.integers(0, parent - 1), max_size=max_children)):
            if parents[child] < max_parents:
                parents[child] += 1
                slot += draw(st.integers(0, 1))
                edges.append((names[child], names[parent], slot))
                slot += 1
    return Structure(count, draw(st.permutations(edges)))


@st.composite
def ragged_cases(
    draw, operations: list[str] | None = None, max_graphs: int = 3, max_vertices: int = 8, size: int = SIZE
) -> Case:
    """A random function of any number of children, and a batch and inputs to call it with."""
    reverse, slots = draw(st.booleans()), draw(st.sampled_from([0, 0, 1, 2]))
    parts = draw(
        st.lists(ragged_structures(draw(st.sampled_from([1, 5])), 5, max_vertices), min_size=1, max_size=max_graphs)
    )
    own = operations or [*sorted(OPERATIONS), "num_children"]
    names = st.sampled_from([*own, *2 * (*TO_ROWS, *TO_EDGES)])
    numbers = st.integers(0, 20)
    program = [(draw(names), draw(st.booleans()), draw(numbers), draw(numbers)) for _ in range(draw(st.integers(2, 8)))]
    pushed = draw(st.lists(numbers, min_size=1, max_size=3, unique=True))
    shape, seed = draw(st.sampled_from(shapes(size))), draw(st.integers(0, 10_000))
    model = RaggedFunction(program, pushed, slots, shape, seed, size)
    model.first_slot = draw(st.sampled_from([0, 0, 1, 2]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    count, edges = sum(part.num_vertices for part in parts), sum(len(part.edges) for part in parts)
    inputs = random_inputs(generator, count, size)
    edge_inputs = {
        "relation": torch.randn(edges, 3, dtype=torch.float64, generator=generator),
        "label": torch.randint(0, 5, (edges,), generator=generator),
    }
    for value in (inputs["x"], inputs["weight"], edge_inputs["relation"]):
        value.requires_grad_(draw(st.booleans()))
    model.max_vertices = draw(MAX_VERTICES)
    return Case(model, parts, inputs, reverse, edge_inputs)


def batch_of(case: Case) -> vf.GraphBatch:
    """The case's graphs, packed."""
    return vf.pack([part.graph() for part in case.parts])
