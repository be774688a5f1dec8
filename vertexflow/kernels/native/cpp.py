"""Scalar operations, numbers, types and places in C++.

Half precision is for memory and for products: in registers such numbers are floats, rounded where PyTorch rounds them.
"""

from __future__ import annotations

import math

import torch

from ..lower.index import Atom, Index, Owner, Quotient, Var
from ..lower.polynomials import RECURRENCES
from ..lower.scalar import HALVES, wide

TYPES = {
    torch.float32: "float", torch.float64: "double", torch.int64: "std::int64_t", torch.int32: "std::int32_t",
    torch.int16: "std::int16_t", torch.int8: "std::int8_t", torch.uint8: "std::uint8_t", torch.bool: "bool",
    torch.bfloat16: "bfloat16", torch.float16: "float16",
}  # fmt: skip

SPELLINGS = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}", "neg": "-{0}",
    "multiply_add": "fused({0}, {1}, {2})", "where": "({0} ? {1} : {2})",
    "eq": "({0} == {1})", "ne": "({0} != {1})", "lt": "({0} < {1})", "le": "({0} <= {1})", "gt": "({0} > {1})",
    "ge": "({0} >= {1})", "maximum": "larger({0}, {1})", "minimum": "smaller({0}, {1})", "exp": "exp_of({0})",
    "log": "log_of({0})", "log1p": "log1p_of({0})", "erf": "erf_of({0})",
    "tanh": "tanh_of({0})", "sigmoid": "sigmoid({0})", "silu": "silu({0})", "relu": "relu({0})",
    "rsqrt": "{one} / std::sqrt({0})", "sign": "sign_of({0})", "round": "std::nearbyint({0})",
    "floor_divide": "floor_divided({0}, {1})", "trunc_divide": "trunc_divided({0}, {1})",
    "remainder": "remainder_of({0}, {1})", "gcd": "gcd_of({0}, {1})", "fmod": "fmod_of({0}, {1})",
    "bitwise_and": "{0} & {1}", "bitwise_or": "{0} | {1}", "bitwise_xor": "{0} ^ {1}", "bitwise_not": "~{0}",
    "shift_left": "shifted_left({0}, {1})", "shift_right": "shifted_right({0}, {1})",
    **{name: f"polynomial<{name}>({{0}}, {{1}}, {{2}})" for name in RECURRENCES},
}  # fmt: skip
OF_INTEGERS = {"add": "plus({0}, {1})", "sub": "minus({0}, {1})", "mul": "times({0}, {1})", "neg": "minus({0})",
               "bitwise_not": "~{0}"}  # fmt: skip
OF_BOOLEANS = {"bitwise_not": "!{0}", "maximum": "({0} || {1})", "minimum": "({0} && {1})"}


def spell(operation: str, dtype: torch.dtype, operands: list[str]) -> str:
    """An operation whose last operand is of `dtype`."""
    special = OF_BOOLEANS if dtype == torch.bool else {} if dtype.is_floating_point else OF_INTEGERS
    text = special.get(operation) or SPELLINGS.get(operation)
    if text is None:
        return f"std::{operation}({', '.join(operands)})"
    return text.format(*operands, one=number(1, dtype))


def register(dtype: torch.dtype) -> str:
    """The type of values of a dtype in registers."""
    return TYPES[wide(dtype)]


def loaded(text: str, dtype: torch.dtype) -> str:
    """A value in memory, converted to its type in registers."""
    if dtype == torch.bool:
        return f"({text} != 0)"
    return f"widened({text})" if dtype in HALVES else text


def stored(text: str, dtype: torch.dtype) -> str:
    """A value in a register, converted to its type in memory."""
    return f"narrowed<{TYPES[dtype]}>({text})" if dtype in HALVES else text


def rounded(text: str, dtype: torch.dtype) -> str:
    """A value in a register, rounded to half precision if `dtype` is one."""
    return f"rounded<{TYPES[dtype]}>({text})" if dtype in HALVES else text


def converted(text: str, source: torch.dtype, target: torch.dtype) -> str:
    """A value of one dtype converted to another."""
    if target == torch.bool:
        return f"({text} != {number(0, source)})"
    if source == torch.bool:  # a conversion would not be vectorised
        return f"({text} ? {number(1, target)} : {number(0, target)})"
    # PyTorch, too, converts float64 to half precision by way of float32.
    return rounded(f"{register(target)}({text})", target)


def number(value: bool | int | float, dtype: torch.dtype) -> str:
    """A number as a C++ constant."""
    if dtype == torch.bool:
        return "true" if value else "false"
    kind = register(dtype)
    if not dtype.is_floating_point:
        return f"{kind}({'INT64_MIN' if value == -(2**63) else f'{value}LL'})"
    if math.isnan(value):
        return f"{kind}(NAN)"
    if math.isinf(value):
        return f"{kind}(INFINITY)" if value > 0 else f"{kind}(-INFINITY)"
    return f"{kind}({float(value)!r})"


def place(index: Index) -> str:
    """A place as an expression of the type Long."""
    return index.spell(_term)


def _term(atom: Atom, factor: int) -> str:
    if isinstance(atom, Var):
        text = atom.name
    elif isinstance(atom, Owner):
        text = f"(owner[{place(atom.edge)}] - start)"
    elif isinstance(atom, Quotient):
        text = f"({place(atom.at)}) {'%' if atom.is_remainder else '/'} {atom.by}"
        text = text if factor == 1 and not atom.is_remainder else f"({text})"
    else:
        text = f"clip({place(atom.at)}, {atom.bound})"
    return text if factor == 1 else f"{text} * {factor}"


def row_of(row: Index) -> str:
    """A row as a factor."""
    text = place(row)
    return text if text.isidentifier() or text.startswith("(") else f"({text})"
