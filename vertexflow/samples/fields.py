"""Samples of a dataset, taken apart into their fields and put together again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import InputError, InputTypeError
from ..graph.inputs.build import InputGraph
from ..graph.inputs.pack import GraphBatch

_ATOMS = {int, float, bool, str, type(None)}  # a list of nothing else is rows, without a look at each element

Path = tuple[Any, ...]  # the keys and positions that lead to a field


def divide(samples: list[Any]) -> dict[Path, list[Any]]:
    """The fields of samples of one form: by path, the values of all samples."""
    fields: dict[Path, list[Any]] = {}
    _divide(samples, (), fields)
    return fields


def _divide(items: list[Any], path: Path, fields: dict[Path, list[Any]]) -> None:
    first = items[0]
    for index, item in enumerate(items):
        if type(item) is not type(first) and not (is_number(item) and is_number(first)):
            raise InputTypeError(
                f"{shown(path)}: {type(item).__name__} in sample {index}, but {type(first).__name__} in the first; "
                "all samples must have one form"
            )
    if isinstance(first, GraphBatch):
        raise InputTypeError(f"{shown(path)} is a GraphBatch; give input graphs, which vf.collate packs itself")
    parts = [_parts(item, top=not path) for item in items]
    keys = next((part.keys() for part in parts if part is not None), None)
    if keys is None:
        fields[path] = items
        return
    for index, part in enumerate(parts):
        if part is None or part.keys() != keys:
            raise InputError(
                f"{shown(path)}: sample {index} has {_difference(items[index], first)}{_advice(first, path)}"
            )
    for key in keys:
        _divide([part[key] for part in parts if part is not None], (*path, key), fields)


def rebuild(sample: Any, values: Mapping[Path, Any], path: Path = ()) -> Any:
    """The form of a sample with these values in its fields."""
    if path in values:
        return values[path]
    parts = _parts(sample, top=not path)
    assert parts is not None
    joined = {key: rebuild(part, values, (*path, key)) for key, part in parts.items()}
    if isinstance(sample, Mapping):
        return joined
    if isinstance(sample, (tuple, list)):
        return type(sample)(*joined.values()) if hasattr(sample, "_fields") else type(sample)(joined.values())
    return dataclasses.replace(sample, **joined)


def named(names: Iterable[Any], argument: str, fields: Mapping[Path, Any], noun: str = "field") -> list[Path]:
    """The paths of the fields that a user named."""
    places = []
    for name in [names] if isinstance(names, (str, int)) else names:
        path = name if isinstance(name, tuple) else (name,)
        if path not in fields:
            names_known = [repr(known[0] if len(known) == 1 else known) for known in fields if known]
            raise InputError(
                f"vf.collate(..., {argument}=...) names {name!r}, but samples have no such {noun}; they have "
                f"{', '.join(names_known) or 'none'}"
            )
        places.append(path)
    return places


def shown(path: Path) -> str:
    """A field as an expression, for messages: `sample['meta'][0]`."""
    return "sample" + "".join(f"[{key!r}]" for key in path)


def is_number(item: object) -> bool:
    return isinstance(item, (int, float, np.number, np.bool_))


def is_rows(item: object) -> bool:
    """Whether this is a list of numbers, strings and the like, and of lists of them."""
    return isinstance(item, list) and (set(map(type, item)) <= _ATOMS or not any(map(_is_structure, item)))


def _is_structure(item: object) -> bool:
    if isinstance(item, (tuple, list)):
        return hasattr(item, "_fields") or any(_is_structure(part) for part in item)
    return isinstance(item, (InputGraph, Tensor, np.ndarray, Mapping)) or _is_dataclass(item)


def _parts(item: Any, top: bool) -> dict[Any, Any] | None:
    """What a sample, or a field of it, consists of; None if it is a value."""
    if isinstance(item, InputGraph):
        return None
    if isinstance(item, Mapping):
        return dict(item)
    if isinstance(item, tuple):
        return dict(zip(item._fields, item, strict=True)) if hasattr(item, "_fields") else dict(enumerate(item))
    if isinstance(item, list):
        return dict(enumerate(item)) if top or not is_rows(item) else None
    if _is_dataclass(item):
        return {part.name: getattr(item, part.name) for part in dataclasses.fields(item) if part.init}
    return None


def _is_dataclass(item: object) -> bool:
    return dataclasses.is_dataclass(item) and not isinstance(item, type)


def _difference(item: Any, first: Any) -> str:
    if isinstance(item, Mapping):
        return f"the keys {list(item)}, the first {list(first)}"
    return f"{len(item)} fields, the first {len(first)}"


def _advice(item: Any, path: Path) -> str:
    if isinstance(item, Mapping):
        return ""
    if isinstance(item, tuple) and path:
        return "; a tuple is fields: for rows, give a list of numbers, an array or a tensor"
    if path:
        return "; a list of graphs, tensors, arrays or dicts is fields: for rows, join it to one tensor"
    return "; a sample that is a tuple or list is fields: for rows, put them in a field of their own"
