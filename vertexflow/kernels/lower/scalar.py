"""Scalar expressions, which say what one element of a value is: loads, constants, and the operations that there are.

Expressions are compared by identity. `Elements` builds each once, so that equal ones are printed once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import fx

from ..operations import Unsupported
from .index import Index, Var


class Expression:
    """Base class: an expression has a dtype, and depends on variables of the loops around it."""

    dtype: torch.dtype

    @cached_property
    def variables(self) -> frozenset[Var]:
        """The loop variables that the expression depends on."""
        return frozenset().union(
            *(expression.variables for expression in self.subexpressions), *(set(at.variables()) for at in self.places)
        )

    @cached_property
    def subexpressions(self) -> tuple[Expression, ...]:
        """The expressions that it is computed from."""
        values = (value.value if isinstance(value, Branch) else value for value in self._contents())
        return tuple(value for value in values if isinstance(value, Expression))

    @cached_property
    def places(self) -> tuple[Index, ...]:
        """The places that it reads at, or compares."""
        return tuple(value for value in self._contents() if isinstance(value, Index))

    def _contents(self) -> Iterator[object]:
        """The values of all fields (every expression is a dataclass), and the elements of those that are tuples."""
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            yield from value if isinstance(value, tuple) else (value,)


@dataclass(frozen=True, eq=False)
class Constant(Expression):
    """A number."""

    value: bool | int | float
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Load(Expression):
    """Element `column` of row `row` of a value in memory; for a value without rows, `row` is None."""

    array: fx.Node
    row: Index | None
    column: Index
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Position(Expression):
    """A place as a number."""

    at: Index
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Draw(Expression):
    """A random number in [0, 1), determined by the run's seed, the stream, the row (or edge) and the column."""

    stream: int
    per_edge: bool
    row: Index
    column: Index
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Cast(Expression):
    """The same number in another dtype, as PyTorch converts it."""

    operand: Expression
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Apply(Expression):
    """An operation of `OPERATIONS` on operands of the dtypes that it takes."""

    operation: str
    operands: tuple[Expression, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Branch:
    """The value of a `Choose` at places in [start, stop)."""

    start: int
    stop: int
    value: Expression


@dataclass(frozen=True, eq=False)
class Choose(Expression):
    """The value of the branch in which `at` lies, zero if it lies in none. Branches are in ascending order, without overlap."""

    at: Index
    branches: tuple[Branch, ...]
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Reduce(Expression):
    """The "sum", "prod", "max" or "min" of a value over all values of the variables `over`; "max" and "min" of NaN are NaN."""

    operation: str
    over: tuple[Var, ...]
    value: Expression

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.value.dtype

    @cached_property
    def variables(self) -> frozenset[Var]:
        return self.value.variables - set(self.over)


@dataclass(frozen=True)
class Signature:
    """An operation takes `operands` numbers of one dtype, one of `takes`, and returns that dtype, or a boolean (predicates)."""

    operands: int
    takes: frozenset[torch.dtype]
    is_predicate: bool = False


FLOATS = frozenset((torch.float32, torch.float64))
INTEGERS = frozenset((torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8))
BOOLS = frozenset((torch.bool,))
DTYPES = FLOATS | INTEGERS | BOOLS
# In memory and as operands of matrix products; other operations compute in float32 and round.
HALVES = frozenset((torch.float16, torch.bfloat16))


def _signatures() -> dict[str, Signature]:
    number, any_dtype = FLOATS | INTEGERS, DTYPES
    table: dict[str, Signature] = {}

    def add(names: str, operands: int, takes: Iterable[torch.dtype], is_predicate: bool = False) -> None:
        table.update({name: Signature(operands, frozenset(takes), is_predicate) for name in names.split()})

    add("add sub mul floor_divide trunc_divide remainder fmod", 2, number)
    add("gcd", 2, INTEGERS)
    add("chebyshev hermite_h hermite_he laguerre legendre", 3, FLOATS)  # see `polynomials.py`
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
    add("isnan isinf signbit", 1, FLOATS, is_predicate=True)
    add("eq ne lt le gt ge", 2, any_dtype, is_predicate=True)
    add("bitwise_and bitwise_or bitwise_xor", 2, INTEGERS | BOOLS)
    # A shift by more bits than there are, or by fewer than 0, gives 0, or the sign in every bit.
    add("shift_left shift_right", 2, INTEGERS)
    add("bitwise_not", 1, INTEGERS | BOOLS)
    return table


JOINED = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum"}  # a reduction's operation on two numbers

OPERATIONS = _signatures()  # beside "where", which takes a boolean and two values of any dtype


def apply(operation: str, *operands: Expression) -> Expression:
    """An operation on operands of one dtype, in which it is computed.

    Raises:
        Unsupported: the operation is not defined for that dtype.
    """
    dtype = operands[-1].dtype
    if operation == "where":
        return Apply(operation, operands, dtype)
    signature = OPERATIONS[operation]
    if dtype not in signature.takes:
        raise Unsupported(f"{operation} of {str(dtype)[6:]}")
    return Apply(operation, operands, torch.bool if signature.is_predicate else dtype)


def in_dtype(operand: Expression, dtype: torch.dtype) -> Expression:
    """An expression converted to a dtype."""
    if operand.dtype == dtype:
        return operand
    if isinstance(operand, Constant):
        return constant(operand.value, dtype)
    return Cast(operand, dtype)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which values of a dtype are computed: float32 for half precision."""
    return torch.float32 if dtype in HALVES else dtype


def neutral(operation: str, dtype: torch.dtype) -> Constant:
    """The neutral element of a reduction in a dtype."""
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
    """A number converted to a dtype as by PyTorch.

    Raises:
        Unsupported: the dtype cannot represent the number.
    """
    try:
        return Constant(torch.tensor(value, dtype=dtype).item(), dtype)
    except (RuntimeError, OverflowError, ValueError) as error:
        raise Unsupported(f"{value} in {str(dtype)[6:]}") from error


def like(x: Expression, value: float) -> Expression:
    """A number in the dtype of the expression `x`."""
    return constant(value, x.dtype)
