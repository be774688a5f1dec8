"""The oracle: a vertex function run one vertex at a time in plain PyTorch. It shares no code with vertexflow.

It calls the user's own method `vertex(self, v)` on an object `v` with one row, children before parents, and lets autograd
do the rest. Slow on purpose, and right by being simple.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch

Edge = tuple[int, int, int]  # child, parent, slot


class OneVertex:
    """The `v` of one vertex."""

    def __init__(self, children, inputs, shapes, dtype):
        self.children = children
        self.inputs = inputs
        self.shapes = shapes
        self.dtype = dtype
        self.state = {}
        self.outputs = {}

    def gather(self, slot):
        child = self.children.get(slot)
        # Copies: a vertex may change what it gathered in place, and its child's state is not its own.
        rows = {
            name: torch.zeros(1, *shape, dtype=self.dtype) if child is None else child[name].clone()
            for name, shape in self.shapes.items()
        }
        return SimpleNamespace(**rows)

    def pull(self, name):
        return self.inputs[name].clone()

    def scatter(self, **state):
        self.state.update(state)

    def push(self, **outputs):
        self.outputs.update(outputs)


def run_reference(model, num_vertices: int, edges: list[Edge], inputs, reverse: bool = False):
    """What `model(graph, **inputs)` must return: pushed name -> rows of all vertices, in vertex order."""
    slots: list[dict[int, int]] = [{} for _ in range(num_vertices)]
    if reverse:
        for child, parent, _ in sorted(edges, key=lambda edge: (edge[1], edge[2])):
            slots[child][len(slots[child])] = parent
    else:
        for child, parent, slot in edges:
            slots[parent][slot] = child
    dtype = next((p.dtype for p in model.parameters()), torch.float64)
    done: list[OneVertex | None] = [None] * num_vertices
    for start in range(num_vertices):
        stack = [start]
        while stack:
            vertex = stack[-1]
            missing = [child for child in slots[vertex].values() if done[child] is None]
            if done[vertex] is None and missing:
                stack += missing
                continue
            stack.pop()
            if done[vertex] is None:
                children = {slot: done[child].state for slot, child in slots[vertex].items()}
                rows = {name: value[vertex : vertex + 1] for name, value in inputs.items()}
                done[vertex] = OneVertex(children, rows, model.state, dtype)
                model.vertex(done[vertex])
    return {name: torch.cat([one.outputs[name] for one in done]) for name in done[0].outputs}
