"""What functions may read that nobody passes to them, as their code tells: variables around them, and attributes by name."""

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
_OF_MAKING = {"__init__", "__new__", "__init_subclass__", "__class_getitem__", "__set_name__"}
_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME"}


@dataclass(frozen=True)
class Reads:
    """The names of global variables that code reads, and all names that could be those of attributes."""

    variables: frozenset[str]
    names: frozenset[str]


@functools.lru_cache(maxsize=4096)
def reads(code: types.CodeType) -> Reads:
    """What a function's code reads, and that of the functions and comprehensions written in it."""
    variables = {str(step.argval) for step in dis.get_instructions(code) if step.opname in _GLOBALS}
    names = {*code.co_names, *_words(code.co_consts)}  # a string may be the name in `getattr(self, "scale")`
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            variables |= reads(inner).variables
            names |= reads(inner).names
    return Reads(frozenset(variables), frozenset(names))


def _words(constants: tuple[Any, ...]) -> Iterator[str]:
    for constant in constants:
        if isinstance(constant, str) and constant.isidentifier():
            yield constant
        elif isinstance(constant, tuple):
            yield from _words(constant)


def can_be_read(code: types.CodeType) -> bool:
    """Whether it is code of the user's; what libraries read of their own is not looked at."""
    return code.co_filename == "<string>" or is_users(code.co_filename)


def is_users_module(name: object) -> bool:
    """Whether a module of this name is none of a library."""
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
    """Whether code runs a method without its name: `table[key]`, `with`, a call."""
    return name[:2] == name[-2:] == "__" and name not in _OF_MAKING


def slots(cls: type) -> list[str]:
    """The attributes that objects of a Python class have without a dictionary."""
    parts = [part for part in cls.__mro__ if part.__flags__ & _MADE_IN_PYTHON]
    given = [(part, vars(part).get("__slots__", ())) for part in parts]
    names = [(part, name) for part, some in given for name in ((some,) if isinstance(some, str) else some)]
    private = [(part, name) for part, name in names if name[:2] == "__" and name[-2:] != "__"]
    hidden = [f"_{part.__name__.lstrip('_')}{name}" for part, name in private]  # as Python calls them from outside
    return [name for _, name in names if name[:2] != "__"] + hidden
