"""Graph in, graph out: the entries of a vertex lie side by side in every value, not interleaved with other vertices' entries.

Attention in PyTorch flattens `[queries, rows, size]` to `[queries * rows, size]` for its products: the entries of a vertex are
then `rows` apart, and the rows of a step are no slice of the value. Products, sums and pointwise operations do not depend on the
order of entries, so that `[rows, queries, size]` may be flattened instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from ..nodes import is_view
from .rewrite import insert, replace

if TYPE_CHECKING:
    from ..trace import Trace

aten = torch.ops.aten


def put_side_by_side(trace: Trace) -> bool:
    """Rewrite the values that `check_rows` marked as interleaved, if all operations on them allow it; returns whether it did."""
    interleaved = {node for node in trace.graph.nodes if node.meta.get("interleaved")}
    flattening = [
        node for node in interleaved if node.target is aten.reshape.default and node.args[0] not in interleaved
    ]
    readers = {user for node in interleaved for user in node.users if isinstance(user.meta.get("val"), Tensor)}
    leaving = {node for node in readers if node.target is aten.reshape.default}
    if (
        not interleaved
        or leaving & interleaved
        or not all(_allows_any_order(node, interleaved) for node in (interleaved | readers) - {*flattening} - leaving)
    ):
        return False
    position = {node: number for number, node in enumerate(trace.graph.nodes)}
    for node in sorted(leaving, key=position.__getitem__):
        outer_dim, split_shape = _split_entries(trace, node.args[0], node)
        flat = insert(node, aten.reshape.default, node.args[0], _moved(split_shape, outer_dim, outer_dim + 1))
        replaced = insert(node, aten.permute.default, flat, _swapped(len(split_shape), outer_dim))
        replace(trace, node, insert(node, aten.reshape.default, replaced, node.args[1], val=node.meta["val"]))
        trace.graph.erase_node(node)
    for node in sorted(flattening, key=position.__getitem__):
        outer_dim, split_shape = _split_entries(trace, node, node)
        split = insert(node, aten.reshape.default, node.args[0], split_shape)
        swapped = insert(node, aten.permute.default, split, _swapped(len(split_shape), outer_dim))
        node.args = (swapped, node.args[1])
    for node in interleaved:
        node.meta.pop("interleaved", None)
    return True


def _allows_any_order(node: fx.Node, inside: set[fx.Node]) -> bool:
    """Whether an operation allows any order of entries: its result has the same order, or is a sum over them."""
    operands = [operand for operand in node.all_input_nodes if operand in inside]
    layouts = {
        (operand.meta["rows"].per_vertex, operand.meta["outer"]) for operand in (*operands, node) if operand in inside
    }
    if len(layouts) != 1 or not operands or (node not in inside and node.meta["rows"] is not None):
        return False
    if node.target in (aten.permute.default, aten.sum.dim_IntList):
        return True
    if node.target in (aten.mm.default, aten.addmm.default):
        first, second = (
            operand if operand in inside else None for operand in node.args[-2:] if isinstance(operand, fx.Node)
        )
        if node.target is aten.addmm.default and (node.args[0] in inside or len(node.args) < 3):
            return False
        contracted = [
            operand is not None and operand.meta["rows"].dim == dim for operand, dim in ((first, 1), (second, 0))
        ]
        return contracted[0] == contracted[1]
    tensors = [operand for operand in node.all_input_nodes if isinstance(operand.meta.get("val"), Tensor)]
    pointwise = torch.Tag.pointwise in getattr(node.target, "tags", ()) and not is_view(node)
    random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    is_same_order = all(operand in inside or operand.meta.get("rows") is None for operand in tensors)
    return node in inside and pointwise and not random and is_same_order


def _split_entries(trace: Trace, value: fx.Node, before: fx.Node) -> tuple[int, list[Any]]:
    """The dimension of a vertex's outer entries in the shape of `value` with outer entries, vertices and inner entries as
    dimensions of their own; and that shape."""
    layout, outer, shape = value.meta["rows"], value.meta["outer"], value.meta["val"].shape
    num_rows = trace.edges if layout.edges else trace.rows
    source = next(
        node for node in trace.graph.nodes
        if node.op == "placeholder" and isinstance(node.meta["val"], Tensor) and node.meta["val"].dim()
        and isinstance(node.meta["val"].shape[0], torch.SymInt) and node.meta["val"].shape[0].node.expr == num_rows
    )  # fmt: skip
    rows = insert(before, aten.sym_size.int, source, 0)
    return layout.dim, [*shape[: layout.dim], outer, rows, layout.per_vertex // outer, *shape[layout.dim + 1 :]]


def _moved(shape: list[Any], source: int, target: int) -> list[Any]:
    shape = list(shape)
    shape.insert(target, shape.pop(source))
    return shape


def _swapped(rank: int, dim: int) -> list[int]:
    """The order of dimensions with this one and the next exchanged."""
    return _moved(list(range(rank)), dim, dim + 1)
