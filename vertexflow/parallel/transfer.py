"""Tensors of any shape from one rank to another: a header of fixed size that says what comes, and the numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

from ..errors import InputError

_DTYPES = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
)  # fmt: skip
_MOST_DIMS = 12
_HEADER = 3 + _MOST_DIMS


class Sender:
    """Sends without waiting, and keeps what is on its way; ranks are numbered in their group."""

    def __init__(self, group: distributed.ProcessGroup, device: torch.device) -> None:
        self.group, self.device = group, device
        self._under_way: list[tuple[Any, Tensor]] = []

    def send(self, value: Tensor, target: int) -> None:
        """Send a tensor, as it is now."""
        if value.dtype not in _DTYPES or value.dim() > _MOST_DIMS:
            raise InputError(f"a tensor of {value.dtype} and {value.dim()} dimensions cannot be sent to another stage")
        shape = [*value.shape, *[0] * (_MOST_DIMS - value.dim())]
        header = [_DTYPES.index(value.dtype), int(value.requires_grad), value.dim(), *shape]
        rank = distributed.get_global_rank(self.group, target)
        copy = value.detach().clone(memory_format=torch.contiguous_format)  # which nobody changes meanwhile
        for message in (torch.tensor(header, device=self.device), copy):
            if message.numel():
                self._under_way.append((distributed.isend(message, rank, self.group), message))

    def refuse(self, target: int) -> None:
        """Tell a rank that waits for a tensor that there is none."""
        header = torch.full((_HEADER,), -1, dtype=torch.int64, device=self.device)
        distributed.send(header, distributed.get_global_rank(self.group, target), self.group)

    def finish(self) -> None:
        """Wait until all has arrived."""
        for work, _ in self._under_way:
            work.wait()
        self._under_way.clear()


def receive(source: int, group: distributed.ProcessGroup, device: torch.device) -> Tensor:
    """The next tensor from a rank; it requires grad if it did there."""
    rank = distributed.get_global_rank(group, source)
    header = torch.empty(_HEADER, dtype=torch.int64, device=device)
    distributed.recv(header, rank, group)
    dtype, requires_grad, dims, *shape = header.tolist()
    if dtype < 0:
        raise no_tensor(source, distributed.get_rank(group))
    value = torch.empty(shape[:dims], dtype=_DTYPES[dtype], device=device)
    if value.numel():
        distributed.recv(value, rank, group)
    return value.requires_grad_(bool(requires_grad))


def no_tensor(source: int, target: int) -> InputError:
    """The refusal of anything else than a tensor."""
    return InputError(
        f"a value of stage {source} is read in stage {target} and is no tensor; tensors go from stage to stage: pass the "
        "entries of a mapping, such as out.h"
    )
