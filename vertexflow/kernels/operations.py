"""The operations of a symbolic graph in groups, and access to their arguments, for all backends that generate code."""

from __future__ import annotations

import operator
from typing import cast

import torch
from torch import fx

from ..graph import segments

aten = torch.ops.aten

PRODUCTS = {aten.mm.default, aten.addmm.default}
SEGMENTS = {segments.SEGMENT_SUM, segments.SEGMENT_MAX}
PADS = {aten.slice_backward.default, aten.select_backward.default}  # zeros around a value
CONSTANT = aten.full.default  # its second argument in every element
SPLIT = aten.split_with_sizes.default
VIEWS = {
    operator.getitem, SPLIT, aten.slice.Tensor, aten.select.int, aten.unsqueeze.default, aten.squeeze.dims,
    aten.expand.default, aten.reshape.default, aten.permute.default, aten.clone.default,
    aten.unfold.default,
}  # fmt: skip
# Calls of PyTorch that see all rows of a step at once, and that native code calls back for in passes that are written down.
WHOLE_STEPS: set[object] = set()


class Unsupported(Exception):  # noqa: N818 - a reason, not a failure
    """Why a part cannot become code of a backend."""


def line_of(node: fx.Node) -> str:
    """` (line 12)`, the line of the vertex function that an operation comes from; what came of the derivative has none."""
    return f" (line {node.meta['line']})" if node.meta.get("line") else ""


def is_empty(node: fx.Node) -> bool:
    """Whether a row of a tensor has no elements."""
    return any(isinstance(extent, int) and extent == 0 for extent in node.meta["val"].shape)


def integer(node: fx.Node, position: int) -> int:
    """An argument that is an integer."""
    return int(cast(int, node.args[position]))


def integers(node: fx.Node, position: int) -> list[int]:
    """An argument that is a list of integers."""
    return list(cast("list[int]", node.args[position]))


def first_of_piece(item: fx.Node) -> int:
    """The position in the whole at which a piece of a split begins."""
    return sum(integers(item.all_input_nodes[0], 1)[: integer(item, 1)])
