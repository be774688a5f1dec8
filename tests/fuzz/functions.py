"""Vertex functions drawn at random, as data that can be kept and shrunk."""

from __future__ import annotations

import contextlib
import random
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch

from .operations import OF_EDGES, OF_ROWS, OPERATIONS, TO_EDGES, TO_ROWS

STATES = {  # name -> shape, and the dtype of those that are not of the function's
    "h": ((4,), None),
    "m": ((2, 2), None),
    "s": ((), None),
    "n": ((2,), "int64"),
    "b": ((3,), "bool"),
}
INPUTS = {  # name -> shape, and how a row is drawn
    "x": ((4,), torch.randn),
    "k": ((), torch.randint),
    "weight": ((), torch.rand),
    "table": ((2, 2), torch.randn),
    "flags": ((4,), torch.bernoulli),
    "long": ((6,), torch.randn),
    "y": ((4,), torch.randn),
}
SHARED = {"W": (4, 4), "b": (4,)}  # name -> shape of what all vertices share
EDGE_INPUTS = {"relation": ((3,), torch.randn), "label": ((), torch.randint), "strength": ((), torch.rand)}


@dataclass
class Method:
    """What the vertices of one kind do.

    `program`: (operation, whether on edges, three operands and a small number), operands modulo the number of values so
    far. `scatter`: a value and a small number for each state, above 5 where leaves have what they pull. `push`: names and values.
    """

    inputs: list[str]
    slots: int
    ragged: bool
    edge_inputs: list[str]
    program: list[list[Any]]
    scatter: list[list[int]]
    push: list[list[Any]]
    shared: list[str] = field(default_factory=list)
    first_slot: int = 0  # of the children that are read over edges
    lacks: list[str] = field(default_factory=list)  # states that it does not scatter

    @property
    def reads_children(self) -> bool:
        return self.ragged or self.slots > 0


@dataclass
class Function:
    """Methods by kind, or one named "vertex"; `state_dtypes` are those of states that have another than is usual for them."""

    states: list[str]
    methods: dict[str, Method]
    seed: int
    dtype: str = "float64"
    autocast: bool = False
    state_dtypes: dict[str, str] = field(default_factory=dict)
    arity: int = 0  # how many children of each arc the methods read; 0: they read no arcs

    @staticmethod
    def read(kept: dict[str, Any]) -> Function:
        methods = {name: Method(**method) for name, method in kept["methods"].items()}
        return Function(**{**kept, "methods": methods})

    @property
    def has_kinds(self) -> bool:
        return "vertex" not in self.methods

    @property
    def floats(self) -> torch.dtype:
        """The dtype of parameters and inputs."""
        return getattr(torch, self.dtype)  # type: ignore[no-any-return]

    @property
    def shared(self) -> list[str]:
        """The names of what any method shares."""
        return [name for name in SHARED if any(name in method.shared for method in self.methods.values())]

    def dtype_of(self, state: str) -> torch.dtype:
        return getattr(torch, self.state_dtypes.get(state) or STATES[state][1] or self.dtype)  # type: ignore[no-any-return]

    @property
    def is_exact(self) -> bool:
        """Whether all is computed in float64, the reference's own."""
        return self.coarsest == torch.float64

    @property
    def coarsest(self) -> torch.dtype:
        """The dtype of the fewest digits."""
        used = [self.floats, *(self.dtype_of(state) for state in self.states), *[torch.bfloat16] * self.autocast]
        return max((dtype for dtype in used if dtype.is_floating_point), key=lambda dtype: torch.finfo(dtype).eps)

    def context(self) -> AbstractContextManager[object]:
        """What all calls are made in."""
        return torch.autocast("cpu", torch.bfloat16) if self.autocast else contextlib.nullcontext()


def draw_function(rng: random.Random) -> Function:
    states = ["h", *(name for name in ("m", "s", "n", "b") if rng.random() < 0.35)]
    kinds = rng.random() < 0.25
    methods = {kind: _draw_method(rng, states, kinds, kind) for kind in ("abc" if kinds else ["vertex"])}
    function = Function(states, methods, rng.randrange(10_000))
    _draw_dtypes(rng, function)
    if function.seed % 7 == 0:
        function.arity = 2 + function.seed % 2
        for method in function.methods.values():
            method.ragged, method.slots, method.first_slot = True, 0, 0
    if kinds:
        _draw_lacks(rng, function)
    return function


def _draw_lacks(rng: random.Random, function: Function) -> None:
    """Half of the time, kinds lack states; each has one, and no state is lacked by all."""
    if rng.random() < 0.5:
        return
    names = [*function.methods]
    for state in function.states:
        for name in rng.sample(names, rng.randrange(len(names))):
            lacks = function.methods[name].lacks
            if len(lacks) + 1 < len(function.states):
                lacks.append(state)


def _draw_dtypes(rng: random.Random, function: Function) -> None:
    """Of numbers and states: float64 half of the time; in others all alike, under autocast, or each state of its own."""
    how = rng.choice([*["float64"] * 6, *["float32"] * 2, "autocast", "bfloat16", "float16", "mixed"])
    if how == "mixed":
        function.dtype = rng.choice(["float32", "float32", "bfloat16", "float64"])
        others = ["float64", "float32", "bfloat16", "float16"]
        floats = [name for name in function.states if STATES[name][1] is None]
        function.state_dtypes = {name: rng.choice(others) for name in floats if name == "h" or rng.random() < 0.5}
    else:
        function.dtype = "float32" if how == "autocast" else how
        function.autocast = how == "autocast"
    if "n" in function.states and rng.random() < 0.4:
        function.state_dtypes["n"] = rng.choice(["int32", "int16", "int8", "uint8"])


def _draw_method(rng: random.Random, states: list[str], kinds: bool, kind: str) -> Method:
    ragged = rng.random() < 0.5
    of_leaves = kinds and kind != "b" and rng.random() < 0.25
    ragged = ragged and not of_leaves
    names = [*OPERATIONS, *4 * list(OF_ROWS)]
    if ragged:
        names += [*5 * [*TO_ROWS, *OF_EDGES], *10 * list(TO_EDGES)]
    program: list[list[Any]] = []
    for _ in range(rng.randint(2, 12)):
        operands = [*(_draw_place(rng) for _ in range(3)), rng.randrange(4)]
        program.append([rng.choice(names), ragged and rng.random() < 0.4, *operands])
    pushes: list[list[Any]] = [[f"{kind}{i}", _draw_place(rng)] for i in range(rng.randint(0 if kinds else 1, 3))]
    if kinds and (kind == "a" or rng.random() < 0.5):
        pushes.append(["p", _draw_place(rng)])
    if ragged and rng.random() < 0.4:
        pushes.append([f"edge_{'p' if kinds and rng.random() < 0.5 else kind}", _draw_place(rng)])
    return Method(
        inputs=rng.sample([*INPUTS], rng.randint(0 if kinds and not of_leaves else 1, 4)),
        slots=0 if of_leaves else rng.randint(0, 2) if ragged else (3 if kinds else rng.randint(1, 3)),
        ragged=ragged,
        edge_inputs=rng.sample([*EDGE_INPUTS], rng.randint(0, 2)) if ragged else [],
        program=program,
        scatter=[[-1 - rng.randrange(3), rng.randrange(8)] for _ in states],
        push=pushes,
        shared=rng.sample([*SHARED], rng.randint(1, 2)) if rng.random() < 0.25 else [],
        first_slot=rng.choice([0, 0, 1, 2]) if ragged else 0,
    )


def _draw_place(rng: random.Random) -> int:
    """A value, often one of the latest."""
    return -1 - rng.randrange(4) if rng.random() < 0.6 else rng.randrange(24)


def draw_rows(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Rows of an input; of that dtype, but for indices and booleans."""
    draw = {**INPUTS, **EDGE_INPUTS}[name][1]
    if draw is torch.randint:
        return torch.randint(0, 5, shape, generator=generator)
    if draw is torch.bernoulli:
        return torch.rand(shape, generator=generator) > 0.5
    return draw(shape, dtype=torch.float64, generator=generator).to(dtype)
