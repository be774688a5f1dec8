"""Whether all ranks have the same model, data and settings, asked before the first step."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from ..errors import InputError
from .reduce import group_of
from .sampler import BalancedSampler

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

_MOST_SHOWN = 4
_WITHOUT_REPR = (Tensor, np.ndarray, nn.Module, Mapping)  # their repr leaves things out


def check_same(*, group: ProcessGroup | DeviceMesh | None = None, **values: Any) -> None:
    """Refuse to go on where ranks disagree, and say about what.

    Ranks that differ do not fail by themselves: with other data they train on some graphs twice and on others never, or wait for
    each other for ever; `fully_shard` puts different initial weights together. All ranks call this, once, before the first step
    (and before `fully_shard`). Without `torch.distributed` it does nothing.

    Args:
        group: the ranks that must agree; by default all.
        values: what must be the same, by any names: modules (names, shapes, dtypes and values of parameters and buffers),
            samplers (settings, where they stand, costs of the samples), arrays, mappings and lists of such things, and anything
            whose `repr` says what it is.

    Raises:
        InputError: on every rank, naming what differs and which rank has what.

    Example:
        >>> vf.parallel.check_same(model=model, sampler=sampler, options=vars(options))
    """
    chosen = group_of(group)
    if chosen is None:
        return
    ours = dict(_described("", values))
    others: list[dict[str, str]] = [{} for _ in range(distributed.get_world_size(chosen))]
    distributed.all_gather_object(others, ours, group=chosen)
    names = dict.fromkeys(name for described in others for name in described)
    differing = [name for name in names if len({described.get(name) for described in others}) > 1]
    if differing:
        first = differing[:_MOST_SHOWN]
        shown = [f"{name} is {_by_rank([described.get(name) for described in others])}" for name in first]
        more = f"; {len(differing) - len(first)} more differ" if len(differing) > len(first) else ""
        raise InputError(
            f"ranks disagree: {'; '.join(shown)}{more}. Give all of them the same code, data, seeds and checkpoints"
        )


def _described(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """What is compared of a value, by name."""
    if isinstance(value, nn.Module):
        for key, tensor in (*value.named_parameters(), *value.named_buffers()):
            yield f"{name}.{key}", _tensor(tensor)
    elif isinstance(value, BalancedSampler):
        for key, entry in {**value.state_dict(), "costs": f"checksum {value.checksum():08x}"}.items():
            yield f"{name}.{key}", str(entry)
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _described(f"{name}.{key}" if name else str(key), entry)
    elif isinstance(value, (list, tuple)) and any(isinstance(entry, _WITHOUT_REPR) for entry in value):
        for number, entry in enumerate(value):
            yield from _described(f"{name}[{number}]", entry)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield name, f"{value.dtype} {list(value.shape)}, checksum {zlib.crc32(value.tobytes()):08x}"
    elif isinstance(value, Tensor):
        yield name, _tensor(value)
    else:
        yield name, repr(value)


def _tensor(tensor: Tensor) -> str:
    shape = f"{str(tensor.dtype)[6:]} {list(tensor.shape)}"
    if hasattr(tensor, "full_tensor") or tensor.is_meta:  # each rank has a part of it, or nothing yet
        return shape
    plain = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return f"{shape}, checksum {zlib.crc32(plain.numpy().tobytes()):08x}"


def _by_rank(values: list[str | None]) -> str:
    ranks: dict[str, list[int]] = {}
    for rank, value in enumerate(values):
        ranks.setdefault("nothing" if value is None else value, []).append(rank)
    return ", ".join(
        f"{value} on rank{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
        for value, numbers in ranks.items()
    )
