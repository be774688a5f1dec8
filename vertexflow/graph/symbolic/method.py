"""The method that computes a vertex: its code, however it is wrapped, and what it must not be."""

from __future__ import annotations

import functools
import inspect
from types import CodeType, MethodType
from typing import Any

from torch import Tensor, nn

from ...errors import VertexFunctionError


def without_init(module: nn.Module) -> str:
    """The message for a module whose `__init__` did not call that of its base class."""
    name = type(module).__name__
    return f"{name} was not initialised; begin {name}.__init__ with super().__init__(state={{...}}), before modules are set"


def code_of(method: Any, name: str) -> CodeType:
    """The user's code that runs first in a call of the method called `name`: behind partial functions and wrappers.

    Raises:
        VertexFunctionError: the method cannot be called, or is not written in Python.
    """
    function, previous = method, None
    while function is not previous:
        previous = function
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, MethodType):
            function = function.__func__
        elif isinstance(function, nn.Module):
            function = function.forward
        elif not hasattr(function, "__code__") and callable(function) and not hasattr(function, "__wrapped__"):
            function = getattr(type(function).__call__, "__func__", type(function).__call__)
        else:
            function = inspect.unwrap(function)
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        raise VertexFunctionError(
            f"`{name}` is {method!r}, of type {type(method).__name__}; write a method in Python, `def {name}(self, v)`"
        )
    return code


def check_returned(value: object, has_published: bool) -> None:
    """Refuse a method that did not run when it was called, and one that returned what it should have published."""
    for is_instance, description in (
        (inspect.isgenerator, "a generator function (there is a `yield` in it)"),
        (inspect.iscoroutine, "a coroutine (`async def`)"),
        (inspect.isasyncgen, "an asynchronous generator (`async def` with a `yield`)"),
    ):
        if is_instance(value):
            if inspect.iscoroutine(value):
                value.close()  # else Python would warn that nobody awaited it
            raise VertexFunctionError(
                f"the method of the vertex is {description}, so that nothing of it runs when it is called; write an ordinary "
                "method, which ends with v.scatter(...) and v.push(...)"
            )
    if value is not None and not has_published:
        kind = "tensor" if isinstance(value, Tensor) else type(value).__name__
        raise VertexFunctionError(
            f"the method of the vertex returned a {kind}, which goes nowhere; publish what is computed: "
            "v.scatter(name=...) to the parents, v.push(name=...) to the caller"
        )
