"""What a module looked like when it was traced, to notice at the next call whatever may have changed since.

Parameters and buffers are not looked at here: they are fetched at every call. All else that a vertex method can read of a
module decides what its trace is: attributes, submodules, hooks, patched methods, and what lies in plain containers.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

LARGEST = (
    1000  # entries of a container, and values below an object, from which on only the number of entries is watched
)

_SCALARS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
_CONTAINERS = (dict, list, set, deque)
_OPAQUE = (
    type,
    functools.partial,
    types.ModuleType,
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    Tensor,
)
_OF_TENSORS = ("_parameters", "_buffers")
# Of every model: what is fetched at each call, and what tells nothing about the vertex method.
_IGNORED = {"_programs", "policy", "backend", "state_dtype", "_compiled_call_impl", "__slotnames__", "_abc_impl"}
_UNWATCHED_CLASSES = {object, nn.Module}
_GLOBAL_HOOKS = [hooks for name, hooks in vars(torch_modules).items() if name.startswith("_global_") and "hook" in name]

_MADE_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE

Path = tuple[Any, ...]


@dataclass
class Snapshot:
    """Everything watched of one module. `is_current()` is cheap; `key` tells whether two snapshots lead to the same trace."""

    live: list[Any] = field(default_factory=list)  # the containers themselves
    kept: list[Any] = field(default_factory=list)  # and what was in them
    paths: list[Path] = field(default_factory=list)  # where each container is
    modules: list[Callable[[], nn.Module | None]] = field(
        default_factory=list
    )  # weak: a model shall not hold itself alive
    classes: list[type] = field(default_factory=list)
    ordered: list[dict[str, Any]] = field(default_factory=list)  # dictionaries whose order counts, or that hold tensors
    orders: list[tuple[str, ...]] = field(default_factory=list)
    large: list[Any] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    numbers: list[tuple[Any, Any]] = field(default_factory=list)  # container and key: 1, 1.0 and True are equal
    number_types: list[type] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)  # that are attributes only
    versions: list[int] = field(default_factory=list)
    arrays: list[np.ndarray[Any, Any]] = field(default_factory=list)  # small ones
    contents: list[bytes] = field(default_factory=list)
    slots: list[tuple[Any, str]] = field(default_factory=list)  # objects without a dictionary, and their attributes
    slot_values: list[Any] = field(default_factory=list)
    empty: list[tuple[dict[str, Any], str]] = field(
        default_factory=list
    )  # places of parameters and buffers that are None
    patchable: list[tuple[type, dict[str, Any]]] = field(default_factory=list)  # classes, and their attributes
    leaves: dict[Path, Hashable] = field(default_factory=dict)  # every value, as a key
    alive: list[Any] = field(
        default_factory=list
    )  # whatever is in `leaves` by its address, which is then nobody else's

    @property
    def key(self) -> Hashable:
        """Equal for modules whose vertex methods do the same."""
        return tuple(self.leaves.items())

    def is_current(self) -> bool:
        """Whether nothing has changed since."""
        try:
            return (
                self.live == self.kept
                and [type(container[name]) for container, name in self.numbers] == self.number_types
                and [type(module()) for module in self.modules] == self.classes
                and [*map(tuple, self.ordered)] == self.orders
                and [*map(len, self.large)] == self.lengths
                and [tensor._version for tensor in self.tensors] == self.versions
                and [array.tobytes() for array in self.arrays] == self.contents
                and [getattr(value, name, None) for value, name in self.slots] == self.slot_values
                and all(container[name] is None for container, name in self.empty)
            )
        except Exception:  # values that cannot be compared with what was there, or are there no more
            return False

    def restore(self) -> None:
        """Put back what was there."""
        for container, before in zip(self.live, self.kept, strict=True):
            if isinstance(container, (list, deque)):
                container.clear()
                container.extend(before)
            elif isinstance(container, (dict, set)):
                container.clear()
                container.update(before)
        for cls, attributes in self.patchable:
            for name in [name for name in vars(cls) if name not in attributes and not name.startswith("__")]:
                delattr(cls, name)
            for name, value in attributes.items():
                if cls.__dict__.get(name) is not value:
                    setattr(cls, name, value)

    def changes(self, other: Snapshot) -> list[str]:
        """Names of what differs in `other`: `drop.p`, `scale`."""
        paths = dict.fromkeys([*self.leaves, *other.leaves])
        missing = object()
        differing = [path for path in paths if self.leaves.get(path, missing) != other.leaves.get(path, missing)]
        return list(dict.fromkeys(_named(path) for path in sorted(differing, key=_prominence)))


def take_snapshot(module: nn.Module) -> Snapshot:
    """Look at `module` and all that it is made of."""
    snapshot = Snapshot()
    _Walk(snapshot).module((), module)
    for hooks in _GLOBAL_HOOKS:
        if isinstance(hooks, dict):
            _Walk(snapshot).container(("a hook of all modules",), hooks)
    return snapshot


class _Walk:
    """Visits values below a module, each once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.into = snapshot
        self.seen: dict[int, Path] = {}

    def module(self, path: Path, module: nn.Module) -> None:
        into = self.into
        into.modules.append(weakref.ref(module))
        into.classes.append(type(module))
        into.alive.append(type(module))
        into.leaves[_below(path, "its class")] = id(type(module))
        self.seen[id(module)] = path
        for cls in type(module).__mro__:
            if cls not in _UNWATCHED_CLASSES and id(cls) not in self.seen:
                self.seen[id(cls)] = (cls,)
                into.patchable.append((cls, dict(cls.__dict__)))
                self._watch((cls,), cls.__dict__, dict(cls.__dict__))
                self.entries((cls,), cls.__dict__, _class_entries(cls))
        attributes = vars(module)
        self._watch(path, attributes, {**attributes})
        for name in _OF_TENSORS:
            holder = attributes.get(name) or {}
            into.ordered.append(holder)
            into.orders.append(tuple(holder))
            into.empty += [(holder, key) for key, value in holder.items() if value is None]
            into.leaves[_below(path, name)] = tuple((key, value is None) for key, value in holder.items())
        left_out = {*_OF_TENSORS, *_set_by_hooks(module)}
        self.entries(path, attributes, ((k, v) for k, v in attributes.items() if k not in left_out))
        submodules = attributes.get("_modules") or {}
        if len(submodules) > 1:
            into.ordered.append(submodules)
            into.orders.append(tuple(submodules))

    def container(self, path: Path, value: Any) -> None:
        """A dictionary, list, set or deque."""
        into = self.into
        if len(value) > LARGEST:
            into.large.append(value)
            into.lengths.append(len(value))
            into.leaves[path] = (type(value), id(value), len(value))
            into.alive.append(value)
            return
        self._watch(path, value, type(value)(value) if type(value) in _CONTAINERS else _copied(value))
        if isinstance(value, dict):
            into.leaves[_below(path, "its names")] = tuple(map(self.hashable, value))
            self.entries(path, value, value.items())
        elif isinstance(value, (list, deque)):
            into.leaves[_below(path, "its length")] = len(value)
            self.entries(path, value, enumerate(value))
        else:
            into.leaves[path] = frozenset(map(self.hashable, value))

    def entries(self, path: Path, holder: Any, entries: Iterable[tuple[Any, Any]]) -> None:
        for name, value in entries:
            if name not in _IGNORED:
                if isinstance(value, (bool, int, float, complex)):
                    self.into.numbers.append((holder, name))
                    self.into.number_types.append(type(value))
                self.value((*path, name), value)

    def value(self, path: Path, value: Any) -> None:
        into = self.into
        if isinstance(value, _SCALARS):
            into.leaves[path] = (type(value), value)
            return
        if id(value) in self.seen:
            into.leaves[path] = ("as", *self.seen[id(value)])
            return
        if isinstance(value, nn.Module):
            self.module(path, value)
            return
        if isinstance(value, Tensor):
            version = None if value.is_inference() else value._version  # which then nobody counts
            if version is not None:
                into.tensors.append(value)
                into.versions.append(version)
            into.leaves[path] = (id(value), version)
            into.alive.append(value)
            return
        if isinstance(value, np.ndarray) and value.size <= LARGEST:
            into.arrays.append(value)
            into.contents.append(value.tobytes())
            into.leaves[path] = (value.dtype.str, value.shape, value.tobytes())
            return
        if not isinstance(value, _OPAQUE) and (isinstance(value, (*_CONTAINERS, tuple)) or _has_attributes(value)):
            self.seen[id(value)] = path
            if isinstance(value, _CONTAINERS):
                self.container(path, value)
            elif isinstance(value, tuple):
                into.leaves[_below(path, "its length")] = len(value)
                for at, item in enumerate(value):
                    self.value((*path, at), item)
            else:
                self._object(path, value)
            return
        into.leaves[path] = (type(value), id(value))
        into.alive.append(value)

    def _object(self, path: Path, value: Any) -> None:
        """An object with attributes, as settings are; a large one (a trainer, a logger) counts as itself alone."""
        is_large = _is_large(value)
        self.into.leaves[_below(path, "its class")] = (type(value), id(value) if is_large else 0)
        if is_large:
            self.into.alive.append(value)
        elif hasattr(value, "__dict__"):
            self.container(path, vars(value))
        if not is_large:
            for name in _slots(type(value)):
                self.into.slots.append((value, name))
                self.into.slot_values.append(getattr(value, name, None))
                self.value(_below(path, name), getattr(value, name, None))

    def hashable(self, value: Any) -> Hashable:
        """A key of a dictionary, or an element of a set."""
        if isinstance(value, _SCALARS):
            return type(value), value
        self.into.alive.append(value)
        return type(value), id(value)

    def _watch(self, path: Path, container: Any, copy: Any) -> None:
        self.into.paths.append(path)
        self.into.live.append(container)
        self.into.kept.append(copy)


def _set_by_hooks(module: nn.Module) -> set[str]:
    """Attributes that PyTorch's own hooks compute anew of parameters, each time before the module runs."""
    names = (
        hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, (BasePruningMethod, SpectralNorm, WeightNorm))
    )
    return {name for name in names if name is not None}


def _class_entries(cls: type) -> Iterator[tuple[str, Any]]:
    for name, value in cls.__dict__.items():
        if not name.startswith("__") or name == "__call__":
            yield name, value


def _has_attributes(value: Any) -> bool:
    return hasattr(value, "__dict__") or bool(_slots(type(value)))


def _slots(cls: type) -> list[str]:
    """The attributes that objects of a Python class have without a dictionary."""
    parts = [part for part in cls.__mro__ if part.__flags__ & _MADE_IN_PYTHON]
    names = (vars(part).get("__slots__", ()) for part in parts)
    return [name for given in names for name in ((given,) if isinstance(given, str) else given) if name[:2] != "__"]


def _is_large(value: Any) -> bool:
    """Whether more values lie below an object than are watched."""
    seen: set[int] = set()
    stack = [value]
    while stack and len(seen) <= LARGEST:
        item = stack.pop()
        if id(item) in seen or isinstance(item, (*_SCALARS, *_OPAQUE, nn.Module)):
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, (list, tuple, set, deque)):
            stack += item
        elif hasattr(item, "__dict__"):
            stack.append(vars(item))
    return len(seen) > LARGEST


def _copied(container: Any) -> Any:
    """The same entries as a plain container, equal to the one given."""
    plain = next(kind for kind in _CONTAINERS if isinstance(container, kind))
    return plain(container)


def _below(path: Path, name: Any) -> Path:
    return (*path, name)


def _prominence(path: Path) -> tuple[bool, int]:
    """Attributes of the module come before those of submodules, and attributes of classes last."""
    return bool(path) and isinstance(path[0], type), len(path)


def _named(path: Path) -> str:
    hidden = {"_modules", "its class", "its names", "its length"}
    names = (part.__qualname__ if isinstance(part, type) else str(part) for part in path if part not in hidden)
    return ".".join(names) or "the module itself"
