"""Python that `torch.compile` leaves alone: it calls what is marked here, and everything below it, as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])

_eval_frame = torch._C._dynamo.eval_frame
_skip = _eval_frame._FrameAction.SKIP
_set_compiled_frames = getattr(_eval_frame, "set_fullgraph_compiled_frame_count", None)  # PyTorch 2.10 counts none
_REASON = "vertexflow compiles what it computes itself; do without fullgraph=True and torch.export"


def uncompiled(function: Function) -> Function:
    """Mark a function of ours: one graph break where compiled code calls it, and none of what it does compiled.

    `torch.compiler.disable` would do the same, but it imports TorchDynamo at once, which takes seconds, and costs time a call.
    """
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    function._torchdynamo_disable_msg = _REASON  # type: ignore[attr-defined]
    _eval_frame.set_code_exec_strategy(function.__code__, _eval_frame._FrameExecStrategy(_skip, _skip))
    return function


def must_be_whole() -> bool:
    """Whether `torch.compile(..., fullgraph=True)` runs on this thread and has compiled nothing yet.

    It was then given a function that is marked here, of which it will say no more than that it "found no compiled frames".
    """
    if _set_compiled_frames is None:
        return False
    count = _set_compiled_frames(-1)  # there is no reading it without setting it
    if count >= 0:
        _set_compiled_frames(count)
    return bool(count == 0)
