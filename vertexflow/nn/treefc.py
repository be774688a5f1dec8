"""A tree of fully connected layers."""

from __future__ import annotations

import torch
from torch import nn

from ..function import VertexFunction
from ..graph.symbolic.vertex import Vertex
from .slots import check_arity, is_inner


class TreeFC(VertexFunction):
    """One fully connected layer at every inner vertex (Looks et al. 2017, arXiv 1702.02181: the benchmark of Fold, and
    later of Cavs). With the children 1 .. N:

        h = relu(W [h_1; ...; h_N] + b)        at an inner vertex
        h = x                                  at a leaf

    A missing child has h = 0.

    Args:
        hidden_size: columns of x and h.
        arity: N, the largest number of children.
        backend: as of `vf.VertexFunction`.

    Input: `x`, `[num_vertices, hidden_size]`, of which only the rows of leaves matter. Output: `h`, of the same shape.

    Example:
        >>> model = vf.nn.TreeFC(16)
        >>> batch = vf.pack([vf.tree(((0, 1), 2)), vf.tree((0, 1))])
        >>> model(batch, x=torch.randn(batch.num_vertices, 16)).h[batch.roots].shape
        torch.Size([2, 16])
    """

    def __init__(self, hidden_size: int, arity: int = 2, *, backend: str = "auto") -> None:
        super().__init__(state={"h": hidden_size, "exists": 1}, backend=backend)
        self.arity = check_arity(arity)
        self.fc = nn.Linear(arity * hidden_size, hidden_size)

    def vertex(self, v: Vertex) -> None:
        children = [v.gather(k) for k in range(self.arity)]
        x = v.pull("x")
        composed = torch.relu(self.fc(torch.cat([child.h for child in children], -1)))
        h = torch.where(is_inner(children), composed, x)
        v.scatter(h=h, exists=torch.ones_like(x[:, :1]))
        v.push(h=h)
