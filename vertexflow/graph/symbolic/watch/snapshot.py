"""What a module looked like when it was traced, to notice at the next call whatever has changed since.

Everything that a vertex method can read of a module decides what its trace is: attributes, submodules, hooks, patched methods,
the contents of containers and objects, and what functions read beside their arguments. Only parameters and buffers are left
out: they are fetched at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from .... import _core

Path = tuple[Any, ...]


class Held:
    """An element of a path: the function, or the dictionary of globals, by identity, whose contents the path leads into."""

    def __init__(self, by: Any) -> None:
        self.by = by

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and other.by is self.by

    def __hash__(self) -> int:
        return id(self.by)


@dataclass
class Snapshot:
    """Everything watched of one module. `is_current()` is cheap; `key` tells whether two snapshots lead to the same trace.

    Each list of objects stands beside the list, or lists, of what they held.
    """

    containers: list[Any] = field(default_factory=list)  # dictionaries, lists, classes, functions, cells
    container_contents: list[tuple[Any, ...]] = field(default_factory=list)
    sets: list[Any] = field(default_factory=list)  # and deques
    set_contents: list[Any] = field(default_factory=list)
    set_ids: list[list[int]] = field(default_factory=list)  # addresses: elements may be tensors, whose `==` is a tensor
    modules: list[Callable[[], nn.Module | None]] = field(
        default_factory=list
    )  # weak: a model must not keep itself alive
    classes: list[type] = field(default_factory=list)
    holders: list[dict[str, Any]] = field(default_factory=list)  # the dictionaries of parameters and buffers
    holder_keys: list[tuple[str, ...]] = field(default_factory=list)
    empty_places: list[tuple[dict[str, Any], str]] = field(default_factory=list)  # entries of `holders` that were None
    large: list[Any] = field(default_factory=list)  # containers of which only the length is watched
    lengths: list[int] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)  # that are neither parameters nor buffers
    tensor_contents: list[Hashable] = field(default_factory=list)
    arrays: list[Any] = field(default_factory=list)  # small ones
    array_contents: list[bytes] = field(default_factory=list)
    slots: list[tuple[Any, str]] = field(default_factory=list)  # an object and one of its `__slots__`
    slot_values: list[Any] = field(default_factory=list)
    leaves: dict[Path, Hashable] = field(default_factory=dict)  # a hashable stand-in for every value
    alive: list[Any] = field(
        default_factory=list
    )  # what `leaves` has by address, so that no other object gets that address
    skipped: list[Path] = field(default_factory=list)  # unwatched paths that were met

    @property
    def key(self) -> Hashable:
        """Equal for modules whose vertex methods do the same."""
        return tuple(self.leaves.items())

    def is_current(self) -> bool:
        """Whether nothing that is watched has changed since."""
        return (
            _core.holds_the_same(self.containers, self.container_contents)
            and [type(module()) for module in self.modules] == self.classes
            and _core.have_keys(self.holders, self.holder_keys)
            and (not self.sets or [[*map(id, contents)] for contents in self.sets] == self.set_ids)
            and self.has_the_rest()
        )

    def has_the_rest(self) -> bool:
        """The same of what few models have."""
        return (
            (not self.empty_places or all(holder[name] is None for holder, name in self.empty_places))
            and (not self.large or [*map(len, self.large)] == self.lengths)
            and (not self.tensors or [*map(data_of, self.tensors)] == self.tensor_contents)
            and (not self.arrays or [*map(bytes_of, self.arrays)] == self.array_contents)
            and (not self.slots or self._have_slots_the_same())
        )

    def _have_slots_the_same(self) -> bool:
        slots = zip(self.slots, self.slot_values, strict=True)
        return all(getattr(value, name, None) is old for (value, name), old in slots)

    def restore(self) -> None:
        """Give every watched object back what it held."""
        for container, contents in zip(self.containers, self.container_contents, strict=True):
            if isinstance(container, list):
                container[:] = contents
            elif isinstance(container, tuple):
                _restore_some(container[0], dict(zip(container[1:], contents[1:], strict=True)))
            elif isinstance(container, dict):
                container.clear()
                container.update(zip(contents[::2], contents[1::2], strict=True))
            else:
                _restore_class(container, dict(zip(contents[::2], contents[1::2], strict=True)))
        for array, content in zip(self.arrays, self.array_contents, strict=True):
            if bytes_of(array) != content:
                _restore_array(array, content)
        for container, contents in zip(self.sets, self.set_contents, strict=True):
            container.clear()
            (container.update if isinstance(container, set) else container.extend)(contents)
        for (value, name), old in zip(self.slots, self.slot_values, strict=True):
            if getattr(value, name, None) is not old:
                setattr(value, name, old)

    def changes(self, other: Snapshot) -> list[str]:
        """Names of what differs in `other`: `drop.p`, `scale`."""
        return list(dict.fromkeys(_named(path) for path in sorted(self.differing(other), key=_prominence)))

    def differing(self, other: Snapshot) -> list[Path]:
        """The paths to what differs in `other`."""
        paths, missing = dict.fromkeys([*self.leaves, *other.leaves]), object()
        return [path for path in paths if self.leaves.get(path, missing) != other.leaves.get(path, missing)]


def _restore_some(holder: Any, entries: dict[Any, Any]) -> None:
    for name, value in entries.items():
        if not isinstance(holder, type):
            holder[name] = value
        elif vars(holder).get(name) is not value:
            setattr(holder, name, value)


def _restore_array(array: Any, content: bytes) -> None:
    if isinstance(array, np.ndarray):
        array[...] = np.frombuffer(content, array.dtype).reshape(array.shape)
    else:
        memoryview(array).cast("B")[:] = content


def _restore_class(cls: type, attributes: dict[str, Any]) -> None:
    for name in [name for name in vars(cls) if name not in attributes and not name.startswith("__")]:
        delattr(cls, name)
    for name, value in attributes.items():
        if cls.__dict__.get(name) is not value and not name.startswith("__"):
            setattr(cls, name, value)


def _prominence(path: Path) -> tuple[bool, int]:
    """A key for sorting: attributes of the module before those of submodules, and those of classes last."""
    return bool(path) and isinstance(path[0], type), len(path)


def _named(path: Path) -> str:
    hidden = {"_modules", "its class", "its names", "its attributes"}
    shown = (part for part in path if not isinstance(part, Held) and part not in hidden)
    names = (part.__qualname__ if isinstance(part, type) else str(part) for part in shown)
    return ".".join(names) or "the module itself"


def data_of(tensor: Tensor) -> tuple[Hashable, ...]:
    """What differs once a tensor was changed in place, or was given other data."""
    try:
        address = tensor.data_ptr()
    except RuntimeError:  # it has none
        address = 0
    version = None if tensor.is_inference() else tensor._version  # inference tensors have no version
    return version, address, tensor.dtype, tensor.shape


def bytes_of(array: Any) -> bytes:
    """The contents of a NumPy array, a `bytearray` or an `array.array`."""
    return array.tobytes() if hasattr(array, "tobytes") else bytes(array)
