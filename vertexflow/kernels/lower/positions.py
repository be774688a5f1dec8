"""Decompositions that find positions along a dimension (`argmax`, `max.dim`, `cummax`) or read there (`gather`, `scatter`).

Loops cannot raise an error for a position out of range, so they read only at positions that are certainly in range: those that
such an operation found.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, fx

from ..operations import SPLIT, VIEWS, integer

aten = torch.ops.aten

_FIND = {aten.argmax.default, aten.argmin.default}  # positions along the dimension given as second argument
_FIND_BESIDE_VALUES = {aten.max.dim, aten.min.dim, aten.cummax.default, aten.cummin.default}


def is_in_range(node: fx.Node, joint: Mapping[fx.Node, fx.Node]) -> bool:
    """Whether the positions of a `gather` or `scatter` are certainly in range; `joint` maps placeholders to the joint graph."""
    x, index = cast(fx.Node, node.args[0]), cast(fx.Node, node.args[2])
    extent = x.meta["val"].shape[integer(node, 1)]
    while (source := _looked_through(index, joint)) is not None:
        index = source
    if index.target is operator.getitem and index.args[1] == 1:
        index = index.all_input_nodes[0]
        is_search = index.target in _FIND_BESIDE_VALUES
    else:
        is_search = index.target in _FIND and index.args[1] is not None
    if not is_search:
        return False
    searched = index.all_input_nodes[0].meta["val"].shape[integer(index, 1)]
    return isinstance(extent, int) and isinstance(searched, int) and searched <= extent


def _looked_through(node: fx.Node, joint: Mapping[fx.Node, fx.Node]) -> fx.Node | None:
    """The node whose elements a view, or a placeholder, has; None for other nodes."""
    if node.op == "placeholder":
        return joint.get(node)
    is_item = node.target is operator.getitem and node.all_input_nodes[0].target is not SPLIT
    return node.all_input_nodes[0] if node.target in VIEWS and not is_item else None


def _numbers(x: Tensor, dim: int) -> Tensor:
    """The positions along a dimension of `x`, along that dimension."""
    return torch.arange(x.shape[dim], device=x.device).view(-1, *[1] * (x.dim() - dim - 1))


def _where(condition: Tensor, x: Tensor, other: float) -> Tensor:
    filled = torch.full((), other, dtype=x.dtype, device=x.device)
    return cast(Tensor, aten.where.self(condition, x, filled))


def _end(dtype: torch.dtype, is_largest: bool) -> float:
    """The least number of a dtype, or the largest: where the search for the largest, or smallest, begins."""
    if dtype == torch.bool:
        return not is_largest
    if dtype.is_floating_point:
        return float("-inf" if is_largest else "inf")
    limits = torch.iinfo(dtype)
    return limits.min if is_largest else limits.max


def _is_best(x: Tensor, best: Tensor) -> Tensor:
    """Whether each number is `best`, or NaN, which counts as the best."""
    return (x == best) | torch.isnan(x) if x.is_floating_point() else x == best


def _gathered(x: Tensor, dim: int, index: Tensor, sparse_grad: bool = False) -> Tensor:
    """The elements at these positions, by a maximum, which keeps the sign of zeros."""
    _check_shapes(x, dim, index)
    x = x.unsqueeze(dim)
    is_meant = _numbers(x, dim + 1) == index.unsqueeze(dim + 1)
    return torch.amax(_where(is_meant, x, _end(x.dtype, True)), dim + 1)


def _check_shapes(x: Tensor, dim: int, *tensors: Tensor) -> None:
    for tensor in tensors:
        if any(
            extent != other_extent
            for number, (extent, other_extent) in enumerate(zip(x.shape, tensor.shape, strict=True))
            if number != dim
        ):
            raise NotImplementedError("positions of a part of a value")


def _position_of_best(is_largest: bool) -> Callable[..., Tensor]:
    """The first position of the largest number, or the smallest."""

    def position(x: Tensor, dim: int | None, keepdim: bool = False) -> Tensor:
        if dim is None:
            raise NotImplementedError("a position among all elements")
        best = (torch.amax if is_largest else torch.amin)(x, dim, True)
        return torch.amin(_where(_is_best(x, best), _numbers(x, dim), x.shape[dim]), dim, keepdim)

    return position


def _with_value(is_largest: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    def value_and_position(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
        index = _position_of_best(is_largest)(x, dim, True)
        value = _gathered(x, dim, index)
        return (value, index) if keepdim else (value.squeeze(dim), index.squeeze(dim))

    return value_and_position


def _cumulated(is_largest: bool) -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    """For each position the largest (or smallest) number up to it, and its last position."""

    def cumulated(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        candidates, numbers = x.unsqueeze(dim), _numbers(x, dim)
        is_before = numbers.unsqueeze(0) <= numbers.unsqueeze(1)
        earlier = _where(is_before, candidates, _end(x.dtype, is_largest))
        best = (torch.amax if is_largest else torch.amin)(earlier, dim + 1, True)
        index = torch.amax(_where(is_before & _is_best(candidates, best), numbers.unsqueeze(0), 0), dim + 1)
        return _gathered(x, dim, index), index

    return cumulated


def _scattered(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """`x` with another number at one position along the dimension."""
    _check_shapes(x, dim, index, source)
    if index.shape[dim] != 1 or source.shape[dim] != 1:
        raise NotImplementedError("several positions, which may be the same")
    return cast(Tensor, aten.where.self(_numbers(x, dim) == index, source, x))


def _added(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    _check_shapes(x, dim, index, source)
    if index.shape[dim] != source.shape[dim]:
        raise NotImplementedError("fewer positions than numbers")
    is_meant = _numbers(x, dim).unsqueeze(1) == index.unsqueeze(dim)
    total = torch.sum(_where(is_meant, source.unsqueeze(dim), 0), dim + 1)
    return cast(Tensor, aten.where.self(torch.any(is_meant, dim + 1), x + total, x))


def _filled(x: Tensor, dim: int, index: Tensor, value: float) -> Tensor:
    _check_shapes(x, dim, index)
    is_meant = torch.any(_numbers(x, dim).unsqueeze(1) == index.unsqueeze(dim), dim + 1)
    return cast(Tensor, aten.where.self(is_meant, torch.full((), value, dtype=x.dtype, device=x.device), x))


FINDING: dict[Any, Callable[..., Any]] = {
    aten.argmax.default: _position_of_best(True), aten.argmin.default: _position_of_best(False),
    aten.max.dim: _with_value(True), aten.min.dim: _with_value(False),
    aten.cummax.default: _cumulated(True), aten.cummin.default: _cumulated(False),
}  # fmt: skip
LOOKING_UP: dict[Any, Callable[..., Any]] = {  # decomposed only if `is_in_range`
    aten.gather.default: _gathered, aten.scatter.src: _scattered, aten.scatter_add.default: _added,
    aten.scatter.value: _filled,
}  # fmt: skip
