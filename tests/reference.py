"""The oracle: a vertex function run one vertex at a time in plain PyTorch. It shares no code with vertexflow.

It calls the user's own method `vertex(self, v)` on an object `v` with one row, children before parents, and lets autograd
do the rest. Slow on purpose, and right by being simple.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import torch

# Child, parent, slot; or, of an arc, its children (-1: missing), the parent, and the arc's number among those of the parent.
Edge = tuple["int | tuple[int, ...]", int, int]


class AllChildren:
    """What `v.children`, or `v.children[first:]`, is for one vertex."""

    def __init__(self, v, first=0):
        slots = [slot for slot in sorted(v.by_slot) if slot >= first]
        states, shapes, dtypes = [v.by_slot[slot] for slot in slots], v.shapes, v.dtypes
        self.v, self.count, self.slot = v, len(states), torch.tensor(slots, dtype=torch.int64)
        self.inputs = {name: value[len(value) - len(states) :] for name, value in v.edge_inputs.items()}
        for name, shape in shapes.items():
            rows = [state[name] for state in states]
            setattr(self, name, torch.cat(rows) if rows else torch.zeros(0, *shape, dtype=dtypes[name]))

    def pull(self, name):
        return self.inputs[name].clone()

    def __getitem__(self, slots):
        return AllChildren(self.v, slots.start)

    def expand(self, value):
        return value.expand(self.count, *value.shape[1:])


class AllArcs:
    """What `v.arcs` is for one vertex, whose arcs are `v.arity` slots each."""

    def __init__(self, v):
        self.v, self.arcs = v, sorted({slot // v.arity for slot in v.by_slot})
        self.count = len(self.arcs)
        self.slot, self.inputs = torch.arange(self.count), v.edge_inputs

    def gather(self, position):
        v = self.v
        slots = [v.arity * arc + position for arc in self.arcs]
        states = [v.by_slot.get(slot) if position < v.arity else None for slot in slots]
        zeros = {name: torch.zeros(1, *shape, dtype=v.dtypes[name]) for name, shape in v.shapes.items()}
        rows = {name: [(state or zeros)[name] for state in states] for name in v.shapes}
        return SimpleNamespace(**{name: torch.cat([zeros[name][:0], *values]) for name, values in rows.items()})

    def pull(self, name):
        return self.inputs[name].clone()

    def expand(self, value):
        return value.expand(self.count, *value.shape[1:])


class OneVertex:
    """The `v` of one vertex. `children` are the states by slot, `edge_inputs` the inputs of its edges by name."""

    def __init__(self, children, inputs, edge_inputs, shapes, dtypes, edge_numbers=(), shared=None, arity=1):
        self.arity = arity  # of arcs
        self.shared_by_name = shared or {}
        self.edge_numbers = list(edge_numbers)  # in the order of slots
        self.by_slot = children
        self.edge_inputs = edge_inputs
        self.inputs = inputs
        self.shapes = shapes
        self.dtypes = dtypes
        # What a method of a kind leaves out is zero.
        self.state = {name: torch.zeros(1, *shape, dtype=dtypes[name]) for name, shape in shapes.items()}
        self.outputs = {}

    def gather(self, slot):
        child = self.by_slot.get(slot)
        # Copies: a vertex may change what it gathered in place, and its child's state is not its own.
        rows = {
            name: torch.zeros(1, *shape, dtype=self.dtypes[name]) if child is None else child[name].clone()
            for name, shape in self.shapes.items()
        }
        return SimpleNamespace(**rows)

    @property
    def children(self):
        return AllChildren(self)

    @property
    def arcs(self):
        return AllArcs(self)

    @property
    def num_arcs(self):
        return torch.tensor([self.arcs.count])

    @property
    def num_children(self):
        return torch.tensor([len(self.by_slot)])

    def sum(self, values):
        return values.sum(0, keepdim=True)

    def mean(self, values):
        return values.mean(0, keepdim=True) if len(values) else values.sum(0, keepdim=True)

    def max(self, values):
        return values.amax(0, keepdim=True) if len(values) else values.sum(0, keepdim=True)

    def min(self, values):
        return values.amin(0, keepdim=True) if len(values) else values.sum(0, keepdim=True)

    def logsumexp(self, values):
        return values.logsumexp(0, keepdim=True)

    def softmax(self, values):
        return values.softmax(0)

    def pull(self, name):
        return self.inputs[name].clone()

    def shared(self, name):
        return self.shared_by_name[name]

    def scatter(self, **state):
        self.state.update({name: value.to(self.dtypes[name]) for name, value in state.items()})

    def push(self, **outputs):
        self.outputs.update(outputs)


def run_reference(
    model,
    num_vertices: int,
    edges: list[Edge],
    inputs,
    reverse=False,
    edge_inputs=None,
    methods=None,
    initial=None,
    states=None,
    shared=None,
):
    """What `model(graph, **inputs)` must return: pushed name -> rows of the vertices that push it, in vertex order. What is
    pushed under a name that begins with "edge_" has a row an edge instead, in the order of `edges`; zeros where it is not read.

    `edge_inputs` have a row for each edge, in the order of `edges`. `methods`: the method of each vertex, if they
    are of several kinds; inputs have rows for all vertices and edges nevertheless. `initial`: name of a state -> what
    vertices without children read in slot 0, in their order. `shared`: what each
    vertex shares with others. `states`: a list to which the states of all vertices are added.
    """
    slots: list[dict[int, int]] = [{} for _ in range(num_vertices)]
    numbers: list[dict[int, int]] = [{} for _ in range(num_vertices)]  # of the edges, by slot
    arity = next((len(child) for child, _, _ in edges if isinstance(child, tuple)), 1)
    for number, (child, parent, slot) in sorted(enumerate(edges), key=lambda edge: edge[1][1:]):  # consumers in order
        if isinstance(child, tuple):
            slots[parent].update((arity * slot + at, one) for at, one in enumerate(child) if one >= 0)
            numbers[parent][slot] = number
            continue
        below, above, at = (parent, child, len(slots[child])) if reverse else (child, parent, slot)
        slots[above][at] = below
        numbers[above][at] = number
    usual = next((p.dtype for p in model.parameters()), torch.float64)
    state_dtypes = model.state_dtype if isinstance(model.state_dtype, Mapping) else {}
    dtypes = {name: state_dtypes.get(name, usual) for name in model.state}
    done: list[OneVertex | None] = [None] * num_vertices
    leaves = [vertex for vertex in range(num_vertices) if not slots[vertex]]
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
                own = [numbers[vertex][slot] for slot in sorted(numbers[vertex])]
                edge_rows = {name: value[own] for name, value in (edge_inputs or {}).items()}
                if initial is not None and vertex in leaves:
                    at = leaves.index(vertex)
                    children[0] = {
                        name: initial[name][at : at + 1]
                        if name in initial
                        else torch.zeros(1, *shape, dtype=dtypes[name])
                        for name, shape in model.state.items()
                    }
                done[vertex] = OneVertex(
                    children, rows, edge_rows, model.state, dtypes, own, shared and shared[vertex], arity
                )
                (model.vertex if methods is None else methods[vertex])(done[vertex])
    if states is not None:
        states += [value for one in done for value in one.state.values()]
    names = dict.fromkeys(name for one in done for name in one.outputs)
    outputs = {}
    for name in names:
        pushing = [one for one in done if name in one.outputs]
        outputs[name] = torch.cat([one.outputs[name] for one in pushing])
        if name.startswith("edge_"):
            rows = {}
            for one in pushing:
                read = len(one.outputs[name])
                zeros = outputs[name].new_zeros(len(one.edge_numbers) - read, *outputs[name].shape[1:])
                rows |= zip(one.edge_numbers, torch.cat([zeros, one.outputs[name]]).unbind(), strict=True)
            outputs[name] = torch.stack([rows[number] for number in sorted(rows)]) if rows else outputs[name]
    return outputs
