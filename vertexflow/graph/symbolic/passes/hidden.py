"""Mixing of rows that the values at hand hide: if all rows of an operand are equal, an operation that mixes them shows nothing.

`(x > 100).flip(0)` equals `x > 100` where no row is that large, and a flipped column of tokens equals itself where all tokens
are equal. So such an operation runs once more, on other numbers. So does a convolution, with other weights: along
rows, with weights 0, 1, 0, it shows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from ..nodes import is_view

aten = torch.ops.aten

_SHAPES = {aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default}

Values = Mapping[fx.Node, Any]
Blocks = Callable[[Tensor, fx.Node], Tensor]  # from a node's value to the same with vertices (or edges) in dimension 0


def alike_nodes(values: Values, blocks: Blocks) -> set[fx.Node]:
    """The nodes whose values have rows that are all equal."""
    alike = set()
    for node, value in values.items():
        if isinstance(value, Tensor) and node.meta.get("rows") is not None and value.numel():
            rows = blocks(
                value.to(torch.complex64) if value.dtype == torch.complex32 else value, node
            )  # to be compared
            if len(rows) and torch.equal(rows, rows[:1].expand_as(rows)):
                alike.add(node)
    return alike


def weights_of_neighbours(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """The values without rows that decide how much of its neighbours an entry gets."""
    convolved = (node for node in nodes if node.target == aten.convolution.default)
    return {operand for node in convolved for operand in node.all_input_nodes if operand.meta.get("rows") is None}


def drawn(value: Tensor) -> Tensor:
    """Random numbers of the same shape and dtype; integers are 0 or 1, as indices right for any table."""
    if value.is_floating_point() or value.is_complex():
        return torch.randn_like(value)
    return torch.randint(2, value.shape, device=value.device).to(value.dtype)


def takes_values_of_rows(node: fx.Node, value: Tensor) -> bool:
    """Whether a value without rows is computed from values with rows: `(x > 0).any()`."""
    reads_rows = any(operand.meta.get("rows") is not None for operand in node.all_input_nodes)
    return reads_rows and node.meta["rows"] is None and node.target not in _SHAPES and bool(value.numel())


def compares_places(node: fx.Node, places: set[fx.Node]) -> bool:
    """Whether an operation computes with the positions of rows instead of indexing by them: `torch.arange(len(x)) > 100`."""
    pointwise = torch.Tag.pointwise in getattr(node.target, "tags", ()) and not is_view(node)
    return pointwise and bool(places & {*node.all_input_nodes})
