"""What a drawn vertex function is called with: structures, and how their inputs look."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import vertexflow as vf

from ..agreement import join
from ..strategies import Structure
from .functions import EDGE_INPUTS, INPUTS, STATES, Function

LAYOUTS = ("plain", "strided", "turned", "expanded", "offset", "every second row", "windows", "one number")
SPECIAL = ("nan", "inf", "zero", "huge", "tiny")
ALIASES = {  # name -> the input that it may be a view of
    "x": "long",
    "y": "x",
    "table": "x",
    "weight": "x",
    "strength": "relation",
}


@dataclass
class Sample:
    """Structures, how they are read, and the seed of all values; `fixed` has the names of what needs no gradient.

    By name of an input: its layout in memory, the `special` values in it, and the input that it is a view of.
    """

    parts: list[Structure]
    kinds: list[str] | None
    reverse: bool
    initial: bool
    training: bool
    gain: float
    flag: bool
    seed: int
    layouts: dict[str, str] = field(default_factory=dict)
    fixed: list[str] = field(default_factory=list)
    special: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def read(kept: dict[str, Any]) -> Sample:
        parts = [
            Structure(
                part["num_vertices"],
                [(tuple(at) if isinstance(at, list) else at, to, slot) for at, to, slot in part["edges"]],
            )
            for part in kept["parts"]
        ]
        return Sample(**{**kept, "parts": parts})

    @property
    def count(self) -> int:
        return sum(part.num_vertices for part in self.parts)

    @property
    def num_edges(self) -> int:
        return sum(len(part.edges) for part in self.parts)

    def graphs(self) -> list[vf.InputGraph]:
        graphs, at = [], 0
        for part in self.parts:
            kind = None if self.kinds is None else self.kinds[at : at + part.num_vertices]
            graphs.append(part.graph(kind))
            at += part.num_vertices
        return graphs

    def starts(self) -> list[int]:
        """The vertices without children, in their order."""
        _, edges = join(self.parts)
        taken = {edge[0 if self.reverse else 1] for edge in edges}
        return [vertex for vertex in range(self.count) if vertex not in taken]

    def children(self) -> list[dict[int, tuple[int, int]]]:
        """Of each vertex, by slot: a child, and the number of the edge to it; along `reverse`."""
        children: list[dict[int, tuple[int, int]]] = [{} for _ in range(self.count)]
        edges = join(self.parts)[1]
        for number, (child, parent, slot) in sorted(enumerate(edges), key=lambda edge: edge[1][1:]):
            if self.reverse:
                children[child][len(children[child])] = parent, number
            else:
                children[parent][slot] = child, number
        return children


def draw_sample(rng: random.Random, function: Function, fixed: list[str], small: bool = False) -> Sample:
    methods = function.methods.values()
    reverse = rng.random() < 0.35
    limit = 3 if function.has_kinds else (5 if methods_read_all(function) else next(iter(methods)).slots)
    loose = 1 if rng.random() < 0.4 else 4
    most_children, most_parents = (loose + 1, limit) if reverse else (limit, min(loose, 3))
    dense = function.has_kinds or reverse
    most = 4 if small else rng.choice([2, 6, 9, 9, 20])
    parts = [
        draw_structure(rng, most, most_children, most_parents, dense)
        for _ in range(rng.randint(1, 2 + 2 * (not small)))
    ]
    if rng.random() < 0.1 and not small:
        everything = methods_read_all(function)
        most_parents = 40 if everything or not reverse else limit
        parts.append(draw_hub(rng, most_children=40 if everything or reverse else limit, most_parents=most_parents))
    if rng.random() < 0.05:
        parts = [Structure(1, [])]
    count = sum(part.num_vertices for part in parts)
    kinds = None
    if function.has_kinds:
        among = rng.choice([list(function.methods), list(function.methods), ["a", "b"], ["c"]])
        kinds = [rng.choice([kind for kind in among if kind in function.methods] or ["a"]) for _ in range(count)]
    has_edges = any(one.edge_inputs or any(name.startswith("edge_") for name, _ in one.push) for one in methods)
    may_start = not has_edges and all(one.reads_children for one in methods)
    sample = Sample(
        parts=parts,
        kinds=kinds,
        reverse=reverse,
        initial=may_start and rng.random() < 0.3,
        training=True,
        gain=1.0,
        flag=False,
        seed=rng.randrange(10_000),
        layouts={name: rng.choice(LAYOUTS) for name in [*INPUTS, *EDGE_INPUTS] if rng.random() < 0.3},
        fixed=fixed,
        aliases={name: source for name, source in ALIASES.items() if rng.random() < 0.12},
    )
    if function.arity:
        sample.parts, sample.reverse, sample.initial = [in_arcs(part, function.arity) for part in parts], False, False
    if kinds is not None:  # methods that read no children are refused where there are any
        with_children = {*range(count)} - {*sample.starts()}
        reading = [kind for kind, method in function.methods.items() if method.reads_children]
        for vertex in sorted(with_children):
            if kinds[vertex] not in reading:
                kinds[vertex] = rng.choice(reading)
    _draw_special(rng, function, sample)
    return sample


def in_arcs(part: Structure, arity: int) -> Structure:
    """The children of each vertex, so many at a time, as arcs; every third lacks its first child, where it has others."""
    children: dict[int, list[int]] = {}
    for child, parent, _ in part.edges:
        children.setdefault(parent, []).append(child)
    arcs, number = [], 0
    for parent, below in children.items():
        for at, first in enumerate(range(0, len(below), arity)):
            arc = [*below[first : first + arity], *[-1] * arity][:arity]
            number += 1
            arcs.append((tuple([-1, *arc[1:]] if number % 3 == 0 and max(arc[1:]) >= 0 else arc), parent, at))
    arcs.sort(key=lambda arc: arc[2])  # those of a vertex apart from each other
    return Structure(part.num_vertices, arcs)


def _draw_special(rng: random.Random, function: Function, sample: Sample) -> None:
    pulled = [name for method in function.methods.values() for name in (*method.inputs, *method.edge_inputs)]
    floats = [name for name in pulled if name not in ("k", "flags", "label")]
    if sample.initial:
        floats += [f"initial.{name}" for name in function.states if STATES[name][1] is None]
    if floats and rng.random() < 0.15:
        chosen = rng.sample(floats, min(len(floats), rng.randint(1, 2)))
        # Sums of huge numbers overflow, or not, in another order than the reference's: too often where digits are few.
        sample.special = {name: rng.choice(SPECIAL if function.is_exact else ("nan", "inf", "zero")) for name in chosen}


def methods_read_all(function: Function) -> bool:
    return all(method.ragged for method in function.methods.values())


def draw_structure(rng: random.Random, most: int, most_children: int, most_parents: int, dense: bool) -> Structure:
    """Chains, forests, DAGs and single vertices, numbered at random, with edges in any order."""
    count = rng.randint(1, most)
    names = rng.sample(range(count), count)
    chain = rng.random() < 0.2
    parents, edges = [0] * count, []
    for parent in range(1, count):
        slots = list(range(1 if chain else rng.randint(0, most_children)))
        if not dense and rng.random() < 0.3:
            slots = sorted(rng.sample(range(most_children), len(slots)))
        taken = 0
        for slot in slots:
            child = parent - 1 if chain or rng.random() < 0.3 else rng.randrange(parent)
            if parents[child] < most_parents:
                parents[child] += 1
                edges.append((names[child], names[parent], taken if dense else slot))
                taken += 1
    return Structure(count, rng.sample(edges, len(edges)))


def draw_hub(rng: random.Random, most_children: int, most_parents: int) -> Structure:
    """A vertex that many read, or one that reads many, or both in a row."""
    many = rng.randint(8, 40)
    names = rng.sample(range(many + 2), many + 2)
    edges = []
    if most_parents:
        edges += [(names[0], names[1 + at], 0) for at in range(min(many, most_parents))]
    edges += [(names[1 + at], names[-1], at) for at in range(min(many, most_children))]
    return Structure(many + 2, rng.sample(edges, len(edges)))
