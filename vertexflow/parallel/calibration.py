"""The vertex functions and graphs on whose training steps a device is timed; none of them is a model that anyone plans."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..function import VertexFunction
from ..graph.inputs.build import InputGraph, chain, graph, tree
from ..graph.inputs.pack import GraphBatch, pack
from ..graph.symbolic.vertex import Vertex
from .observe import BACKWARD

LEAST = 9  # of `tasks`: the smallest and the largest of each kind
ALWAYS_FRESH = 32 << 20  # bytes that glibc gets from the system anew each time
_TURNS = 9


class OneProduct(VertexFunction):
    """A product a step."""

    def __init__(self, size: int) -> None:
        super().__init__(state={"h": size})
        self.weight = nn.Parameter(torch.randn(size, size) / size)

    def vertex(self, v: Vertex) -> None:
        h = torch.relu(v.gather(0).h @ self.weight + v.pull("x"))
        v.scatter(h=h)
        v.push(h=h)


class Large(OneProduct):
    """The same with a parameter that no core keeps near itself."""


class TwoProducts(VertexFunction):
    """Two products a step, of two children, one after the other, and one before all steps."""

    def __init__(self, size: int) -> None:
        super().__init__(state={"h": size})
        self.first = nn.Linear(2 * size, size)
        self.second, self.before = nn.Linear(size, size), nn.Linear(size, size)

    def vertex(self, v: Vertex) -> None:
        children = torch.cat([v.gather(0).h, v.gather(1).h], -1)
        h = torch.relu(self.second(torch.relu(self.first(children) + self.before(v.pull("x")))))
        v.scatter(h=h)
        v.push(h=h)


class Elements(VertexFunction):
    """Slow functions of elements, and no product."""

    def __init__(self, size: int) -> None:
        super().__init__(state={"h": size})
        self.scale = nn.Parameter(torch.ones(size))

    def vertex(self, v: Vertex) -> None:
        h = v.gather(0).h + v.pull("x") * self.scale
        for _ in range(3):
            h = torch.tanh(h) * 0.5
        v.scatter(h=h)
        v.push(h=h)


class Edges(VertexFunction):
    """Loops over the edges to all children, and a product after all steps."""

    def __init__(self, size: int) -> None:
        super().__init__(state={"h": size})
        self.after = nn.Linear(size, size)

    def vertex(self, v: Vertex) -> None:
        children = v.children
        gates = torch.sigmoid(children.h + children.expand(v.pull("x")))
        h = torch.tanh(v.sum(gates * children.h))
        v.scatter(h=h)
        v.push(h=self.after(h))


def seconds_of_a_call(repeat: int = 30) -> float:
    """The least time of a small operation of PyTorch, forward or backward."""
    x, num_calls, least = torch.randn(16, 16, requires_grad=True), 20, float("inf")
    for _ in range(repeat):
        begin = time.perf_counter()
        y = x
        for _ in range(num_calls):
            y = y * 0.5
        y.backward(x.detach())  # type: ignore[no-untyped-call]
        least = min(least, time.perf_counter() - begin)
    return least / (3 * num_calls)


def seconds_of_a_fresh_byte(seconds: float) -> float:
    """Of what PyTorch's own operations read and write of large tensors, forward and backward, as `observe` counts it: the median.

    The memory of such tensors goes back to the system when they are freed, and each page that is got anew is cleared first: in
    part those of tensors of some MiB, always those of `ALWAYS_FRESH` ones."""
    x = torch.randn(ALWAYS_FRESH // 4, requires_grad=True)
    taken: list[float] = []
    started = time.perf_counter()
    while len(taken) < 3 or (len(taken) < _TURNS and time.perf_counter() - started < seconds):
        x.grad = None
        begin = time.perf_counter()
        (x * 0.5).square().sum().backward()  # type: ignore[no-untyped-call]
        taken.append(time.perf_counter() - begin)
    counted = (2 + 2 + 1) * ALWAYS_FRESH * (1 + BACKWARD)  # read and written: two, two, one
    return statistics.median(taken) / counted


@dataclass(frozen=True)
class Task:
    """A model, and what it is called on."""

    model: VertexFunction
    batch: GraphBatch
    x: Tensor

    def step(self) -> None:
        """A training step."""
        h = self.model(self.batch, x=self.x).h
        h.backward(torch.ones(()).expand_as(h))


def tasks() -> Iterator[Task]:
    """All of them, the smallest and the largest of each kind first, as the others are between; a fixed seed draws the graphs."""
    chains = [[chain(48)], [chain(32)] * 4, [chain(24)] * 16, [chain(16)] * 64, [chain(8)] * 256]
    rng = random.Random(0)
    graphs = [_gates(rng, 100) for _ in range(4)]
    trees = [tree(_complete(32))] * 16
    shapes: dict[Callable[[int], VertexFunction], tuple[tuple[int, ...], list[list[InputGraph]]]] = {
        OneProduct: ((32, 128, 384), chains),
        Large: ((1024,), chains[:3]),
        Elements: ((32, 128, 512), chains[1:]),
        TwoProducts: ((48, 192, 512), [*chains[::2], graphs, trees]),
        Edges: ((32, 128, 384), [*chains[1::2], graphs, trees]),
    }
    models: dict[tuple[Any, int], VertexFunction] = {}
    every = [
        (_turn(at_size, sizes), _turn(at_structure, structures), make, size, structure)
        for make, (sizes, structures) in shapes.items()
        for at_size, size in enumerate(sizes)
        for at_structure, structure in enumerate(structures)
    ]
    for *_, make, size, structure in sorted(every, key=lambda each: (max(each[:2]), -min(each[:2]), each[0])):
        if (make, size) not in models:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                models[make, size] = make(size)
        batch = pack(structure)
        yield Task(models[make, size], batch, torch.randn(batch.num_vertices, size))


def _turn(number: int, items: Sequence[object]) -> int:
    """When one of some items comes: the first, the last, and then the others."""
    return 0 if not number else 1 if number == len(items) - 1 else number + 1


def _complete(leaves: int) -> object:
    return None if leaves == 1 else (_complete(leaves // 2), _complete(leaves // 2))


def _gates(rng: random.Random, count: int) -> InputGraph:
    edges = [(child, gate) for gate in range(16, count) for child in rng.sample(range(gate - 16, gate), 2)]
    return graph(count, edges)
