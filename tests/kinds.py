"""Random vertex functions with a method for each of three kinds, and batches to call them with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

import vertexflow as vf

from .agreement import join
from .ragged import TO_EDGES, TO_ROWS, RaggedFunction, ragged_structures
from .strategies import MAX_VERTICES, OPERATIONS, SIZE, Structure, random_inputs, shapes

KINDS = ("a", "b", "c")
INPUTS = ("x", "k", "weight")
EDGE_INPUTS = ("relation", "label")


@dataclass
class Method:
    """What the vertices of one kind do: a program as in `RaggedFunction`, of these inputs, slots and, if `ragged`, children."""

    program: list[tuple[str, bool, int, int]]
    inputs: list[str]
    slots: int
    ragged: bool
    edge_inputs: list[str]
    pushed: dict[str, int]
    first_slot: int = 0
    left_out: str = ""  # a state that it does not scatter


class KindsFunction(RaggedFunction):
    """Runs a drawn method for each kind; "b" and "c" may share one."""

    def __init__(self, methods: dict[str, Method], shape, seed):
        super().__init__([], [], 0, shape, seed)
        self.methods = methods
        self.begin = nn.Parameter(torch.randn(SIZE, dtype=torch.float64))

    def extra_repr(self):
        return f"methods={self.methods}, shape={self.state['m']}, seed={self.seed}"

    vertex = vf.VertexFunction.vertex

    @vf.vertex("a")
    def of_a(self, v):
        self.compute(self.methods["a"], v)

    @vf.vertex("b")
    def of_b(self, v):
        self.compute(self.methods["b"], v)

    @vf.vertex("c")
    def of_c(self, v):
        self.compute(self.methods["c"], v)

    def compute(self, method, v):
        read = {
            "x": lambda: v.pull("x"),
            "k": lambda: self.embed(v.pull("k")),
            "weight": lambda: v.pull("weight")[:, None] * self.scale,
        }
        rows = [read[name]() for name in method.inputs]
        for child in map(v.gather, range(method.slots)):
            rows += [child.h, self.as_vector(child.m)]
        edges = []
        if method.ragged:
            kids = v.children[method.first_slot :] if method.first_slot else v.children
            of_edges = {
                "relation": lambda: self.relation(kids.pull("relation")),
                "label": lambda: self.embed(kids.pull("label")),
            }
            edges = [kids.h, self.as_vector(kids.m), *(of_edges[name]() for name in method.edge_inputs)]
            rows.append(v.sum(edges[0]))
        rows.append(rows[0] * 0 + self.begin)
        for operation, on_edges, a, b in method.program:
            if operation in (*TO_ROWS, *TO_EDGES) and not edges:
                continue
            if operation in TO_ROWS:
                rows.append(TO_ROWS[operation](v, edges[a % len(edges)]))
            elif operation == "num_children":
                rows.append(rows[a % len(rows)] / (1 + v.num_children)[:, None])
            elif operation == "expand":
                edges.append(kids.expand(rows[a % len(rows)]))
            elif operation == "softmax" and on_edges:
                edges.append(v.softmax(edges[a % len(edges)]))
            else:
                values = edges if on_edges and edges else rows
                values.append(OPERATIONS[operation](self, values[a % len(values)], values[b % len(values)]))
        states = {"h": torch.tanh(rows[-1]), "m": torch.tanh(self.as_state(rows[-2] if len(rows) > 1 else rows[-1]))}
        v.scatter(**{name: value for name, value in states.items() if name != method.left_out})
        v.push(**{name: rows[index % len(rows)] for name, index in method.pushed.items() if name in "pq"})
        v.push(**{name: edges[index % len(edges)] for name, index in method.pushed.items() if name not in "pq"})


@dataclass
class KindsCase:
    """A model, a batch, and inputs with rows for all vertices and edges."""

    model: KindsFunction
    parts: list[Structure]
    kinds: list[str]
    inputs: dict[str, torch.Tensor]
    edge_inputs: dict[str, torch.Tensor]
    reverse: bool

    def batch(self) -> vf.GraphBatch:
        graphs, at = [], 0
        for part in self.parts:
            pairs = [(child, parent) for child, parent, _ in part.edges]
            slots = [slot for *_, slot in part.edges]
            graphs.append(vf.graph(part.num_vertices, pairs, kind=self.kinds[at : at + part.num_vertices], slots=slots))
            at += part.num_vertices
        return vf.pack(graphs)

    def given(self) -> dict[str, torch.Tensor]:
        """The inputs as the model wants them: rows of the vertices, and edges, of the kinds that pull them."""
        _, edges = join(self.parts)
        ends = [(parent, child) for child, parent, _ in edges]
        reader = [self.kinds[pair[self.reverse]] for pair in ends]  # the kind of the vertex that reads each edge
        given = {}
        for name, value in {**self.inputs, **self.edge_inputs}.items():
            of_edges = name in self.edge_inputs
            pulling = {
                kind
                for kind, method in self.model.methods.items()
                if name in (method.edge_inputs if of_edges else method.inputs) and (method.ragged or not of_edges)
            }
            if pulling:
                mask = np.isin(np.array(reader if of_edges else self.kinds, dtype=object), list(pulling))
                given[name] = value[torch.from_numpy(mask)]
        return given

    def methods(self):
        """The method of each vertex."""
        return [getattr(self.model, f"of_{kind}") for kind in self.kinds]


@st.composite
def methods(draw, operations: list[str]) -> Method:
    ragged = draw(st.booleans())
    names = st.sampled_from([*operations, *2 * (*TO_ROWS, *TO_EDGES)] if ragged else operations)
    numbers = st.integers(0, 20)
    program = [(draw(names), draw(st.booleans()), draw(numbers), draw(numbers)) for _ in range(draw(st.integers(0, 5)))]
    return Method(
        program=program,
        inputs=draw(st.lists(st.sampled_from(INPUTS), min_size=1, unique=True)),
        slots=draw(st.integers(0, 2)) if ragged else 3,
        ragged=ragged,
        edge_inputs=draw(st.lists(st.sampled_from(EDGE_INPUTS), unique=True)),
        pushed=draw(st.dictionaries(st.sampled_from(("p", "q", *["edge_p"] * ragged)), numbers, max_size=3)),
        first_slot=draw(st.sampled_from([0, 0, 1])),
    )


@st.composite
def kinds_cases(draw, operations: list[str] | None = None) -> KindsCase:
    """Methods drawn for three kinds, of which a batch need not have all."""
    reverse = draw(st.booleans())
    most = draw(st.sampled_from([1, 3]))
    structures = ragged_structures(3 if reverse else most, most if reverse else 3, max_vertices=7)
    parts = [dense(part) for part in draw(st.lists(structures, min_size=1, max_size=3))]
    count, edges = sum(part.num_vertices for part in parts), sum(len(part.edges) for part in parts)
    drawn = {kind: draw(methods(operations or [*sorted(OPERATIONS), "num_children"])) for kind in KINDS}
    if not any(method.pushed for method in drawn.values()):
        drawn["a"].pushed["p"] = 0
    for kind in "bc":  # each state is scattered by vertices of kind "a"
        drawn[kind].left_out = draw(st.sampled_from(["", "", "h", "m"]))
    model = KindsFunction(drawn, draw(st.sampled_from(shapes(SIZE))), draw(st.integers(0, 10_000)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    inputs = random_inputs(generator, count)
    edge_inputs = {
        "relation": torch.randn(edges, 3, dtype=torch.float64, generator=generator),
        "label": torch.randint(0, 5, (edges,), generator=generator),
    }
    for value in (inputs["x"], inputs["weight"], edge_inputs["relation"]):
        value.requires_grad_(draw(st.booleans()))
    for parameter in model.parameters():
        parameter.requires_grad_(draw(st.integers(0, 3)) > 0)
    kinds = draw(
        st.lists(st.sampled_from(draw(st.sampled_from([KINDS, KINDS, "ab", "c"]))), min_size=count, max_size=count)
    )
    model.max_vertices = draw(MAX_VERTICES)
    return KindsCase(model, parts, list(kinds), inputs, edge_inputs, reverse)


def dense(part: Structure) -> Structure:
    """The same with slots 0, 1, ... at each vertex: three slots hold all children."""
    taken: dict[int, int] = {}
    slots = {}
    for number, (_, parent, _) in sorted(enumerate(part.edges), key=lambda edge: edge[1][1:]):
        slots[number] = taken.setdefault(parent, 0)
        taken[parent] += 1
    edges = [(child, parent, slots[number]) for number, (child, parent, _) in enumerate(part.edges)]
    return Structure(part.num_vertices, edges)
