"""Errors of PyTorch's operations while a program runs (an index out of range, say), with the line of the vertex function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import fx

from ..errors import LinAlgError, VertexFlowError, VertexFunctionError
from ..graph.symbolic.trace import Trace


def raise_with_line(error: Exception, function: Callable[..., Any], trace: Trace) -> NoReturn:
    """Raise an error of a part's function as one that names the line; lack of memory stays what it is."""
    if isinstance(error, (VertexFlowError, torch.OutOfMemoryError, MemoryError)):
        raise error
    node_of_line: dict[int, fx.Node] = getattr(function, "node_of_line", {})
    step, node = error.__traceback__, None
    while step is not None:
        if step.tb_frame.f_code is getattr(function, "__code__", None):
            node = node_of_line.get(step.tb_lineno)
        step = step.tb_next
    where = "" if node is None else f"\n  in the vertex function, {trace.where(node)}"
    kind = LinAlgError if isinstance(error, torch.linalg.LinAlgError) else VertexFunctionError  # type: ignore[attr-defined]
    raise kind(f"the vertex function failed: {type(error).__name__}: {error}{where}") from error
