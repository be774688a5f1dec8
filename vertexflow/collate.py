"""`vf.collate`: samples of a dataset as one batch, packed and scheduled where a DataLoader's workers run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import InputError, InputTypeError
from .graph.build import InputGraph
from .graph.pack import GraphBatch, pack
from .scheduler import Policy, cached_schedule


def collate(samples: Iterable[Any], *, policy: str | Policy | None = "depth", num_slots: int | None = None) -> Any:
    """`vf.pack` for samples with more than a graph: the `collate_fn` of a `torch.utils.data.DataLoader`.

    Samples are input graphs, or tuples, lists or dicts of them and other values, all of one form. Graphs are packed;
    tensors and arrays are concatenated along their first dimension (one row a vertex, as a model's inputs); numbers and
    tensors without dimensions are stacked (one a graph); anything else is kept in a list. What holds numbers becomes a
    tensor; arrays of strings or objects stay arrays.

    In a worker process all of this, the schedule too, is off the path of the training step. The batch can be pinned and
    moved (`DataLoader(..., pin_memory=True)`, `batch.to(device, non_blocking=True)`): its index tensors travel as one.

    Args:
        samples: what the dataset gave.
        policy: how batches are scheduled (`vf.schedule`); None: the model does it at its call.
        num_slots: how many slots the vertex function gathers; by default as many as the batch uses. A model that gathers
            more makes a schedule of its own.

    Raises:
        InputError: no samples, or samples that do not fit together; the message names the field.
        InputTypeError: samples of different forms.
        GraphError: as in `vf.pack` and `vf.schedule`.

    Example:
        >>> loader = DataLoader([(graph, tokens, label), ...], batch_size=64, collate_fn=vf.collate)
        >>> for batch, tokens, labels in loader: ...
        >>> collate = functools.partial(vf.collate, policy=model.policy, num_slots=2)  # with settings
    """
    samples = list(samples)
    if not samples:
        raise InputError("vf.collate got no samples")

    def pack_graphs(graphs: list[InputGraph]) -> GraphBatch:
        batch = pack(graphs)
        return batch if policy is None else batch.with_schedule(cached_schedule(batch, policy, num_slots))

    return _collate(samples, "sample", pack_graphs)


def _collate(items: list[Any], where: str, pack_graphs: Callable[[list[InputGraph]], GraphBatch]) -> Any:
    first = items[0]
    for index, item in enumerate(items):
        if type(item) is not type(first) and not (_is_number(item) and _is_number(first)):
            raise InputTypeError(
                f"{where}: {type(item).__name__} in sample {index}, but {type(first).__name__} in the first; "
                "all samples must have one form"
            )
    if isinstance(first, InputGraph):
        return pack_graphs(items)
    if isinstance(first, Mapping):
        for index, item in enumerate(items):
            if item.keys() != first.keys():
                raise InputError(f"{where}: sample {index} has the keys {list(item)}, the first {list(first)}")
        return {key: _collate([item[key] for item in items], f"{where}[{key!r}]", pack_graphs) for key in first}
    if isinstance(first, (tuple, list)):
        for index, item in enumerate(items):
            if len(item) != len(first):
                raise InputError(f"{where}: sample {index} has {len(item)} fields, the first {len(first)}")
        fields = [_collate([item[at] for item in items], f"{where}[{at}]", pack_graphs) for at in range(len(first))]
        return type(first)(*fields) if hasattr(first, "_fields") else type(first)(fields)
    if isinstance(first, (Tensor, np.ndarray)):
        try:
            return _join(items)
        except (RuntimeError, ValueError) as error:
            shapes = ", ".join(str(tuple(item.shape)) for item in items[:4])
            more = ", ..." if len(items) > 4 else ""
            raise InputError(f"{where}: the shapes {shapes}{more} cannot be joined: {error}") from error
    if not _is_number(first):
        return items
    try:
        return torch.tensor(items)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: the numbers cannot be joined: {error}") from error


def _join(items: list[Any]) -> Any:
    if isinstance(items[0], Tensor):
        return torch.stack(items) if items[0].dim() == 0 else torch.cat(items)
    joined = np.stack(items) if items[0].ndim == 0 else np.concatenate(items)
    return torch.from_numpy(joined) if joined.dtype.kind in "biufc" else joined


def _is_number(item: object) -> bool:
    return isinstance(item, (int, float, np.number, np.bool_))
