"""Record what a function does to tensors without numbers, as a graph of aten operations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from torch import fx
from torch.fx.experimental import proxy_tensor


class _OfThread(threading.local):
    is_recording = False


_of_thread = _OfThread()


def record(
    function: Callable[..., Any], *examples: Any, decompositions: Mapping[Any, Any] | None = None
) -> fx.GraphModule:
    """What `function` does with `examples`, which are fake tensors. Every node has its value in `meta["val"]`.

    Operations are taken apart by `decompositions`, by default none: with PyTorch's own table, `detach` becomes `alias` from
    PyTorch 2.14 on, and gradients of gradients would pass it.
    """
    _leave_out_descriptions()
    was_recording, _of_thread.is_recording = _of_thread.is_recording, True
    try:
        return proxy_tensor.make_fx(function, decomposition_table=decompositions or {})(*examples)
    finally:
        _of_thread.is_recording = was_recording


@cache
def _leave_out_descriptions() -> None:
    """Let PyTorch not describe values in `meta["tensor_meta"]` while this package records, in this thread.

    `meta["val"]` says the same; asking symbolic sizes for the memory format of each value takes a fifth of a trace.
    """
    module: Any = proxy_tensor
    describe = getattr(module, "_extract_tensor_metadata", None)
    if describe is not None:
        module._extract_tensor_metadata = lambda *args: None if _of_thread.is_recording else describe(*args)
