"""What a function may read beside its arguments, as its code tells: variables around it, and attributes by name."""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..source_lines import is_users

_MADE_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_RUN_WITHOUT_INSTANCE = {"__init__", "__new__", "__init_subclass__", "__class_getitem__", "__set_name__"}
_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME"}


@dataclass(frozen=True)
class NamesRead:
    """The names of global variables that code reads, and all names in it that could be names of attributes."""

    variables: frozenset[str]
    names: frozenset[str]


@functools.lru_cache(maxsize=4096)
def reads(code: types.CodeType) -> NamesRead:
    """What a function's code reads, and that of the functions and comprehensions written in it."""
    variables = {str(step.argval) for step in dis.get_instructions(code) if step.opname in _GLOBALS}
    names = {*code.co_names, *_words(code.co_consts)}  # a string may be the name in `getattr(self, "scale")`
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            variables |= reads(inner).variables
            names |= reads(inner).names
    return NamesRead(frozenset(variables), frozenset(names))


def _words(constants: tuple[Any, ...]) -> Iterator[str]:
    for constant in constants:
        if isinstance(constant, str) and constant.isidentifier():
            yield constant
        elif isinstance(constant, tuple):
            yield from _words(constant)


def can_be_read(code: types.CodeType) -> bool:
    """Whether code is the user's own; what libraries read is not watched."""
    return code.co_filename == "<string>" or is_users(code.co_filename)


def is_users_module(name: object) -> bool:
    """Whether the Python module of this name is the user's own, not a library's."""
    module = sys.modules.get(name) if isinstance(name, str) else None
    filename = getattr(module, "__file__", None)
    if filename is None:
        return name == "__main__"
    return is_users(filename)


def function_in(attribute: Any) -> types.FunctionType | None:
    """The function that an entry of a class runs: a method, a property."""
    if isinstance(attribute, (staticmethod, classmethod)):
        attribute = attribute.__func__
    elif isinstance(attribute, property):
        attribute = attribute.fget
    elif isinstance(attribute, functools.cached_property):
        attribute = attribute.func
    return attribute if isinstance(attribute, types.FunctionType) else None


def is_operator(name: str) -> bool:
    """Whether Python runs a method of this name where code does not name it: `table[key]`, `with`, a call."""
    return name[:2] == name[-2:] == "__" and name not in _RUN_WITHOUT_INSTANCE


def slots(cls: type) -> list[str]:
    """The attributes that objects of a Python class have without a dictionary."""
    names: list[tuple[type, str]] = []
    for base in cls.__mro__:
        if base.__flags__ & _MADE_IN_PYTHON:
            declared = vars(base).get("__slots__", ())
            names += [(base, name) for name in ((declared,) if isinstance(declared, str) else declared)]
    private = [(base, name) for base, name in names if name[:2] == "__" and name[-2:] != "__"]
    hidden = [f"_{base.__name__.lstrip('_')}{name}" for base, name in private]  # as Python calls them from outside
    return [name for _, name in names if name[:2] != "__"] + hidden
