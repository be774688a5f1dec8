"""The pointwise operations of a symbolic graph as Triton expressions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten

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
    number = float(exponent)
    if number == 0:
        return f"tl.where({a} == {a}, 1.0, 1.0)"
    if number in (0.5, -0.5):
        return f"tl.{'sqrt' if number > 0 else 'rsqrt'}({a})"
    if number.is_integer() and abs(number) <= 8:
        return " * ".join([a if number > 0 else f"(1.0 / {a})"] * int(abs(number)))
    return f"power({a}, {exponent}, {number.is_integer()}, {number % 2 == 1})"


def _clamp(a: str, least: str = "", most: str = "") -> str:
    above = f"at_least({a}, {least})" if least else a
    return f"at_most({above}, {most})" if most else above


def _infix(sign: str) -> Expression:
    return lambda a, b: f"({a} {sign} {b})"


def _gelu(a: str, approximate: str = "none") -> str:
    return f"gelu_tanh({a})" if approximate == "tanh" else f"gelu({a})"


def _gelu_backward(g: str, a: str, approximate: str = "none") -> str:
    return f"gelu_tanh_backward({g}, {a})" if approximate == "tanh" else f"gelu_backward({g}, {a})"


CONDITIONS: dict[Any, int] = {aten.where.self: 0}  # the operand that is a boolean and stays so
LOGICAL = {
    aten.bitwise_not.default, aten.bitwise_and.Tensor, aten.bitwise_or.Tensor, aten.logical_not.default,
    aten.logical_and.default, aten.logical_or.default,
}  # fmt: skip
COMPARISONS = {
    aten.gt.Scalar, aten.gt.Tensor, aten.ge.Scalar, aten.ge.Tensor, aten.lt.Scalar, aten.lt.Tensor, aten.le.Scalar,
    aten.le.Tensor, aten.eq.Scalar, aten.eq.Tensor, aten.ne.Scalar, aten.ne.Tensor,
}  # fmt: skip

EXPRESSIONS: dict[Any, Expression] = {
    aten.add.Tensor: lambda a, b, alpha="1": f"{a} + {_scaled(b, alpha)}",
    aten.sub.Tensor: lambda a, b, alpha="1": f"{a} - {_scaled(b, alpha)}",
    aten.rsub.Scalar: lambda a, b, alpha="1": f"{b} - {_scaled(a, alpha)}",
    aten.mul.Tensor: lambda a, b: f"{a} * {b}",
    aten.div.Tensor: lambda a, b: f"{a} / {b}",
    aten.neg.default: lambda a: f"{a} * -1.0",
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
    aten.relu.default: _call("relu"),
    aten.silu.default: _call("silu"),
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
