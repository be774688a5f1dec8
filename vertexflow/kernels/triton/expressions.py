"""The pointwise operations of a symbolic graph as Triton expressions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten

TYPES = {torch.float16: "tl.float16", torch.bfloat16: "tl.bfloat16", torch.float32: "tl.float32",
         torch.float64: "tl.float64", torch.bool: "tl.int1"}  # fmt: skip
HALF = (torch.float16, torch.bfloat16)

# Given the expressions of the operands, and of the keyword arguments, that of the result.
Expression = Callable[..., str]


def literal(value: Any) -> str:
    """A Python number as it is written in a kernel."""
    if isinstance(value, bool):
        return str(value)
    if math.isnan(value) or math.isinf(value):
        return f'float("{value}")'
    return repr(float(value))


def _call(name: str) -> Expression:
    return lambda *operands: f"{name}({', '.join(operands)})"


def _scaled(b: str, alpha: str) -> str:
    return b if alpha in ("1", literal(1)) else f"{alpha} * {b}"


def _power(a: str, exponent: str) -> str:
    known = {"2.0": f"{a} * {a}", "3.0": f"{a} * {a} * {a}", "0.5": f"tl.sqrt({a})", "1.0": a, "-1.0": f"1.0 / {a}"}
    return known.get(exponent, f"power({a}, {exponent})")


def _clamp(a: str, least: str = "", most: str = "") -> str:
    above = f"at_least({a}, {least})" if least else a
    return f"at_most({above}, {most})" if most else above


def _infix(sign: str) -> Expression:
    return lambda a, b: f"({a} {sign} {b})"


def _gelu(a: str, approximate: str = "none") -> str:
    return f"gelu_tanh({a})" if approximate == "tanh" else f"gelu({a})"


def _gelu_backward(g: str, a: str, approximate: str = "none") -> str:
    return f"gelu_tanh_backward({g}, {a})" if approximate == "tanh" else f"gelu_backward({g}, {a})"


EXPRESSIONS: dict[Any, Expression] = {
    aten.add.Tensor: lambda a, b, alpha="1": f"{a} + {_scaled(b, alpha)}",
    aten.sub.Tensor: lambda a, b, alpha="1": f"{a} - {_scaled(b, alpha)}",
    aten.rsub.Scalar: lambda a, b, alpha="1": f"{b} - {_scaled(a, alpha)}",
    aten.mul.Tensor: lambda a, b: f"{a} * {b}",
    aten.div.Tensor: lambda a, b: f"{a} / {b}",
    aten.neg.default: lambda a: f"-{a}",
    aten.reciprocal.default: lambda a: f"1.0 / {a}",
    aten.square.default: lambda a: f"{a} * {a}",
    aten.pow.Tensor_Scalar: _power,
    aten.sqrt.default: _call("tl.sqrt"),
    aten.rsqrt.default: _call("tl.rsqrt"),
    aten.abs.default: _call("tl.abs"),
    aten.exp.default: _call("tl.exp"),
    aten.log.default: _call("tl.log"),
    aten.sin.default: _call("tl.sin"),
    aten.cos.default: _call("tl.cos"),
    aten.erf.default: _call("tl.erf"),
    aten.sigmoid.default: _call("sigmoid"),
    aten.tanh.default: _call("tanh"),
    aten.relu.default: lambda a: f"larger({a}, 0.0)",
    aten.silu.default: lambda a: f"{a} * sigmoid({a})",
    aten.gelu.default: _gelu,
    aten.maximum.default: _call("larger"),
    aten.minimum.default: _call("smaller"),
    aten.clamp.default: _clamp,
    aten.sigmoid_backward.default: lambda g, y: f"{g} * (1.0 - {y}) * {y}",
    aten.tanh_backward.default: lambda g, y: f"{g} * (1.0 - {y} * {y})",
    aten.silu_backward.default: _call("silu_backward"),
    aten.gelu_backward.default: _gelu_backward,
    aten.threshold_backward.default: lambda g, x, t: f"tl.where({x} <= {t}, 0.0, {g})",
    aten.where.self: _call("tl.where"),
    aten.gt.Scalar: _infix(">"), aten.gt.Tensor: _infix(">"),
    aten.ge.Scalar: _infix(">="), aten.ge.Tensor: _infix(">="),
    aten.lt.Scalar: _infix("<"), aten.lt.Tensor: _infix("<"),
    aten.le.Scalar: _infix("<="), aten.le.Tensor: _infix("<="),
    aten.eq.Scalar: _infix("=="), aten.eq.Tensor: _infix("=="),
    aten.ne.Scalar: _infix("!="), aten.ne.Tensor: _infix("!="),
    aten.bitwise_not.default: lambda a: f"(not_of({a}))",  # of booleans: there are no other integers
    aten.bitwise_and.Tensor: _infix("&"),
    aten.bitwise_or.Tensor: _infix("|"),
    aten.logical_not.default: lambda a: f"(not_of({a}))",
    aten.logical_and.default: _infix("&"),
    aten.logical_or.default: _infix("|"),
}  # fmt: skip
