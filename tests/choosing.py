"""Random vertex functions that choose between values by which children there are, and structures for them."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from .strategies import MAX_VERTICES, OPERATIONS, Case, RandomFunction, random_inputs, structures


def _counted(compare):
    return lambda v, children: compare(v.num_children[:, None])


def _present(combine):
    return lambda v, children: combine([child.m > 0.5 for child in children])


# Conditions, [rows, 1]: some hold in every vertex with children, or in none; others in some.
OF_NUMBERS = {
    "any number": _counted(lambda number: number > 0),
    "at least one": _counted(lambda number: number >= 1),
    "not none": _counted(lambda number: ~(number == 0)),
    "below one": _counted(lambda number: number.double() < 1.0),
    "two or more": _counted(lambda number: number >= 2),
    "not two": _counted(lambda number: number != 2),
    "none or many": _counted(lambda number: (number == 0) | (number > 1)),
}
OF_STATES = {
    "sum": lambda v, children: torch.cat([child.m for child in children], -1).sum(-1, keepdim=True) > 0,
    "any": _present(lambda present: torch.cat(present, -1).any(-1, keepdim=True)),
    "first or others": _present(lambda present: present[0] | torch.stack(present).any(0)),
    "first": _present(lambda present: present[0]),
    "all": _present(lambda present: torch.stack(present).all(0)),
    "no last": _present(lambda present: ~present[-1]),
}
CONDITIONS = OF_NUMBERS | OF_STATES


class ChoosingFunction(RandomFunction):
    """Runs a drawn program as `RandomFunction` does, in which conditions choose between two values. The state "m" is `mark` in
    every vertex; a missing child has a zero there."""

    mark = 1.0

    def vertex(self, v):
        values = [v.pull("x"), self.embed(v.pull("k")), v.pull("weight")[:, None] * self.scale]
        children = [v.gather(slot) for slot in range(self.slots)]
        values += [child.h for child in children]
        for operation, a, b in self.program:
            first, second = values[a % len(values)], values[b % len(values)]
            if operation in CONDITIONS:
                values.append(torch.where(CONDITIONS[operation](v, children), first, second))
            else:
                values.append(OPERATIONS[operation](self, first, second))
        v.scatter(h=values[-1], m=torch.full_like(v.pull("weight")[:, None], self.mark))
        v.push(**{f"out{index}": values[index % len(values)] for index in self.pushed})


@st.composite
def choosing_cases(draw, max_graphs: int = 3, max_vertices: int = 9) -> Case:
    """A random function that chooses, and a batch and inputs to call it with."""
    slots = draw(st.integers(1, 3))
    parts = draw(
        st.lists(
            structures(slots, draw(st.sampled_from([1, max_vertices])), max_vertices), min_size=1, max_size=max_graphs
        )
    )
    # Without numbers of children, states alone say which there are, and vertices with more of them are refused.
    conditions = sorted(draw(st.sampled_from([OF_STATES, OF_NUMBERS, CONDITIONS])))
    numbers = st.integers(0, 20)
    names = st.sampled_from([*conditions, *["linear", "relu", "add", "mul", "gate", "squash", "joint", "scale"]])
    program = [(draw(names), draw(numbers), draw(numbers)) for _ in range(draw(st.integers(1, 6)))]
    program.append((draw(st.sampled_from(conditions)), draw(numbers), draw(numbers)))
    pushed = [*draw(st.lists(numbers, max_size=2, unique=True)), 20]
    model = ChoosingFunction(program, pushed, slots, (1,), draw(st.integers(0, 10_000)))
    model.mark = draw(st.sampled_from([1.0, 1.0, 2.0, 0.25, -1.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    count = sum(part.num_vertices for part in parts)
    inputs = random_inputs(generator, count)
    for name in ("x", "weight"):
        inputs[name].requires_grad_(draw(st.booleans()))
    for parameter in model.parameters():
        parameter.requires_grad_(draw(st.integers(0, 4)) > 0)
    model.max_vertices = draw(MAX_VERTICES)
    return Case(model, parts, inputs)
