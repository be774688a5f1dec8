"""Whether two results are the same but for rounding, as far as their operation and its operands allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx


def same(value: Tensor, expected: Tensor) -> bool:
    """Whether both are equal, and none is NaN."""
    if value.shape != expected.shape or value.dtype != expected.dtype or value.dtype == torch.complex32:
        return False  # PyTorch does not compare complex32
    return torch.equal(value, expected)


def agree(value: Tensor, expected: Tensor, limit: float, scale: float = 0.0) -> bool:
    """Whether both are the same but for rounding: products of more rows may be added up in another order, and of terms as large
    as `scale` little may be left. `limit` is the root of the distance between numbers of the dtype.
    """
    if value.shape != expected.shape or value.dtype != expected.dtype:
        return False
    if value.dtype == torch.complex32:
        value, expected = value.to(torch.complex64), expected.to(torch.complex64)
    if torch.equal(value, expected):
        return True
    both_nan = (value != value) & (expected != expected)
    if not (value.is_floating_point() or value.is_complex()):
        return False
    finite = torch.where(torch.isfinite(expected), expected, 0).abs()
    largest = finite.max() if finite.numel() else torch.zeros(())
    near = (value - expected).abs() <= limit * largest + 8 * limit**2 * scale
    return bool((near | both_nan | (value == expected)).all())


def tolerance(nodes: Iterable[fx.Node], computed_in: Callable[[torch.dtype], torch.dtype]) -> float:
    """The `limit` of what these operations compute; `computed_in` says in which dtype, instead of their own."""
    values = (node.meta.get("val") for node in nodes)
    dtypes = {computed_in(value.dtype) for value in values if isinstance(value, Tensor)}
    return max(
        (torch.finfo(dtype).eps ** 0.5 for dtype in dtypes if dtype.is_floating_point or dtype.is_complex), default=0
    )


def magnitude(operands: Iterable[fx.Node], base: Mapping[fx.Node, Any]) -> float:
    """How large the terms may be that an operation adds up: its largest operand, or the product of the two largest."""
    tensors = (base[node] for node in operands if isinstance(base.get(node), Tensor))
    sizes = [
        float(torch.where(torch.isfinite(tensor), tensor, 0).abs().max())
        for tensor in tensors
        if tensor.numel() and (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype != torch.complex32
    ]
    one, other = sorted([*sizes, 0.0, 0.0])[-2:]
    return max(other, one * other)
