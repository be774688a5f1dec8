"""Run nodes of a trace again, as a vertex function of its own: what they compute is traced once more, with its derivative."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from .passes.stops import STOP
from .roles import ALL_SLOTS, CHILDREN, Counts, Gather, NumChildren, Param, Pull, Slots, position_of, role_of
from .sizes import is_size
from .trace import Trace
from .vertex import Vertex


def leaf(trace: Trace, node: fx.Node, v: Vertex, param: Callable[[str], Tensor]) -> Tensor:
    """What a placeholder or constant of `trace` stands for, read from the vertex; `param` has parameters by qualified name."""
    match role_of(node):
        case Param(name):
            return param(name)
        case Pull(name, per_edge):
            return v._pull(name, per_edge)
        case Counts():
            return v._counts()
        case NumChildren():
            return v.num_children
        case Slots():
            return v._of_edges(Slots())
        case Gather(state, slot) if slot == ALL_SLOTS:
            return torch.cat([getattr(v.gather(number), state) for number in range(trace.num_slots)], 1)
        case Gather(state, slot) if slot == CHILDREN:
            return v._children_from(trace.first_slot)[state]
        case Gather(state, slot):
            child = v.gather(slot) if slot >= 0 else v._gather_at(position_of(slot))
            return getattr(child, state)  # type: ignore[no-any-return]
    constant: Tensor = node.meta["constant"]
    return constant


def choose_edges(trace: Trace, v: Vertex) -> None:
    """Let the vertex read children over edges in the way of `trace`."""
    if trace.arc_size is not None:
        v._choose_arcs()
    elif trace.reads_edges:
        v._choose(trace.first_slot)


def evaluate(
    trace: Trace,
    wanted: Iterable[fx.Node],
    known: Mapping[fx.Node, Tensor],
    v: Vertex,
    param: Callable[[str], Tensor],
) -> dict[fx.Node, Any]:
    """Compute `wanted` values of `trace` from `known` ones, while it is traced."""
    values: dict[fx.Node, Any] = dict(known)
    needed = needed_for(wanted, known)
    lines = _Lines()
    for node in trace.graph.nodes:
        if node not in needed or node in values:
            continue
        if node.op != "call_function":
            values[node] = leaf(trace, node, v, param)
            continue
        size = node.meta.get("val")
        if isinstance(size, torch.SymInt) and size.node.expr in (trace.rows, trace.edges):
            values[node] = v._rows if size.node.expr == trace.rows else v._edges
            continue
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        values[node] = args[0].detach() if node.target is STOP else node.target(*args, **kwargs)
        lines.note(node)
    return values


def needed_for(wanted: Iterable[fx.Node], known: Iterable[fx.Node]) -> set[fx.Node]:
    """The nodes that `wanted` depend on, themselves included, where those `known` depend on nothing. The place of a size does not
    matter: it is asked of the vertex."""
    seen, stack, ends = set[fx.Node](), list(wanted), set(known)
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        is_asked = is_size(node) and node.op == "call_function" and not any(map(is_size, node.all_input_nodes))
        if node not in ends and not is_asked:
            stack += node.all_input_nodes
    return seen


class _Lines:
    """Gives the nodes that are recorded the lines and names of those that they repeat."""

    def __init__(self) -> None:
        self.seen = self._last()

    def _last(self) -> fx.Node | None:
        graph = get_proxy_mode().tracer.graph  # type: ignore[union-attr]
        return next(iter(reversed(graph.nodes)), None)

    def note(self, origin: fx.Node) -> None:
        last = node = self._last()
        while node is not None and node is not self.seen and node.op != "root":
            node.meta.update({key: origin.meta[key] for key in ("line", "inner_line") if key in origin.meta})
            node = node.prev
        if last is not None and last is not self.seen and "name" in origin.meta:
            last.meta.setdefault("name", origin.meta["name"])
        self.seen = last
