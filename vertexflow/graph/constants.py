"""Graph in, graph out: what a value without rows is made of, where that is no more than a number, is forgotten.

`h.new_full((), 1e-12)` takes only the dtype of `h`. As an operation of `h` it would be computed step by step, though it has no
rows to be kept in. Nor has a value without elements, such as the flattened `[rows * 0, 0]` of matrices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .rewrite import insert, replace

if TYPE_CHECKING:
    from .trace import Trace

aten = torch.ops.aten

_FILLED: dict[Any, Any] = {  # an operation -> the number of its argument that is everywhere, or None: zeros
    aten.new_full.default: 2, aten.full_like.default: 1,
    **dict.fromkeys((aten.new_zeros.default, aten.zeros_like.default, aten.new_empty.default, aten.empty_like.default)),
}  # fmt: skip
_ONES = {aten.new_ones.default, aten.ones_like.default}


def forget_sources(found: Trace) -> None:
    """Rewrite `found.graph` in place; the tables of `found` follow."""
    for node in list(found.graph.nodes):
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, Tensor) or not all(type(n) is int for n in value.shape):
            continue
        if value.numel() and node.target not in _ONES and node.target not in _FILLED:
            continue
        number: Any = 1 if node.target in _ONES else 0
        if value.numel() and _FILLED.get(node.target) is not None:
            number = node.args[_FILLED[node.target]]
        kind = {"dtype": value.dtype, "device": value.device}
        replace(found, node, insert(node, aten.full.default, list(value.shape), number, val=value, **kind))
        found.graph.erase_node(node)
