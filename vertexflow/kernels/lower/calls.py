"""Operations that have no loops: PyTorch is called for them between the loops of a step.

Before a call, loops copy to memory what it reads; its results lie in memory, where later loops read them. All other operations
of a part stay in loops.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from ...graph.symbolic.program import Part
from ...graph.symbolic.roles import Gather, Grad, Scatter, role_of
from ..operations import VIEWS, WHOLE_STEPS, Unsupported
from .scalar import DTYPES, HALVES

aten = torch.ops.aten


@dataclass(frozen=True)
class Called:
    """What PyTorch computes in a part, with views that only it reads (`nodes`), the `copies` of values that it is given, and
    the `reasons` why."""

    nodes: frozenset[fx.Node] = frozenset()
    copies: frozenset[fx.Node] = frozenset()
    reasons: tuple[str, ...] = ()


def leave_to_pytorch(part: Part, check: Callable[[fx.Node], None], may_call: bool = True) -> tuple[Part, Called]:
    """Leave the operations that `check` refuses to PyTorch. In the part that is returned, every value that loops compute and
    such an operation reads has a copy.

    Raises:
        Unsupported: without `may_call`, an operation is refused; or a placeholder is; or so many operations are that calls
            alone are faster.
    """
    unknown: dict[fx.Node, str] = {}
    for node in part.graph.nodes:
        if node.op in ("placeholder", "call_function"):
            try:
                check(node)
            except Unsupported as reason:
                if node.op == "placeholder" or not may_call:
                    raise
                unknown[node] = str(reason)
    if not unknown:
        return part, Called()
    known = [node for node in part.graph.nodes if _is_computed(node) and node not in unknown]
    is_called_back = WHOLE_STEPS.issuperset(node.target for node in unknown)
    if len(known) <= sum(map(_is_computed, unknown)) and not is_called_back:
        raise Unsupported(next(iter(unknown.values())))
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    called: set[fx.Node] = set()
    copies: dict[fx.Node, fx.Node] = {}
    for node in part.graph.nodes:
        images = dict(copied)
        if node in unknown:
            for source in node.all_input_nodes:
                if not _is_given_as_it_is(source, unknown):
                    if source not in copies:
                        copies[source] = graph.call_function(aten.clone.default, (copied[source],))
                        copies[source].meta = dict(source.meta)
                    images[source] = copies[source]
        copied[node] = graph.node_copy(node, images.__getitem__)
        if node in unknown:
            called.add(copied[node])
    # The items of an operation with several results have no reason of their own.
    silent = {operator.getitem, *WHOLE_STEPS}  # nobody could have written the latter otherwise
    reasons = dict.fromkeys(reason for node, reason in unknown.items() if node.target not in silent)
    rewritten = Part(part.name, graph, part.inputs, part.outputs)
    return rewritten, Called(frozenset(called), frozenset(copies.values()), tuple(reasons))


def _is_computed(node: fx.Node) -> bool:
    """Whether a node computes something, and is no view."""
    return node.op == "call_function" and node.target not in VIEWS and isinstance(node.meta.get("val"), (Tensor, tuple))


def _is_given_as_it_is(node: fx.Node, unknown: Collection[fx.Node]) -> bool:
    """Whether PyTorch can read a value without a copy: because it lies in memory row by row, or PyTorch computed it."""
    if node in unknown or not isinstance(node.meta.get("val"), (Tensor, list, tuple)):
        return True
    if node.op == "placeholder":
        role = role_of(node)
        is_exchanged = isinstance(role, Gather) or (isinstance(role, Grad) and isinstance(role.value_role, Scatter))
        return not is_exchanged
    return node.target in VIEWS and all(_is_given_as_it_is(source, unknown) for source in node.all_input_nodes)


def calls_of(part: Part, called: Called, level: Mapping[fx.Node, int]) -> dict[int, Part]:
    """The calls of PyTorch at each level, as parts whose inputs and outputs are values of this part's graph.

    Raises:
        Unsupported: loops cannot read the result of a call.
    """
    by_level: dict[int, list[fx.Node]] = {}
    for node in part.graph.nodes:
        if node in called.nodes:
            by_level.setdefault(level[node], []).append(node)
    calls = {
        call_level: _call(f"{part.name}_call_{call_level}", nodes, called, level)
        for call_level, nodes in sorted(by_level.items())
    }
    for call in calls.values():
        for node in call.outputs:
            _check_output(node)
    return calls


def _call(name: str, nodes: list[fx.Node], called: Called, level: Mapping[fx.Node, int]) -> Part:
    graph, inputs = fx.Graph(), list[fx.Node]()
    size_placeholders = {size: graph.placeholder(size) for size in ("rows", "edges")}
    copies: dict[fx.Node, fx.Node] = {}
    call_level = level[nodes[0]]

    def copy(node: fx.Node) -> fx.Node:
        if node not in copies:
            is_size = node.op == "placeholder" and node.name in size_placeholders
            if is_size:
                copies[node] = size_placeholders[node.name]
            elif (
                node.op == "placeholder" or node in called.copies or (node in called.nodes and level[node] < call_level)
            ):
                inputs.append(node)
                copies[node] = graph.placeholder(node.name)
                copies[node].meta = dict(node.meta)
            else:
                for source in node.all_input_nodes:
                    copy(source)
                copies[node] = graph.node_copy(node, copies.__getitem__)
        return copies[node]

    outputs = []
    for node in nodes:
        copy(node)
        if isinstance(node.meta.get("val"), Tensor) and _is_read_elsewhere(node, called, level):
            outputs.append(node)
    for placeholder in [copies[node] for node in reversed(inputs)]:
        next(iter(graph.nodes)).prepend(placeholder)
    for size in reversed(size_placeholders.values()):
        next(iter(graph.nodes)).prepend(size)
    graph.output(tuple(copies[node] for node in outputs))
    return Part(name, graph, inputs, outputs)


def _is_read_elsewhere(node: fx.Node, called: Called, level: Mapping[fx.Node, int]) -> bool:
    """Whether loops or a later call read a value that PyTorch computes."""

    def is_elsewhere(user: fx.Node) -> bool:
        if user in called.nodes:
            return level[user] > level[node]
        return user.target not in VIEWS or not user.users or any(map(is_elsewhere, user.users))

    return any(map(is_elsewhere, node.users))


def _check_output(node: fx.Node) -> None:
    layout, dtype = node.meta.get("rows"), node.meta["val"].dtype
    if node.meta.get("interleaved") or (layout is not None and layout.per_vertex > 1 and layout.dim > 0):
        raise Unsupported(f"{node.name} does not have its vertices one beside the other")
    if dtype not in DTYPES | HALVES:
        raise Unsupported(f"{node.name} is of {str(dtype)[6:]}")
