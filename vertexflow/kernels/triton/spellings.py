"""Scalar operations, numbers, types and places in Triton.

Half precision is for memory and for products. In registers such numbers are float32, rounded to half precision where PyTorch
rounds them: to the nearest, ties to even.
"""

from __future__ import annotations

import math

import torch

from ..lower.index import Atom, Clipped, Index, Quotient
from ..lower.polynomials import RECURRENCES
from ..lower.scalar import HALVES, wide

TYPES = {
    torch.float16: "tl.float16", torch.bfloat16: "tl.bfloat16", torch.float32: "tl.float32", torch.float64: "tl.float64",
    torch.int64: "tl.int64", torch.int32: "tl.int32", torch.int16: "tl.int16", torch.int8: "tl.int8",
    torch.uint8: "tl.uint8", torch.bool: "tl.int1",
}  # fmt: skip

SIGNS = {  # between operands, which may be bare numbers
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}", "multiply_add": "{0} * {1} + {2}",
    "eq": "{0} == {1}", "ne": "{0} != {1}", "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}", "ge": "{0} >= {1}",
    "bitwise_and": "{0} & {1}", "bitwise_or": "{0} | {1}", "bitwise_xor": "{0} ^ {1}", "bitwise_not": "~{0}",
    "neg": "{0} * -1.0", "isnan": "{0} != {0}",
}  # fmt: skip
CALLS = {
    "where": "tl.where", "exp": "tl.exp", "exp2": "tl.exp2", "log": "tl.log", "log2": "tl.log2", "sqrt": "tl.sqrt",
    "rsqrt": "tl.rsqrt", "sin": "tl.sin", "cos": "tl.cos", "erf": "tl.erf", "abs": "tl.abs", "floor": "tl.floor",
    "ceil": "tl.ceil", "maximum": "larger", "minimum": "smaller", "sigmoid": "sigmoid", "tanh": "tanh", "silu": "silu",
    "relu": "relu", "sign": "sign_of", "signbit": "signbit", "isinf": "isinf", "floor_divide": "floor_divided",
    "remainder": "remainder_of", "gcd": "gcd_of", "round": "libdevice.rint",
    "shift_left": "shifted_left", "shift_right": "shifted_right",
}  # fmt: skip
OF_INTEGERS = {"neg": "-{0}", "trunc_divide": "{0} // {1}", "fmod": "{0} % {1}", "floor_divide": "whole_divided({0}, {1})",
               "remainder": "whole_remainder({0}, {1})"}  # fmt: skip
OF_BOOLEANS = {
    "bitwise_not": "{0} == 0", "maximum": "{0} | {1}", "minimum": "{0} & {1}", "lt": "({0} == 0) & {1}",
    "le": "({0} == 0) | {1}", "gt": "{0} & ({1} == 0)", "ge": "{0} | ({1} == 0)", "eq": "({0} ^ {1}) == 0",
    "ne": "{0} ^ {1}",
}  # fmt: skip
OF_FLOATS = {"trunc_divide": "libdevice.trunc({0} / {1})",
             **{name: f"polynomial({{0}}, {{1}}, {{2}}, '{name}')" for name in RECURRENCES}}  # fmt: skip
# Operations whose result is one of their operands, perhaps with the other sign, or zero.
EXACT = {"where", "maximum", "minimum", "neg", "abs", "relu"}
REDUCTIONS = {"sum": "tl.sum({0}, 1, keep_dims=True)", "prod": "product_of_row({0})", "max": "largest({0})",
              "min": "least({0})"}  # fmt: skip


def spell(operation: str, dtype: torch.dtype, operands: list[str]) -> str:
    """An operation whose last operand is of `dtype`."""
    special = OF_BOOLEANS if dtype == torch.bool else OF_FLOATS if dtype.is_floating_point else OF_INTEGERS
    text = special.get(operation) or SIGNS.get(operation)
    if text is None:
        return f"{CALLS.get(operation, f'libdevice.{operation}')}({', '.join(operands)})"
    return text.format(*operands)


def takes_bare_numbers(operation: str, dtype: torch.dtype) -> bool:
    """Whether a number may be written as a literal beside the other operand, whose dtype it takes."""
    return operation in SIGNS and dtype != torch.bool


def register(dtype: torch.dtype) -> str:
    """The type of values of a dtype in registers."""
    return TYPES[wide(dtype)]


def rounded(text: str, dtype: torch.dtype) -> str:
    """Values in float32, rounded to half precision if `dtype` is one."""
    return f"({text}).to({TYPES[dtype]}).to(tl.float32)" if dtype in HALVES else text


def converted(text: str, source: torch.dtype, target: torch.dtype) -> str:
    """Values of one dtype converted to another."""
    if target == torch.bool:
        return f"{text} != 0"
    if register(source) != register(target):  # PyTorch, too, converts float64 to half precision by way of float32
        text = f"{text}.to({register(target)})"
    return text if source == torch.bool else rounded(text, target)


def number(value: bool | int | float, dtype: torch.dtype) -> str:
    """A number as it is written in a kernel."""
    if not dtype.is_floating_point:
        return str(bool(value) if dtype == torch.bool else int(value))
    return repr(float(value)) if math.isfinite(value) else f'float("{value}")'


def place(index: Index) -> str:
    """A place as an expression. Clipped places are not clipped here: the mask keeps them from being read (`conditions`)."""
    return index.spell(_term)


def conditions(index: Index) -> list[str]:
    """The conditions under which the clipped places in a place were inside their bounds."""
    texts: list[str] = []
    for atom, _ in index.terms:
        if isinstance(atom, (Clipped, Quotient)):
            texts += conditions(atom.at)
        if isinstance(atom, Clipped):
            texts += [f"({place(atom.at)} >= 0)"] if atom.at.least < 0 else []
            texts += [f"({place(atom.at)} < {atom.bound})"] if atom.at.most >= atom.bound else []
    return texts


def _term(atom: Atom, factor: int) -> str:
    match atom:
        case Quotient():
            text = f"(({place(atom.at)}) {'%' if atom.is_remainder else '//'} {atom.by})"
        case Clipped():
            text = f"({place(atom.at)})"
        case _:
            text = str(atom)
    return text if factor == 1 else f"{text} * {factor}"
