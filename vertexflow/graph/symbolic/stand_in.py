"""A copy of a module to be traced in its place, with other tensors as parameters and containers of its own.

While one thread traces the copy, others may use the module, and whatever the trace does, the module stays as it was.
"""

from __future__ import annotations

import functools
import sys
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import VertexFunctionError
from .watch.look import take_snapshot
from .watch.parameters import attributes_of, dress

_LARGEST = 1000  # entries; a larger container is shared, not copied: it is a vocabulary, not a list of layers


def stand_in(module: nn.Module, tensors: Mapping[int, Tensor]) -> nn.Module:
    """A copy of `module` and its submodules; `tensors` has the tensor that replaces each parameter and buffer, by its `id`.

    Lists, dictionaries and the like are copied as well; other objects, hooks and functions among them, are shared.
    """
    copier = _Copier(tensors)
    for tensor in (*module.parameters(), *module.buffers()):
        dress(tensors[id(tensor)], tensor, copier.named(vars(tensor)))
    copy: nn.Module = copier.copy(module)
    return copy


@contextmanager
def unchanged(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """Refuse and undo changes of the module and of the objects that it shares with others. Yields a list, which in the end
    holds the names of the parameters and buffers, `tensors`, that were written to.

    Raises:
        VertexFunctionError: an attribute was set, a submodule exchanged, a list appended to.
    """
    # Not inside functions: other tools' hooks may write there, such as those that count operations.
    before = take_snapshot(module, inside_functions=False)
    places = [(part, key, value) for part in module.modules() for key, value in _tensors_in(part)]
    attributes = {name: attributes_of(tensor) for name, tensor in tensors.items()}
    versions = {name: tensor._version for name, tensor in tensors.items()}
    written: list[str] = []
    try:
        yield written
        changed = before.changes(take_snapshot(module, inside_functions=False))
        changed += [f"{name}.{key}" for name, old in attributes.items() for key in _set_on(tensors[name], old)]
        changed += [key for part, key, value in places if dict(_tensors_in(part)).get(key) is not value]
        if changed:
            raise VertexFunctionError(
                f"the vertex function sets {', '.join(map(repr, changed[:3]))} on the module while it runs, which would happen "
                "once, when it is traced; a vertex may only read: pass what changes as an input, or push what you want to keep"
            )
        written += [name for name, tensor in tensors.items() if tensor._version != versions[name]]
    finally:
        before.restore()


def _tensors_in(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The parameters and buffers of a module itself, not those of its submodules."""
    tensors = {**module._parameters, **module._buffers}
    return [(key, value) for key, value in tensors.items() if value is not None]


def _set_on(tensor: Tensor, before: Mapping[str, Any]) -> list[str]:
    """The names of a tensor's attributes that changed."""
    after, missing = attributes_of(tensor), object()
    return [name for name in {**before, **after} if after.get(name, missing) is not before.get(name, missing)]


class _Copier:
    def __init__(self, tensors: Mapping[int, Tensor]) -> None:
        self.tensors = tensors
        self.copies: dict[int, Any] = {}

    def copy(self, value: Any) -> Any:
        """The copy of a value: each time the same copy."""
        if id(value) in self.copies:
            return self.copies[id(value)]
        if isinstance(value, Tensor):
            return self.tensors.get(id(value), value)
        if isinstance(value, nn.Module):
            return self._module(value)
        if isinstance(value, types.MethodType) and isinstance(value.__self__, nn.Module):
            return types.MethodType(value.__func__, self.copy(value.__self__))
        if isinstance(value, weakref.ref):
            target = value()
            return weakref.ref(self.tensors[id(target)]) if id(target) in self.tensors else value
        if isinstance(value, functools.partial):
            return functools.partial(self.copy(value.func), *map(self.copy, value.args), **self.named(value.keywords))
        if isinstance(value, (dict, list, tuple, set, deque)) and len(value) <= _LARGEST:
            return self._container(value)
        return value

    def _module(self, module: nn.Module) -> nn.Module:
        if isinstance(module, torch.jit.ScriptModule):
            return module  # has no attributes of Python
        if "torch._dynamo" in sys.modules and isinstance(module, torch._dynamo.OptimizedModule):
            return self.copy(module._orig_mod)  # type: ignore[no-any-return]  # what `torch.compile` wraps
        # Not by its own `__new__`: that of FSDP2 makes a module of the class before it was sharded.
        copy: nn.Module = object.__new__(type(module))
        self.copies[id(module)] = copy
        copy.__dict__.update(self.named(module.__dict__))
        copy.__dict__.pop("_compiled_call_impl", None)  # of `module.compile()`, which would call the module itself
        return copy

    def named(self, entries: Mapping[Any, Any]) -> dict[Any, Any]:
        return {self.copy(name): self.copy(entry) for name, entry in entries.items()}

    def _container(self, value: Any) -> Any:
        if type(value) in (dict, OrderedDict):
            copy = self.copies[id(value)] = type(value)()
            copy.update(self.named(value))
        elif type(value) is defaultdict:
            copy = self.copies[id(value)] = defaultdict(value.default_factory)
            copy.update(self.named(value))
        elif type(value) is list:
            copy = self.copies[id(value)] = []
            copy.extend(map(self.copy, value))
        elif type(value) is deque:
            copy = self.copies[id(value)] = deque(maxlen=value.maxlen)
            copy.extend(map(self.copy, value))
        elif type(value) in (tuple, set):
            copy = type(value)(map(self.copy, value))
        elif isinstance(value, tuple) and hasattr(value, "_make"):
            copy = value._make(map(self.copy, value))
        else:
            copy = value  # of a class that we do not know how to construct
        return copy
