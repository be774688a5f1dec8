"""The models, one of each way to read children, on which the promises of docs/guarantees.md are tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

import vertexflow as vf

from .models import TreeRNN

SIZE = 8


class Attention(vf.VertexFunction):
    """Any number of children, weighted by a softmax and reduced in every other way."""

    def __init__(self):
        super().__init__(state={"h": SIZE})
        self.key, self.mix = nn.Linear(SIZE, 1, bias=False), nn.Linear(4 * SIZE, SIZE)

    def vertex(self, v):
        kids, x = v.children, v.pull("x")
        weight = v.softmax(self.key(torch.tanh(kids.h + kids.expand(x))))
        h = torch.tanh(self.mix(torch.cat([x, v.sum(weight * kids.h), v.mean(kids.h), v.max(kids.h)], -1)))
        v.scatter(h=h)
        v.push(h=h)


class Circuit(vf.VertexFunction):
    """Three kinds; two that read others have parameters of their own."""

    def __init__(self):
        super().__init__(state={"h": SIZE})
        self.read, self.join, self.turn = (nn.Linear(n * SIZE, SIZE) for n in (1, 2, 1))
        self.drop = nn.Dropout(0.2)

    @vf.vertex("in")
    def of_in(self, v):
        h = torch.tanh(self.read(self.drop(v.pull("x"))))
        v.scatter(h=h)
        v.push(h=h)

    @vf.vertex("and")
    def of_and(self, v):
        h = torch.tanh(self.join(torch.cat([v.gather(0).h, v.gather(1).h], -1)))
        v.scatter(h=h)
        v.push(h=h)

    @vf.vertex("not")
    def of_not(self, v):
        h = torch.tanh(self.turn(v.gather(0).h))
        v.scatter(h=h)
        v.push(h=h)


@dataclass(frozen=True)
class Shape:
    """A model, and random input graphs for it; `inputs` are the vertices of a graph that have a row of `x`."""

    model: Callable[[], vf.VertexFunction]
    graph: Callable[[np.random.Generator], vf.InputGraph]
    has_input: Callable[[vf.InputGraph], int]


def _tree(random: np.random.Generator) -> vf.InputGraph:
    nested: list[object] = list(range(random.integers(1, 6)))
    while len(nested) > 1:
        at = random.integers(len(nested) - 1)
        nested[at : at + 2] = [(nested[at], nested[at + 1])]
    return vf.tree(nested[0])


def _dag(most: int, kinds: bool = False) -> Callable[[np.random.Generator], vf.InputGraph]:
    def graph(random: np.random.Generator) -> vf.InputGraph:
        count, first = int(random.integers(3, 9)), 2
        kind = ["in"] * first + [str(random.choice(["and", "not"])) for _ in range(first, count)]
        edges = []
        for parent in range(first, count):
            number = {"and": 2, "not": 1}[kind[parent]] if kinds else int(random.integers(0, min(parent, most) + 1))
            edges += [(int(child), parent) for child in random.choice(parent, number, replace=False)]
        return vf.graph(count, edges, kind=kind) if kinds else vf.graph(count, edges)

    return graph


SHAPES = {
    "trees": Shape(lambda: TreeRNN(SIZE, SIZE), _tree, lambda graph: graph.num_vertices),
    "DAGs": Shape(lambda: TreeRNN(SIZE, SIZE), _dag(2), lambda graph: graph.num_vertices),
    "ragged": Shape(Attention, _dag(4), lambda graph: graph.num_vertices),
    "kinds": Shape(Circuit, _dag(2, kinds=True), lambda graph: 2),
}


def graphs_of(shape: Shape, count: int, seed: int = 0) -> list[vf.InputGraph]:
    """Random input graphs."""
    random = np.random.default_rng(seed)
    return [shape.graph(random) for _ in range(count)]


def inputs_of(shape: Shape, graphs: list[vf.InputGraph], seed: int = 0) -> torch.Tensor:
    """A row for each vertex that reads one."""
    count = sum(map(shape.has_input, graphs))
    return torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed))


def outputs_and_gradients(model, graphs, x):
    """What was pushed, and the gradients of the input and of all parameters."""
    x = x.clone().requires_grad_()
    h = model(graphs, x=x).h
    grads = torch.autograd.grad(h.square().sum(), [x, *model.parameters()])
    return [h.detach(), *grads]


def same_bits(one, other) -> bool:
    def bits(x):
        x = x.detach().contiguous()
        return x.dtype, (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy().tobytes()

    return list(map(bits, one)) == list(map(bits, other))
