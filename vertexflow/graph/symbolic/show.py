"""The symbolic graph of a vertex function as text for people."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ...pictures.svg import Picture
from .program import Part, Program
from .trace import Trace

_TITLES = {
    "eager": "eager: once over all vertices, before the steps",
    "core": "core: once a step, children first",
    "lazy": "lazy: once over all vertices, after the steps",
    "grad_eager": "derivative, eager: once over all vertices",
    "grad_core": "derivative, core: once a step, parents first",
    "grad_lazy": "derivative, lazy: once over all vertices",
}


@dataclass(frozen=True)
class SymbolicGraph:
    """A vertex function cut into parts. `print(model.symbolic_graph)` shows every node with its shape and source line.

    `part(name)` gives one part as an ordinary `torch.fx.GraphModule`; its first arguments are the numbers of rows and of edges.
    `programs` has the program of each method of the vertex function, by name.
    """

    programs: Mapping[str, Program]

    @property
    def parts(self) -> dict[str, Part]:
        """The parts by name: `eager`, `core`, `lazy`, `grad_eager`, `grad_core`, `grad_lazy`.

        With `_leaf`: specialised to vertices without children. With `_inner`: not needed for such vertices. Where there are
        several methods, the method's name comes first: `node.core`.
        """
        if len(self.programs) == 1:
            return next(iter(self.programs.values())).parts
        return {
            f"{method}.{name}": part
            for method, program in self.programs.items()
            for name, part in program.parts.items()
        }

    def part(self, name: str) -> fx.GraphModule:
        """The part called `name` as a module: `module(rows, edges, *inputs) -> outputs`."""
        return fx.GraphModule(torch.nn.Module(), self.parts[name].graph)

    def draw(self, derivative: bool = False) -> Picture:
        """The parts as a picture: a panel for each, its values as boxes, your own names in bold; where the mouse rests on
        one, its shape and line. With `derivative`, also the parts of the derivative. Notebooks show it.

        >>> model.symbolic_graph.draw().save("parts.svg")
        """
        from .drawing import draw_programs  # which draws what is said here

        return draw_programs(self.programs, derivative)

    def _repr_svg_(self) -> str:
        return self.draw().svg

    def __str__(self) -> str:
        alone = len(self.programs) == 1
        return "\n\n".join(
            _described("" if alone else f" `{name}`", program) for name, program in self.programs.items()
        )


@dataclass(frozen=True)
class AfterPass:
    """The joint graph of a vertex function and its derivative as a pass left it."""

    name: str
    trace: Trace

    def __str__(self) -> str:
        return "\n".join(
            [f"after {self.name}", *(f"    {line}" for line in _graph_lines(self.trace.graph, self.trace))]
        )


def _described(name: str, program: Program) -> str:
    trace = program.trace
    state = ", ".join(f"{name} {list(shape)}" for name, shape in trace.state.items())
    lines = [f"vertex function{name} of {os.path.basename(trace.filename)}; n vertices; state {state or 'none'}"]
    for name, part in program.parts.items():
        lines += ["", part_heading(name)]
        lines += [f"    {line}" for line in _graph_lines(part.graph, trace)]
    return "\n".join(lines)


def part_heading(name: str) -> str:
    """What a part is, and when it runs."""
    stage = name.removesuffix("_inner").removesuffix("_leaf")
    note = ", for vertices with children" if name.endswith("_inner") else ""
    note = ", for vertices without children" if name.endswith("_leaf") else note
    return f"{_TITLES[stage]}{note}"


def _graph_lines(graph: fx.Graph, trace: Trace) -> list[str]:
    rows: list[tuple[str, str, str]] = []
    results: Any = ()
    for node in graph.nodes:
        line = f"line {node.meta['line']}" if node.meta.get("line") else ""
        if node.op == "placeholder" and node.name not in ("rows", "edges"):
            rows.append((f"{node.name}: {shape_text(node, trace)}", "given", ""))
        elif node.op == "call_function":
            name = getattr(node.target, "__name__", str(node.target)).removesuffix(".default")
            arguments = [_text(argument) for argument in node.args]
            arguments += [f"{key}={_text(value)}" for key, value in node.kwargs.items()]
            rows.append((f"{node.name}: {shape_text(node, trace)}", f"{name}({', '.join(arguments)})", line))
        elif node.op == "output":
            results = [node for node in node.args[0] if node is not None]
    name_width = max((len(name) for name, _, _ in rows), default=0)
    call_width = max((len(call) for _, call, _ in rows if len(call) < 70), default=0)
    lines = [f"{name:<{name_width}} = {call:<{call_width}}  {line}".rstrip() for name, call, line in rows]
    return [*lines, f"return {', '.join(node.name for node in results)}"]


def shape_text(node: fx.Node, trace: Trace) -> str:
    """The dtype and shape of a value, with n vertices and e edges."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return "(several)" if isinstance(value, (list, tuple)) else "size"
    letters = {trace.rows: "n", trace.edges: "e"}
    sizes = [str(size if isinstance(size, int) else size.node.expr.subs(letters)) for size in value.shape]
    return f"{str(value.dtype).removeprefix('torch.')}[{', '.join(sizes)}]"


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_text(item) for item in value)}]"
    return value.name if isinstance(value, fx.Node) else str(value)
