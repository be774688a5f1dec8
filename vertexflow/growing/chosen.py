"""Vertices of a run that a user names, to read what they pushed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import _core
from ..errors import InputError, InputTypeError
from ..kernels.order import Wide
from .growth import is_on_device


class Chosen(NamedTuple):
    """Numbers of vertices, or their rows, int64, on the device of their run, and in memory as well, unless they were given on
    that device, for which nothing waits."""

    on_device: Tensor
    on_host: Wide | None


def chosen_of(vertices: Any, count: int, device: torch.device) -> Chosen:
    """The vertices that a user names, of so many.

    Raises:
        InputError: there is no such vertex; a mask of another shape.
        InputTypeError: they are no numbers or booleans.
    """
    if isinstance(vertices, slice):
        on_host = np.arange(*vertices.indices(count))
        return Chosen(torch.from_numpy(on_host).to(device, non_blocking=True), on_host)
    try:
        index = torch.as_tensor(vertices)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputTypeError(
            f"vertices are numbers, or one boolean a vertex, not {vertices!r}; read what they pushed as run[vertices].name"
        ) from error
    if index.dtype == torch.bool:
        if index.shape != (count,):
            raise InputError(f"a mask of shape {tuple(index.shape)} for {count} vertices; give one boolean a vertex")
        index = index.nonzero().squeeze(1)
    if (index.is_floating_point() or index.is_complex()) and index.numel():
        raise InputTypeError(f"vertices are integers, not {index.dtype}")
    index = index.detach().long()
    if is_on_device(index, device):
        return Chosen(torch.where(index < 0, index + count, index), None)
    numbers = index.cpu().numpy()
    first, last = _core.bounds_of(numbers)
    if not -count <= first <= last + 1 <= count:
        raise InputError(f"vertices {first} to {last} were asked for; there are 0 to {count - 1}")
    on_host = np.where(numbers < 0, numbers + count, numbers)  # a copy: they may change before the backward pass
    return Chosen(torch.from_numpy(on_host).to(device, non_blocking=True), on_host)
