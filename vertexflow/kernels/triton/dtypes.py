"""In which type numbers are in registers, and where they are rounded.

Half precision is for memory and for products. In registers its numbers are float32, and the result of each operation is rounded
to them, as PyTorch rounds it: to the nearest, of two the even one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ...graph import segments
from ..operations import CONSTANT, PADS

aten = torch.ops.aten

TYPES = {torch.float16: "tl.float16", torch.bfloat16: "tl.bfloat16", torch.float32: "tl.float32",
         torch.float64: "tl.float64", torch.bool: "tl.int1"}  # fmt: skip
HALF = (torch.float16, torch.bfloat16)
# Their results are elements of their operands, perhaps with the other sign.
EXACT: set[Any] = {
    *PADS, CONSTANT, segments.EXPAND, segments.SEGMENT_MAX, aten.cat.default, aten.stack.default, aten.where.self,
    aten.neg.default, aten.abs.default, aten.relu.default, aten.threshold_backward.default, aten.maximum.default,
    aten.minimum.default, aten.amax.default,
}  # fmt: skip


def dtype_of(node: fx.Node) -> torch.dtype:
    """The dtype of a value."""
    dtype: torch.dtype = node.meta["val"].dtype
    return dtype


def is_bool(node: fx.Node) -> bool:
    """Whether a value is of bits, which are no numbers."""
    return dtype_of(node) == torch.bool


def in_registers(dtype: torch.dtype) -> str:
    """The type of such numbers in registers; bits and integers are meant as operands of a comparison."""
    if dtype == torch.float64:
        return "tl.float64"
    return "tl.float32" if dtype.is_floating_point else "tl.int32"


def rounded(text: str, dtype: torch.dtype) -> str:
    """Numbers of float32, rounded to a narrower dtype if `dtype` is one."""
    return f"({text}).to({TYPES[dtype]}).to(tl.float32)" if dtype in HALF else text


def converted(text: str, given: torch.dtype, wanted: torch.dtype) -> str:
    """Numbers, or bits, of one dtype as numbers of another."""
    if not wanted.is_floating_point:  # as what is compared
        return f"({text}).to(tl.int32)" if given == torch.bool else text
    if not given.is_floating_point or in_registers(given) != in_registers(wanted):
        text = f"({text}).to({in_registers(wanted)})"  # of float64 PyTorch, too, makes half precision by way of float32
    return text if wanted == given or given == torch.bool else rounded(text, wanted)


def compared_in(node: fx.Node) -> torch.dtype:
    """The dtype in which an operation computes, which of comparisons is not that of the result."""
    if not is_bool(node):
        return dtype_of(node)
    values: list[Any] = [one.meta["val"] if isinstance(one, fx.Node) else one for one in node.args]
    values = [one for one in values if isinstance(one, (Tensor, int, float))]
    return torch.result_type(*values) if len(values) == 2 else torch.bool
