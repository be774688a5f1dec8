"""Scalar expressions: what one element of a value is, made of loads, constants and operations; and what operations there are.

An expression is compared by identity: who makes one keeps it for whoever asks again, so that it is printed once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import fx

from ..operations import Unsupported
from .index import Index, Var


class Expression:
    """What all have: a dtype, and the variables that it depends on."""

    dtype: torch.dtype

    @cached_property
    def variables(self) -> frozenset[Var]:
        """The variables of loops around it."""
        return frozenset().union(*(part.variables for part in self.parts), *(set(at.variables()) for at in self.places))

    @property
    def parts(self) -> tuple[Expression, ...]:
        """The expressions that it is made of."""
        return ()

    @property
    def places(self) -> tuple[Index, ...]:
        """The places that it reads, or asks for."""
        return ()


@dataclass(frozen=True, eq=False)
class Constant(Expression):
    """A number."""

    value: bool | int | float
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Load(Expression):
    """Element `column` of row `row` of a value that lies in memory; of a value without rows (None), element `column`."""

    array: fx.Node
    row: Index | None
    column: Index
    dtype: torch.dtype

    @property
    def places(self) -> tuple[Index, ...]:
        return (self.column,) if self.row is None else (self.row, self.column)


@dataclass(frozen=True, eq=False)
class Position(Expression):
    """A place as a number."""

    at: Index
    dtype: torch.dtype

    @property
    def places(self) -> tuple[Index, ...]:
        return (self.at,)


@dataclass(frozen=True, eq=False)
class Draw(Expression):
    """A random number in [0, 1): always the same for a seed of the run, a stream, a row, or edge, and a column."""

    stream: int
    of_edges: bool
    row: Index
    column: Index
    dtype: torch.dtype

    @property
    def places(self) -> tuple[Index, ...]:
        return (self.row, self.column)


@dataclass(frozen=True, eq=False)
class Cast(Expression):
    """The same number in another dtype, as PyTorch converts it."""

    operand: Expression
    dtype: torch.dtype

    @property
    def parts(self) -> tuple[Expression, ...]:
        return (self.operand,)


@dataclass(frozen=True, eq=False)
class Apply(Expression):
    """An operation of `OPERATIONS` on operands of the dtypes that it wants."""

    operation: str
    operands: tuple[Expression, ...]
    dtype: torch.dtype

    @property
    def parts(self) -> tuple[Expression, ...]:
        return self.operands


@dataclass(frozen=True)
class Piece:
    """Where a `Choose` takes its value from: at places in [start, stop)."""

    start: int
    stop: int
    value: Expression


@dataclass(frozen=True, eq=False)
class Choose(Expression):
    """The value of the piece that `at` lies in; zero where it lies in none. Pieces are in rising order and do not overlap."""

    at: Index
    pieces: tuple[Piece, ...]
    dtype: torch.dtype

    @property
    def parts(self) -> tuple[Expression, ...]:
        return tuple(piece.value for piece in self.pieces)

    @property
    def places(self) -> tuple[Index, ...]:
        return (self.at,)


@dataclass(frozen=True, eq=False)
class Reduce(Expression):
    """ "sum", "prod", "max" or "min" of a value over all that its own variables may be; a NaN is the largest and the least."""

    operation: str
    over: tuple[Var, ...]
    value: Expression

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.value.dtype

    @property
    def parts(self) -> tuple[Expression, ...]:
        return (self.value,)

    @cached_property
    def variables(self) -> frozenset[Var]:
        return self.value.variables - set(self.over)


@dataclass(frozen=True)
class Signature:
    """What an operation takes and gives: `operands` numbers of one dtype among `takes`; a boolean if `is_question`."""

    operands: int
    takes: frozenset[torch.dtype]
    is_question: bool = False


FLOATS = frozenset((torch.float32, torch.float64))
INTEGERS = frozenset((torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8))
BOOLS = frozenset((torch.bool,))
DTYPES = FLOATS | INTEGERS | BOOLS
HALVES = frozenset(
    (torch.float16, torch.bfloat16)
)  # for memory and for products: operations compute in float32, and round


def _signatures() -> dict[str, Signature]:
    number, any_dtype = FLOATS | INTEGERS, DTYPES
    table: dict[str, Signature] = {}

    def add(names: str, operands: int, takes: Iterable[torch.dtype], is_question: bool = False) -> None:
        table.update({name: Signature(operands, frozenset(takes), is_question) for name in names.split()})

    add("add sub mul floor_divide trunc_divide remainder fmod", 2, number)
    add("gcd", 2, INTEGERS)
    add("chebyshev hermite_h hermite_he laguerre legendre", 3, FLOATS)  # `polynomials.py` says of what
    add("maximum minimum", 2, any_dtype)
    add("neg abs sign", 1, number)
    add("div pow atan2 hypot copysign", 2, FLOATS)
    add("multiply_add", 3, FLOATS)  # a * b + c, in one rounding where that costs nothing
    add(
        "exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh",
        1,
        FLOATS,
    )
    add("erf erfc lgamma sigmoid silu floor ceil trunc round relu", 1, FLOATS)
    add("isnan isinf signbit", 1, FLOATS, is_question=True)
    add("eq ne lt le gt ge", 2, any_dtype, is_question=True)
    add("bitwise_and bitwise_or bitwise_xor", 2, INTEGERS | BOOLS)
    add(
        "shift_left shift_right", 2, INTEGERS
    )  # by more bits than there are, or fewer than none: zero, or the sign everywhere
    add("bitwise_not", 1, INTEGERS | BOOLS)
    return table


JOINED = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum"}  # what a reduction does with two numbers

OPERATIONS = _signatures()  # besides "where", which takes a boolean and two of any dtype


def apply(operation: str, *operands: Expression) -> Expression:
    """An operation on operands, which have the dtype that the result is computed in.

    Raises:
        Unsupported: it is not defined for numbers of that dtype.
    """
    dtype = operands[-1].dtype
    if operation == "where":
        return Apply(operation, operands, dtype)
    signature = OPERATIONS[operation]
    if dtype not in signature.takes:
        raise Unsupported(f"{operation} of {str(dtype)[6:]}")
    return Apply(operation, operands, torch.bool if signature.is_question else dtype)


def in_dtype(operand: Expression, dtype: torch.dtype) -> Expression:
    """An expression in a dtype."""
    if operand.dtype == dtype:
        return operand
    if isinstance(operand, Constant):
        return constant(operand.value, dtype)
    return Cast(operand, dtype)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which numbers of a dtype are computed."""
    return torch.float32 if dtype in HALVES else dtype


def neutral(operation: str, dtype: torch.dtype) -> Constant:
    """What a reduction of numbers of a dtype begins with."""
    if operation in ("sum", "prod"):
        return constant(operation == "prod", dtype)
    is_max = operation == "max"
    if dtype == torch.bool:
        return constant(not is_max, dtype)
    if dtype.is_floating_point:
        return constant(-math.inf if is_max else math.inf, dtype)
    limits = torch.iinfo(dtype)
    return constant(limits.min if is_max else limits.max, dtype)


def constant(value: bool | int | float, dtype: torch.dtype) -> Constant:
    """A number in a dtype, as PyTorch makes it one.

    Raises:
        Unsupported: the dtype has no such number.
    """
    try:
        return Constant(torch.tensor(value, dtype=dtype).item(), dtype)
    except (RuntimeError, OverflowError, ValueError) as error:
        raise Unsupported(f"{value} in {str(dtype)[6:]}") from error


def like(x: Expression, value: float) -> Expression:
    """A number in the dtype of an expression."""
    return constant(value, x.dtype)
