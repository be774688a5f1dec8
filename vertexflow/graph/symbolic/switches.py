"""Switches of PyTorch that a vertex function may not ask for: while it is traced, the answers are not those of its calls."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...errors import VertexFunctionError
from .source_lines import is_users

_SWITCHES = (
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "are_deterministic_algorithms_enabled",
    "get_float32_matmul_precision",
    "get_num_threads",
    "get_num_interop_threads",
    "initial_seed",
)


@contextmanager
def unread() -> Iterator[list[VertexFunctionError]]:
    """Refuse questions of this thread, from the user's own code, for what is switched on around a call. Yields the refusals.

    Libraries may ask: PyTorch's modules choose by the answer which way they compute the same.
    """
    refusals: list[VertexFunctionError] = []
    thread, answers = threading.get_ident(), {name: getattr(torch, name) for name in _SWITCHES}

    def refusing(name: str, answer: Callable[[], Any]) -> Callable[[], Any]:
        @functools.wraps(answer)
        def ask() -> Any:
            if threading.get_ident() == thread and is_users(sys._getframe(1).f_code.co_filename):
                refusals.append(
                    VertexFunctionError(
                        f"the vertex function asks torch.{name}(), whose answer may change from call to call; it is traced "
                        "once, whatever is switched on around a call. Read an attribute of your own instead"
                    )
                )
                raise refusals[-1]
            return answer()

        return ask

    vars(torch).update({name: refusing(name, answer) for name, answer in answers.items()})
    try:
        yield refusals
    finally:
        vars(torch).update(answers)
