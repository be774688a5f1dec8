"""Take a snapshot of a module and all that it is made of: submodules, containers, objects, and what functions read.

Of objects that only functions refer to, of classes and of the user's Python modules, only those attributes are watched whose
names occur in code that may run. (A trainer, one of whose methods is a hook, counts its steps; the hook need not read that.)
"""

from __future__ import annotations

import array
import functools
import gc
import types
import weakref
from collections import deque
from collections.abc import Collection, Hashable, Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules import module as torch_modules

from ..reserved import SETTINGS
from .parameters import names_of_fakes, set_by_hooks
from .reads import can_be_read, function_in, is_operator, is_users_module, reads, slots
from .snapshot import Held, Path, Snapshot, bytes_of, data_of

LARGEST = (
    1000  # entries of a container, and values below an object, from which on only the number of entries is watched
)

# A value is looked into, or it counts as itself: only whether it is the same object is watched.
_DEEPEST = 100  # values deeper than this below a module count as themselves
_MOST_IN_FUNCTIONS = 10_000  # of the values that functions read, all after so many count as themselves
_SCALARS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
_CALLED = (functools.partial, types.FunctionType, types.MethodType, types.BuiltinFunctionType)
_NAMESPACES = (type, types.ModuleType)
_BYTES = (bytearray, array.array)
_CONTAINERS = (dict, list, tuple, set, deque)
_OF_TENSORS = ("_parameters", "_buffers")
_FIRST_CALLED = ("forward", "__call__")  # of submodules
_UNWATCHED_CLASSES = {object, nn.Module}
_GLOBAL_HOOKS = [hooks for name, hooks in vars(torch_modules).items() if name.startswith("_global_") and "hook" in name]


def take_snapshot(module: nn.Module, unwatched: Collection[Path] = (), inside_functions: bool = True) -> Snapshot:
    """A snapshot of `module` without the values at the `unwatched` paths; without `inside_functions`, functions count as
    themselves, whatever they read."""
    snapshot = Snapshot()
    tensors = (*module.named_parameters(), *module.named_buffers())
    walk = _Walk(snapshot, {id(tensor): name for name, tensor in tensors}, unwatched, inside_functions)
    walk.names.update(getattr(module, "_methods", {}).values())
    walk.module((), module)
    for number, hooks in enumerate(_GLOBAL_HOOKS):
        if isinstance(hooks, dict):
            walk.value(("a hook of all modules", number), hooks)
    for name, tensor in tensors:
        if type(tensor) in (Tensor, nn.Parameter, FakeTensor):  # in other classes, attributes are the implementation's
            walk.partly.append(((name,), tensor, set()))
    walk.finish()
    return snapshot


class _Walk:
    """Visits the values below a module, each once."""

    def __init__(
        self, snapshot: Snapshot, registered: dict[int, str], unwatched: Collection[Path], inside_functions: bool
    ) -> None:
        self.snapshot = snapshot
        self.registered = registered  # names of parameters and buffers, by address
        self.unwatched = unwatched
        self.inside_functions = inside_functions
        self.seen: dict[int, Path] = {}
        self.is_in_function = False  # whether what is visited is read by a function
        self.num_in_functions = 0
        self.names: set[str] = set(_FIRST_CALLED)  # which the code met so far could read as attributes
        self.partly: list[
            tuple[Path, Any, set[str]]
        ] = []  # values watched by these names only, and the names looked up
        self.partly_ids: set[int] = set()  # addresses of the values in `partly`

    def module(self, path: Path, module: nn.Module) -> None:
        snapshot = self.snapshot
        snapshot.modules.append(weakref.ref(module))
        snapshot.classes.append(type(module))
        snapshot.leaves[_below(path, "its class")] = (type(module),)
        self.seen[id(module)] = path
        for cls in type(module).__mro__:
            if cls not in _UNWATCHED_CLASSES and id(cls) not in self.seen:
                self.seen[id(cls)] = (cls,)
                self._watch(cls, cls.__dict__)
                self._class(cls)
        attributes = vars(module)
        self._watch(attributes, attributes)
        for name in _OF_TENSORS:
            holder = attributes.get(name, {})  # an empty one, too: it may be filled later
            snapshot.holders.append(holder)
            snapshot.holder_keys.append(tuple(holder))
            snapshot.empty_places += [(holder, key) for key, value in holder.items() if value is None]
            snapshot.leaves[_below(path, name)] = tuple((key, value is None) for key, value in holder.items())
            if any(value is not None and id(value) not in self.registered for value in holder.values()):
                # The module is in a list, where PyTorch does not see its parameters: they are constants of the trace.
                self._watch(holder, holder)
                self.entries((*path, name), holder.items())
        left_out = {*_OF_TENSORS, *set_by_hooks(module), "_compiled_call_impl"}
        if "_methods" in attributes:  # a vertex function, whose settings do not matter unless its methods read them
            left_out |= SETTINGS
            settings = {name: attributes[name] for name in sorted(SETTINGS) if name in attributes}
            self.partly.append((path, types.SimpleNamespace(**settings), set()))
        self.entries(path, ((name, value) for name, value in attributes.items() if name not in left_out))

    def _class(self, cls: type) -> None:
        """The class of a module: its functions count as themselves, until code is met that may call them."""
        for name, value in cls.__dict__.items():
            if function_in(value) is not None:
                self._as_itself((cls, name), value)
            elif name[:2] != "__":
                self.value((cls, name), value)
        self._by_names((cls,), cls)

    def entries(self, path: Path, entries: Iterable[tuple[Any, Any]]) -> None:
        for name, value in entries:
            self.value((*path, name), value)

    def value(self, path: Path, value: Any) -> None:
        snapshot = self.snapshot
        if self.unwatched and path in self.unwatched:
            snapshot.skipped.append(path)
        elif isinstance(value, _SCALARS):
            snapshot.leaves[path] = _exact(value)
        elif id(value) in self.seen:
            snapshot.leaves[path] = ("as", *self.seen[id(value)])
        elif len(path) > _DEEPEST or (self.is_in_function and self._is_enough()):
            self._as_itself(path, value)
        elif isinstance(value, nn.Module):
            self.module(path, value)
        elif isinstance(value, Tensor):
            self.tensor(path, value)
        elif isinstance(value, weakref.ref):
            self.value(path, value())
        elif isinstance(value, np.generic):
            snapshot.leaves[path] = (value.dtype.str, value.tobytes())
        elif isinstance(value, (np.ndarray, *_BYTES)):
            self.array(path, value)
        elif isinstance(value, types.MappingProxyType):
            self.value(path, gc.get_referents(value)[0])
        elif isinstance(value, _CONTAINERS):
            self.seen[id(value)] = path
            self.container(path, value)
        elif isinstance(value, _CALLED):
            self.called(path, value)
        elif isinstance(value, _NAMESPACES):
            self._as_itself(path, value)
            self._by_names(path, value)
        elif hasattr(value, "__dict__") or slots(type(value)):
            self.seen[id(value)] = path
            self.object(path, value)
        else:
            self._as_itself(path, value)

    def tensor(self, path: Path, value: Tensor) -> None:
        """A tensor that is an attribute: another name of a parameter or buffer, or else a constant of the trace."""
        if id(value) in self.registered:
            self.snapshot.leaves[path] = ("registered", self.registered[id(value)])
            return
        self.snapshot.tensors.append(value)
        self.snapshot.tensor_contents.append(data_of(value))
        self.snapshot.leaves[path] = (id(value), *data_of(value))
        self.snapshot.alive.append(value)

    def array(self, path: Path, value: Any) -> None:
        """An array of NumPy or of bytes; objects in it are looked at like the elements of a list."""
        size = value.size if isinstance(value, np.ndarray) else len(value)
        if size > LARGEST:
            self._as_itself(path, value)
            return
        self.snapshot.arrays.append(value)
        self.snapshot.array_contents.append(bytes_of(value))
        if isinstance(value, np.ndarray):
            self.snapshot.leaves[path] = (value.dtype.str, value.shape, value.tobytes())
            if value.dtype == object:
                self.seen[id(value)] = path
                self.entries(path, enumerate(value.flat))
        else:
            self.snapshot.leaves[path] = (type(value), bytes_of(value))

    def container(self, path: Path, value: Any) -> None:
        snapshot = self.snapshot
        if len(value) > LARGEST:
            snapshot.large.append(value)
            snapshot.lengths.append(len(value))
            snapshot.leaves[path] = (type(value), id(value), len(value))
            snapshot.alive.append(value)
            return
        snapshot.leaves[path] = (type(value), len(value))
        if isinstance(value, dict):
            self._dict(path, value)
        elif isinstance(value, set):
            self._watch_set(value, set(value))
            snapshot.leaves[path] = frozenset(map(self.hashable, value))
            self.entries(path, enumerate(element for element in value if isinstance(element, nn.Module)))
        else:
            if isinstance(value, list) and not self._is_written(path, range(len(value))):
                snapshot.containers.append(value)
                snapshot.container_contents.append(tuple(value))
            elif isinstance(value, deque) and not self._is_written(path, range(len(value))):
                self._watch_set(value, deque(value))
            self.entries(path, enumerate(value))
        if hasattr(value, "__dict__"):  # of a class of its own
            self._dict((*path, "its attributes"), vars(value))

    def _dict(self, path: Path, value: dict[Any, Any]) -> None:
        if (*path, "its names") in self.unwatched:
            return
        if self._is_written(path, value):
            self._watch_some(value, [name for name in value if (*path, name) not in self.unwatched])
        else:
            self._watch(value, value)
        self.snapshot.leaves[_below(path, "its names")] = tuple(map(self.hashable, value))
        self.entries(path, value.items())

    def _is_written(self, path: Path, names: Iterable[Any]) -> bool:
        """Whether functions write to an entry while they are traced, so that it is not watched."""
        return bool(self.unwatched) and any((*path, name) in self.unwatched for name in names)

    def object(self, path: Path, value: Any) -> None:
        """An object with attributes, as settings are; a large one (a trainer, a logger) counts as itself alone."""
        if self.is_in_function:
            self._as_itself(path, value)
            self._by_names(path, value)
            if hasattr(value, "__wrapped__"):  # `functools.lru_cache` makes objects of functions
                self.value((*path, "__wrapped__"), value.__wrapped__)
            return
        if _is_large(value):
            self._as_itself(path, value)
            return
        self.snapshot.leaves[_below(path, "its class")] = (type(value),)
        if hasattr(value, "__dict__"):
            self._dict(path, vars(value))
        for name in slots(type(value)):
            self._slot(path, value, name)
        self._by_names((type(value),), type(value))

    def called(self, path: Path, value: Any) -> None:
        """A function, or an object that wraps one, with all that the function reads beside its arguments."""
        self._as_itself(path, value)
        if not self.inside_functions:
            return
        self.seen[id(value)] = path
        was_in_function, self.is_in_function = self.is_in_function, True
        within = (*path, Held(value))
        if isinstance(value, types.FunctionType):
            self.function(within, value)
        elif isinstance(value, functools.partial):
            self.value((*within, "func"), value.func)
            self.value((*within, "args"), value.args)
            self.value((*within, "keywords"), value.keywords)
        elif isinstance(value, types.MethodType):
            self.value((*within, "__func__"), value.__func__)
            self.value((*within, "__self__"), value.__self__)
        elif isinstance(value.__self__, _CONTAINERS):  # `table.get`
            self.value((*within, "__self__"), value.__self__)
        self.is_in_function = was_in_function

    def function(self, path: Path, value: types.FunctionType) -> None:
        """A function's code, defaults, closure and globals, if it is the user's own."""
        code = value.__code__
        if not can_be_read(code):
            return
        self.snapshot.containers.append(value)
        self.snapshot.container_contents.append((code, value.__defaults__, value.__kwdefaults__))
        self.snapshot.leaves[_below(path, "__code__")] = code
        names_read = reads(code)
        self.names |= names_read.names
        self.value((*path, "__defaults__"), value.__defaults__)
        self.value((*path, "__kwdefaults__"), value.__kwdefaults__)
        for name, cell in zip(code.co_freevars, value.__closure__ or (), strict=True):
            contents: tuple[Any, ...] = ()
            with suppress(ValueError):  # a variable that has no value yet
                contents = (cell.cell_contents,)
            if (*path, name) not in self.unwatched:
                self.snapshot.containers.append(cell)
                self.snapshot.container_contents.append(contents)
            self.entries((*path, name), enumerate(contents))
        module_globals = value.__globals__
        variables = [name for name in sorted(names_read.variables) if name in module_globals]
        self._watch_some(
            module_globals, [name for name in variables if (Held(module_globals), name) not in self.unwatched]
        )
        self.entries((Held(module_globals),), ((name, module_globals[name]) for name in variables))
        if vars(value):
            self._by_names(path, value)

    def finish(self) -> None:
        """Look up in `partly` the names that code mentions: known only after the walk, which each lookup may extend."""
        self.is_in_function = True
        while any(self.names - looked_up for _, _, looked_up in self.partly):
            for path, value, looked_up in list(self.partly):
                names = sorted(self.names - looked_up)
                looked_up.update(names)
                for name in names:
                    self._attribute(path, value, name)
        for path, value, _ in self.partly:
            attributes = vars(value) if hasattr(value, "__dict__") else {}
            names = [name for name in attributes if name in self.names and (*path, name) not in self.unwatched]
            if attributes or not isinstance(value, Tensor):
                self._watch_some(value if isinstance(value, type) else attributes, names)

    def _by_names(self, path: Path, value: Any) -> None:
        """Note an object, a class or a Python module in `partly`: of its attributes, those that code mentions are watched."""
        for cls in (value if isinstance(value, type) else type(value)).__mro__:
            if id(cls) not in self.partly_ids and is_users_module(cls.__module__):
                self.partly_ids.add(id(cls))
                self.partly.append(((cls,), cls, set()))
                called = [(name, entry) for name, entry in vars(cls).items() if is_operator(name)]
                self.entries((cls,), [(name, entry) for name, entry in called if function_in(entry) is entry])
        is_library = isinstance(value, types.ModuleType) and not is_users_module(value.__name__)
        if not isinstance(value, type) and not is_library and id(value) not in self.partly_ids:
            self.partly_ids.add(id(value))
            self.partly.append((path, value, set()))

    def _attribute(self, path: Path, value: Any, name: str) -> None:
        attributes = vars(value) if hasattr(value, "__dict__") else {}
        if name in attributes and not (isinstance(value, FakeTensor) and name in names_of_fakes()):
            function = function_in(attributes[name]) if isinstance(value, type) else None
            if function is not None or (*path, name) not in self.snapshot.leaves:
                self.value((*path, name), attributes[name] if function is None else function)
        elif not isinstance(value, (type, Tensor)) and name in slots(type(value)):
            self._slot(path, value, name)

    def _slot(self, path: Path, value: Any, name: str) -> None:
        if (*path, name) not in self.unwatched:
            self.snapshot.slots.append((value, name))
            self.snapshot.slot_values.append(getattr(value, name, None))
        self.value((*path, name), getattr(value, name, None))

    def hashable(self, value: Any) -> Hashable:
        """A stand-in for a key of a dictionary or an element of a set: its value if it is a scalar, else its address."""
        if isinstance(value, _SCALARS):
            return _exact(value)
        self.snapshot.alive.append(value)
        return type(value), id(value)

    def _as_itself(self, path: Path, value: Any) -> None:
        self.snapshot.leaves[path] = (type(value), id(value))
        self.snapshot.alive.append(value)

    def _is_enough(self) -> bool:
        self.num_in_functions += 1
        return self.num_in_functions > _MOST_IN_FUNCTIONS

    def _watch_set(self, value: Any, contents: Any) -> None:
        self.snapshot.sets.append(value)
        self.snapshot.set_contents.append(contents)
        self.snapshot.set_ids.append([*map(id, value)])

    def _watch(self, container: Any, entries: Any) -> None:
        self.snapshot.containers.append(container)
        self.snapshot.container_contents.append(tuple(item for entry in entries.items() for item in entry))

    def _watch_some(self, container: Any, names: list[Any]) -> None:
        """Watch only these entries of a dictionary or class, and how many entries there are."""
        entries = container.__dict__ if isinstance(container, type) else container
        self.snapshot.containers.append((container, *names))
        self.snapshot.container_contents.append((len(entries), *(entries[name] for name in names)))


def _exact(value: Any) -> Hashable:
    """Equal for equal scalars only: 0.0 is not -0.0, and NaN is NaN."""
    return type(value), repr(value) if isinstance(value, (float, complex)) else value


def _is_large(value: Any) -> bool:
    """Whether more values lie below an object than are watched."""
    seen: set[int] = set()
    stack = [value]
    while stack and len(seen) <= LARGEST:
        item = stack.pop()
        if id(item) in seen or isinstance(item, (*_SCALARS, *_CALLED, *_NAMESPACES, Tensor, nn.Module)):
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
