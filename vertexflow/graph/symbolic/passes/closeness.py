"""Whether two results of an operation differ by rounding only, given how large its operands are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx


def same(value: Tensor, expected: Tensor) -> bool:
    """Whether both tensors are equal, without any NaN."""
    if value.shape != expected.shape or value.dtype != expected.dtype or value.dtype == torch.complex32:
        return False  # PyTorch does not compare complex32
    return torch.equal(value, expected)


def agree(value: Tensor, expected: Tensor, limit: float, scale: float = 0.0) -> bool:
    """Whether both tensors differ by rounding only. Products of more rows may be summed in another order, and terms as large as
    `scale` may cancel. `limit` is the square root of the dtype's machine epsilon.
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
    """The `limit` for the values of these nodes; `computed_in` maps their dtypes to those that they were computed in."""
    values = (node.meta.get("val") for node in nodes)
    dtypes = {computed_in(value.dtype) for value in values if isinstance(value, Tensor)}
    return max(
        (torch.finfo(dtype).eps ** 0.5 for dtype in dtypes if dtype.is_floating_point or dtype.is_complex), default=0
    )


def magnitude(operands: Iterable[fx.Node], base: Mapping[fx.Node, Any]) -> float:
    """A bound of the terms that an operation sums: its largest element, or the product of those of its two largest operands."""
    tensors = (base[node] for node in operands if isinstance(base.get(node), Tensor))
    sizes = [
        float(torch.where(torch.isfinite(tensor), tensor, 0).abs().max())
        for tensor in tensors
        if tensor.numel() and (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype != torch.complex32
    ]
    largest, second = sorted([*sizes, 0.0, 0.0])[-2:]
    return max(second, largest * second)
