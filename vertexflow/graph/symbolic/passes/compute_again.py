"""Graph in, graph out: which values the forward pass keeps for the derivative, and which are computed again from these.

The fewest bytes a row, as a minimum cut: what is kept separates what cannot be computed again from what the derivative reads.
Each value is an edge whose capacity is its size; a cheap operation can be computed again from its operands, any other not.
States are there anyway. So no product and no reduction runs twice. Of several cuts of the same size the one next to the
derivative is taken, by which the least is computed again. (T. Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016,
keep less; as a minimum cut it is known from PyTorch's partitioner of joint graphs.)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from ..nodes import has_rows, is_free, sources
from .rewrite import insert

if TYPE_CHECKING:
    from ..trace import Trace

aten = torch.ops.aten

CHEAP = {aten.add.Tensor, aten.sub.Tensor, aten.rsub.Scalar, aten.mul.Tensor, aten.neg.default, aten.relu.default}
OF_A_STATE = {aten.tanh.default}  # not quite as cheap; states are large, and there when the derivative is computed

_UNREPEATABLE, _DERIVATIVE = "unrepeatable", "derivative"  # source and sink


def compute_again(trace: Trace, forward: set[fx.Node]) -> None:
    """Rewrite `trace.graph` in place; `forward` are the nodes of the forward pass, but for copies of columns.

    `meta["again"]` marks values that are computed again, which belong to the part that reads them.
    """
    # Of views of kept values.
    copies: dict[fx.Node, fx.Node] = {
        node.all_input_nodes[0]: node for node in trace.graph.nodes if node.meta.get("copies")
    }
    computed = forward | set(copies.values())
    readers = [
        node for node in trace.graph.nodes if node not in computed and node.op == "call_function" and not is_free(node)
    ]
    repeated = _repeated(trace, computed, copies, readers)
    again: dict[fx.Node, fx.Node] = {}

    def seen_by_derivative(node: fx.Node) -> fx.Node:
        """What the derivative reads in the place of `node`: itself, or what is computed again."""
        if node in again:
            return again[node]
        if node in copies:
            return copies[node]
        if node not in repeated and not (is_free(node) and node.op == "call_function"):
            return node
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), seen_by_derivative)
        if node not in repeated and (args, kwargs) == (node.args, node.kwargs):
            return node
        repetition = again[node] = insert(node.next, node.target, *args, val=node.meta["val"], **kwargs)
        repetition.meta |= {key: value for key, value in node.meta.items() if key not in ("role", "name")}
        if node in repeated:
            repetition.meta["again"] = True
        return repetition

    for reader in readers:
        reader.args = fx.node.map_arg(reader.args, seen_by_derivative)
        reader.kwargs = fx.node.map_arg(reader.kwargs, seen_by_derivative)


def _repeated(
    trace: Trace, computed: set[fx.Node], copies: dict[fx.Node, fx.Node], readers: list[fx.Node]
) -> set[fx.Node]:
    """The values of the forward pass that are computed again for the derivative."""
    import networkx  # not above: it takes a tenth of a second

    def operands(node: fx.Node) -> list[fx.Node]:
        operands = [[copies[one]] if one in copies else sources(one) for one in node.all_input_nodes]
        return [one for several in operands for one in several if has_rows(one) and one in computed]

    states = set(trace.scatters.values())
    exchanged = {*states, *trace.gathers.values(), *trace.pulls.values()}
    network = networkx.DiGraph()
    network.add_nodes_from((_UNREPEATABLE, _DERIVATIVE))
    cheap = set()
    for node in trace.graph.nodes:
        if node not in computed or not has_rows(node) or is_free(node) or not isinstance(node.meta["val"], Tensor):
            continue
        network.add_edge((node, "made"), (node, "read"), capacity=0 if node in states else _bytes(node))
        is_of_state = node.target in OF_A_STATE and node.args[0] in states
        if node not in exchanged and (node.target in CHEAP or is_of_state) and operands(node):
            cheap.add(node)
            network.add_edges_from(((operand, "read"), (node, "made")) for operand in operands(node))
        else:
            network.add_edge(_UNREPEATABLE, (node, "made"))
    network.add_edges_from(((value, "read"), _DERIVATIVE) for reader in readers for value in operands(reader))
    _, (_, behind) = networkx.minimum_cut(network, _UNREPEATABLE, _DERIVATIVE)  # the cut next to the sink
    return {node for node in cheap if (node, "made") in behind}


def _bytes(node: fx.Node) -> int:
    """Of a row; one of a value with a row for each edge counts as much as one for each vertex."""
    value: Tensor = node.meta["val"]
    return value.element_size() * math.prod(size for size in value.shape if isinstance(size, int))
