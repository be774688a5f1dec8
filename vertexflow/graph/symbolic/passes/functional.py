"""Graph in, graph out: the same computation without operations that change tensors in place."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from ....errors import VertexFunctionError
from ..isolation import forget_source
from ..record import record
from ..roles import Param, role_of

if TYPE_CHECKING:
    from ..trace import Trace


def remove_mutations(trace: Trace, mode: FakeTensorMode) -> None:
    """Replace `trace.graph` by an equal one in which `x.add_(y)` and its like are `add(x, y)` of a new value.

    Dropout on the CPU and users' `x += y` record such operations; the partition reorders nodes, and so needs values that never
    change.

    Raises:
        VertexFunctionError: a parameter or a buffer is written to.
    """
    graph = trace.graph
    if not any(map(_mutates, graph.nodes)):
        return
    _refuse_written_parameters(trace)
    with mode, enable_python_dispatcher(), torch.no_grad():
        _write_to_new_values(graph)
    if not any(map(_mutates, graph.nodes)):
        return
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    module = fx.GraphModule(graph.owning_module or torch.nn.Module(), graph)
    forget_source(module)
    copier = _Copier(module, trace)
    examples = [node.meta["val"] for node in placeholders]
    with mode, enable_python_dispatcher(), torch.no_grad():
        again = torch.func.functionalize(lambda *values: copier.run(*values))
        functional = record(again, *examples)
    forget_source(functional)
    for old, node in zip(placeholders, [n for n in functional.graph.nodes if n.op == "placeholder"], strict=True):
        node.meta.update({key: old.meta[key] for key in ("role", "name") if key in old.meta})
    for node in functional.graph.nodes:
        if node.op == "get_attr":
            node.meta["constant"] = getattr(functional, str(node.target))
    trace.graph = functional.graph


def _write_to_new_values(graph: fx.Graph) -> None:
    """Handle the simple case, usual in PyTorch's derivatives: no other value shares the memory of the tensor written to.

    Whatever remains needs the whole graph to be traced once more, which takes as long as the first time.
    """
    position = {node: index for index, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        written = node.args[0] if _mutates(node) and node.args else None
        function = _out_of_place(node.target)
        if not isinstance(written, fx.Node) or function is None or not _is_alone(written):
            continue
        arguments = fx.map_arg((node.args, node.kwargs), lambda argument: argument.meta["val"])
        try:
            value, previous = function(*arguments[0], **arguments[1]), written.meta["val"]
        except Exception:  # shapes that do not fit together: reported when the graph is traced once more
            return
        if value.dtype != previous.dtype or value.shape != previous.shape or value.stride() != previous.stride():
            continue
        node.target, node.meta["val"] = function, value
        for user in [user for user in written.users if position[user] > position[node]]:
            user.replace_input_with(written, node)


def _out_of_place(target: Any) -> Any:
    """`add.Tensor` for `add_.Tensor`; None where there is no such operation with the same operands."""
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return None
    if torch.Tag.nondeterministic_seeded in target.tags:  # it may have a generator, which is no value of the graph
        return None
    name, operands = target.overloadpacket.__name__, target._schema.arguments
    written = [operand for operand in operands if operand.alias_info is not None]
    packet = getattr(torch.ops.aten, name[:-1], None) if name.endswith("_") and len(written) == 1 else None
    function = getattr(packet, target._overloadname, None)
    if function is None or function._schema.is_mutable or len(function._schema.returns) != 1:
        return None
    has_same_operands = [operand.name for operand in operands] == [
        operand.name for operand in function._schema.arguments
    ]
    return function if has_same_operands else None


def _is_alone(node: fx.Node) -> bool:
    """Whether no other value is a view of this value's memory, but for the results of operations that write to all of it."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    if any(value.alias_info is not None for value in (*node.target._schema.arguments, *node.target._schema.returns)):
        return False
    for user in node.users:
        schema = getattr(user.target, "_schema", None)
        if schema is None and user.op != "output":
            return False
        for position, declared in enumerate(schema.arguments if schema is not None else ()):
            argument = user.args[position] if position < len(user.args) else user.kwargs.get(declared.name)
            shares = declared.alias_info is not None and not (declared.alias_info.is_write and position == 0)
            if shares and node in (argument if isinstance(argument, list | tuple) else [argument]):
                return False
    return True


class _Copier(fx.Interpreter):
    """Runs a graph under a tracer, and gives the new nodes the old nodes' lines and names."""

    def __init__(self, module: fx.GraphModule, trace: Trace) -> None:
        super().__init__(module)
        self.trace = trace
        self.first_copies: dict[fx.Node, fx.Node] = {}  # by old node: the first of the new nodes that it became

    def run_node(self, n: fx.Node) -> Any:
        graph = get_proxy_mode().tracer.graph  # type: ignore[union-attr]
        previous = next(iter(reversed(graph.nodes)), None)
        try:
            result = super().run_node(n)
        except Exception as error:  # shapes that do not fit, unnoticed as long as nothing read the tensor written to
            reason = str(error).split("\n")[0].replace(str(self.trace.rows), "n").replace(str(self.trace.edges), "e")
            raise VertexFunctionError(
                f"the vertex function failed: {type(error).__name__}: {reason}\n  in the vertex function, {self.trace.where(n)}"
            ) from error
        node = last = next(iter(reversed(graph.nodes)), None)
        while node is not None and node is not previous and node.op != "root":
            node.meta.setdefault("line", n.meta.get("line"))
            self.first_copies[n] = node
            node = node.prev
        if n.target is operator.getitem and n.all_input_nodes[0] in self.first_copies:
            pieces = self.first_copies[n.all_input_nodes[0]].users
            last = next((piece for piece in pieces if piece.args[1:] == n.args[1:]), None)
        if last is not None and last is not previous and n.op == "call_function" and "name" in n.meta:
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
