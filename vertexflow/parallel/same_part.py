"""Ranks that compute parts of graphs go on together, or not at all: a check of it, at each call."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import distributed

from ..errors import InputError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from .graph_part import GraphPart

_HOW = (
    "different directions (reverse=)",
    "inputs, parameters or states of different names, dtypes, widths or gradients",
)
_OF_PARTS = ("parts of different graphs, or divisions", *_HOW)
_OF_COLUMNS = ("different parts of graphs", "parts of different graphs, or divisions", *_HOW)


@dataclass(frozen=True)
class Place:
    """Where a call is computed.

    Attributes:
        group: the ranks that have the parts of the graphs.
        columns: the ranks that are called with the same part, as they share columns; None: this one alone.
        device: of the tensors of this rank.
    """

    group: ProcessGroup
    columns: ProcessGroup | None
    device: torch.device


def agree(part: GraphPart, reverse: bool, place: Place, failure: Exception | None, how: str) -> None:
    """Go on only if all ranks can, and were called with parts of one division, in the same way: one small message, and one
    more among ranks of columns. So all of a mesh of both go on or none: a rank whose neighbour refused tells those of its column.

    Args:
        failure: why this rank cannot go on.
        how: what ranks must have in common beside the division.

    Raises:
        `failure`, or InputError.
    """
    row = [part.checksum, int(reverse), zlib.crc32(how.encode())]
    failure = _difference(row, _OF_PARTS, place.group, place, failure)
    if place.columns is not None:
        failure = _difference([part.rank, *row], _OF_COLUMNS, place.columns, place, failure)
    if failure is not None:
        raise failure


def _difference(
    row: Sequence[int], what: Sequence[str], group: ProcessGroup, place: Place, failure: Exception | None
) -> Exception | None:
    """Why the ranks of a group do not go on; None if they do."""
    ours = torch.tensor([int(failure is None), *row], device=place.device)
    theirs = [torch.empty_like(ours) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(theirs, ours, group=group)
    rows = torch.stack(theirs).tolist()
    if failure is not None:
        return failure
    ranks = distributed.get_process_group_ranks(group)
    refused = [rank for rank, each in zip(ranks, rows, strict=True) if not each[0]]
    if refused:
        return InputError(f"rank {refused[0]} refused the call; its message says why")
    for column, difference in enumerate(what, 1):
        other = next((rank for rank, each in zip(ranks, rows, strict=True) if each[column] != rows[0][column]), None)
        if other is not None:
            return InputError(
                f"ranks {ranks[0]} and {other} were called with {difference}; all call the model in the same way"
            )
    return None
