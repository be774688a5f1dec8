"""The kinds of a graph's vertices: which names there are, and the number of each vertex's kind among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...errors import GraphError, InputTypeError

_TYPES = (str, int, float, bool, bytes)


def number_kinds(kind: Any, num_vertices: int) -> tuple[tuple[Any, ...], np.ndarray[Any, np.dtype[np.int32]]]:
    """The kinds that occur, sorted, and the number of each vertex's kind among them.

    Raises:
        GraphError: not one kind for each vertex.
        InputTypeError: kinds that are no strings or numbers, or of several types.
    """
    if isinstance(kind, (torch.Tensor, np.ndarray)) and kind.ndim != 1:
        raise GraphError(f"kinds must be one list, not an array of shape {tuple(kind.shape)}")
    if isinstance(kind, (str, bytes)) or not hasattr(kind, "__iter__"):
        raise GraphError(f"kinds must be one list, with a kind for each vertex, not {kind!r}")
    kinds = kind if isinstance(kind, (torch.Tensor, np.ndarray)) else list(kind)
    if len(kinds) != num_vertices:
        raise GraphError(f"{len(kinds)} kinds for {num_vertices} vertices; give one for each vertex")
    values = kinds if isinstance(kinds, list) else kinds.tolist()
    nested = next((vertex for vertex, value in enumerate(values) if isinstance(value, (list, np.ndarray))), None)
    if nested is not None:
        raise GraphError(
            f"kinds cannot be read as an array of one dimension: that of vertex {nested} is {values[nested]!r}"
        )
    if not set(map(type, values)) <= set(_TYPES):
        values = [_plain(vertex, value) for vertex, value in enumerate(values)]
    types = {type(value): vertex for vertex, value in reversed(list(enumerate(values)))}
    if len(types) > 1:  # among them are True, 1 and 1.0, which are equal
        examples = " and ".join(f"{values[vertex]!r} (vertex {vertex})" for vertex in sorted(types.values())[:2])
        raise InputTypeError(f"kinds of several types cannot be sorted: {examples}; use one type, such as str")
    if float in types and not all(value == value for value in values):
        raise InputTypeError("a kind is NaN, which is equal to no kind; use strings or integers")
    names = sorted(set(values))
    number_of = {name: number for number, name in enumerate(names)}
    return tuple(names), np.fromiter(map(number_of.__getitem__, values), np.int32, len(values))


def _plain(vertex: int, value: Any) -> Any:
    """The value as one of Python's own types, from a scalar of NumPy or PyTorch or a member of an enum."""
    value = value.item() if isinstance(value, np.generic) or _is_scalar(value) else value
    for type_ in _TYPES:
        if type(value) is type_:
            return value
    if value is None:
        raise InputTypeError(
            f"kinds of several types cannot be sorted: the kind of vertex {vertex} is None; give every vertex a name"
        )
    base = next((type_ for type_ in _TYPES if isinstance(value, type_)), None)  # members of a StrEnum or an IntEnum
    if base is not None and hasattr(value, "value"):
        return base(value.value)
    raise InputTypeError(
        f"the kind of vertex {vertex} is {value!r}, of the type {type(value).__name__}; kinds are strings or numbers: give a "
        "name instead (of a member of an Enum its `.name`, of a tuple one string)"
    )


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim == 0


def join_kinds(
    graph_kinds: list[tuple[Any, ...] | None],
) -> tuple[tuple[Any, ...], list[np.ndarray[Any, np.dtype[np.int32]]]]:
    """The kinds of all graphs together, and the number of each graph's kinds among them.

    Raises:
        GraphError: some have none, or they are of several types.
    """
    without = next((index for index, kinds in enumerate(graph_kinds) if kinds is None), None)
    if without is not None:
        raise GraphError(f"graph {without} has no kinds, but others have; give all graphs kinds, or none")
    present = [kinds for kinds in graph_kinds if kinds is not None]
    for index, kinds in enumerate(present):
        if type(kinds[0]) is not type(present[0][0]):
            raise GraphError(
                f"graph {index} has kinds of {type(kinds[0]).__name__}, graph 0 of {type(present[0][0]).__name__}; "
                "use one type"
            )
    joined = sorted(set().union(*present))
    number_of = {kind: number for number, kind in enumerate(joined)}
    return tuple(joined), [np.array([number_of[kind] for kind in kinds], np.int32) for kinds in present]
