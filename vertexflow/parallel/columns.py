"""Columns over ranks: which of them a rank has, and how the columns of all ranks are put together again.

A dimension of `outer * size * inner` entries is read as [outer, size, inner], and `size` is divided: the gates of a cell that lie
side by side (`outer` of them) are all cut at the same columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Columns:
    """How a dimension of a tensor is divided over ranks, who have equal parts of `size`."""

    dim: int
    outer: int
    size: int
    inner: int

    @property
    def extent(self) -> int:
        """The entries of the whole dimension."""
        return self.outer * self.size * self.inner

    @property
    def block(self) -> int:
        """The entries of a gate."""
        return self.size * self.inner

    def along(self, dim: int, outer: int | None = None) -> Columns:
        """The same columns along another dimension, perhaps of another number of gates."""
        return Columns(dim, self.outer if outer is None else outer, self.size, self.inner)


def own(value: Tensor, columns: Columns, rank: int, ranks: int) -> Tensor:
    """The columns of a rank, of a whole tensor."""
    dim, shape = columns.dim, value.shape
    parts = value.reshape(*shape[:dim], columns.outer, ranks, columns.block // ranks, *shape[dim + 1 :])
    return parts.select(dim + 1, rank).flatten(dim, dim + 1)


def joined(pieces: Sequence[Tensor], columns: Columns) -> Tensor:
    """The whole tensor, of the columns of all ranks."""
    dim, shape = columns.dim, pieces[0].shape
    sizes = (*shape[:dim], columns.outer, columns.block // len(pieces), *shape[dim + 1 :])
    return torch.stack([piece.reshape(sizes) for piece in pieces], dim + 1).flatten(dim, dim + 2)
