"""From the user's method to a checked, simplified joint graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from .rows import check_rows
from .simplify import simplify
from .trace import Trace, trace
from .vertex import Shape, Vertex


def prepare(
    module: nn.Module,
    method: Callable[[Vertex], None],
    state: Mapping[str, Shape],
    state_dtype: torch.dtype,
    inputs: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    device: torch.device,
) -> Trace:
    """Trace `method` once, simplify the graph, and refuse it if it mixes rows.

    `inputs` are the first call's; `tensors` are the module's parameters and buffers by qualified name.
    """
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):  # tracing leaves the user's random numbers as they were
        found = trace(module, method, state, state_dtype, inputs, device)
        simplify(found)
        check_rows(found, inputs, tensors)
    return found
