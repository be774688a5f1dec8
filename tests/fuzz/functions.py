"""Vertex functions drawn at random, as data that can be kept and shrunk, and the Python text that they stand for."""

from __future__ import annotations

import linecache
import math
import random
import re
import sys
import types
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import vertexflow as vf

from ..reference import OneVertex
from .operations import ALL, ATTRIBUTES, OF_EDGES, OF_ROWS, OPERATIONS, SIZE, TO_EDGES, TO_ROWS

STATES = {  # name -> shape, dtype
    "h": ((4,), torch.float64),
    "m": ((2, 2), torch.float64),
    "s": ((), torch.float64),
    "n": ((2,), torch.int64),
    "b": ((3,), torch.bool),
}
INPUTS = {  # name -> shape, and how a row is drawn
    "x": ((4,), torch.randn),
    "k": ((), torch.randint),
    "weight": ((), torch.rand),
    "table": ((2, 2), torch.randn),
    "flags": ((4,), torch.bernoulli),
    "long": ((6,), torch.randn),
}
EDGE_INPUTS = {"relation": ((3,), torch.randn), "label": ((), torch.randint), "strength": ((), torch.rand)}


@dataclass
class Method:
    """What the vertices of one kind do.

    `program`: (operation, whether on edges, three operands and a small number), operands modulo the number of values so
    far. `scatter`: a value and a small number for each state. `push`: names, and values.
    """

    inputs: list[str]
    slots: int
    ragged: bool
    edge_inputs: list[str]
    program: list[list[Any]]
    scatter: list[list[int]]
    push: list[list[Any]]


@dataclass
class Function:
    """Methods by kind, or one named "vertex"."""

    states: list[str]
    methods: dict[str, Method]
    seed: int

    @staticmethod
    def read(kept: dict[str, Any]) -> Function:
        methods = {name: Method(**method) for name, method in kept["methods"].items()}
        return Function(kept["states"], methods, kept["seed"])

    @property
    def has_kinds(self) -> bool:
        return "vertex" not in self.methods


def draw_function(rng: random.Random) -> Function:
    states = ["h", *(name for name in ("m", "s", "n", "b") if rng.random() < 0.35)]
    kinds = rng.random() < 0.25
    methods = {kind: _draw_method(rng, states, kinds, kind) for kind in ("abc" if kinds else ["vertex"])}
    return Function(states, methods, rng.randrange(10_000))


def _draw_method(rng: random.Random, states: list[str], kinds: bool, kind: str) -> Method:
    ragged = rng.random() < 0.5
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
    return Method(
        inputs=rng.sample([*INPUTS], rng.randint(0 if kinds else 1, 4)),
        slots=rng.randint(0, 2) if ragged else (3 if kinds else rng.randint(1, 3)),
        ragged=ragged,
        edge_inputs=rng.sample([*EDGE_INPUTS], rng.randint(0, 2)) if ragged else [],
        program=program,
        scatter=[[-1 - rng.randrange(3), rng.randrange(6)] for _ in states],
        push=pushes,
    )


def _draw_place(rng: random.Random) -> int:
    """A value, often one of the latest."""
    return -1 - rng.randrange(4) if rng.random() < 0.6 else rng.randrange(24)


class _Parts(nn.Module):
    """All that a vertex function can use, for `Writer`, which runs what it writes."""

    def __init__(self) -> None:
        super().__init__()
        for name, text in ATTRIBUTES.items():
            setattr(self, name, eval(text, {"nn": nn, "torch": torch}))
        self.double()


class Writer:
    """Writes a method line by line, and runs each line for one vertex of two children, to know the shapes of values."""

    def __init__(self, states: list[str], method: Method) -> None:
        self.states, self.method = states, method
        rows = {name: (1, *shape) for name, (shape, _) in INPUTS.items()}
        edge_rows = {name: (2, *shape) for name, (shape, _) in EDGE_INPUTS.items()}
        child = {name: torch.rand(1, *STATES[name][0]).to(STATES[name][1]) for name in states}
        v = OneVertex(
            {0: child, 1: child},
            {name: draw_rows(name, shape) for name, shape in rows.items()},
            {name: draw_rows(name, shape) for name, shape in edge_rows.items()},
            {name: STATES[name][0] for name in states},
            {name: STATES[name][1] for name in states},
        )
        self.values: dict[str, Any] = {"torch": torch, "F": F, "v": v, "self": _PARTS}
        self.lines: list[str] = []
        self.rows: list[str] = []
        self.edges: list[str] = []

    def write(self) -> list[str]:
        for name in self.method.inputs:
            self.line(f"{name} = v.pull({name!r})")
            self.rows.append(name)
        for slot in range(self.method.slots):
            self.line(f"c{slot} = v.gather({slot})")
            self.rows += [f"c{slot}.{name}" for name in self.states]
        if self.method.ragged:
            self.line("kids = v.children")
            self.edges += [f"kids.{name}" for name in self.states]
            for name in self.method.edge_inputs:
                self.line(f"{name} = kids.pull({name!r})")
                self.edges.append(name)
            self.line("total = v.sum(kids.h)")
            self.rows.append("total")
        given = len(self.rows)
        for number, step in enumerate(self.method.program):
            self.step(number, *step)
        states = []
        for name, (at, k) in zip(self.states, self.method.scatter, strict=True):
            value = self.rows[at % len(self.rows)]
            states.append(f"{name}={self.as_state(name, value, k, value in self.rows[:given])}")
        self.lines.append(f"v.scatter({', '.join(states)})")
        pushes = []
        for name, at in self.method.push:
            value = self.rows[at % len(self.rows)]
            pushes.append(f"{name}={self.vector(value, at) if name == 'p' else value}")
        if pushes:
            self.lines.append(f"v.push({', '.join(pushes)})")
        return self.lines

    def line(self, text: str) -> None:
        exec(text, self.values)
        self.lines += text.split("\n")

    def step(self, number: int, name: str, on_edges: bool, a: int, b: int, c: int, k: int) -> None:
        if name in (*TO_ROWS, *OF_EDGES, *TO_EDGES) and not self.method.ragged:
            return
        on_edges = ((on_edges and self.method.ragged) or name in (*TO_ROWS, *OF_EDGES)) and name not in (
            *OF_ROWS,
            *TO_EDGES,
        )
        have = self.edges if on_edges else self.rows
        kinds, text = ALL[name]
        operands = {
            letter: self.operand(have[at % len(have)], kind, k)
            for letter, at, kind in zip("abc", (a, b, c), kinds, strict=False)
        }
        to_edges = (on_edges and name not in TO_ROWS) or name in TO_EDGES
        result = f"{'e' if to_edges else 'r'}{number}"
        filled = text.format(r=result, k=k, **operands)
        self.line(filled if "{r}" in text else f"{result} = {filled}")
        (self.edges if to_edges else self.rows).append(result)

    def operand(self, name: str, kind: str, k: int) -> str:
        value = eval(name, self.values)
        shape, vector = tuple(value.shape[1:]), self.vector(name, k)
        whole = not value.is_floating_point() and value.dtype != torch.bool
        if kind == "*":
            return name
        if kind == "v":
            return vector
        if kind == "m":
            return name if shape == (2, 2) and value.is_floating_point() else f"{vector}.reshape(-1, 2, 2)"
        if kind == "s":
            return name if shape == () and value.is_floating_point() else f"{vector}[:, {k}]"
        if kind == "i":
            if shape == (4,) and whole:
                return f"({name} % 4)"
            return f"({vector} > 0).long()" if k % 2 else f"torch.bucketize({vector}.detach(), self.bounds)"
        if kind == "j":
            return f"({name} % 4)" if shape == () and whole else f"{vector}.argmax(-1)"
        if shape == (4,) and value.dtype == torch.bool:
            return name
        return f"({vector} > 0)" if k % 2 else f"({vector} < 0.3)"

    def vector(self, name: str, k: int) -> str:
        """The value as [rows, 4] floats."""
        value = eval(name, self.values)
        text = name if value.is_floating_point() else f"{name}.double()"
        size = math.prod(value.shape[1:])
        if value.dim() == 1:
            return f"{text}[:, None].expand(-1, {SIZE})"
        if value.dim() > 2:
            text = f"{text}.flatten(1)"
        if size > SIZE:
            return f"{text}[:, :{SIZE}]" if k % 2 else f"{text}[:, -{SIZE}:]"
        return text if size == SIZE else f"F.pad({text}, (0, {SIZE - size}))"

    def as_state(self, state: str, name: str, k: int, given: bool) -> str:
        shape, dtype = STATES[state]
        value = eval(name, self.values)
        if given and k > 2 and value.dtype == dtype and tuple(value.shape[1:]) == shape:
            return name  # as it was gathered or pulled
        if state == "n":
            return f"{self.operand(name, 'i', k)}[:, :2]"
        if state == "b":
            return f"{self.operand(name, 'b', k)}[:, 1:]"
        text = self.operand(name, {"h": "v", "m": "m", "s": "s"}[state], k % 4)
        return f"{text}.clamp(-1, 1)" if k == 5 else f"torch.tanh({text})"


def draw_rows(name: str, shape: tuple[int, ...], generator: torch.Generator | None = None) -> torch.Tensor:
    """Rows of an input; float64, but for indices and booleans."""
    draw = {**INPUTS, **EDGE_INPUTS}[name][1]
    if draw is torch.randint:
        return torch.randint(0, 5, shape, generator=generator)
    if draw is torch.bernoulli:
        return torch.rand(shape, generator=generator) > 0.5
    return draw(shape, dtype=torch.float64, generator=generator)


_PARTS = _Parts()


def source_of(function: Function) -> str:
    """A class `Drawn`, as a user would write it."""
    bodies = {name: Writer(function.states, method).write() for name, method in function.methods.items()}
    used = set(re.findall(r"self\.(\w+)", "\n".join(line for body in bodies.values() for line in body)))
    shapes = {name: STATES[name][0] for name in function.states}
    asked = "linear" not in used  # without parameters, and inputs of floats, states are not float64 by themselves
    dtypes = {name: STATES[name][1] for name in function.states if asked or not STATES[name][1].is_floating_point}
    lines = [
        "class Drawn(vf.VertexFunction):",
        "    def __init__(self):",
        f"        super().__init__(state={shapes}, state_dtype={dtypes})",
        f"        torch.manual_seed({function.seed})",
    ]
    lines += [f"        self.{name} = {text}" for name, text in ATTRIBUTES.items() if name in used]
    lines.append("        self.double()")
    for name, body in bodies.items():
        lines += ["", f"    @vf.vertex({name!r})"] if function.has_kinds else [""]
        lines.append(f"    def {f'of_{name}' if function.has_kinds else name}(self, v):")
        lines += [f"        {line}" for line in body]
    return "\n".join(lines) + "\n"


_MODULE = types.ModuleType("tests.fuzz.drawn")  # where pickle looks for the class
sys.modules[_MODULE.__name__] = _MODULE


def class_of(source: str) -> type[vf.VertexFunction]:
    """The class; that of the source before can no longer be pickled."""
    name = f"<drawn {hash(source)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    _MODULE.__dict__.update(torch=torch, F=F, nn=nn, vf=vf)
    exec(compile(source, name, "exec"), _MODULE.__dict__)
    return _MODULE.Drawn  # type: ignore[no-any-return]
