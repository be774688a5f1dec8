"""Ranks that share columns or stages are called with the same graphs: a check of it, at each call."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import distributed

from ..errors import InputError
from ..graph.inputs.pack import GraphBatch
from .graph_part import GraphPart


def check_same_graphs(
    batches: Sequence[GraphBatch | GraphPart], group: distributed.ProcessGroup, device: torch.device
) -> None:
    """Refuse, on all ranks of a group, batches, or parts of graphs, that are not the same everywhere: one small message.

    Raises:
        InputError: with the numbers of vertices of each rank.
    """
    checksum = 0
    for batch in batches:
        if isinstance(batch, GraphPart):
            checksum = zlib.crc32(repr((batch.checksum, batch.rank)).encode(), checksum)
            continue
        for array in (batch.child, batch.slot, batch.offset, batch.graph_offset, batch.kind_index):
            checksum = zlib.crc32(b"" if array is None else np.ascontiguousarray(array).tobytes(), checksum)
    ours = torch.tensor([sum(batch.num_vertices for batch in batches), checksum], device=device)
    theirs = [torch.empty_like(ours) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(theirs, ours, group=group)
    numbers = torch.stack(theirs).tolist()
    if any(each != numbers[0] for each in numbers):
        vertices = ", ".join(str(each[0]) for each in numbers)
        raise InputError(
            f"ranks that share columns or stages were called with different graphs (of {vertices} vertices); all of them get the "
            'same: BalancedSampler(..., num_replicas=mesh["data"].size(), rank=mesh["data"].get_local_rank())'
        )
