"""Where an element lies along a dimension: a linear combination of loop variables, simplified as it is built.

Chunks, reshapes and concatenations of a vertex function only move elements. With places in this form, the element that they
read is known when a loop is written, and the loop does nothing for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

ANY = 2**62  # stands for the unknown number of vertices or edges: larger than any other extent


@dataclass(frozen=True)
class Var:
    """A variable of a loop, with values in [0, bound)."""

    name: str
    bound: int = ANY

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Owner:
    """The row, counted from the first of the step, that an edge belongs to."""

    edge: Index

    bound = ANY

    def __str__(self) -> str:
        return f"owner({self.edge})"


@dataclass(frozen=True)
class Clipped:
    """A place clipped into [0, bound), so that it can be read; where it was outside, the value that is read is not used."""

    at: Index
    bound: int

    def __str__(self) -> str:
        return f"clip({self.at}, {self.bound})"


@dataclass(frozen=True)
class Quotient:
    """`at // by`, or `at % by`, which could not be simplified; `at` is not negative."""

    at: Index
    by: int
    is_remainder: bool
    bound: int

    def __str__(self) -> str:
        return f"({self.at}) {'%' if self.is_remainder else '//'} {self.by}"


Atom = Var | Owner | Clipped | Quotient


@dataclass(frozen=True)
class Index:
    """The sum of `factor * atom` over `terms`, and `constant`."""

    terms: tuple[tuple[Atom, int], ...] = ()
    constant: int = 0

    @property
    def least(self) -> int:
        return self.constant + sum(factor * (atom.bound - 1) for atom, factor in self.terms if factor < 0)

    @property
    def most(self) -> int:
        return self.constant + sum(factor * (atom.bound - 1) for atom, factor in self.terms if factor > 0)

    @property
    def is_row(self) -> bool:
        """Whether the place is just a vertex, an edge, or the vertex of an edge."""
        if self.constant or len(self.terms) != 1:
            return False
        ((atom, factor),) = self.terms
        return factor == 1 and isinstance(atom, (Var, Owner)) and atom.bound == ANY

    def __add__(self, other: Index | int) -> Index:
        if isinstance(other, int):
            return Index(self.terms, self.constant + other)
        return _sum([*self.terms, *other.terms], self.constant + other.constant)

    def __mul__(self, by: int) -> Index:
        return Index(tuple((atom, factor * by) for atom, factor in self.terms) if by else (), self.constant * by)

    def __floordiv__(self, by: int) -> Index:
        multiple, rest = self._split(by)
        return multiple if rest.is_within(by) else multiple + _quotient(rest, by, is_remainder=False)

    def __mod__(self, by: int) -> Index:
        _, rest = self._split(by)
        return rest if rest.is_within(by) else _quotient(rest, by, is_remainder=True)

    def is_within(self, bound: int) -> bool:
        """Whether the place certainly lies in [0, bound)."""
        return self.least >= 0 and self.most < bound

    def clipped(self, bound: int) -> Index:
        """The place where it lies in [0, bound), else another one in there."""
        if bound == 1:
            return ZERO
        return self if self.is_within(bound) else Index(((Clipped(self, bound), 1),))

    def _split(self, by: int) -> tuple[Index, Index]:
        """The place as `multiple * by + rest`, with a rest that is not negative."""
        multiple = tuple((atom, factor // by) for atom, factor in self.terms if factor % by == 0)
        rest = Index(tuple((atom, factor) for atom, factor in self.terms if factor % by), self.constant % by)
        borrowed = -(rest.least // by) if rest.least < 0 else 0  # from the multiple, where a factor is negative
        if borrowed * by >= ANY:
            return Index(), self
        return Index(multiple, self.constant // by - borrowed), rest + borrowed * by

    def variables(self) -> Iterator[Var]:
        """All variables that the place depends on."""
        for atom, _ in self.terms:
            if isinstance(atom, Var):
                yield atom
            else:
                yield from (atom.edge if isinstance(atom, Owner) else atom.at).variables()

    def quotients(self) -> Iterator[Quotient]:
        """All quotients and remainders in the place."""
        for atom, _ in self.terms:
            if isinstance(atom, Quotient):
                yield atom
            if isinstance(atom, (Quotient, Clipped)):
                yield from atom.at.quotients()

    def offset_from(self, variable: Var) -> int | None:
        """c, if the place is `variable + c`, else None."""
        return self.constant if self.terms == ((variable, 1),) else None

    def spell(self, term: Callable[[Atom, int], str]) -> str:
        """The place as an expression, with `term(atom, factor)` for each of its terms."""
        text = " + ".join(term(atom, factor) for atom, factor in self.terms)
        if not text:
            return str(self.constant)
        return f"{text} {'+' if self.constant > 0 else '-'} {abs(self.constant)}" if self.constant else text

    def __str__(self) -> str:
        return self.spell(_term)


ZERO = Index()


def index_of(variable: Var) -> Index:
    """A variable as a place."""
    return Index(((variable, 1),))


def index_at(number: int) -> Index:
    """A number as a place."""
    return Index((), number)


def linear(coords: Sequence[Index], shape: Sequence[int]) -> Index:
    """The position in row-major memory of the element at `coords` of a value of this shape; the first extent does not matter."""
    flat, stride = ZERO, 1
    for place, extent in zip(reversed(coords), reversed(shape), strict=True):
        flat, stride = flat + place * stride, stride * max(extent, 1)
    return flat


def unravel(flat: Index, shape: Sequence[int]) -> tuple[Index, ...]:
    """The coordinates of the element at a position in row-major memory; the first extent does not matter."""
    coords: list[Index] = []
    for extent in reversed(shape[1:]):
        coords.append(flat % max(extent, 1))
        flat = flat // max(extent, 1)
    return (*([flat] if shape else []), *reversed(coords))


def substituted(place: Index, replacement_of: Callable[[Atom], Index | None]) -> Index:
    """The place with some of its atoms replaced, simplified anew."""
    total = index_at(place.constant)
    for atom, factor in place.terms:
        total = total + _substituted(atom, replacement_of) * factor
    return total


def _substituted(atom: Atom, replacement_of: Callable[[Atom], Index | None]) -> Index:
    replacement = replacement_of(atom)
    if replacement is not None:
        return replacement
    match atom:
        case Clipped():
            return substituted(atom.at, replacement_of).clipped(atom.bound)
        case Quotient():
            place = substituted(atom.at, replacement_of)
            return place % atom.by if atom.is_remainder else place // atom.by
        case _:
            return Index(((atom, 1),))


def _term(atom: Atom, factor: int) -> str:
    text = f"({atom})" if isinstance(atom, Quotient) else str(atom)
    return text if factor == 1 else f"{text} * {factor}"


def _quotient(place: Index, by: int, is_remainder: bool) -> Index:
    if not is_remainder and len(place.terms) == 1 and place.constant == 0:  # a quotient of a quotient is one
        ((atom, factor),) = place.terms
        if isinstance(atom, Quotient) and not atom.is_remainder and factor == 1:
            place, by = atom.at, by * atom.by
    bound = by if is_remainder else max(place.most, 0) // by + 1
    return Index(((Quotient(place, by, is_remainder, bound), 1),))


def _sum(terms: list[tuple[Atom, int]], constant: int) -> Index:
    """The sum with like terms collected, and with x for `x // n * n + x % n`."""
    sums: dict[Atom, int] = {}
    for atom, factor in terms:
        sums[atom] = sums.get(atom, 0) + factor
        if not sums[atom]:
            del sums[atom]
    for atom, factor in list(sums.items()):
        if isinstance(atom, Quotient) and atom.is_remainder and atom in sums:
            ((quotient, times),) = _quotient(atom.at, atom.by, is_remainder=False).terms
            if times == 1 and sums.get(quotient) == factor * atom.by:
                del sums[atom], sums[quotient]
                return Index(tuple(sums.items()), constant) + atom.at * factor
    return Index(tuple(sums.items()), constant)
