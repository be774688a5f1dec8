"""The lines of a kernel while it is written: its scopes and the variables in each, blocks, and their masks."""

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
            "largest", "least", "product_of_row", "uniform", "seed", "tile_row", "tile_column", "kept"}  # fmt: skip


def identifier(name: str) -> str:
    """A Python identifier like this name, which is a user's and may be any text."""
    return re.sub(r"\W|^(?=\d)", "_", name, flags=re.ASCII)


@dataclass
class Scope:
    """Lines, and the variables that they compute, by what these are."""

    lines: list[str] = field(default_factory=list)
    known: dict[Any, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """A variable that is a block of values: the depth of its scope, its mask if it has one, its rows and columns."""

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
        """The variable that was computed for `key`, in any open scope."""
        return next((scope.known[key] for scope in reversed(self.scopes) if key in scope.known), None)

    def fresh(self, name: str) -> str:
        """A name like this one that is not taken."""
        name = identifier(name)
        number, unique = 1, name
        while unique in self.taken:
            number += 1
            unique = f"{name}_{number}"
        self.taken.add(unique)
        return unique

    def line(self, text: str, depth: int = -1) -> None:
        """Add a line to a scope."""
        self.scopes[depth].lines.append(text)

    def let(self, name: str, expression: str, depth: int = -1) -> str:
        """A variable for an expression, computed once in a scope."""
        if expression.isidentifier():
            return expression
        variable = self.find(expression)
        if variable is None:
            variable = self.scopes[depth].known[expression] = self.fresh(name)
            self.line(f"{variable} = {expression}", depth)
        return variable

    def block(
        self, name: str, expression: str, bound: int, shape: tuple[str, str], masked: bool, depth: int = -1
    ) -> Var:
        """A new variable that is a block of numbers; with `masked`, some may not be below `bound`, which a mask tells."""
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
        """Write lines indented under `head`."""
        scope = Scope()
        self.scopes.append(scope)
        yield
        self.scopes.pop()
        self.scopes[-1].lines += [head, *(f"    {line}" for line in scope.lines)]

    def mask(self, *places: Index) -> str:
        """The condition under which there are elements at these places."""
        masks = [self.blocks[name].mask for name in self.names_in(places)]
        masks += [condition for place in places for condition in conditions(place)]
        return " & ".join(dict.fromkeys(filter(None, masks)))

    def shape(self, names: Iterable[str]) -> tuple[str, str]:
        """The rows and columns of a block that depends on these variables."""
        rows, columns = "1", "1"
        for name in names:
            block = self.blocks[name]
            rows, columns = (block.rows if rows == "1" else rows), (block.columns if columns == "1" else columns)
        return rows, columns

    def names_in(self, places: Iterable[Index]) -> list[str]:
        """The variables in places."""
        return list(dict.fromkeys(variable.name for at in places for variable in at.variables()))
