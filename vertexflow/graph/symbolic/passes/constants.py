"""Graph in, graph out: values without elements, and uninitialised memory, become constants that read nothing.

A value of shape `[rows * 0, 0]`, to which matrices without elements are flattened, has no rows and so no place in a buffer; but
as long as it reads a gathered state, it would have to be computed step by step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .rewrite import insert, replace

if TYPE_CHECKING:
    from ..trace import Trace

aten = torch.ops.aten

_FRESH = {aten.new_empty.default, aten.empty_like.default}


def forget_sources(trace: Trace) -> None:
    """Rewrite `trace.graph` in place; the tables of `trace` follow."""
    for node in list(trace.graph.nodes):
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, Tensor) or not all(type(n) is int for n in value.shape):
            continue
        if not value.numel() or node.target in _FRESH:
            kind = {"dtype": value.dtype, "device": value.device}
            replace(trace, node, insert(node, aten.full.default, list(value.shape), 0, val=value, **kind))
            trace.graph.erase_node(node)
