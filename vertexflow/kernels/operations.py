"""The operations of a symbolic graph by what they are, and their arguments: for all backends that generate code."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ..graph import segments

aten = torch.ops.aten

PRODUCTS = {aten.mm.default, aten.addmm.default}
SEGMENTS = {segments.SEGMENT_SUM, segments.SEGMENT_MAX}
PADS = {aten.slice_backward.default, aten.select_backward.default}  # zeros around a value
CONSTANTS: dict[Any, Callable[[fx.Node], Any]] = {
    aten.zeros.default: lambda node: 0.0, aten.ones.default: lambda node: 1.0,
    aten.scalar_tensor.default: lambda node: node.args[0], aten.full.default: lambda node: node.args[1],
    aten.zeros_like.default: lambda node: 0.0, aten.ones_like.default: lambda node: 1.0,
    aten.new_zeros.default: lambda node: 0.0, aten.new_ones.default: lambda node: 1.0,
    aten.new_full.default: lambda node: node.args[2],
}  # fmt: skip
SAME = {aten.clone.default, aten.alias.default, aten.detach.default}
SPLITS = {aten.split.Tensor, aten.split_with_sizes.default}
VIEWS = {
    operator.getitem, *SPLITS, aten.slice.Tensor, aten.select.int, aten.unsqueeze.default, aten.squeeze.dim,
    aten.expand.default, aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.permute.default,
    aten.transpose.int, aten.t.default, *SAME,
}  # fmt: skip


class Unsupported(Exception):  # noqa: N818 - a reason, not a failure
    """Why a part cannot become code of a backend."""


def has_rows(node: fx.Node) -> bool:
    """Whether a value has rows, of vertices or of edges."""
    return node.meta.get("rows") is not None


def trailing(node: fx.Node) -> list[int]:
    """The shape of one row; of a value without rows, its shape."""
    shape = node.meta["val"].shape
    return [int(extent) for extent in (shape[1:] if has_rows(node) else shape)]


def integer(node: fx.Node, position: int, default: int = 0) -> int:
    """An argument that is an integer."""
    value: Any = node.args[position] if len(node.args) > position else default
    return int(value)


def dim_of(node: fx.Node, position: int) -> int:
    """A dimension that is an argument, counted from the front."""
    return integer(node, position) % int(node.all_input_nodes[0].meta["val"].dim())


def dim_of_cat(node: fx.Node) -> int:
    """The dimension along which a concatenation joins."""
    return integer(node, 1) % int(node.meta["val"].dim())


def piece_sizes(split: fx.Node) -> list[int]:
    """The sizes of what a split makes."""
    return [int(piece.shape[dim_of(split, 2)]) for piece in split.meta["val"]]
