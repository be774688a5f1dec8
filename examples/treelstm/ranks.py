"""Under `torchrun`: which of the processes this is, and what all of them must know alike."""

from __future__ import annotations

import gc
import os
from typing import TypeVar

import torch
from torch import distributed

Value = TypeVar("Value")


def join(device: torch.device) -> torch.device:
    """Meet the other processes, if `torchrun` has started any. Returns the device of this one: of GPUs, each has its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def leave() -> None:
    """Part from the other processes.

    What holds the process group must be gone by then: a DDP that is freed later waits for gloo's threads, and these for it.
    """
    gc.collect()
    if distributed.is_initialized():
        distributed.destroy_process_group()


def count() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def this() -> int:
    """The number of this process."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    return this() == 0


def from_first(value: Value) -> Value:
    """What the first process has in the place of `value`."""
    values = [value]
    if distributed.is_initialized():
        distributed.broadcast_object_list(values)
    return values[0]


def from_all(value: Value) -> list[Value]:
    """What each process has."""
    values = [value] * count()
    if distributed.is_initialized():
        distributed.all_gather_object(values, value)
    return values
