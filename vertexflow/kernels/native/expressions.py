"""The pointwise operations of a symbolic graph as C++ expressions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten

# Given the expressions of the operands, and of the keyword arguments, that of the result.
Expression = Callable[..., str]


def literal(value: Any) -> str:
    """A Python number as a C++ constant."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if math.isnan(value):
        return "T(NAN)"
    if math.isinf(value):
        return "T(INFINITY)" if value > 0 else "T(-INFINITY)"
    return f"T({float(value)!r})"


def _scaled(b: str, alpha: str) -> str:
    return b if alpha in ("1", literal(1)) else f"{alpha} * {b}"


def _power(a: str, exponent: str) -> str:
    known = {
        "2": f"{a} * {a}", "3": f"{a} * {a} * {a}", "0.5": f"std::sqrt({a})", "1": a, "-1": f"T(1) / {a}",
        "-0.5": f"T(1) / std::sqrt({a})", "-2": f"T(1) / ({a} * {a})",
    }  # fmt: skip
    number = exponent.removeprefix("T(").removesuffix(")").removesuffix(".0")
    return known.get(number, f"std::pow({a}, {exponent})")


def _clamp(a: str, least: str = "", most: str = "") -> str:
    above = f"larger({a}, {least})" if least else a
    return f"smaller({above}, {most})" if most else above


def _compare(sign: str) -> Expression:
    return lambda a, b: f"({a} {sign} {b})"


CONDITIONS: dict[Any, int] = {aten.where.self: 0}  # the operand that is a boolean and stays so

EXPRESSIONS: dict[Any, Expression] = {
    aten.add.Tensor: lambda a, b, alpha="1": f"{a} + {_scaled(b, alpha)}",
    aten.sub.Tensor: lambda a, b, alpha="1": f"{a} - {_scaled(b, alpha)}",
    aten.rsub.Scalar: lambda a, b, alpha="1": f"{b} - {_scaled(a, alpha)}",
    aten.mul.Tensor: lambda a, b: f"{a} * {b}",
    aten.div.Tensor: lambda a, b: f"{a} / {b}",
    aten.neg.default: lambda a: f"-{a}",
    aten.reciprocal.default: lambda a: f"T(1) / {a}",
    aten.square.default: lambda a: f"{a} * {a}",
    aten.pow.Tensor_Scalar: _power,
    aten.sqrt.default: lambda a: f"std::sqrt({a})",
    aten.rsqrt.default: lambda a: f"T(1) / std::sqrt({a})",
    aten.abs.default: lambda a: f"std::abs({a})",
    aten.exp.default: lambda a: f"exp_of({a})",
    aten.log.default: lambda a: f"std::log({a})",
    aten.sin.default: lambda a: f"std::sin({a})",
    aten.cos.default: lambda a: f"std::cos({a})",
    aten.erf.default: lambda a: f"std::erf({a})",
    aten.sigmoid.default: lambda a: f"sigmoid({a})",
    aten.tanh.default: lambda a: f"tanh_of({a})",
    aten.relu.default: lambda a: f"relu({a})",
    aten.silu.default: lambda a: f"silu({a})",
    aten.maximum.default: lambda a, b: f"larger({a}, {b})",
    aten.minimum.default: lambda a, b: f"smaller({a}, {b})",
    aten.clamp.default: _clamp,
    aten.sigmoid_backward.default: lambda g, y: f"{g} * (T(1) - {y}) * {y}",
    aten.tanh_backward.default: lambda g, y: f"{g} * fused(-({y}), {y}, T(1))",
    aten.silu_backward.default: lambda g, x: f"{g} * sigmoid({x}) * (T(1) + {x} * (T(1) - sigmoid({x})))",
    aten.threshold_backward.default: lambda g, x, t: f"({x} <= {t} ? T(0) : {g})",
    aten._to_copy.default: lambda a: a,  # C++ converts
    aten.where.self: lambda c, a, b: f"({c} ? {a} : {b})",
    aten.gt.Scalar: _compare(">"), aten.gt.Tensor: _compare(">"),
    aten.ge.Scalar: _compare(">="), aten.ge.Tensor: _compare(">="),
    aten.lt.Scalar: _compare("<"), aten.lt.Tensor: _compare("<"),
    aten.le.Scalar: _compare("<="), aten.le.Tensor: _compare("<="),
    aten.eq.Scalar: _compare("=="), aten.eq.Tensor: _compare("=="),
    aten.ne.Scalar: _compare("!="), aten.ne.Tensor: _compare("!="),
    aten.bitwise_not.default: lambda a: f"(!{a})",  # of booleans: there are no other integers
    aten.bitwise_and.Tensor: lambda a, b: f"({a} && {b})",
    aten.bitwise_or.Tensor: lambda a, b: f"({a} || {b})",
    aten.logical_not.default: lambda a: f"(!{a})",
    aten.logical_and.default: lambda a, b: f"({a} && {b})",
    aten.logical_or.default: lambda a, b: f"({a} || {b})",
}  # fmt: skip
