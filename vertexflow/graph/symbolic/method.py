"""The method that computes a vertex: its code, in whatever form Python has it, and what it must not be."""

from __future__ import annotations

import functools
import inspect
from types import CodeType, MethodType
from typing import Any

from torch import Tensor, nn

from ...errors import VertexFunctionError


def without_init(module: nn.Module) -> str:
    """What to say of a module that was not initialised."""
    name = type(module).__name__
    return f"{name} was not initialised; begin {name}.__init__ with super().__init__(state={{...}}), before modules are set"


def code_of(method: Any, name: str) -> CodeType:
    """The code of the user's that a call of the method called `name` begins with, behind partial functions and wrappers.

    Raises:
        VertexFunctionError: it is nothing that can be called, or not written in Python.
    """
    inner, before = method, None
    while inner is not before:
        before = inner
        if isinstance(inner, functools.partial):
            inner = inner.func
        elif isinstance(inner, MethodType):
            inner = inner.__func__
        elif isinstance(inner, nn.Module):
            inner = inner.forward
        elif not hasattr(inner, "__code__") and callable(inner) and not hasattr(inner, "__wrapped__"):
            inner = getattr(type(inner).__call__, "__func__", type(inner).__call__)
        else:
            inner = inspect.unwrap(inner)
    code = getattr(inner, "__code__", None)
    if not isinstance(code, CodeType):
        raise VertexFunctionError(
            f"`{name}` is {method!r}, of type {type(method).__name__}; write a method in Python, `def {name}(self, v)`"
        )
    return code


def check_returned(value: object, has_published: bool) -> None:
    """Refuse a method that did not run when it was called, and one that returned what it should have published."""
    for is_one, what in (
        (inspect.isgenerator, "a generator function (there is a `yield` in it)"),
        (inspect.iscoroutine, "a coroutine (`async def`)"),
        (inspect.isasyncgen, "an asynchronous generator (`async def` with a `yield`)"),
    ):
        if is_one(value):
            if inspect.iscoroutine(value):
                value.close()  # else Python would warn that nobody awaited it
            raise VertexFunctionError(
                f"the method of the vertex is {what}, so that nothing of it runs when it is called; write an ordinary method, "
                "which ends with v.scatter(...) and v.push(...)"
            )
    if value is not None and not has_published:
        kind = "tensor" if isinstance(value, Tensor) else type(value).__name__
        raise VertexFunctionError(
            f"the method of the vertex returned a {kind}, which goes nowhere; publish what is computed: "
            "v.scatter(name=...) to the parents, v.push(name=...) to the caller"
        )
