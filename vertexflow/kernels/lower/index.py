"""Where an element lies along a dimension: a sum of multiples of loop variables, simplified as it is made.

Chunks, reshapes and concatenations of a vertex function only move elements; with places in this form, what they read is known
when a loop is written, and nothing is left of them in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

ANY = 2**62  # how many vertices there are; more than any other number


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
    """A place that is moved into [0, bound), so that what is there can be read; whoever reads it knows that it is not meant."""

    at: Index
    bound: int

    def __str__(self) -> str:
        return f"clip({self.at}, {self.bound})"


@dataclass(frozen=True)
class Quotient:
    """`at // by`, or the remainder, of a place that is not negative and could not be simplified."""

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
        """Whether it is a vertex, or an edge, or the vertex of an edge, and nothing else."""
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
        whole, rest = self._split(by)
        return whole if rest.is_within(by) else whole + _quotient(rest, by, is_remainder=False)

    def __mod__(self, by: int) -> Index:
        _, rest = self._split(by)
        return rest if rest.is_within(by) else _quotient(rest, by, is_remainder=True)

    def is_within(self, bound: int) -> bool:
        """Whether it certainly is in [0, bound)."""
        return self.least >= 0 and self.most < bound

    def clipped(self, bound: int) -> Index:
        """The same place where it is in [0, bound), and another one there where it is not."""
        if bound == 1:
            return ZERO
        return self if self.is_within(bound) else Index(((Clipped(self, bound), 1),))

    def _split(self, by: int) -> tuple[Index, Index]:
        """A multiple of `by`, divided by it, and the rest, which is not negative."""
        whole = tuple((atom, factor // by) for atom, factor in self.terms if factor % by == 0)
        rest = Index(tuple((atom, factor) for atom, factor in self.terms if factor % by), self.constant % by)
        borrowed = -(rest.least // by) if rest.least < 0 else 0  # of the multiple, where something goes backwards
        if borrowed * by >= ANY:
            return Index(), self
        return Index(whole, self.constant // by - borrowed), rest + borrowed * by

    def variables(self) -> Iterator[Var]:
        """All variables in it."""
        for atom, _ in self.terms:
            if isinstance(atom, Var):
                yield atom
            else:
                yield from (atom.edge if isinstance(atom, Owner) else atom.at).variables()

    def quotients(self) -> Iterator[Quotient]:
        """All quotients and remainders in it."""
        for atom, _ in self.terms:
            if isinstance(atom, Quotient):
                yield atom
            if isinstance(atom, (Quotient, Clipped)):
                yield from atom.at.quotients()

    def offset_from(self, variable: Var) -> int | None:
        """How far behind `variable` it is; None if it is another sum."""
        return self.constant if self.terms == ((variable, 1),) else None

    def __str__(self) -> str:
        terms = [_term(atom, factor) for atom, factor in self.terms]
        text = " + ".join(terms)
        if not terms:
            return str(self.constant)
        return f"{text} {'+' if self.constant > 0 else '-'} {abs(self.constant)}" if self.constant else text


ZERO = Index()


def of(variable: Var) -> Index:
    """The place that a variable is."""
    return Index(((variable, 1),))


def at(number: int) -> Index:
    """A place that is always the same."""
    return Index((), number)


def linear(coords: Sequence[Index], shape: Sequence[int]) -> Index:
    """The place of an element in memory that holds a value of this shape; the first extent may be any."""
    flat, stride = ZERO, 1
    for place, extent in zip(reversed(coords), reversed(shape), strict=True):
        flat, stride = flat + place * stride, stride * max(extent, 1)
    return flat


def unravel(flat: Index, shape: Sequence[int]) -> tuple[Index, ...]:
    """The coordinates of an element by its place in memory; the first extent may be any."""
    coords: list[Index] = []
    for extent in reversed(shape[1:]):
        coords.append(flat % max(extent, 1))
        flat = flat // max(extent, 1)
    return (*([flat] if shape else []), *reversed(coords))


def substituted(place: Index, known: Callable[[Atom], Index | None]) -> Index:
    """The same place with others for some of what it is made of, simplified anew."""
    total = at(place.constant)
    for atom, factor in place.terms:
        total = total + _substituted(atom, known) * factor
    return total


def _substituted(atom: Atom, known: Callable[[Atom], Index | None]) -> Index:
    found = known(atom)
    if found is not None:
        return found
    match atom:
        case Clipped():
            return substituted(atom.at, known).clipped(atom.bound)
        case Quotient():
            place = substituted(atom.at, known)
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
    """Like terms together, and `x // n * n + x % n` as x."""
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
