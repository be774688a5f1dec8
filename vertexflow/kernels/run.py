"""The data of one group of rows in one run of a program over a batch: what loops are bound to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from .edges import ChildRows, EdgeRows, Exchange
from .memory.layout import Values
from .order import RowGroup


@dataclass
class Run:
    """The values of a group; in the forward pass the states of all groups, in the backward pass the gradients between them."""

    group: RowGroup
    values: Values
    states: Mapping[str, Tensor] = field(default_factory=dict)
    exchange: Exchange = field(default_factory=Exchange)
    # The gradients of each state that this group sends to children: through slots, or over edges.
    sent: dict[str, EdgeRows] = field(default_factory=dict)
    sent_by_edge: dict[str, ChildRows] = field(default_factory=dict)

    @cached_property
    def seed(self) -> int:
        """The seed of the random numbers of all loops, drawn when it is first used, on the host, by PyTorch's generator."""
        return int(torch.randint(2**62, ()))
