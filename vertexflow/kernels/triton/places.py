"""Where values lie while a kernel runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shared:
    """A value without rows, such as a parameter."""

    pointer: str


@dataclass(frozen=True)
class Rows:
    """A row for each vertex, or edge, `width` elements apart, or as many as the argument `stride` says; the step's first row is
    row `first`. The value begins at column `column`."""

    pointer: str
    width: int
    first: str
    column: int = 0
    stride: str = ""


@dataclass(frozen=True)
class GatheredRows:
    """Rows of a state, side by side: for row m of the step, the `num_side_by_side` rows that `index` names from
    `(first + m) * slots + slot` on."""

    pointer: str
    width: int
    index: str
    first: str
    slots: int = 1
    slot: int = 0
    num_side_by_side: int = 1


@dataclass(frozen=True)
class ReceivedGradient:
    """The gradient of a state, received by a call whose first arguments are these."""

    arguments: str
    width: int


ValuePlace = Shared | Rows | GatheredRows | ReceivedGradient
