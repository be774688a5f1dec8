"""What a module looked like when it was traced, to notice at the next call whatever may have changed since.

Parameters and buffers are not looked at here: they are fetched at every call. All else that a vertex method can read of a
module decides what its trace is: attributes, submodules, hooks, patched methods, what lies in containers and objects, and what
functions read beside their arguments.
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
    """Stands in a path for a function, or what variables are in, whose contents come behind it: the same, not an equal one."""

    def __init__(self, by: Any) -> None:
        self.by = by

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and other.by is self.by

    def __hash__(self) -> int:
        return id(self.by)


@dataclass
class Snapshot:
    """Everything watched of one module. `is_current()` is cheap; `key` tells whether two snapshots lead to the same trace."""

    live: list[Any] = field(default_factory=list)  # dictionaries, lists, classes, and so on
    kept: list[tuple[Any, ...]] = field(default_factory=list)  # and what was in them
    sets: list[Any] = field(default_factory=list)  # and deques
    set_contents: list[Any] = field(default_factory=list)
    set_ids: list[list[int]] = field(default_factory=list)  # in order, for `==` of tensors is a tensor
    modules: list[Callable[[], nn.Module | None]] = field(
        default_factory=list
    )  # weak: a model shall not hold itself alive
    classes: list[type] = field(default_factory=list)
    names: list[dict[str, Any]] = field(default_factory=list)  # places of parameters and buffers
    name_lists: list[tuple[str, ...]] = field(default_factory=list)
    empty: list[tuple[dict[str, Any], str]] = field(default_factory=list)  # of these, those that are None
    large: list[Any] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)  # that are attributes only
    versions: list[int] = field(default_factory=list)
    arrays: list[Any] = field(default_factory=list)  # small ones
    contents: list[bytes] = field(default_factory=list)
    slots: list[tuple[Any, str]] = field(default_factory=list)  # objects without a dictionary, and their attributes
    slot_values: list[Any] = field(default_factory=list)
    leaves: dict[Path, Hashable] = field(default_factory=dict)  # every value, as a key
    alive: list[Any] = field(
        default_factory=list
    )  # whatever is in `leaves` by its address, which is then nobody else's
    skipped: list[Path] = field(default_factory=list)  # that were not to be looked at

    @property
    def key(self) -> Hashable:
        """Equal for modules whose vertex methods do the same."""
        return tuple(self.leaves.items())

    def is_current(self) -> bool:
        """Whether nothing has changed since."""
        return (
            _core.holds_the_same(self.live, self.kept)
            and [type(module()) for module in self.modules] == self.classes
            and _core.have_keys(self.names, self.name_lists)
            and [holder[name] for holder, name in self.empty].count(None) == len(self.empty)
            and [*map(len, self.large)] == self.lengths
            and [tensor._version for tensor in self.tensors] == self.versions
            and (not self.arrays or [*map(bytes_of, self.arrays)] == self.contents)
            and (not self.sets or [[*map(id, held)] for held in self.sets] == self.set_ids)
            and all(
                getattr(value, name, None) is old
                for (value, name), old in zip(self.slots, self.slot_values, strict=True)
            )
        )

    def restore(self) -> None:
        """Put back what was there."""
        for container, held in zip(self.live, self.kept, strict=True):
            if isinstance(container, list):
                container[:] = held
            elif isinstance(container, tuple):
                _restore_some(container[0], dict(zip(container[1:], held[1:], strict=True)))
            elif isinstance(container, dict):
                container.clear()
                container.update(zip(held[::2], held[1::2], strict=True))
            else:
                _restore_class(container, dict(zip(held[::2], held[1::2], strict=True)))
        for array, content in zip(self.arrays, self.contents, strict=True):
            if bytes_of(array) != content:
                _restore_array(array, content)
        for container, held in zip(self.sets, self.set_contents, strict=True):
            container.clear()
            (container.update if isinstance(container, set) else container.extend)(held)
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
    """Attributes of the module come before those of submodules, and attributes of classes last."""
    return bool(path) and isinstance(path[0], type), len(path)


def _named(path: Path) -> str:
    hidden = {"_modules", "its class", "its names", "its attributes"}
    shown = (part for part in path if not isinstance(part, Held) and part not in hidden)
    names = (part.__qualname__ if isinstance(part, type) else str(part) for part in shown)
    return ".".join(names) or "the module itself"


def bytes_of(array: Any) -> bytes:
    """What is in an array of NumPy's, a `bytearray` or an `array.array`."""
    return array.tobytes() if hasattr(array, "tobytes") else bytes(array)
