"""Where an element lies along a dimension: a sum of multiples of the variables of a kernel, simplified as it is made.

Chunks, reshapes and concatenations of a vertex function only move elements; with places in this form, what they read is
found when a kernel is written, and nothing is left of them in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ANY = 2**62  # more than any variable is


@dataclass(frozen=True)
class Var:
    """A variable of a kernel with values in [0, bound); a number, or a block of them."""

    name: str
    bound: int = ANY

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Part:
    """The quotient, or the remainder, of a place that could not be simplified."""

    of: Index
    by: int
    rest: bool
    bound: int

    def __str__(self) -> str:
        return f"({self.of}) {'%' if self.rest else '//'} {self.by}"


Atom = Var | Part


@dataclass(frozen=True)
class Index:
    """The sum of `factor * atom` over `terms`, and `constant`. Factors are positive."""

    terms: tuple[tuple[Atom, int], ...] = ()
    constant: int = 0

    @property
    def least(self) -> int:
        return self.constant

    @property
    def most(self) -> int:
        return self.constant + sum(factor * (atom.bound - 1) for atom, factor in self.terms)

    def __add__(self, other: Index | int) -> Index:
        if isinstance(other, int):
            return Index(self.terms, self.constant + other)
        return _sum([*self.terms, *other.terms], self.constant + other.constant)

    def __mul__(self, by: int) -> Index:
        return Index(tuple((atom, factor * by) for atom, factor in self.terms) if by else (), self.constant * by)

    def __floordiv__(self, by: int) -> Index:
        whole, rest = self._split(by)
        return whole if rest._is_below(by) else whole + _part(rest, by, rest=False)

    def __mod__(self, by: int) -> Index:
        _, rest = self._split(by)
        return rest if rest._is_below(by) else _part(rest, by, rest=True)

    def _is_below(self, bound: int) -> bool:
        """Whether it certainly is in [0, bound); what is less than any bound is known to be by who asks."""
        return bound == ANY or (self.constant >= 0 and self.most < bound)

    def _split(self, by: int) -> tuple[Index, Index]:
        """A multiple of `by`, divided by it, and the rest."""
        whole = tuple((atom, factor // by) for atom, factor in self.terms if factor % by == 0)
        rest = tuple((atom, factor) for atom, factor in self.terms if factor % by)
        return Index(whole, self.constant // by), Index(rest, self.constant % by)

    def variables(self) -> Iterator[Var]:
        """All variables in it."""
        for atom, _ in self.terms:
            if isinstance(atom, Var):
                yield atom
            else:
                yield from atom.of.variables()

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


def linear(coords: Sequence[Index], shape: Sequence[int]) -> Index:
    """The place of an element in memory that holds a value of this shape; the first extent may be any."""
    flat, stride = ZERO, 1
    for at, extent in zip(reversed(coords), reversed(shape), strict=True):
        flat, stride = flat + at * stride, stride * max(extent, 1)
    return flat


def unravel(flat: Index, shape: Sequence[int]) -> tuple[Index, ...]:
    """The coordinates of an element by its place in memory; the first extent may be any."""
    coords: list[Index] = []
    for extent in reversed(shape[1:]):
        coords.append(flat % max(extent, 1))
        flat = flat // max(extent, 1)
    return (*([flat] if shape else []), *reversed(coords))


def _term(atom: Atom, factor: int) -> str:
    if factor == 1:
        return str(atom) if isinstance(atom, Var) else f"({atom})"
    return f"{atom} * {factor}" if isinstance(atom, Var) else f"({atom}) * {factor}"


def _part(of: Index, by: int, rest: bool) -> Index:
    if not rest and len(of.terms) == 1 and of.constant == 0:  # a quotient of a quotient is one
        (atom, factor) = of.terms[0]
        if isinstance(atom, Part) and not atom.rest and factor == 1:
            of, by = atom.of, by * atom.by
    bound = by if rest else ANY if of.most >= ANY else max(of.most, 0) // by + 1
    return Index(((Part(of, by, rest, bound), 1),))


def _sum(terms: list[tuple[Atom, int]], constant: int) -> Index:
    """Like terms together, and `x // n * n + x % n` as x."""
    found: dict[Atom, int] = {}
    for atom, factor in terms:
        found[atom] = found.get(atom, 0) + factor
    for atom, factor in list(found.items()):
        if isinstance(atom, Part) and atom.rest and atom in found:
            ((quotient, times),) = _part(atom.of, atom.by, rest=False).terms
            if times == 1 and found.get(quotient) == factor * atom.by:
                del found[atom], found[quotient]
                return Index(tuple(found.items()), constant) + atom.of * factor
    return Index(tuple(found.items()), constant)
