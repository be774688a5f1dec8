"""Lines of a kernel as they are written: what is known in which scope, what variables are blocks, and their masks."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..lower.index import Index, Var
from .spellings import CALLS, conditions

RESERVED = {*keyword.kwlist, *CALLS.values(), "tl", "m", "j", "in_rows", "in_columns", "start", "inner", "absolute", "edge_start",
            "rows", "range", "float", "received", "libdevice", "add_product", "whole_divided", "whole_remainder",
            "largest", "least", "product_of_row", "uniform", "seed"}  # fmt: skip


def identifier(name: str) -> str:
    """A name in Python like this one, which is a user's and may be any text."""
    return re.sub(r"\W|^(?=\d)", "_", name, flags=re.ASCII)


@dataclass
class Scope:
    """Lines, and the names of what they compute."""

    lines: list[str] = field(default_factory=list)
    known: dict[Any, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """A variable that is a block of values: the scope that it is made in, its mask if there is one, its rows and columns."""

    depth: int
    mask: str
    rows: str = "1"
    columns: str = "1"


class Lines:
    """Writes lines into nested scopes; the first holds what a program needs once."""

    def __init__(self) -> None:
        self.scopes = [Scope()]
        self.blocks: dict[str, Block] = {}
        self.taken = set(RESERVED)

    def find(self, key: Any) -> str | None:
        """The name of what is known by `key`."""
        return next((scope.known[key] for scope in reversed(self.scopes) if key in scope.known), None)

    def fresh(self, name: str) -> str:
        """A name that nothing else has."""
        name = identifier(name)
        number, found = 1, name
        while found in self.taken:
            number += 1
            found = f"{name}_{number}"
        self.taken.add(found)
        return found

    def line(self, text: str, depth: int = -1) -> None:
        """Add a line to a scope."""
        self.scopes[depth].lines.append(text)

    def let(self, name: str, expression: str, depth: int = -1) -> str:
        """A variable for an expression, which is computed once in a scope."""
        if expression.isidentifier():
            return expression
        found = self.find(expression)
        if found is None:
            found = self.scopes[depth].known[expression] = self.fresh(name)
            self.line(f"{found} = {expression}", depth)
        return found

    def block(
        self, name: str, expression: str, bound: int, shape: tuple[str, str], masked: bool, depth: int = -1
    ) -> Var:
        """A new variable that is a block of the numbers below `bound`, and of others where it is masked."""
        variable = Var(self.fresh(name), bound)
        self.line(f"{variable} = {expression}", depth)
        mask = ""
        if masked:
            mask = self.fresh(f"in_{variable}")
            self.line(f"{mask} = {variable} < {bound}", depth)
        self.blocks[variable.name] = Block(depth % len(self.scopes), mask, *shape)
        return variable

    @contextmanager
    def nested(self, head: str) -> Iterator[None]:
        """Lines that stand indented under `head`."""
        scope = Scope()
        self.scopes.append(scope)
        yield
        self.scopes.pop()
        self.scopes[-1].lines += [head, *(f"    {line}" for line in scope.lines)]

    def mask(self, *places: Index) -> str:
        """The condition under which elements at these places are there."""
        found = [self.blocks[name].mask for name in self.names_in(places)]
        found += [condition for place in places for condition in conditions(place)]
        return " & ".join(dict.fromkeys(filter(None, found)))

    def shape(self, names: Iterable[str]) -> tuple[str, str]:
        """How many rows and columns a block has that depends on these variables."""
        rows, columns = "1", "1"
        for name in names:
            block = self.blocks[name]
            rows, columns = (block.rows if rows == "1" else rows), (block.columns if columns == "1" else columns)
        return rows, columns

    def names_in(self, places: Iterable[Index]) -> list[str]:
        """The variables in places."""
        return list(dict.fromkeys(variable.name for at in places for variable in at.variables()))
