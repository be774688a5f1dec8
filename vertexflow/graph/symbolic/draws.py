"""Random numbers that a vertex function cannot have: Python's and NumPy's, which would be drawn once, when it is traced; and
PyTorch's without rows, where a batch is computed in parts."""

from __future__ import annotations

import functools
import pickle
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ...errors import VertexFunctionError
from .nodes import random_without_rows

if TYPE_CHECKING:
    from .trace import Trace

Result = TypeVar("Result")
_PYTHON, _NUMPY = "Python's random", "np.random"


def refused(traced: Callable[[], Result], line: str) -> Result:
    """What `traced` returns, unless it draws from the generators of `random` or `np.random`, or seeds them.

    Where one of them has moved, it may be that other threads have drawn: it is traced again, and what this thread calls is noted.
    """
    before, others = _states(), threading.active_count() - 1
    result = traced()
    after = _states()
    moved = [name for name, state in before.items() if state != after[name]]
    if moved and (others or threading.active_count() > 1):
        moved = []
        with _noting_python(moved), _noting_numpy(moved):
            result = traced()
    if moved:
        raise VertexFunctionError(
            f"the vertex function draws random numbers of {' and '.join(moved)}, or seeds it, which would happen once, when it "
            "is traced, so that all calls had the same; draw them with PyTorch (torch.rand_like(h), dropout), which is done anew "
            f"in each call, or pass them as an input\n  in the vertex function, {line}"
        )
    return result


def refuse_shared_noise(traces: Iterable[Trace]) -> None:
    """Refuse noise that all vertices of a call share, for a batch in several parts.

    Raises:
        VertexFunctionError: such noise is drawn; the message names the line.
    """
    for trace in traces:
        random = random_without_rows(trace.graph)
        if random:
            of_user = [node for node in trace.graph.nodes if node in random and "line" in node.meta]
            raise VertexFunctionError(
                "the vertex function draws random numbers without rows, which all vertices of a call share, but the parts of a "
                "batch (max_vertices) would each draw their own; draw a row for each vertex (torch.rand_like(h), dropout of a "
                f"state), or let max_vertices be None\n  in the vertex function, {trace.where((of_user or [*random])[0])}"
            )


def _states() -> dict[str, bytes]:
    states = {_PYTHON: random.getstate(), _NUMPY: np.random.get_state(legacy=False)}
    return {name: pickle.dumps(state) for name, state in states.items()}


@contextmanager
def _noting_python(moved: list[str]) -> Iterator[None]:
    """Add Python's generator to `moved` if this thread calls it."""
    generator = random._inst

    def note(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            owner = getattr(function, "__self__", None)
        elif event == "call" and frame.f_code.co_filename == random.__file__:  # `gauss` keeps every second number
            owner = frame.f_locals.get("self")
        else:
            return
        if owner is generator and _PYTHON not in moved:
            moved.append(_PYTHON)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


@contextmanager
def _noting_numpy(moved: list[str]) -> Iterator[None]:
    """Add NumPy's to `moved` if this thread calls it as `np.random.name(...)`; no profile of Python's sees that."""
    thread, generator = threading.get_ident(), getattr(np.random.rand, "__self__")  # noqa: B009
    functions = {name: each for name, each in vars(np.random).items() if getattr(each, "__self__", None) is generator}

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == thread and _NUMPY not in moved:
                moved.append(_NUMPY)
            return function(*args, **kwargs)

        return call

    vars(np.random).update({name: noting(each) for name, each in functions.items() if name != "get_state"})
    try:
        yield
    finally:
        vars(np.random).update(functions)
