"""Graph in, graph out: the same computation without operations that change a tensor in place."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx

from ....errors import VertexFunctionError
from ..isolation import forget_source
from ..roles import Param, role_of

if TYPE_CHECKING:
    from ..trace import Trace


def remove_mutations(trace: Trace, mode: FakeTensorMode) -> None:
    """Replace `trace.graph` by an equal one in which `x.add_(y)` and its like are `add(x, y)` of a new value.

    Dropout on the CPU and users' `x += y` record such operations; the partition reorders nodes and so needs values
    that never change. Raises `VertexFunctionError` if a parameter or a buffer is written to.
    """
    graph = trace.graph
    if not any(_mutates(node) for node in graph.nodes):
        return
    _refuse_written_parameters(trace)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    module = fx.GraphModule(graph.owning_module or torch.nn.Module(), graph)
    forget_source(module)
    copier = _Copier(module, trace)
    examples = [node.meta["val"] for node in placeholders]
    with mode, enable_python_dispatcher(), torch.no_grad():
        new = make_fx(torch.func.functionalize(lambda *values: copier.run(*values)))(*examples)
    forget_source(new)
    for old, node in zip(placeholders, [n for n in new.graph.nodes if n.op == "placeholder"], strict=True):
        node.meta.update({key: old.meta[key] for key in ("role", "name") if key in old.meta})
    for node in new.graph.nodes:
        if node.op == "get_attr":
            node.meta["constant"] = getattr(new, str(node.target))
    trace.graph = new.graph


class _Copier(fx.Interpreter):
    """Runs a graph under a tracer and hands the user's lines and names on to the new nodes."""

    def __init__(self, module: fx.GraphModule, trace: Trace) -> None:
        super().__init__(module)
        self.trace = trace
        self.made: dict[fx.Node, fx.Node] = {}  # the first new node that an old one became

    def run_node(self, n: fx.Node) -> Any:
        graph = get_proxy_mode().tracer.graph  # type: ignore[union-attr]
        before = next(reversed(graph.nodes), None)
        try:
            result = super().run_node(n)
        except (
            Exception
        ) as error:  # what was written in place was not looked at before: shapes that do not fit together
            said = str(error).split("\n")[0].replace(str(self.trace.rows), "n").replace(str(self.trace.edges), "e")
            raise VertexFunctionError(
                f"the vertex function failed: {type(error).__name__}: {said}\n  in the vertex function, {self.trace.where(n)}"
            ) from error
        node = last = next(reversed(graph.nodes), None)
        while node is not None and node is not before and node.op != "root":
            node.meta.setdefault("line", n.meta.get("line"))
            self.made[n] = node
            node = node.prev
        if n.target is operator.getitem and n.all_input_nodes[0] in self.made:
            pieces = self.made[n.all_input_nodes[0]].users
            last = next((piece for piece in pieces if piece.args[1:] == n.args[1:]), None)
        if last is not None and last is not before and n.op == "call_function" and "name" in n.meta:
            last.meta.setdefault("name", n.meta["name"])
        return result


def _mutates(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _refuse_written_parameters(trace: Trace) -> None:
    origin: dict[fx.Node, fx.Node] = {}  # views of placeholders, and the placeholders themselves
    for node in trace.graph.nodes:
        if isinstance(role_of(node), Param):
            origin[node] = node
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            continue
        for position, declared in enumerate(schema.arguments):
            argument = node.args[position] if position < len(node.args) else node.kwargs.get(declared.name)
            if declared.alias_info is None or not isinstance(argument, fx.Node) or argument not in origin:
                continue
            if declared.alias_info.is_write:
                name = origin[argument].meta["role"].name
                raise VertexFunctionError(
                    f"the vertex function writes to {name!r} while it runs; a vertex may only read parameters and "
                    "buffers (BatchNorm in train mode does this, and mixes rows: use LayerNorm)"
                    f"\n  in the vertex function, {trace.where(node)}"
                )
            origin[node] = origin[argument]
