"""Pointwise operations: one element of the result as an expression in elements of the operands.

An entry of `POINTWISE` gets the operands' elements, and numbers, in the dtype that the operation is computed in; None for
arguments that are None; and strings (`approximate="tanh"`) as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ..operations import Unsupported
from .polynomials import POLYNOMIALS
from .scalar import Constant, Expression, apply, constant, in_dtype, like

aten = torch.ops.aten

Entry = Callable[..., Expression]


def _plain(operation: str) -> Entry:
    return lambda *operands: apply(operation, *operands)


def _add(a: Expression, b: Expression, alpha: Expression | None = None) -> Expression:
    if a.dtype == torch.bool:
        return apply("bitwise_or", a, b)
    return apply("add", a, _scaled(b, alpha))


def _scaled(x: Expression, by: Expression | None) -> Expression:
    return x if by is None or (isinstance(by, Constant) and by.value == 1) else apply("mul", by, x)


def _mul(a: Expression, b: Expression) -> Expression:
    return apply("bitwise_and" if a.dtype == torch.bool else "mul", a, b)


def _reciprocal(x: Expression) -> Expression:
    return apply("div", like(x, 1), x)


def _square(x: Expression) -> Expression:
    return apply("mul", x, x)


def _power(x: Expression, exponent: Expression) -> Expression:
    if not isinstance(exponent, Constant):
        return apply("pow", x, exponent)
    number = float(exponent.value)
    if number == 0:
        return like(x, 1)
    if number in (1, 2, 3):
        return x if number == 1 else _square(x) if number == 2 else apply("mul", _square(x), x)
    if x.dtype.is_floating_point and number in (0.5, -0.5, -1, -2):
        root = apply("sqrt", x) if abs(number) == 0.5 else x if number == -1 else _square(x)
        return root if number == 0.5 else _reciprocal(root)
    return apply("pow", x, exponent)


def _clamp(x: Expression, least: Expression | None = None, most: Expression | None = None) -> Expression:
    above = x if least is None else apply("maximum", x, least)
    return above if most is None else apply("minimum", above, most)


def _rounded_division(a: Expression, b: Expression, rounding_mode: str | None = None) -> Expression:
    if rounding_mode is None:
        return apply("div", a, b)
    return _division({"floor": "floor_divide", "trunc": "trunc_divide"}[rounding_mode])(a, b)


def _division(operation: str) -> Entry:
    """A quotient or a remainder. Where an integer may be divided by zero, PyTorch raises an error, which loops cannot."""

    def entry(a: Expression, b: Expression) -> Expression:
        if not b.dtype.is_floating_point and not (isinstance(b, Constant) and b.value):
            raise Unsupported(f"{operation} of integers by what may be zero")
        return apply(operation, a, b)

    return entry


def _lcm(a: Expression, b: Expression) -> Expression:
    """The least common multiple, in 32 bits at least, like PyTorch."""
    dtype = a.dtype if a.dtype in (torch.int32, torch.int64) else torch.int32
    a, b = in_dtype(a, dtype), in_dtype(b, dtype)
    divisor = apply("gcd", a, b)
    is_zero = apply("eq", divisor, like(divisor, 0))
    part = apply("trunc_divide", a, apply("where", is_zero, like(a, 1), divisor))
    return apply("where", is_zero, like(a, 0), apply("abs", apply("mul", part, b)))


def _gelu(x: Expression, approximate: str = "none") -> Expression:
    half = apply("mul", x, like(x, 0.5))
    if approximate == "tanh":
        return apply("mul", half, apply("add", like(x, 1), apply("tanh", _gelu_inner(x))))
    return apply("mul", half, apply("add", like(x, 1), apply("erf", apply("mul", x, like(x, math.sqrt(0.5))))))


def _gelu_inner(x: Expression) -> Expression:
    cubic = apply("mul", like(x, 0.044715), apply("mul", _square(x), x))
    return apply("mul", like(x, math.sqrt(2 / math.pi)), apply("add", x, cubic))


def _gelu_backward(grad: Expression, x: Expression, approximate: str = "none") -> Expression:
    one, half = like(x, 1), like(x, 0.5)
    if approximate == "tanh":
        inner = apply("tanh", _gelu_inner(x))
        slope = apply("mul", like(x, math.sqrt(2 / math.pi)),
                      apply("add", one, apply("mul", like(x, 3 * 0.044715), _square(x))))  # fmt: skip
        left = apply("mul", half, apply("add", one, inner))
        bend = apply("mul", apply("sub", one, _square(inner)), slope)
        return apply("mul", grad, apply("add", left, apply("mul", apply("mul", half, x), bend)))
    below = apply("mul", half, apply("add", one, apply("erf", apply("mul", x, like(x, math.sqrt(0.5))))))
    density = apply("mul", apply("exp", apply("mul", _square(x), like(x, -0.5))), like(x, 1 / math.sqrt(2 * math.pi)))
    return apply("mul", grad, apply("add", below, apply("mul", x, density)))


def _sigmoid_backward(grad: Expression, y: Expression) -> Expression:
    return apply("mul", apply("mul", grad, apply("sub", like(y, 1), y)), y)


def _tanh_backward(grad: Expression, y: Expression) -> Expression:
    return apply("mul", grad, apply("multiply_add", apply("neg", y), y, like(y, 1)))


def _silu_backward(grad: Expression, x: Expression) -> Expression:
    gate, one = apply("sigmoid", x), like(x, 1)
    return apply("mul", apply("mul", grad, gate), apply("add", one, apply("mul", x, apply("sub", one, gate))))


def _threshold_backward(grad: Expression, x: Expression, threshold: Expression) -> Expression:
    return apply("where", apply("le", x, threshold), like(grad, 0), grad)


def _logical(operation: str) -> Entry:
    return lambda *operands: apply(f"bitwise_{operation}", *map(_is_true, operands))


def _is_true(x: Expression) -> Expression:
    return x if x.dtype == torch.bool else apply("ne", x, like(x, 0))


def _predicate(operation: str) -> Entry:
    return lambda x: apply(operation, x) if x.dtype.is_floating_point else constant(False, torch.bool)


def _rounding(operation: str) -> Entry:
    """`floor` and its like, which leave integers as they are."""
    return lambda x: apply(operation, x) if x.dtype.is_floating_point else x


def _unary() -> dict[Any, Entry]:
    names = ("exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf "
             "erfc lgamma sigmoid silu neg abs")  # fmt: skip
    return {getattr(aten, name).default: _plain(name) for name in names.split()}


def _binary(names: str, *overloads: str, prefix: str = "", make: Callable[[str], Entry] = _plain) -> dict[Any, Entry]:
    """Entries for operations of two operands whose overloads differ in which operand is a number."""
    packets = {name: getattr(aten, prefix + name) for name in names.split()}
    return {
        getattr(packet, overload): make(prefix + name) for name, packet in packets.items() for overload in overloads
    }


def _shifts() -> dict[Any, Entry]:
    left, right = _plain("shift_left"), _plain("shift_right")
    overloads = ("Tensor", "Tensor_Scalar", "Scalar_Tensor")
    return {
        **{getattr(aten.bitwise_left_shift, overload): left for overload in overloads},
        **{getattr(aten.bitwise_right_shift, overload): right for overload in overloads},
        **{getattr(aten.__lshift__, overload): left for overload in ("Tensor", "Scalar")},
        **{getattr(aten.__rshift__, overload): right for overload in ("Tensor", "Scalar")},
    }


POINTWISE: dict[Any, Entry] = {
    **_unary(),
    **_binary("eq ne lt le gt ge", "Tensor", "Scalar"),
    **_binary("and or xor", "Tensor", "Scalar", prefix="bitwise_"),
    **_shifts(),
    **_binary("fmod remainder", "Tensor", "Scalar", make=_division),
    **_binary("maximum minimum atan2 hypot", "default"),
    aten.add.Tensor: _add,
    aten.sub.Tensor: lambda a, b, alpha=None: apply("sub", a, _scaled(b, alpha)),
    aten.rsub.Scalar: lambda a, b, alpha=None: apply("sub", b, _scaled(a, alpha)),
    aten.mul.Tensor: _mul,
    aten.div.Tensor: _plain("div"),
    aten.div.Tensor_mode: _rounded_division,
    aten.reciprocal.default: _reciprocal,
    aten.square.default: _square,
    aten.pow.Tensor_Scalar: _power,
    aten.pow.Tensor_Tensor: _power,
    aten.pow.Scalar: _power,
    aten.relu.default: lambda x: apply("relu", x) if x.dtype.is_floating_point else apply("maximum", x, like(x, 0)),
    aten.gelu.default: _gelu,
    aten.clamp.default: _clamp,
    aten.clamp.Tensor: _clamp,
    aten.sign.default: _plain("sign"),
    **POLYNOMIALS,
    aten.gcd.default: _plain("gcd"),
    aten.lcm.default: _lcm,
    **_binary("copysign", "Tensor", "Scalar"),
    **{getattr(aten, name).default: _rounding(name) for name in ("floor", "ceil", "trunc", "round")},
    aten.sigmoid_backward.default: _sigmoid_backward,
    aten.tanh_backward.default: _tanh_backward,
    aten.silu_backward.default: _silu_backward,
    aten.gelu_backward.default: _gelu_backward,
    aten.threshold_backward.default: _threshold_backward,
    aten.where.self: _plain("where"),
    aten.isnan.default: _predicate("isnan"),
    aten.isinf.default: _predicate("isinf"),
    aten.signbit.default: _predicate("signbit"),
    aten.bitwise_not.default: _plain("bitwise_not"),
    aten.logical_not.default: _logical("not"),
    **{getattr(aten, f"logical_{name}").default: _logical(name) for name in ("and", "or", "xor")},
}
