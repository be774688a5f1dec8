"""A graph's operations in float64, whatever dtype they were traced in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten

_WIDER = {
    torch.float32: torch.float64, torch.bfloat16: torch.float64, torch.float16: torch.float64,
    torch.complex64: torch.complex128, torch.complex32: torch.complex128,
}  # fmt: skip
_BITS = {aten.view.dtype, aten.frexp.Tensor, aten.nextafter.default}  # which depend on how numbers are written
_FROM_HALF = {aten._softmax.default, aten._log_softmax.default}  # their last argument: convert half precision


def can_be_in_float64(nodes: Iterable[fx.Node]) -> bool:
    """Whether these operations mean the same in another dtype."""
    return not any(node.target in _BITS for node in nodes)


def in_float64(value: Any) -> Any:
    """A tensor of numbers, or a dtype, in float64, or complex128; anything else as it is."""
    if isinstance(value, torch.dtype):
        return _WIDER.get(value, value)
    return value.to(_WIDER[value.dtype]) if isinstance(value, Tensor) and value.dtype in _WIDER else value


def run_in_float64(node: fx.Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What an operation makes of values that are in float64."""
    if node.target in _FROM_HALF:
        args = (*args[:2], False)
    args, kwargs = fx.node.map_aggregate((args, dict(kwargs)), in_float64)
    return torch.utils._pytree.tree_map(in_float64, node.target(*args, **kwargs))  # type: ignore[operator]
