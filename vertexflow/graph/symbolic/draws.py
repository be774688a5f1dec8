"""Random numbers of Python and NumPy: what a vertex function draws of them would be drawn once, when it is traced."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from ...errors import VertexFunctionError

Result = TypeVar("Result")


def refused(traced: Callable[[], Result], line: str) -> Result:
    """What `traced` returns, unless it draws from the generators of `random` or `np.random`, which then stay as they were.

    Other threads may draw meanwhile: it is asked once more, and refused if it draws the same numbers from the same state.
    """
    before = _states()
    result = traced()
    after = _states()
    drawn = [name for name, state in before.items() if state != after[name]]
    if not drawn:
        return result
    _set(before)
    result = traced()
    if not any(_states()[name] == after[name] for name in drawn):
        return result
    _set(before)
    raise VertexFunctionError(
        f"the vertex function draws random numbers of {' and '.join(drawn)}, which would happen once, when it is traced, so that "
        "all calls had the same; draw them with PyTorch (torch.rand_like(h), dropout), which is done anew in each call, or pass "
        f"them as an input\n  in the vertex function, {line}"
    )


def _states() -> dict[str, bytes]:
    states = {"Python's random": random.getstate(), "np.random": np.random.get_state(legacy=False)}
    return {name: pickle.dumps(state) for name, state in states.items()}


def _set(states: dict[str, bytes]) -> None:
    random.setstate(pickle.loads(states["Python's random"]))
    np.random.set_state(pickle.loads(states["np.random"]))
