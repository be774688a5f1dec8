"""New vertices of a run by the methods that compute them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..call.kinds import methods_of_rows
from ..kernels.order import Ints, Wide

MOST = 1024  # lists of kinds that are kept; then all go


class Groups(NamedTuple):
    """The methods of new vertices, and, if they are several, the number of each vertex's method among them, the vertices of each
    method, these one behind the other, and the place of each vertex there."""

    methods: tuple[str, ...]
    numbers: Ints | None = None
    members: tuple[Wide, ...] = ()
    order: Wide | None = None
    places: Wide | None = None


Kept = dict[tuple[Any, ...], Groups]


def groups_of(kind: Any, count: int, methods: Mapping[Any, str], kept: Kept) -> Groups:
    """Those of `count` vertices; `kind` is that of all of them, or of each. `methods` by kind; what lists gave is `kept`.

    Raises:
        GraphError, InputTypeError: as `methods_of_rows`.
    """
    groups = kept_groups(kind, count, kept)
    if groups is None:
        groups, key = _make(*methods_of_rows(kind, count, methods)), _key(kind)
        if key is not None:
            if len(kept) >= MOST:
                kept.clear()
            kept[key] = groups
    return groups


def kept_groups(kind: Any, count: int, kept: Kept) -> Groups | None:
    """Those of `count` vertices of these kinds, if they are kept."""
    key = _key(kind)
    return None if key is None or len(key) != count else kept.get(key)


def _key(kind: Any) -> tuple[Any, ...] | None:
    """Equal for equal lists of kinds; None where these are usually few, or where equal ones may be of several types."""
    if type(kind) is np.ndarray and kind.ndim == 1:
        kind = kind.tolist()
    if type(kind) not in (list, tuple) or set(map(type, kind)) not in ({str}, {int}):
        return None
    return tuple(kind)


def _make(methods: tuple[str, ...], index: Ints | None) -> Groups:
    if index is None:
        return Groups(methods)
    members = tuple([np.flatnonzero(index == number) for number in range(len(methods))])
    order = np.concatenate(members)
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return Groups(methods, index, members, order, places)
