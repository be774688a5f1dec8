"""Copy nodes of the joint graph into the graph of a part, which repeats the views and sizes that it needs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import fx

from ..nodes import is_free, on_edges, operands, title
from ..program import Part, Program
from ..trace import Trace
from .leaves import ZERO, Image

aten = torch.ops.aten
NOTHING: Mapping[fx.Node, fx.Node] = MappingProxyType({})


def extract(
    name: str,
    outputs: list[fx.Node],
    members: set[fx.Node],
    trace: Trace,
    given: Collection[fx.Node] = (),
    taken: Mapping[fx.Node, fx.Node] = NOTHING,
    known_as: Mapping[fx.Node, fx.Node] = NOTHING,
) -> Part:
    """The part that computes `outputs`: `members` are its nodes, the values of other nodes, and those `given`, are its inputs.
    Members that are `taken` are those of their operands; inputs that are `known_as` other values are read as these."""

    def is_computed(node: fx.Node) -> bool:
        return node in members or (is_free(node) and node not in given)

    copier = _Copier(trace, is_computed, lambda node: known_as.get(node, node), taken)
    copier.copy_all(outputs)
    return copier.finish(name, outputs, [copier.env[node] for node in outputs])


def extract_leaf_core(program: Program, core: str, images: Mapping[fx.Node, Image]) -> Part | None:
    """The core specialised to vertices without children: zeros are folded, and only what their rows need is computed."""
    outputs = [node for node in program.parts[core].outputs if node in program.leaf_rows and not on_edges(node)]
    if not outputs:
        return None

    def is_computed(node: fx.Node) -> bool:
        origin = node.meta.get("origin")
        if origin is None:  # a zero or a bias that replaces a folded node
            return True
        return origin.op == "call_function" and (is_free(origin) or program.stage_of.get(origin) == core)

    copier = _Copier(program.trace, is_computed, lambda node: node.meta["origin"])
    pieces = {node: _pieces_read(program, node, images) for node in outputs}
    needed = [images[node] for node in outputs if pieces[node] is None]
    needed += [images[piece] for operands_read in pieces.values() for piece in operands_read or () if piece is not None]
    names = {images[node]: title(node) for node in outputs}
    copier.copy_all([image for image in needed if isinstance(image, fx.Node)], names)

    def made_of(node: fx.Node) -> fx.Node:
        image = images[node]
        return copier.env[image] if isinstance(image, fx.Node) else copier.fresh(node, aten.full.default, 0)

    def result(node: fx.Node) -> fx.Node:
        parts = pieces[node]
        if parts is None:
            return made_of(node)
        columns = [
            made_of(part) if part is not None else copier.fresh(operand, *_unread(operand))
            for operand, part in zip(operands(node), parts, strict=True)
        ]
        joined = copier.graph.create_node(
            "call_function", aten.cat.default, (columns, *node.args[1:]), name=title(node)
        )
        joined.meta = dict(node.meta)
        return joined

    return copier.finish(f"{core}_leaf", outputs, [result(node) for node in outputs])


def _pieces_read(program: Program, node: fx.Node, images: Mapping[fx.Node, Image]) -> list[fx.Node | None] | None:
    """Of a concatenation some of whose operands nobody reads: its operands, with None for those; None for other nodes."""
    read = program.leaf_operands.get(node)
    if read is None or len(read) == len(operands(node)) or images[node] is ZERO:
        return None
    return [operand if index in read else None for index, operand in enumerate(operands(node))]


def _unread(operand: fx.Node) -> tuple[Any, ...]:
    """The operation that creates columns that nobody reads, and its arguments. They may stay uninitialised, except in bfloat16 on
    a CPU: there PyTorch's products (with AMX) read past the columns that they are given, and must meet no NaN."""
    value = operand.meta["val"]
    reads_past = value.dtype == torch.bfloat16 and value.device.type == "cpu"
    return (aten.full.default, 0) if reads_past else (aten.empty.memory_format,)


class _Copier:
    """Builds the graph of a part: computed nodes are copied, and other nodes that they read become inputs."""

    def __init__(
        self,
        trace: Trace,
        is_computed: Callable[[fx.Node], bool],
        origin: Callable[[fx.Node], fx.Node],
        taken: Mapping[fx.Node, fx.Node] = NOTHING,
    ) -> None:
        self.trace = trace
        self.is_computed = is_computed
        self.origin = origin  # the node of the joint graph that an input stands for
        self.taken = taken  # computed nodes that are one of their operands, and that operand
        self.graph = fx.Graph()
        self.rows, self.edges = self.graph.placeholder("rows"), self.graph.placeholder("edges")
        self.env: dict[fx.Node, fx.Node] = {}
        self.inputs: dict[fx.Node, fx.Node] = {}  # nodes of the joint graph, and their placeholders

    def copy_all(self, nodes: Iterable[fx.Node], names: Mapping[Any, str] | None = None) -> None:
        """Copy `nodes` and all that they are computed from, in the order of their graph."""
        nodes = list(nodes)
        wanted, stack = set(), nodes
        while stack:
            node = stack.pop()
            if node not in wanted:
                wanted.add(node)
                stack += self._operands(node) if self.is_computed(node) and not _is_size(node) else []
        for node in next(iter(wanted)).graph.nodes if wanted else ():
            if node in wanted:
                self.env[node] = (
                    self._copy(node, (names or {}).get(node)) if self.is_computed(node) else self._read(node)
                )

    def _operands(self, node: fx.Node) -> list[fx.Node]:
        return [self.taken[node]] if node in self.taken else node.all_input_nodes

    def fresh(self, like: fx.Node, create: Any, *filling: Any) -> fx.Node:
        """A new tensor of the shape and dtype of `like`, made by `aten.full` or `aten.empty`."""
        value = like.meta["val"]
        node = self.graph.call_function(
            create, (self._sized(list(value.shape)), *filling), {"dtype": value.dtype, "device": value.device}
        )
        node.meta = dict(like.meta)
        return node

    def finish(self, name: str, outputs: list[fx.Node], results: list[fx.Node]) -> Part:
        """Close the graph, with its placeholders in front."""
        self.graph.output(tuple(results))
        anchor = self.edges
        for node in list(self.graph.nodes):
            if node.op == "placeholder" and node not in (self.rows, self.edges):
                anchor.append(node)
                anchor = node
        return Part(name, self.graph, list(self.inputs), outputs)

    def _read(self, node: fx.Node) -> fx.Node:
        origin = self.origin(node)
        if origin not in self.inputs:
            placeholder = self.graph.create_node("placeholder", title(origin), name=title(origin))
            placeholder.meta = dict(origin.meta)
            self.inputs[origin] = placeholder
        return self.inputs[origin]

    def _copy(self, node: fx.Node, name: str | None) -> fx.Node:
        if _is_size(node):
            return self._sized(node.meta["val"])  # type: ignore[no-any-return]
        if node in self.taken:
            return self.env[self.taken[node]]
        args = fx.node.map_arg(node.args, self.env.__getitem__)
        kwargs = fx.node.map_arg(node.kwargs, self.env.__getitem__)
        if node.meta.get("synthetic"):  # a zero or a bias in every row: its sizes are filled in here
            position = 0 if node.target is aten.full.default else 1
            args = (*args[:position], list(node.meta["val"].shape), *args[position + 1 :])
        args, kwargs = self._sized(args), self._sized(kwargs)
        copy = self.graph.create_node("call_function", node.target, args, kwargs, name=name or title(node))
        copy.meta = dict(node.meta)
        return copy

    def _sized(self, value: Any) -> Any:
        """An argument with its symbolic sizes, however deep, replaced by multiples of the part's `rows` or `edges`."""
        if isinstance(value, torch.SymInt):
            if value.node.expr.is_Integer:
                return int(value.node.expr)
            per_edge = self.trace.edges in value.node.expr.free_symbols
            count, symbol = (self.edges, self.trace.edges) if per_edge else (self.rows, self.trace.rows)
            factor = value.node.expr / symbol
            assert factor.is_Integer, f"size {value} is no multiple of the number of rows or edges"
            return count if factor == 1 else self.graph.call_function(operator.mul, (count, int(factor)))
        if isinstance(value, (list, tuple)):
            return type(value)(self._sized(item) for item in value)
        if isinstance(value, dict):
            return {key: self._sized(item) for key, item in value.items()}
        return value


def _is_size(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), (torch.SymInt, int))
