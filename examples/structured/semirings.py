"""What "sum" means: the same vertex function then adds up over all structures, or finds the best (Goodman 1999)."""

from __future__ import annotations

from torch import Tensor

import vertexflow as vf


class LogSum:
    """Scores are log weights: what comes out is the log of the sum over all structures, its gradients are marginals."""

    def over(self, values: Tensor, dim: int | tuple[int, ...]) -> Tensor:
        """The sum over dimensions of one vertex's values."""
        return values.logsumexp(dim)

    def children(self, v: vf.Vertex, values: Tensor) -> Tensor:
        """The sum over the children of each vertex, [edges, ...] -> [rows, ...]."""
        return v.logsumexp(values)


class Max:
    """What comes out is the score of the best structure; its gradients are 1 where that structure goes through."""

    def over(self, values: Tensor, dim: int | tuple[int, ...]) -> Tensor:
        """The largest value over dimensions of one vertex's values."""
        return values.amax(dim)

    def children(self, v: vf.Vertex, values: Tensor) -> Tensor:
        """The largest value over the children of each vertex."""
        return v.max(values)


Semiring = LogSum | Max
