"""Random structures, random vertex functions, and the two put together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

import vertexflow as vf

SIZE = (
    4  # of the values that a drawn program works on, unless something else is asked for; the square of an even number
)


@dataclass
class Structure:
    """One input graph, and the same as a list of (child, parent, slot), or, of a hypergraph, of (children, parent, number)."""

    num_vertices: int
    edges: list[tuple[int, int, int]]

    def graph(self, kind: list[str] | None = None) -> vf.InputGraph:
        pairs = [(child, parent) for child, parent, _ in self.edges]
        if any(isinstance(child, tuple) for child, _ in pairs):
            return vf.hypergraph(self.num_vertices, pairs, kind)
        return vf.graph(self.num_vertices, pairs, kind, slots=[slot for _, _, slot in self.edges])


# A tree, one with a missing left child, a single vertex, and a DAG in which one child fills both slots.
PARTS = [
    Structure(5, [(0, 3, 0), (1, 3, 1), (3, 4, 0), (2, 4, 1)]),
    Structure(2, [(1, 0, 1)]),
    Structure(1, []),
    Structure(4, [(0, 1, 0), (0, 1, 1), (1, 3, 0), (2, 3, 1)]),
]
ROWS = sum(part.num_vertices for part in PARTS)


@dataclass
class Case:
    """What a model is to be called with."""

    model: vf.VertexFunction
    parts: list[Structure]
    inputs: dict[str, torch.Tensor]
    reverse: bool = False
    edge_inputs: dict[str, torch.Tensor] = field(default_factory=dict)


@st.composite
def structures(draw, slots: int, max_parents: int, max_vertices: int = 9) -> Structure:
    """Chains, forests with missing children, single vertices, and DAGs if `max_parents` > 1.

    Vertices are numbered at random, and edges are in any order.
    """
    count = draw(st.integers(1, max_vertices))
    names = draw(st.permutations(range(count)))
    if draw(st.integers(0, 3)) == 0:
        edges = [(names[i], names[i + 1], draw(st.integers(0, slots - 1))) for i in range(count - 1)]
        return Structure(count, draw(st.permutations(edges)))
    parents = [0] * count
    edges = []
    for parent in range(1, count):
        for slot in range(slots):
            child = draw(st.integers(-1, parent - 1))
            if child >= 0 and parents[child] < max_parents:
                parents[child] += 1
                edges.append((names[child], names[parent], slot))
    return Structure(count, draw(st.permutations(edges)))


class RandomFunction(vf.VertexFunction):
    """Runs a drawn program: a list of (operation, operand, operand) over values of shape [rows, size].

    The first values are three inputs and the children's states, slot by slot. The last two values become the state;
    those numbered in `pushed`, of whatever part, are pushed.
    """

    def __init__(self, program, pushed, slots, shape, seed, size=SIZE):
        super().__init__(state={"h": size, "m": shape})
        torch.manual_seed(seed)
        self.size, side = size, math.isqrt(size)
        self.program, self.pushed, self.slots, self.seed = program, pushed, slots, seed
        self.linears = nn.ModuleList([nn.Linear(size, size) for _ in range(2)])
        self.joint = nn.Linear(2 * size, 2 * size, bias=False)
        self.norm = nn.LayerNorm(size)
        self.embed = nn.Embedding(5, size)
        self.scale = nn.Parameter(torch.randn(size))
        self.side = nn.Parameter(torch.randn(side, side) / side)
        self.register_buffer("mask", torch.arange(size) % 2 == 0)
        self.register_buffer("shift", torch.randn(size))
        self.double()

    def extra_repr(self):
        return (
            f"program={self.program}, pushed={self.pushed}, slots={self.slots}, shape={self.state['m']}, "
            f"seed={self.seed}"
        )

    def vertex(self, v):
        values = [v.pull("x"), self.embed(v.pull("k")), v.pull("weight")[:, None] * self.scale]
        for child in map(v.gather, range(self.slots)):
            values += [child.h, self.as_vector(child.m)]
        for operation, a, b in self.program:
            values.append(OPERATIONS[operation](self, values[a], values[b]))
        v.scatter(h=torch.tanh(values[-1]), m=torch.tanh(self.as_state(values[-2])))
        v.push(**{f"out{index}": values[index] for index in self.pushed})

    def as_vector(self, m):
        if self.state["m"] == (3, 3):
            return torch.cat([m.sum((1, 2))[:, None], m.diagonal(dim1=1, dim2=2)], -1)
        return torch.cat([m, -m], -1) if self.state["m"] == (self.size // 2,) else m.flatten(1)

    def as_state(self, value):
        if self.state["m"] == (3, 3):
            return value[:, 1:, None] * value[:, None, :3]
        return value.chunk(2, -1)[1] if self.state["m"] == (self.size // 2,) else value.view(-1, *self.state["m"])


def shapes(size):
    """Those that the state "m" can have."""
    side = math.isqrt(size)
    return [(size,), (side, side), (size // 2,), *([(3, 3)] if size == 4 else [])]


def _matrices(value):
    side = math.isqrt(value.shape[1])
    return value.reshape(-1, side, side)


OPERATIONS = {
    "add": lambda f, a, b: a + b,
    "sub": lambda f, a, b: a - b,
    "mul": lambda f, a, b: a * b,
    "div": lambda f, a, b: a / (1 + b * b),
    "gate": lambda f, a, b: torch.sigmoid(a) * b,
    "linear": lambda f, a, b: f.linears[0](a),
    "linears": lambda f, a, b: f.linears[1](F.silu(f.linears[0](a))) + b,
    "relu": lambda f, a, b: torch.relu(f.linears[0](a)) - b,
    "joint": lambda f, a, b: torch.mul(*f.joint(torch.cat([a, b], -1)).chunk(2, -1)),
    "tied": lambda f, a, b: F.linear(torch.tanh(a), f.linears[0].weight.t()),
    "split": lambda f, a, b: torch.cat([a[:, f.size // 2 :], b[:, : f.size // 2]], -1),
    "stack": lambda f, a, b: torch.stack([a, b, a * b], 1).mean(1),
    "norm": lambda f, a, b: f.norm(a + b),
    "softmax": lambda f, a, b: F.softmax(a, -1),
    "mean": lambda f, a, b: a - b.mean(-1, keepdim=True),
    "cumsum": lambda f, a, b: (a + b).cumsum(-1),
    "roll": lambda f, a, b: a.roll(1, -1) + b.flip(-1),
    "where": lambda f, a, b: torch.where(f.mask, a, b),
    "choose": lambda f, a, b: torch.where(a > 0, f.shift * b, b),
    "larger": lambda f, a, b: torch.maximum(a, b + f.shift),
    "scale": lambda f, a, b: a * f.scale + f.shift,
    "squash": lambda f, a, b: f.scale.sigmoid() * torch.tanh(a),
    "bmm": lambda f, a, b: (_matrices(a) @ _matrices(b)).flatten(1),
    "einsum": lambda f, a, b: torch.einsum("nij,jk->nik", _matrices(a), f.side).flatten(1),
    "left": lambda f, a, b: (f.side @ _matrices(a)).flatten(1),
    "transpose": lambda f, a, b: _matrices(a).transpose(1, 2).reshape(-1, f.size) + b,
    "in place": lambda f, a, b: a.clone().add_(b).mul_(0.5),
    "detach": lambda f, a, b: a + b.detach(),
}
# Finite differences see no sense in corners, nor in a gradient that is not that of the value.
SMOOTH = sorted(OPERATIONS.keys() - {"relu", "choose", "larger", "detach"})


@st.composite
def vertex_functions(draw, slots: int, operations: list[str], size: int) -> RandomFunction:
    given = 3 + 2 * slots
    program = []
    for step in range(draw(st.integers(2, 7))):
        operands = st.integers(0, given + step - 1)
        program.append((draw(st.sampled_from(operations)), draw(operands), draw(operands)))
    values = st.integers(0, given + len(program) - 1)
    pushed = draw(st.lists(values, min_size=1, max_size=3, unique=True))
    shape, seed = draw(st.sampled_from(shapes(size))), draw(st.integers(0, 10_000))
    return RandomFunction(program, pushed, slots, shape, seed, size)


MAX_VERTICES = st.sampled_from([None, None, 1, 5])  # mostly whole batches; one graph after the other; some at a time


def random_inputs(generator: torch.Generator, count: int, size: int = SIZE) -> dict[str, torch.Tensor]:
    """What random functions pull: rows of `count` vertices."""
    return {
        "x": torch.randn(count, size, dtype=torch.float64, generator=generator),
        "k": torch.randint(0, 5, (count,), generator=generator),
        "weight": torch.rand(count, dtype=torch.float64, generator=generator),
    }


@st.composite
def cases(
    draw, operations: list[str] | None = None, max_graphs: int = 3, max_vertices: int = 9, size: int = SIZE
) -> Case:
    """A random function of up to three children, and a batch and inputs to call it with."""
    slots, reverse = draw(st.integers(1, 3)), draw(st.booleans())
    # Against the edges, the parents are what is gathered.
    max_parents = draw(st.sampled_from([1, slots] if reverse else [1, max_vertices]))
    parts = draw(st.lists(structures(slots, max_parents, max_vertices), min_size=1, max_size=max_graphs))
    model = draw(vertex_functions(slots, operations or sorted(OPERATIONS), size))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    count = sum(part.num_vertices for part in parts)
    inputs = random_inputs(generator, count, size)
    for name in ("x", "weight"):
        inputs[name].requires_grad_(draw(st.booleans()))
    model.max_vertices = draw(MAX_VERTICES)
    return Case(model, parts, inputs, reverse)
