"""The operations of a graph, run on values in float64 whatever dtype they were traced in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_map

from ... import segments

aten = torch.ops.aten

_WIDER = {
    torch.float32: torch.float64, torch.bfloat16: torch.float64, torch.float16: torch.float64,
    torch.complex64: torch.complex128, torch.complex32: torch.complex128,
    torch.float8_e4m3fn: torch.float64, torch.float8_e4m3fnuz: torch.float64, torch.float8_e5m2: torch.float64,
    torch.float8_e5m2fnuz: torch.float64,
}  # fmt: skip
_BITS = {aten.view.dtype, aten.frexp.Tensor, aten.nextafter.default}  # which depend on the bits of numbers
_FROM_HALF = {
    aten._softmax.default,
    aten._log_softmax.default,
}  # their last argument says to convert from half precision
_KNOWN = {"aten", "prims", segments.EXPAND.namespace}


def means_the_same(node: fx.Node) -> bool:
    """Whether an operation is known to compute the same function in float64; a user's own operator may look at the dtype."""
    return node.target not in _BITS and getattr(node.target, "namespace", "aten") in _KNOWN


def in_float64(value: Any) -> Any:
    """A tensor of numbers, or a dtype, in float64, or complex128; anything else as it is."""
    if isinstance(value, torch.dtype):
        return _WIDER.get(value, value)
    return value.to(_WIDER[value.dtype]) if isinstance(value, Tensor) and value.dtype in _WIDER else value


def run_in_float64(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """The result of an operation on values in float64."""
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    if node.target in _FROM_HALF:
        args = (*args[:2], False)
    args, kwargs = fx.node.map_aggregate((args, dict(kwargs)), in_float64)
    return tree_map(in_float64, node.target(*args, **kwargs))  # type: ignore[operator]


def run_as_traced(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """The same with operands converted to the dtypes that they were traced in; the result is in float64 again."""

    def value_in_its_dtype(source: fx.Node) -> Any:
        value = values[source]
        return value.to(source.meta["val"].dtype) if isinstance(value, Tensor) else value

    args, kwargs = fx.node.map_arg((node.args, node.kwargs), value_in_its_dtype)
    return tree_map(in_float64, node.target(*args, **kwargs))  # type: ignore[operator]
