"""The two steps of every rewrite of a joint graph: insert a new node, and replace an old one by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx

if TYPE_CHECKING:
    from ..trace import Trace


def insert(before: fx.Node, target: Any, *args: Any, val: Any = None, **kwargs: Any) -> fx.Node:
    """A new node in front of `before`, from the same source line; its fake value is computed unless it is given as `val`."""
    with before.graph.inserting_before(before):
        node = before.graph.call_function(target, args, kwargs)
    if val is None:
        values, named_values = fx.node.map_arg((args, kwargs), lambda argument: argument.meta["val"])
        val = target(*values, **named_values)
    node.meta = {"val": val, "line": before.meta.get("line")}
    return node


def replace(trace: Trace, old: fx.Node, new: fx.Node) -> None:
    """Replace every use of `old` by `new`, in the graph and in the tables of `trace`."""
    old.replace_all_uses_with(new)
    if "name" in old.meta:
        new.meta.setdefault("name", old.meta["name"])
    for table in (trace.scatters, trace.pushes, trace.param_grads, trace.pull_grads, trace.gather_grads):
        for key, node in table.items():
            if node is old:
                table[key] = new  # type: ignore[index]
