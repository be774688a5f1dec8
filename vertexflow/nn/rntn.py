"""Recursive neural tensor network."""

from __future__ import annotations

import torch
from torch import nn

from ..function import VertexFunction
from ..graph.symbolic.vertex import Vertex
from .slots import is_inner


class RNTN(VertexFunction):
    """Recursive neural tensor network over binary trees (Socher et al. 2013, "Recursive Deep Models for Semantic
    Compositionality Over a Sentiment Treebank", section 4.3). With the children's vectors h_1 and h_2, and d their size:

        e   = [h_1; h_2]
        h_k = tanh(eᵀ V^[k] e + (W e + b)_k)    for k = 1 .. d, at an inner vertex
        h   = x                                 at a leaf

    A missing child has h = 0.

    Args:
        hidden_size: d, columns of x and h. The tensor `v` has 4 d³ elements: `[d, 2 d, 2 d]`, V^[k] being `v[k]`.
        backend: as of `vf.VertexFunction`.

    Input: `x`, `[num_vertices, hidden_size]`, of which only the rows of leaves matter. Output: `h`, of the same shape.

    Example:
        >>> model = vf.nn.RNTN(16)
        >>> batch = vf.pack([vf.tree(((0, 1), 2)), vf.tree((0, 1))])
        >>> model(batch, x=torch.randn(batch.num_vertices, 16)).h[batch.roots].shape
        torch.Size([2, 16])
    """

    def __init__(self, hidden_size: int, *, backend: str = "auto") -> None:
        super().__init__(state={"h": hidden_size, "exists": 1}, backend=backend)
        self.w = nn.Linear(2 * hidden_size, hidden_size)
        self.v = nn.Parameter(torch.empty(hidden_size, 2 * hidden_size, 2 * hidden_size))
        nn.init.uniform_(self.v, -0.5 / hidden_size, 0.5 / hidden_size)

    def vertex(self, v: Vertex) -> None:
        children = v.gather(0), v.gather(1)
        x = v.pull("x")
        e = torch.cat([child.h for child in children], -1)
        v_e = nn.functional.linear(e, self.v.flatten(0, 1)).view(-1, *self.v.shape[:2])  # V^[k] e for each k
        composed = torch.tanh((v_e @ e.unsqueeze(-1)).squeeze(-1) + self.w(e))
        h = torch.where(is_inner(children), composed, x)
        v.scatter(h=h, exists=torch.ones_like(x[:, :1]))
        v.push(h=h)
