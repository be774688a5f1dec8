"""Questions about the nodes of a graph: what they read, whether they have rows, whether they cost nothing to repeat."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import fx

from .roles import name_of, role_of
from .vertex import same_size

aten = torch.ops.aten

ARANGES = {aten.arange.default, aten.arange.start, aten.arange.start_step}
_CREATORS = {aten.full.default, *ARANGES}


def is_view(node: fx.Node) -> bool:
    """Whether the node's value shares memory with an operand (a list of views, and its items, too)."""
    if node.target is operator.getitem:
        return isinstance(node.args[0], fx.Node) and is_view(node.args[0])
    schema: Any = getattr(node.target, "_schema", None)
    if schema is None or schema.is_mutable:
        return False
    return any(argument.alias_info is not None for argument in schema.arguments)


def is_free(node: fx.Node) -> bool:
    """Whether the node is repeated where it is needed instead of kept: a view, a size, or a small constant."""
    if node.op != "call_function":
        return False
    return isinstance(node.meta.get("val"), (torch.SymInt, int)) or is_view(node) or node.target in _CREATORS


def ancestors(nodes: list[fx.Node]) -> set[fx.Node]:
    """All nodes that `nodes` depend on, themselves included."""
    seen: set[fx.Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack += node.all_input_nodes
    return seen


def descendants(graph: fx.Graph, sources: Iterable[fx.Node]) -> set[fx.Node]:
    """All nodes that depend on `sources`, themselves included."""
    reached = set(sources)
    for node in graph.nodes:
        if any(argument in reached for argument in node.all_input_nodes):
            reached.add(node)
    return reached


def sources(node: fx.Node) -> list[fx.Node]:
    """The node itself; of a view, the computed nodes and placeholders that it shows; of a size or a constant, nothing."""
    if not is_free(node):
        return [node]
    if isinstance(node.meta.get("val"), (torch.SymInt, int)):
        return []
    return list(dict.fromkeys(source for argument in node.all_input_nodes for source in sources(argument)))


def reads(node: fx.Node) -> list[fx.Node]:
    """The computed nodes and placeholders that the operation of `node` reads, looking through views; no sizes."""
    return list(dict.fromkeys(source for argument in node.all_input_nodes for source in sources(argument)))


def has_rows(node: fx.Node) -> bool:
    """Whether the value has a row for each vertex (an operation with several results: whether any has)."""
    if isinstance(node.meta.get("val"), torch.Tensor):
        return node.meta.get("rows") is not None
    return any(has_rows(user) for user in node.users if user.target is operator.getitem)


def on_edges(node: fx.Node) -> bool:
    """Whether the value has a row for each edge to a child instead of each vertex (of several results: whether any has)."""
    if isinstance(node.meta.get("val"), torch.Tensor):
        layout = node.meta.get("rows")
        return layout is not None and bool(layout.edges)
    return any(on_edges(user) for user in node.users if user.target is operator.getitem)


def same_shape(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two shapes are the same for every step."""
    return first.dim() == second.dim() and all(map(same_size, first.shape, second.shape))


def title(node: fx.Node) -> str:
    """The user's name for the value where there is one."""
    if "name" in node.meta:
        return str(node.meta["name"])
    role = role_of(node)
    return node.name if role is None else name_of(role).removeprefix("param_")


def operands(node: fx.Node) -> list[fx.Node]:
    """The tensors that a `cat` or `stack` joins: its first argument is a list."""
    return cast("list[fx.Node]", node.args[0])


def random_without_rows(graph: fx.Graph) -> set[fx.Node]:
    """Noise that all vertices share, and what is made of it before it meets rows."""
    random: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "call_function" and not has_rows(node):
            is_drawn = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
            if is_drawn or not random.isdisjoint(node.all_input_nodes):
                random.add(node)
    return random
