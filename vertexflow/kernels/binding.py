"""The addresses and numbers that generated code is called with: found once for a structure, completed for each run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .memory import Arena, Layout

Resolve = Callable[[str, Any], "Tensor | int"]
Numbers = np.ndarray[Any, np.dtype[np.int64]]

# The roles of what is the same in every run over a structure.
OF_STRUCTURE = {
    "num_leaves", "num_computed", "group_start", "child_rows", "owner", "edge_rows", "edge_offset", "placed_places",
    "placed_offset", "listed_places", "listed_offset",
}  # fmt: skip


@dataclass(frozen=True)
class Bound:
    """The arguments of one run, 0 for what is missing, and the tensors that they point into."""

    numbers: Numbers
    alive: list[Tensor]


@dataclass(frozen=True)
class Template:
    """Arguments for all runs over a structure, and where those belong that differ."""

    numbers: Numbers
    alive: list[Tensor]
    in_arenas: list[Any]  # (arena, dtype, positions, offsets in bytes)
    varying: list[tuple[int, str, Any]]  # (position, role, what of it)

    def complete(self, resolve: Resolve, arenas: Sequence[Arena]) -> Bound:
        """The arguments of one run: of values in arenas by their places, others as `resolve` gives them."""
        numbers, alive = self.numbers.copy(), list(self.alive)
        for number, dtype, at, offsets in self.in_arenas:
            numbers[at] = offsets + arenas[number].flats[dtype].data_ptr()
        for at, role, what in self.varying:
            numbers[at] = _number(resolve(role, what), alive)
        return Bound(numbers, alive)


def template(
    arguments: Iterable[tuple[str, Any]], resolve: Resolve, layouts: Sequence[Layout], known: Mapping[str, int]
) -> Template:
    """What is known of arguments, each a role and what of it, when a structure is; `known` are those of some roles."""
    numbers: list[int] = []
    alive: list[Tensor] = []
    varying = []
    places: dict[tuple[int, torch.dtype], list[tuple[int, int]]] = {}
    for at, (role, what) in enumerate(arguments):
        numbers.append(known.get(role, 0))
        key = what[0] if role == "value" else (role, what)
        arena = next((number for number, layout in enumerate(layouts) if key in layout.places), None)
        if arena is not None:
            place = layouts[arena].places[key]
            places.setdefault((arena, place.dtype), []).append((at, place.offset * place.dtype.itemsize))
        elif role in OF_STRUCTURE:
            numbers[at] = _number(resolve(role, what), alive)
        elif role not in known:
            varying.append((at, role, what))
    in_arenas = [(*key, *np.array(found, np.int64).T.copy()) for key, found in places.items()]
    return Template(np.array(numbers, np.int64), alive, in_arenas, varying)


def _number(value: Tensor | int, alive: list[Tensor]) -> int:
    if not isinstance(value, Tensor):
        return value
    alive.append(value)
    return value.data_ptr()
