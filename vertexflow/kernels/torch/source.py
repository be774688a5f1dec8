"""A part as a Python function of calls of PyTorch, which write into memory that the executor provides.

The generated source is ordinary Python: `VERTEXFLOW_LOG=kernels` prints it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from ...graph import differentiable_segments, segments
from ...graph.symbolic.nodes import is_view, on_edges
from ...graph.symbolic.passes.stops import STOP
from ...graph.symbolic.program import Part
from .. import products

aten = torch.ops.aten

# Calls with less overhead than the operator objects of `torch.ops`; semantics and arguments are the same.
_DIRECT = {
    aten.add.Tensor: "add", aten.sub.Tensor: "sub", aten.mul.Tensor: "mul", aten.div.Tensor: "div", aten.mm.default: "mm",
    aten.bmm.default: "bmm", aten.addmm.default: "addmm", aten.sigmoid.default: "sigmoid", aten.tanh.default: "tanh",
    aten.cat.default: "cat", aten.neg.default: "neg", aten.exp.default: "exp", aten.sum.dim_IntList: "sum",
    aten.where.self: "where",
}  # fmt: skip


# The functions behind vertexflow's own operators, without the dispatcher's detour through Python.
_SEGMENTS = {segments.EXPAND: "expand_rows", segments.SEGMENT_SUM: "sum_edges", segments.SEGMENT_MAX: "max_edges"}


def compile_part(
    part: Part, in_place: Mapping[fx.Node, bool], differentiable: bool = False
) -> tuple[Callable[..., tuple[Tensor, ...]], str]:
    """Compile `part` to `function(rows, edges, *inputs, *outs) -> results`; also returns its source.

    Outputs in `in_place` are written into the tensors `outs`, in the order of `part.outputs`, contiguous ones where
    the mapping says so; the others are returned. A `differentiable` function writes into no given memory at all, and is made of
    operations that PyTorch differentiates to any order.
    """
    writer = _Writer(part, in_place, differentiable)
    source = writer.source()
    of_segments = differentiable_segments if differentiable else segments
    scope: dict[str, Any] = {"torch": torch, "aten": aten, "segments": of_segments, **writer.constants}
    scope |= {"products": products} if differentiable else {}
    exec(compile(source, f"<vertexflow {part.name}>", "exec"), scope)
    scope[part.name].node_of_line = writer.node_of_line
    return scope[part.name], source


class _Writer:
    """Writes the lines of one function."""

    def __init__(self, part: Part, in_place: Mapping[fx.Node, bool], differentiable: bool) -> None:
        self.part = part
        self.nodes = list(part.graph.nodes)
        self.results: tuple[fx.Node, ...] = self.nodes[-1].args[0]
        self.constants: dict[str, Any] = {}
        self.lines: list[str] = []
        self.node_of_line: dict[int, fx.Node] = {}  # by line, counted from 1: the node that is computed there
        self.place: dict[fx.Node, str] = {}  # the memory into which a node's value is written
        self.allocate: dict[fx.Node, list[str]] = {}  # lines that must come before a node
        self.copies: list[str] = []
        self.outs: list[str] = []
        self.returned: list[str] = []
        for output, result in zip(part.outputs, self.results, strict=True):
            if output not in in_place:
                self.returned.append(result.name)
                continue
            out = (
                f"{result.name}_out" if f"{result.name}_out" not in self.outs else f"{result.name}_out{len(self.outs)}"
            )
            self.outs.append(out)
            if result not in self.place and _can_write(result, contiguous=in_place[output]):
                self.place[result] = out
            else:
                self.copies.append(f"{out}.copy_({result.name})")
        for node in self.nodes:
            if node.target is aten.cat.default and not differentiable:
                self._place_operands(node)

    def _place_operands(self, cat: fx.Node) -> None:
        """Let the operands of a concatenation be computed at their places in it, so that nothing is copied."""
        operands: list[fx.Node] = cat.args[0]  # type: ignore[assignment]
        value, dim = cat.meta["val"], cat.args[1]
        can_place = [_can_write(node, contiguous=False) and node not in self.place for node in operands]
        same_dtype = all(node.meta["val"].dtype == value.dtype for node in operands)
        if value.dim() != 2 or dim != 1 or not all(can_place) or not same_dtype or len(set(operands)) < len(operands):
            return
        first = min(operands, key=self.nodes.index)
        if cat in self.place:
            target = self.place[cat]
        else:
            target = cat.name
            rows, width = value.shape[0], value.shape[1]
            self.allocate.setdefault(first, []).append(
                f"{target} = torch.empty(({self._rows(cat, rows)}, {width}), "
                f"dtype={value.dtype}, device={self._text(value.device)})"
            )
        start = 0
        for node in operands:
            stop = start + node.meta["val"].shape[1]
            self.place[node] = f"{target}[:, {start}:{stop}]"
            start = stop
        self.place[cat] = target
        cat.meta["assembled"] = True

    def _rows(self, node: fx.Node, size: Any) -> str:
        (symbol,) = size.node.expr.free_symbols
        factor, count = size.node.expr / symbol, "edges" if on_edges(node) else "rows"
        return count if factor == 1 else f"{count} * {int(factor)}"

    def source(self) -> str:
        last: dict[fx.Node, fx.Node] = {}
        for node in self.nodes:
            for argument in node.all_input_nodes:
                last[argument] = node
        for node in self.nodes[:-1]:
            if node.op == "placeholder":
                continue
            self.lines += self.allocate.get(node, [])
            self._emit(node)
            self.node_of_line[len(self.lines) + 1] = node  # behind the line of `def`
            dying = [n.name for n, user in last.items() if user is node and n.op != "placeholder"]
            if dying:
                self.lines.append(f"del {', '.join(dying)}")
        names = [*(n.name for n in self.nodes if n.op == "placeholder"), *self.outs]
        body = [*self.lines, *self.copies, f"return ({''.join(f'{name}, ' for name in self.returned)})"]
        return f"def {self.part.name}({', '.join(names)}):\n" + "\n".join(f"    {line}" for line in body) + "\n"

    def _emit(self, node: fx.Node) -> None:
        if node.meta.get("assembled"):
            if self.place[node] != node.name:
                self.lines.append(f"{node.name} = {self.place[node]}")
            return
        place = self.place.get(node)
        if place is None:
            self.lines.append(f"{node.name} = {self._call(node, None)}")
            return
        if node.target is aten.empty.memory_format:  # nobody reads it: whatever lies in the buffer will do
            self.lines.append(f"{node.name} = {place}")
        elif "[" in place:
            self.lines.append(f"{node.name} = {place}")
            self.lines.append(self._call(node, node.name))
        else:
            self.lines.append(f"{node.name} = {self._call(node, place)}")

    def _call(self, node: fx.Node, out: str | None) -> str:
        if node.target is operator.getitem:
            return f"{self._text(node.args[0])}[{node.args[1]}]"
        if node.target is operator.mul:
            return f"{self._text(node.args[0])} * {self._text(node.args[1])}"
        if node.target is aten.reshape.default:
            return f"{self._text(node.args[0])}.reshape({self._text(node.args[1])})"
        arguments = [self._text(argument) for argument in node.args]
        arguments += [f"{name}={self._text(value)}" for name, value in node.kwargs.items()]
        if out is not None and node.target is aten.clone.default:
            return f"{out}.copy_({arguments[0]})"
        if node.meta.get("collected"):  # nowhere but in differentiable functions
            bias, rows, matrix = ("", *arguments) if len(arguments) == 2 else (f" + {arguments[0]}", *arguments[1:])
            return f"products.product({rows}, {matrix}){bias}"
        if node.target is STOP:  # nowhere but in differentiable functions
            return f"{arguments[0]}.detach()"
        if node.target in _SEGMENTS:
            return f"segments.{_SEGMENTS[node.target]}({', '.join(arguments)})"
        if node.target in _DIRECT:
            arguments += [f"out={out}"] if out is not None else []
            return f"torch.{_DIRECT[node.target]}({', '.join(arguments)})"
        target: Any = node.target
        if out is not None:
            target, name = _out_variant(node)  # type: ignore[misc]
            arguments.append(f"{name}={out}")
        namespace = "aten" if target.namespace == "aten" else f"torch.ops.{target.namespace}"
        packet = target._schema.name.split("::")[1]
        return f"{namespace}.{packet}.{target._overloadname}({', '.join(arguments)})"

    def _text(self, value: Any) -> str:
        if isinstance(value, fx.Node):
            return value.name
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(self._text(item) for item in value)}]"
        if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and abs(value) < 1e300):
            return repr(value)
        if isinstance(value, torch.device):
            return f"torch.device({str(value)!r})"
        if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
            return str(value)
        name = f"constant_{len(self.constants)}"
        self.constants[name] = value
        return name


def _can_write(node: fx.Node, contiguous: bool) -> bool:
    """Whether the node's operator can write its value into given memory; many cannot unless it is contiguous."""
    if node.op != "call_function" or is_view(node) or not isinstance(node.meta.get("val"), Tensor):
        return False
    if node.target in _DIRECT or node.target in (aten.clone.default, aten.empty.memory_format):
        return True
    tags = getattr(node.target, "tags", ())
    return (contiguous or torch.Tag.pointwise in tags) and _out_variant(node) is not None


def _out_variant(node: fx.Node) -> tuple[Any, str] | None:
    """The overload of the node's operator that writes into a given tensor, and the name of that argument."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or len(schema.returns) != 1:
        return None
    packet: Any = node.target.overloadpacket  # type: ignore[union-attr]
    wanted = [(argument.name, str(argument.type)) for argument in schema.arguments]
    for name in packet.overloads():
        overload = getattr(packet, name)
        arguments = overload._schema.arguments
        plain = [(a.name, str(a.type)) for a in arguments if not (a.alias_info and a.alias_info.is_write)]
        outs = [a.name for a in arguments if a.alias_info and a.alias_info.is_write and a.kwarg_only]
        if plain == wanted and len(outs) == 1:
            return overload, outs[0]
    return None
