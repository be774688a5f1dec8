"""New groups of processes, made by their own ranks alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from torch import distributed

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def own_group(ranks: Sequence[int], through: Sequence[Any], timeout: timedelta | None = None) -> ProcessGroup:
    """A new group of these ranks, all of which call this; others need not.

    PyTorch derives the name under which ranks find each other from the number of groups that each has. Ranks of which some were
    in more groups before would wait for each other under different names, without end; those with fewer get groups of themselves
    alone first.

    Args:
        through: existing groups by which, one after the other, a number reaches all of the ranks: one that has them all, or one
            for each dimension of their mesh.
    """
    most = _num_groups()
    for group in through:
        counts: list[int] = [0] * distributed.get_world_size(group)
        distributed.all_gather_object(counts, most, group=group)
        most = max(counts)
    while _num_groups() < most:
        distributed.new_group([distributed.get_rank()], backend="gloo", use_local_synchronization=True)
    return distributed.new_group(list(ranks), timeout=timeout, use_local_synchronization=True)  # type: ignore[no-any-return]


def _num_groups() -> int:
    return len(distributed.distributed_c10d._world.pg_names)
