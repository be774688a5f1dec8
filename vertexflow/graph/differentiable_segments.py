"""The operations of `segments` out of operations that PyTorch, and `torch.func`, differentiate to any order."""

from __future__ import annotations

import torch
from torch import Tensor


def expand_rows(rows: Tensor, counts: Tensor, edges: int) -> Tensor:
    """[rows, ...] -> [edges, ...]: a vertex's row for each of its edges."""
    return rows.index_select(0, _owners(counts, edges))


def sum_edges(values: Tensor, counts: Tensor) -> Tensor:
    """[edges, ...] -> [rows, ...]: the sum over each vertex's edges; zeros where there are none."""
    zeros = torch.zeros((counts.shape[0], *values.shape[1:]), dtype=values.dtype, device=values.device)
    return zeros.index_add(0, _owners(counts, values.shape[0]), values)


def max_edges(values: Tensor, counts: Tensor) -> Tensor:
    """[edges, ...] -> [rows, ...]: the maximum over each vertex's edges; zeros where there are none.

    Those that are largest share the gradient equally: the maximum is their mean.
    """
    owners = _owners(counts, values.shape[0])
    small = values.detach()
    small = small.to(torch.uint8) if small.dtype == torch.bool else small
    zeros = torch.zeros((counts.shape[0], *values.shape[1:]), dtype=small.dtype, device=values.device)
    index = owners.view(-1, *[1] * (values.dim() - 1)).expand(values.shape)
    largest = zeros.scatter_reduce(0, index, small, "amax", include_self=False)
    if not values.is_floating_point():
        return largest.to(values.dtype)
    is_largest = small == largest.index_select(0, owners)
    shares = sum_edges(is_largest.to(values.dtype), counts).index_select(0, owners)
    return sum_edges(torch.where(is_largest, values, 0) / shares, counts)


def _owners(counts: Tensor, edges: int) -> Tensor:
    """int64 [edges]: the row of each edge."""
    return torch.arange(counts.shape[0], device=counts.device).repeat_interleave(counts, output_size=edges)
