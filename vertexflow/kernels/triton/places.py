"""Where values lie while a kernel runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shared:
    """A value without rows, such as a parameter."""

    pointer: str


@dataclass(frozen=True)
class Rows:
    """A row for each vertex, or edge, `width` elements from one to the next, or as many as the argument `stride`; that of
    the step's first is number `first`. The value begins with column `column`."""

    pointer: str
    width: int
    first: str
    column: int = 0
    stride: str = ""


@dataclass(frozen=True)
class Gathered:
    """Rows of a state: for row m of the step, those that `index` has from `(first + m) * slots + slot` on, `beside` of
    them one beside the other."""

    pointer: str
    width: int
    index: str
    first: str
    slots: int = 1
    slot: int = 0
    beside: int = 1


@dataclass(frozen=True)
class Received:
    """The gradient of a state, as a call with these arguments before the row, the column and so on."""

    arguments: str
    width: int


Place = Shared | Rows | Gathered | Received
