"""What is derived from the structure of a batch when it is first needed, and kept with the batch."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .pack import GraphBatch
    from .split import BatchPart


@dataclass
class Derived:
    """Shared by a batch and what it is on other devices."""

    reversed: GraphBatch | None = None
    with_initial: GraphBatch | None = None
    # How many vertices of these kinds each graph has (without kinds: how many vertices), by kinds and device.
    graph_sizes: dict[tuple[tuple[Any, ...], torch.device], Tensor] = field(default_factory=dict)
    kind_counts: tuple[list[int], list[int]] | None = None  # the vertices of each kind, and the edges to their children
    # By the most vertices of a part, or by the graphs with which parts begin.
    parts: dict[int | tuple[int, ...], tuple[BatchPart, ...]] = field(default_factory=dict)
    user_cache: dict[Any, Any] = field(default_factory=dict)  # `batch.cache`: what users keep with the batch
    orders: dict[Hashable, Any] = field(default_factory=dict)  # schedules on devices, by how children are read
    apart: dict[Hashable, GraphBatch] = field(default_factory=dict)  # vertices whose outputs are computed apart
    num_alike: int = 1  # how many parts of one batch, all of the same structure, share these `orders`
