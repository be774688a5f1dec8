"""The Python text that a drawn vertex function stands for, and the class that it makes."""

from __future__ import annotations

import linecache
import math
import re
import sys
import types
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import vertexflow as vf

from ..reference import OneVertex
from .functions import EDGE_INPUTS, INPUTS, SHARED, STATES, Function, Method, draw_rows
from .operations import ALL, ATTRIBUTES, OF_EDGES, OF_ROWS, SIZE, TO_EDGES, TO_ROWS


class _Parts(nn.Module):
    """All that a vertex function can use, for `Writer`, which runs what it writes."""

    def __init__(self) -> None:
        super().__init__()
        for name, text in ATTRIBUTES.items():
            setattr(self, name, eval(text, {"nn": nn, "torch": torch}))


@cache
def _parts(dtype: torch.dtype) -> _Parts:
    return _Parts().to(dtype)


class Writer:
    """Writes a method line by line, and runs each line for one vertex of two children, to know shapes and dtypes of values."""

    def __init__(self, function: Function, method: Method) -> None:
        self.function, self.states, self.method = function, function.states, method
        shapes = {name: STATES[name][0] for name in self.states}
        dtypes = {name: function.dtype_of(name) for name in self.states}
        child = {name: torch.rand(1, *shape).to(dtypes[name]) for name, shape in shapes.items()}
        v = OneVertex(
            dict.fromkeys(range(2 * function.arity or 2 + method.first_slot), child),
            {name: draw_rows(name, (1, *shape), function.floats) for name, (shape, _) in INPUTS.items()},
            {
                name: draw_rows(name, (2 + method.first_slot, *shape), function.floats)
                for name, (shape, _) in EDGE_INPUTS.items()
            },
            shapes,
            dtypes,
            shared={name: torch.rand(shape).to(function.floats) for name, shape in SHARED.items()},
            arity=function.arity or 1,
        )
        self.values: dict[str, Any] = {"torch": torch, "F": F, "v": v, "self": _parts(function.floats)}
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
            first, arity = self.method.first_slot, self.function.arity
            self.line("kids = v.arcs" if arity else f"kids = v.children[{first}:]" if first else "kids = v.children")
            for position in range(arity):
                self.line(f"k{position} = kids.gather({position})")
            children = [f"k{position}" for position in range(arity)] or ["kids"]
            self.edges += [f"{child}.{name}" for child in children for name in self.states]
            if first or arity:
                self.edges.append("kids.slot")
            for name in self.method.edge_inputs:
                self.line(f"{name} = kids.pull({name!r})")
                self.edges.append(name)
            self.line(f"total = v.sum({children[0]}.h)")
            self.rows.append("total")
        if not self.rows:
            self.line("count = v.num_children")
            self.rows.append("count")
        given = len(self.rows)
        for name in self.method.shared if self.rows else ():
            self.line(f"{name} = v.shared({name!r})")
            for values, letter in ((self.rows, "r"), (self.edges, "e")):
                if values:
                    vector = self.vector(values[-1], 1)
                    self.line(f"{letter}{name} = {vector} {'@' if name == 'W' else '*'} {name}.to({vector}.dtype)")
                    values.append(f"{letter}{name}")
        for number, step in enumerate(self.method.program):
            self.step(number, *step)
        states = []
        for name, (at, k) in zip(self.states, self.method.scatter, strict=True):
            if name in self.method.lacks:
                continue
            value = self.rows[at % len(self.rows)]
            states.append(f"{name}={self.as_state(name, value, k, value in self.rows[:given])}")
        self.lines.append(f"v.scatter({', '.join(states)})")
        pushes = []
        for name, at in self.method.push:
            values = self.edges if name.startswith("edge_") else self.rows
            value = values[at % len(values)]
            if name in ("p", "edge_p"):  # of all kinds, and so in one dtype
                value = f"{self.vector(value, at)}{'' if self.function.is_exact else f'.to({self.function.floats})'}"
            pushes.append(f"{name}={value}")
        if pushes:
            self.lines.append(f"v.push({', '.join(pushes)})")
        return self.lines

    def line(self, text: str) -> None:
        with self.function.context():
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
        filled = text.format(r=result, k=k, dtype=self.function.floats, **operands)
        try:
            self.line(filled if "{r}" in text else f"{result} = {filled}")
        except RuntimeError:  # PyTorch has not every operation in every dtype
            if self.function.is_exact:
                raise
            return
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
        value, floats = eval(name, self.values), self.function.floats
        as_it_is = value.dtype == floats or (value.is_floating_point() and k % 2)
        text = name if as_it_is else f"{name}.to({floats})"
        size = math.prod(value.shape[1:])
        if value.dim() == 1:
            return f"{text}[:, None].expand(-1, {SIZE})"
        if value.dim() > 2:
            text = f"{text}.flatten(1)"
        if size > SIZE:
            return f"{text}[:, :{SIZE}]" if k % 2 else f"{text}[:, -{SIZE}:]"
        return text if size == SIZE else f"F.pad({text}, (0, {SIZE - size}))"

    def as_state(self, state: str, name: str, k: int, given: bool) -> str:
        shape, dtype = STATES[state][0], self.function.dtype_of(state)
        if k > 5:
            return self.as_pulled(state, self.as_state(state, name, k - 4, given))
        value = eval(name, self.values)
        if given and k > 2 and value.dtype == dtype and tuple(value.shape[1:]) == shape:
            return name  # as it was gathered or pulled
        if state == "n":
            cast = "" if dtype == torch.int64 else f".to({dtype})"
            return f"{self.operand(name, 'i', k)}[:, :2].long(){cast}"
        if state == "b":
            return f"{self.operand(name, 'b', k)}[:, 1:]"
        text = self.operand(name, {"h": "v", "m": "m", "s": "s"}[state], k % 4)
        text = f"{text}.clamp(-1, 1)" if k == 5 else f"torch.tanh({text})"
        return text if k % 3 and self._may_become(text, dtype) else f"{text}.to({dtype})"

    def as_pulled(self, state: str, text: str) -> str:
        """`text` where the children's state is not zero, elsewhere an input of the same shape and dtype, if there is one."""
        shape, dtype = STATES[state][0], self.function.dtype_of(state)
        names = [name for name in self.method.inputs if INPUTS[name][0] == shape and self.values[name].dtype == dtype]
        if not names:
            return text
        if not self.method.reads_children:
            return names[0]
        below = "total" if self.method.ragged else "c0.h"
        ones = "".join(", None" for _ in shape)
        return f"torch.where(({below}.abs().sum(-1) > 0)[:{ones}], ({text}).to({dtype}), {names[0]})"

    def _may_become(self, text: str, dtype: torch.dtype) -> bool:
        """Whether a value may be scattered as it is."""
        with self.function.context():
            given = eval(text, self.values).dtype
        on_purpose = self.function.autocast or any(STATES[name][1] is None for name in self.function.state_dtypes)
        return on_purpose or bool(torch.promote_types(given, dtype) == dtype)


def source_of(function: Function) -> str:
    """A class `Drawn`, as a user would write it."""
    bodies = {name: Writer(function, method).write() for name, method in function.methods.items()}
    used = set(re.findall(r"self\.(\w+)", "\n".join(line for body in bodies.values() for line in body)))
    shapes = {name: STATES[name][0] for name in function.states}
    needs_dtypes = "linear" not in used  # without parameters, and inputs of floats, states have no dtype by themselves
    dtypes = {
        name: function.dtype_of(name)
        for name in function.states
        if needs_dtypes or name in function.state_dtypes or STATES[name][1] is not None
    }
    lines = [
        "class Drawn(vf.VertexFunction):",
        "    def __init__(self):",
        f"        super().__init__(state={shapes}, state_dtype={dtypes})",
        f"        torch.manual_seed({function.seed})",
    ]
    lines += [f"        self.{name} = {text}" for name, text in ATTRIBUTES.items() if name in used]
    lines.append("        self.double()" if function.is_exact else f"        self.to({function.floats})")
    for name, body in bodies.items():
        lines += ["", f"    @vf.vertex({name!r})"] if function.has_kinds else [""]
        lines.append(f"    def {f'of_{name}' if function.has_kinds else name}(self, v):")
        lines += [f"        {line}" for line in body]
    return "\n".join(lines) + "\n"


def in_float64(source: str) -> str:
    """The same computation without rounding to speak of."""
    return re.sub(r"torch\.(float32|float16|bfloat16)\b", "torch.float64", source)


_MODULE = types.ModuleType("tests.fuzz.drawn")  # where pickle looks for the class
sys.modules[_MODULE.__name__] = _MODULE


def class_of(source: str) -> type[vf.VertexFunction]:
    """The class; that of the source before can no longer be pickled."""
    name = f"<drawn {hash(source)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    _MODULE.__dict__.update(torch=torch, F=F, nn=nn, vf=vf)
    exec(compile(source, name, "exec"), _MODULE.__dict__)
    return _MODULE.Drawn  # type: ignore[no-any-return]
