"""Nodes that cost nothing to repeat: views, sizes and constants are made again in every part that needs them."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

_CREATORS = {aten.zeros.default, aten.ones.default, aten.full.default, aten.scalar_tensor.default, aten.arange.default}


def is_view(node: fx.Node) -> bool:
    """Whether the node's value shares memory with an operand (a list of views, and its items, too)."""
    if node.target is operator.getitem:
        return isinstance(node.args[0], fx.Node) and is_view(node.args[0])
    if node.target is aten._unsafe_view.default:
        return True
    schema: Any = getattr(node.target, "_schema", None)
    if schema is None or schema.is_mutable:
        return False
    return any(argument.alias_info is not None for argument in schema.arguments)


def is_free(node: fx.Node) -> bool:
    """Whether the node is repeated where it is needed instead of kept: a view, a size, or a small constant."""
    if node.op != "call_function":
        return False
    return isinstance(node.meta.get("val"), (torch.SymInt, int)) or is_view(node) or node.target in _CREATORS
