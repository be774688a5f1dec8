"""Random structures, and random vertex functions over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

import vertexflow as vf

SLOTS = 2
SIZE = 4  # of every state that is a vector
SIDE = 2  # of states that are matrices: SIDE * SIDE == SIZE


@dataclass
class Structure:
    """One input graph, and the same as a list of (child, parent, slot)."""

    num_vertices: int
    edges: list[tuple[int, int, int]]

    def graph(self) -> vf.InputGraph:
        pairs = [(child, parent) for child, parent, _ in self.edges]
        return vf.graph(self.num_vertices, pairs, slots=[slot for _, _, slot in self.edges])


@st.composite
def structures(draw, max_vertices: int = 9, shared: bool | None = None) -> Structure:
    """Forests with missing slots, chains, single vertices; with `shared` also DAGs. Vertices are numbered at random."""
    count = draw(st.integers(1, max_vertices))
    names = draw(st.permutations(range(count)))
    shared = draw(st.booleans()) if shared is None else shared
    free = list(range(count))
    edges = []
    for parent in range(1, count):
        for slot in range(SLOTS):
            choice = draw(st.integers(-1, parent - 1))
            if choice < 0 or (not shared and choice not in free):
                continue
            if not shared:
                free.remove(choice)
            edges.append((names[choice], names[parent], slot))
    return Structure(count, edges)


class RandomFunction(vf.VertexFunction):
    """Runs a drawn program: a list of (operation, operand, operand) over values of shape [rows, SIZE].

    Values 0 and 1 are inputs, 2 to 5 the children's states; the last two become the state, and some are pushed.
    """

    def __init__(self, program, pushed, seed, matrix):
        super().__init__(state={"h": SIZE, "m": (SIDE, SIDE) if matrix else SIZE})
        torch.manual_seed(seed)
        self.program = program
        self.pushed = pushed
        self.linears = nn.ModuleList([nn.Linear(SIZE, SIZE) for _ in range(2)])
        self.joint = nn.Linear(2 * SIZE, 2 * SIZE, bias=False)
        self.norm = nn.LayerNorm(SIZE)
        self.embed = nn.Embedding(5, SIZE)
        self.scale = nn.Parameter(torch.randn(SIZE))
        self.side = nn.Parameter(torch.randn(SIDE, SIDE) / 2)
        self.register_buffer("mask", torch.arange(SIZE) % 2 == 0)
        self.register_buffer("shift", torch.randn(SIZE))
        self.double()

    def extra_repr(self):
        return f"program={self.program}, pushed={self.pushed}, state={self.state}"

    def vertex(self, v):
        left, right = v.gather(0), v.gather(1)
        values = [v.pull("x"), self.embed(v.pull("k"))]
        values += [state.flatten(1) for child in (left, right) for state in (child.h, child.m)]
        for operation, a, b in self.program:
            values.append(OPERATIONS[operation](self, values[a], values[b]))
        m = torch.tanh(values[-2])
        v.scatter(h=torch.tanh(values[-1]), m=m.view(-1, SIDE, SIDE) if self.state["m"] != (SIZE,) else m)
        v.push(**{f"out{index}": values[index] for index in self.pushed})


def _matrices(value):
    return value.reshape(-1, SIDE, SIDE)


OPERATIONS = {
    "add": lambda f, a, b: a + b,
    "sub": lambda f, a, b: a - b,
    "mul": lambda f, a, b: a * b,
    "gate": lambda f, a, b: torch.sigmoid(a) * b,
    "linear": lambda f, a, b: f.linears[0](a),
    "linears": lambda f, a, b: f.linears[1](torch.relu(f.linears[0](a))) + b,
    "joint": lambda f, a, b: torch.mul(*f.joint(torch.cat([a, b], -1)).chunk(2, -1)),
    "split": lambda f, a, b: torch.cat([a[:, SIZE // 2 :], b[:, : SIZE // 2]], -1),
    "norm": lambda f, a, b: f.norm(a + b),
    "softmax": lambda f, a, b: F.softmax(a, -1),
    "mean": lambda f, a, b: a - b.mean(-1, keepdim=True),
    "where": lambda f, a, b: torch.where(f.mask, a, b),
    "choose": lambda f, a, b: torch.where(a > 0, f.shift * b, b),
    "scale": lambda f, a, b: a * f.scale + f.shift,
    "squash": lambda f, a, b: f.scale.sigmoid() * torch.tanh(a),
    "tied": lambda f, a, b: F.linear(torch.tanh(a), f.linears[0].weight.t()),
    "bmm": lambda f, a, b: (_matrices(a) @ _matrices(b)).flatten(1),
    "einsum": lambda f, a, b: torch.einsum("nij,jk->nik", _matrices(a), f.side).flatten(1),
    "left": lambda f, a, b: (f.side @ _matrices(a)).flatten(1),
    "in place": lambda f, a, b: a.clone().add_(b).mul_(0.5),
    "detach": lambda f, a, b: a + b.detach(),
}


@st.composite
def vertex_functions(draw) -> RandomFunction:
    length = draw(st.integers(2, 7))
    program = []
    for step in range(length):
        operands = st.integers(0, 5 + step)
        program.append((draw(st.sampled_from(sorted(OPERATIONS))), draw(operands), draw(operands)))
    pushed = draw(st.lists(st.integers(0, 5 + length), min_size=1, max_size=3, unique=True))
    return RandomFunction(program, pushed, draw(st.integers(0, 10_000)), draw(st.booleans()))


def random_inputs(num_vertices: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_vertices, SIZE, dtype=torch.float64, generator=generator)
    return {"x": x, "k": torch.randint(0, 5, (num_vertices,), generator=generator)}
