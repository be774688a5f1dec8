"""Random vertex functions that read arcs, and hypergraphs for them."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from .ragged import TO_EDGES, TO_ROWS, RaggedFunction
from .strategies import MAX_VERTICES, OPERATIONS, SIZE, Case, Structure, random_inputs, shapes


class HyperFunction(RaggedFunction):
    """As `RaggedFunction`, over arcs, of which `slots` positions are read."""

    def vertex(self, v):
        arcs = v.arcs
        rows = [v.pull("x"), self.embed(v.pull("k")), v.pull("weight")[:, None] * self.scale]
        edges = [self.relation(arcs.pull("relation")), self.embed(arcs.pull("label"))]
        for child in map(arcs.gather, range(self.slots)):
            edges += [child.h, self.as_vector(child.m)]
        for operation, on_edges, a, b in self.program:
            if operation in TO_ROWS:
                rows.append(TO_ROWS[operation](v, edges[a % len(edges)]))
            elif operation == "num_arcs":
                rows.append(rows[a % len(rows)] / (1 + v.num_arcs)[:, None] + v.num_children[:, None])
            elif operation == "slot":
                edges.append(edges[a % len(edges)] + self.embed(arcs.slot.clamp(max=4)))
            elif operation == "expand":
                edges.append(arcs.expand(rows[a % len(rows)]))
            elif operation == "softmax":
                edges.append(v.softmax(edges[a % len(edges)]))
            else:
                values = edges if on_edges else rows
                values.append(OPERATIONS[operation](self, values[a % len(values)], values[b % len(values)]))
        rows.append(rows[-1] + v.sum(edges[-1]))
        v.scatter(h=torch.tanh(rows[-1]), m=torch.tanh(self.as_state(rows[-2])))
        v.push(**{f"out{index}": rows[index % len(rows)] for index in self.pushed})
        v.push(**{f"edge_{index}": edges[index // 2 % len(edges)] for index in self.pushed if index % 2})


@st.composite
def hypergraphs(draw, arity: int, max_arcs: int = 3, max_vertices: int = 8) -> Structure:
    """Hypergraphs numbered at random, with arcs in any order, children that are missing, and such as are read several times."""
    count = draw(st.integers(1, max_vertices))
    names = draw(st.permutations(range(count)))
    arcs = []
    for parent in range(1, count):
        children = st.lists(st.integers(-1, parent - 1), min_size=arity, max_size=arity)
        drawn = draw(st.lists(children.filter(lambda arc: max(arc) >= 0), max_size=max_arcs))
        arcs += [(tuple(names[child] if child >= 0 else -1 for child in arc), names[parent]) for arc in drawn]
    taken = [0] * count
    edges = []
    for children, parent in draw(st.permutations(arcs)):
        edges.append((children, parent, taken[parent]))
        taken[parent] += 1
    return Structure(count, edges)


@st.composite
def hyper_cases(
    draw, operations: list[str] | None = None, max_graphs: int = 3, max_vertices: int = 8, size: int = SIZE
) -> Case:
    """A random function of arcs, and a batch and inputs to call it with."""
    arity = draw(st.sampled_from([1, 2, 2, 3]))
    slots = draw(st.sampled_from([arity, arity, arity + 1]))
    parts = draw(st.lists(hypergraphs(arity, max_vertices=max_vertices), min_size=1, max_size=max_graphs))
    own = operations or [*sorted(OPERATIONS), "num_arcs", "slot"]
    names, numbers = st.sampled_from([*own, *2 * (*TO_ROWS, *TO_EDGES)]), st.integers(0, 20)
    program = [(draw(names), draw(st.booleans()), draw(numbers), draw(numbers)) for _ in range(draw(st.integers(2, 8)))]
    pushed = draw(st.lists(numbers, min_size=1, max_size=3, unique=True))
    shape, seed = draw(st.sampled_from(shapes(size))), draw(st.integers(0, 10_000))
    model = HyperFunction(program, pushed, slots, shape, seed, size)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    count, arcs = sum(part.num_vertices for part in parts), sum(len(part.edges) for part in parts)
    inputs = random_inputs(generator, count, size)
    arc_inputs = {
        "relation": torch.randn(arcs, 3, dtype=torch.float64, generator=generator),
        "label": torch.randint(0, 5, (arcs,), generator=generator),
    }
    for value in (inputs["x"], inputs["weight"], arc_inputs["relation"]):
        value.requires_grad_(draw(st.booleans()))
    model.max_vertices = draw(MAX_VERTICES)
    return Case(model, parts, inputs, False, arc_inputs)
