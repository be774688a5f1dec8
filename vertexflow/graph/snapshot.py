"""What a module looked like when it was traced, to notice at the next call whatever may have changed since.

Parameters and buffers are not looked at here: they are fetched at every call. All else that a vertex method can read of a
module decides what its trace is: attributes, submodules, hooks, patched methods, and what lies in containers and objects.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .. import _core

LARGEST = (
    1000  # entries of a container, and values below an object, from which on only the number of entries is watched
)

_SCALARS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
_OPAQUE = (type, functools.partial, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType)
_OF_TENSORS = ("_parameters", "_buffers")
# Of every model: what is fetched at each call, and what tells nothing about the vertex method.
_IGNORED = {"policy", "backend", "state_dtype", "_compiled_call_impl"}
_UNWATCHED_CLASSES = {object, nn.Module}
_GLOBAL_HOOKS = [hooks for name, hooks in vars(torch_modules).items() if name.startswith("_global_") and "hook" in name]
_MADE_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE

Path = tuple[Any, ...]


@dataclass
class Snapshot:
    """Everything watched of one module. `is_current()` is cheap; `key` tells whether two snapshots lead to the same trace."""

    live: list[Any] = field(default_factory=list)  # dictionaries, lists and classes
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
    arrays: list[np.ndarray[Any, Any]] = field(default_factory=list)  # small ones
    contents: list[bytes] = field(default_factory=list)
    slots: list[tuple[Any, str]] = field(default_factory=list)  # objects without a dictionary, and their attributes
    slot_values: list[Any] = field(default_factory=list)
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
        return (
            _core.holds_the_same(self.live, self.kept)
            and [type(module()) for module in self.modules] == self.classes
            and [*map(tuple, self.names)] == self.name_lists
            and [holder[name] for holder, name in self.empty].count(None) == len(self.empty)
            and [*map(len, self.large)] == self.lengths
            and [tensor._version for tensor in self.tensors] == self.versions
            and [array.tobytes() for array in self.arrays] == self.contents
            and [[*map(id, held)] for held in self.sets] == self.set_ids
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
            elif isinstance(container, dict):
                container.clear()
                container.update(zip(held[::2], held[1::2], strict=True))
            else:
                _restore_class(container, dict(zip(held[::2], held[1::2], strict=True)))
        for container, held in zip(self.sets, self.set_contents, strict=True):
            container.clear()
            (container.update if isinstance(container, set) else container.extend)(held)
        for (value, name), old in zip(self.slots, self.slot_values, strict=True):
            if getattr(value, name, None) is not old:
                setattr(value, name, old)

    def changes(self, other: Snapshot) -> list[str]:
        """Names of what differs in `other`: `drop.p`, `scale`."""
        paths = dict.fromkeys([*self.leaves, *other.leaves])
        missing = object()
        differing = [path for path in paths if self.leaves.get(path, missing) != other.leaves.get(path, missing)]
        return list(dict.fromkeys(_named(path) for path in sorted(differing, key=_prominence)))


def take_snapshot(module: nn.Module) -> Snapshot:
    """Look at `module` and all that it is made of."""
    snapshot = Snapshot()
    walk = _Walk(snapshot, {id(tensor): name for name, tensor in (*module.named_parameters(), *module.named_buffers())})
    walk.module((), module)
    for number, hooks in enumerate(_GLOBAL_HOOKS):
        if isinstance(hooks, dict):
            walk.value(("a hook of all modules", number), hooks)
    return snapshot


class _Walk:
    """Visits the values below a module, each once."""

    def __init__(self, snapshot: Snapshot, registered: dict[int, str]) -> None:
        self.into = snapshot
        self.registered = registered  # names of parameters and buffers, by address
        self.seen: dict[int, Path] = {}

    def module(self, path: Path, module: nn.Module) -> None:
        into = self.into
        into.modules.append(weakref.ref(module))
        into.classes.append(type(module))
        into.leaves[_below(path, "its class")] = (type(module),)
        self.seen[id(module)] = path
        for cls in type(module).__mro__:
            if cls not in _UNWATCHED_CLASSES and id(cls) not in self.seen:
                self.seen[id(cls)] = (cls,)
                self._watch(cls, cls.__dict__)
                named = (
                    (name, value) for name, value in cls.__dict__.items() if name[:2] != "__" or name == "__call__"
                )
                self.entries((cls,), named)
        attributes = vars(module)
        self._watch(attributes, attributes)
        for name in _OF_TENSORS:
            holder = attributes.get(name, {})  # an empty one, too: it may be filled later
            into.names.append(holder)
            into.name_lists.append(tuple(holder))
            into.empty += [(holder, key) for key, value in holder.items() if value is None]
            into.leaves[_below(path, name)] = tuple((key, value is None) for key, value in holder.items())
            if any(value is not None and id(value) not in self.registered for value in holder.values()):
                self._watch(holder, holder)  # of a module in a list, which PyTorch does not see: constants of the trace
                self.entries(_below(path, name), holder.items())
        left_out = {*_OF_TENSORS, *_set_by_hooks(module)}
        self.entries(path, ((name, value) for name, value in attributes.items() if name not in left_out))

    def entries(self, path: Path, entries: Iterable[tuple[Any, Any]]) -> None:
        for name, value in entries:
            if name not in _IGNORED:
                self.value(_below(path, name), value)

    def value(self, path: Path, value: Any) -> None:
        into = self.into
        if isinstance(value, _SCALARS):
            into.leaves[path] = _exact(value)
        elif id(value) in self.seen:
            into.leaves[path] = ("as", *self.seen[id(value)])
        elif isinstance(value, nn.Module):
            self.module(path, value)
        elif isinstance(value, Tensor):
            self.tensor(path, value)
        elif isinstance(value, weakref.ref):
            self.value(path, value())
        elif isinstance(value, np.ndarray) and value.size <= LARGEST and value.dtype != object:
            into.arrays.append(value)
            into.contents.append(value.tobytes())
            into.leaves[path] = (value.dtype.str, value.shape, value.tobytes())
        elif isinstance(value, (dict, list, tuple, set, deque)):
            self.seen[id(value)] = path
            self.container(path, value)
        elif not isinstance(value, _OPAQUE) and (hasattr(value, "__dict__") or _slots(type(value))):
            self.seen[id(value)] = path
            self.object(path, value)
        else:
            into.leaves[path] = (type(value), id(value))
            into.alive.append(value)

    def tensor(self, path: Path, value: Tensor) -> None:
        """One that is an attribute, and perhaps a parameter or buffer, too; else it is a constant of the trace."""
        if id(value) in self.registered:
            self.into.leaves[path] = ("registered", self.registered[id(value)])
            return
        version = None if value.is_inference() else value._version  # which nobody counts in inference mode
        if version is not None:
            self.into.tensors.append(value)
            self.into.versions.append(version)
        self.into.leaves[path] = (id(value), version)
        self.into.alive.append(value)

    def container(self, path: Path, value: Any) -> None:
        into = self.into
        if len(value) > LARGEST:
            into.large.append(value)
            into.lengths.append(len(value))
            into.leaves[path] = (type(value), id(value), len(value))
            into.alive.append(value)
            return
        into.leaves[path] = (type(value), len(value))
        if isinstance(value, dict):
            self._watch(value, value)
            into.leaves[_below(path, "its names")] = tuple(map(self.hashable, value))
            self.entries(path, value.items())
        elif isinstance(value, set):
            self._watch_set(value, set(value))
            into.leaves[path] = frozenset(map(self.hashable, value))
        else:
            if isinstance(value, list):
                into.live.append(value)
                into.kept.append(tuple(value))
            elif isinstance(value, deque):
                self._watch_set(value, deque(value))
            self.entries(path, enumerate(value))
        if hasattr(value, "__dict__"):  # of a class of its own
            self._watch(vars(value), vars(value))
            self.entries(_below(path, "its attributes"), vars(value).items())

    def object(self, path: Path, value: Any) -> None:
        """An object with attributes, as settings are; a large one (a trainer, a logger) counts as itself alone."""
        if _is_large(value):
            self.into.leaves[path] = (type(value), id(value))
            self.into.alive.append(value)
            return
        self.into.leaves[_below(path, "its class")] = (type(value),)
        if hasattr(value, "__dict__"):
            self._watch(vars(value), vars(value))
            self.entries(path, vars(value).items())
        for name in _slots(type(value)):
            self.into.slots.append((value, name))
            self.into.slot_values.append(getattr(value, name, None))
            self.value(_below(path, name), getattr(value, name, None))

    def hashable(self, value: Any) -> Hashable:
        """A key of a dictionary, or an element of a set."""
        if isinstance(value, _SCALARS):
            return _exact(value)
        self.into.alive.append(value)
        return type(value), id(value)

    def _watch_set(self, value: Any, contents: Any) -> None:
        self.into.sets.append(value)
        self.into.set_contents.append(contents)
        self.into.set_ids.append([*map(id, value)])

    def _watch(self, container: Any, entries: Any) -> None:
        self.into.live.append(container)
        self.into.kept.append(tuple(item for entry in entries.items() for item in entry))


def _set_by_hooks(module: nn.Module) -> set[str]:
    """Attributes that PyTorch's own hooks compute anew of parameters, each time before the module runs."""
    names = (
        hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, (BasePruningMethod, SpectralNorm, WeightNorm))
    )
    return {name for name in names if name is not None}


def _restore_class(cls: type, attributes: dict[str, Any]) -> None:
    for name in [name for name in vars(cls) if name not in attributes and not name.startswith("__")]:
        delattr(cls, name)
    for name, value in attributes.items():
        if cls.__dict__.get(name) is not value and not name.startswith("__"):
            setattr(cls, name, value)


def _slots(cls: type) -> list[str]:
    """The attributes that objects of a Python class have without a dictionary."""
    parts = [part for part in cls.__mro__ if part.__flags__ & _MADE_IN_PYTHON]
    given = [(part, vars(part).get("__slots__", ())) for part in parts]
    names = [(part, name) for part, some in given for name in ((some,) if isinstance(some, str) else some)]
    private = [(part, name) for part, name in names if name[:2] == "__" and name[-2:] != "__"]
    hidden = [f"_{part.__name__.lstrip('_')}{name}" for part, name in private]  # as Python calls them from outside
    return [name for _, name in names if name[:2] != "__"] + hidden


def _exact(value: Any) -> Hashable:
    """Equal for equal scalars only: 0.0 is not -0.0, and NaN is NaN."""
    return type(value), repr(value) if isinstance(value, (float, complex)) else value


def _is_large(value: Any) -> bool:
    """Whether more values lie below an object than are watched."""
    seen: set[int] = set()
    stack = [value]
    while stack and len(seen) <= LARGEST:
        item = stack.pop()
        if id(item) in seen or isinstance(item, (*_SCALARS, *_OPAQUE, Tensor, nn.Module)):
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, (list, tuple, set, deque)):
            stack += item
        elif hasattr(item, "__dict__"):
            stack.append(vars(item))
    return len(seen) > LARGEST


def _below(path: Path, name: Any) -> Path:
    return (*path, name)


def _prominence(path: Path) -> tuple[bool, int]:
    """Attributes of the module come before those of submodules, and attributes of classes last."""
    return bool(path) and isinstance(path[0], type), len(path)


def _named(path: Path) -> str:
    hidden = {"_modules", "its class", "its names", "its attributes"}
    names = (part.__qualname__ if isinstance(part, type) else str(part) for part in path if part not in hidden)
    return ".".join(names) or "the module itself"
