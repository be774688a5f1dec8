"""Graph in, graph out: the joint graph of a vertex without children, whose gathers are zero.

Zeros are propagated through operations, so that `U @ 0` is not computed at all. Products of zeros with parameters are zeros;
their products with values that depend on an input are still computed, so that a NaN in the input is not hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from ... import segments
from ..nodes import is_free, is_view, on_edges, same_shape
from ..roles import Counts, Grad, NumChildren, Pull, role_of

if TYPE_CHECKING:
    from ..trace import Trace

aten = torch.ops.aten


class _Zero:
    """Stands for a value that is zero in every element."""

    def __repr__(self) -> str:
        return "zero"


ZERO = _Zero()
Image = fx.Node | _Zero

# Operations; those of their own that other rooms make are added there.
KEEPS_ZERO = {
    aten.neg.default, aten.tanh.default, aten.relu.default, aten.abs.default, aten.sin.default, aten.sqrt.default,
    aten.gelu.default, aten.silu.default, aten.leaky_relu.default, aten.elu.default, aten.erf.default, aten.clone.default,
    aten._to_copy.default, aten.sum.dim_IntList, aten.mean.dim, aten.atan.default, aten.expm1.default, aten.log1p.default,
    aten.cat.default, aten.square.default, aten.slice_backward.default, aten.select_backward.default,
}  # fmt: skip
PRODUCTS = {aten.mul.Tensor, aten.mm.default, aten.bmm.default}
_GRADIENTS = {  # (grad, saved value): zero where grad is
    aten.sigmoid_backward.default, aten.tanh_backward.default,
    aten.gelu_backward.default, aten.silu_backward.default,
}  # fmt: skip


def fold_zeros(
    trace: Trace,
    taken: Mapping[fx.Node, Any],
    inside: Collection[fx.Node] | None = None,
    known: Mapping[fx.Node, Image] | None = None,
) -> dict[fx.Node, Image]:
    """The image of every node of `trace.graph` in a new graph where each gather is zero: a node, or `ZERO`.

    `taken` are the operands that vertices without children take in each `where` that chooses by that. With `inside`, only these
    nodes are folded; of the others, `known` says which are zero.
    """
    graph = fx.Graph()
    images: dict[fx.Node, Image] = {}
    gathers = set(trace.gathers.values())
    uniform: set[fx.Node] = set()  # values that do not depend on the inputs' rows: parameters, zeros, random masks

    def materialised(node: fx.Node) -> fx.Node:
        image = images[node]
        return image if isinstance(image, fx.Node) else _zeros(graph, node, images)

    for node in trace.graph.nodes:
        if on_edges(node):
            images[node] = ZERO  # a vertex without children has no edges
            continue
        if node.op in ("placeholder", "get_attr"):
            if not isinstance(role_of(node), Pull | Grad):
                uniform.add(node)
            is_zero = node in gathers or isinstance(role_of(node), Counts | NumChildren)
            images[node] = ZERO if is_zero else graph.node_copy(node)
            continue
        if all(argument in uniform for argument in node.all_input_nodes):
            uniform.add(node)
        if inside is not None and known is not None and node not in inside and not is_free(node):
            images[node] = ZERO if known[node] is ZERO else graph.node_copy(node, materialised)
            continue
        folded = _take(node, taken[node], images, uniform) if node in taken else _fold(node, images, uniform, graph)
        images[node] = folded if folded is not None else graph.node_copy(node, materialised)
    for node, image in images.items():
        if isinstance(image, fx.Node):
            image.meta.setdefault("origin", node)
            image.meta.setdefault("val", node.meta.get("val"))
    return images


def _fold(node: fx.Node, images: dict[fx.Node, Image], uniform: set[fx.Node], graph: fx.Graph) -> Image | None:
    """The image of `node` if it need not be computed, else None."""
    tensors = [argument for argument in node.all_input_nodes if not isinstance(argument.meta.get("val"), torch.SymInt)]
    zero = [images[argument] is ZERO for argument in tensors]
    if not any(zero):
        return None
    if all(zero) and (is_view(node) or node.target in KEEPS_ZERO):
        return ZERO
    if zero[0] and node.target in (segments.SEGMENT_SUM, segments.SEGMENT_MAX):
        return ZERO
    if node.target in PRODUCTS:
        return ZERO if _negligible(node, tensors, zero, uniform) else None
    if node.target is aten.threshold_backward.default and zero[0]:
        uniform.add(node)  # it lets the gradient pass, or not: a NaN in the value does not matter
        return ZERO
    if node.target in _GRADIENTS and images[tensors[0]] is ZERO and all(tensor in uniform for tensor in tensors):
        return ZERO
    rule = _RULES.get(node.target)
    return rule(node, images, uniform, graph) if rule is not None else None


def _negligible(node: fx.Node, tensors: list[fx.Node], zero: list[bool], uniform: set[fx.Node]) -> bool:
    """Whether a product with zeros is zero: if the other factors are no data, which might be NaN, or if it sums over rows."""
    if any(isinstance(factor, float) and not math.isfinite(factor) for factor in node.args):
        return False
    factors = [tensor for tensor, is_zero in zip(tensors, zero, strict=True) if not is_zero]
    return node.meta.get("rows") is None or all(nonzero in uniform for nonzero in factors)


def _fold_sum(node: fx.Node, images: dict[fx.Node, Image], uniform: set[fx.Node], graph: fx.Graph) -> Image | None:
    left, right = node.args[0], node.args[1]
    if not isinstance(left, fx.Node) or not isinstance(right, fx.Node):
        return None
    if images[left] is ZERO and images[right] is ZERO:
        return ZERO
    remaining = right if images[left] is ZERO else left
    unchanged = remaining is left or (node.target is aten.add.Tensor and node.kwargs.get("alpha", 1) == 1)
    value, unfolded = node.meta["val"], remaining.meta["val"]
    if unchanged and same_shape(value, unfolded) and value.dtype == unfolded.dtype:
        return images[remaining]
    return None


def _fold_addmm(node: fx.Node, images: dict[fx.Node, Image], uniform: set[fx.Node], graph: fx.Graph) -> Image | None:
    if len(node.all_input_nodes) != 3 or node.kwargs:
        return None
    bias, *factors = node.all_input_nodes
    image = images[bias]
    if not isinstance(image, fx.Node):
        return None
    zero = [images[factor] is ZERO for factor in factors]
    if not any(zero) or not _negligible(node, factors, zero, uniform):
        return None
    expanded = graph.call_function(aten.expand.default, (image, []))
    expanded.meta = {key: node.meta[key] for key in ("val", "rows", "line") if key in node.meta}
    expanded.meta["synthetic"] = True
    return expanded


def _fold_greater(node: fx.Node, images: dict[fx.Node, Image], uniform: set[fx.Node], graph: fx.Graph) -> Image | None:
    bound = node.args[1]
    return ZERO if images[node.all_input_nodes[0]] is ZERO and isinstance(bound, (int, float)) and bound >= 0 else None


def _fold_where(node: fx.Node, images: dict[fx.Node, Image], uniform: set[fx.Node], graph: fx.Graph) -> Image | None:
    condition, _, otherwise = node.args
    is_known = isinstance(condition, fx.Node) and images[condition] is ZERO
    return _take(node, otherwise, images, uniform) if is_known else None


def _take(node: fx.Node, operand: Any, images: dict[fx.Node, Image], uniform: set[fx.Node]) -> Image | None:
    """The image of a `where` that takes this operand."""
    if not isinstance(operand, fx.Node):
        return None
    if images[operand] is ZERO or (operand.target is aten.full.default and operand.args[1] == 0):
        uniform.add(node)  # the operand that is not chosen does not matter, even if it is NaN
        return ZERO
    value, unfolded = node.meta["val"], operand.meta["val"]
    if same_shape(value, unfolded) and value.dtype == unfolded.dtype:
        return images[operand]
    return None


_RULES: dict[Any, Callable[..., Image | None]] = {
    aten.add.Tensor: _fold_sum, aten.sub.Tensor: _fold_sum, aten.addmm.default: _fold_addmm,
    aten.gt.Scalar: _fold_greater, aten.where.self: _fold_where,
}  # fmt: skip


def _zeros(graph: fx.Graph, node: fx.Node, images: dict[fx.Node, Image]) -> fx.Node:
    value = node.meta["val"]
    zeros = graph.call_function(aten.full.default, ([], 0), {"dtype": value.dtype, "device": value.device})
    zeros.meta = {"val": value, "rows": node.meta.get("rows"), "synthetic": True}
    return zeros
