"""What models over trees share: how many children a vertex may have, and whether it has any."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..graph.symbolic.children import Gathered


def check_arity(arity: int) -> int:
    """`arity`, the number of slots for children, if it is one."""
    if not isinstance(arity, int) or arity < 1:
        raise InputError(f"arity is {arity!r}; give the largest number of children of a vertex, 1 or more")
    return arity


def is_inner(children: Sequence[Gathered]) -> Tensor:
    """Which vertices have a child, bool `[rows, 1]`.

    `children` are all that were gathered. They have a state `exists` of size 1: every vertex scatters a one, and where a
    child is missing a zero is read.
    """
    return torch.cat([child.exists for child in children], -1).sum(-1, keepdim=True) > 0
