"""The spelling of scalar operations in Triton, and of numbers, types and places.

Half precision is for memory and for products. In registers its numbers are float32, and what is cast to half precision is rounded
to it there, as PyTorch rounds it: to the nearest, of two the even one.
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
# Whose results are among their operands, perhaps with the other sign.
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
    """Whether a number may stand beside an operand as it is: it has the dtype of the other one."""
    return operation in SIGNS and dtype != torch.bool


def register(dtype: torch.dtype) -> str:
    """The type of such numbers in registers."""
    return TYPES[wide(dtype)]


def rounded(text: str, dtype: torch.dtype) -> str:
    """Numbers of float32, rounded to a narrower dtype if `dtype` is one."""
    return f"({text}).to({TYPES[dtype]}).to(tl.float32)" if dtype in HALVES else text


def converted(text: str, given: torch.dtype, wanted: torch.dtype) -> str:
    """Numbers of one dtype as numbers of another."""
    if wanted == torch.bool:
        return f"{text} != 0"
    if register(given) != register(wanted):  # of float64 PyTorch, too, makes half precision by way of float32
        text = f"{text}.to({register(wanted)})"
    return text if given == torch.bool else rounded(text, wanted)


def number(value: bool | int | float, dtype: torch.dtype) -> str:
    """A number as it is written in a kernel."""
    if not dtype.is_floating_point:
        return str(bool(value) if dtype == torch.bool else int(value))
    return repr(float(value)) if math.isfinite(value) else f'float("{value}")'


def place(index: Index) -> str:
    """A place as an expression; what is clipped is not, since what is there is not read."""
    text = " + ".join(_term(atom, factor) for atom, factor in index.terms)
    if not text:
        return str(index.constant)
    return f"{text} {'+' if index.constant > 0 else '-'} {abs(index.constant)}" if index.constant else text


def conditions(index: Index) -> list[str]:
    """Under which a place is meant."""
    found: list[str] = []
    for atom, _ in index.terms:
        if isinstance(atom, (Clipped, Quotient)):
            found += conditions(atom.at)
        if isinstance(atom, Clipped):
            found += [f"({place(atom.at)} >= 0)"] if atom.at.least < 0 else []
            found += [f"({place(atom.at)} < {atom.bound})"] if atom.at.most >= atom.bound else []
    return found


def _term(atom: Atom, factor: int) -> str:
    match atom:
        case Quotient():
            text = f"(({place(atom.at)}) {'%' if atom.is_remainder else '//'} {atom.by})"
        case Clipped():
            text = f"({place(atom.at)})"
        case _:
            text = str(atom)
    return text if factor == 1 else f"{text} * {factor}"
