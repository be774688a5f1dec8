"""Recursive matrix-vector network."""

from __future__ import annotations

import torch
from torch import nn

from ..function import VertexFunction
from ..graph.symbolic.vertex import Vertex
from .slots import is_inner


class MVRNN(VertexFunction):
    """Recursive matrix-vector network over binary trees (Socher et al. 2012, "Semantic Compositionality through Recursive
    Matrix-Vector Spaces"): what a vertex means is a vector, what it does to its sibling a matrix. With (a, A) and (b, B)
    of the two children:

        h = tanh(W [B a; A b] + b_W)        M = W_M [A; B]        at an inner vertex
        h = x                               M = the matrix        at a leaf

    A missing child has a zero vector and a zero matrix. At first W_M takes the mean of both matrices.

    Args:
        hidden_size: d, the size of vectors; matrices are d x d.
        backend: as of `vf.VertexFunction`.

    Inputs: `x`, `[num_vertices, hidden_size]`, and `matrix`, `[num_vertices, hidden_size, hidden_size]` (the paper begins
    with identities and a little noise); of both only the rows of leaves matter. Outputs: `h` and `matrix`, of the same shapes.

    Example:
        >>> model = vf.nn.MVRNN(8)
        >>> batch = vf.pack([vf.tree(((0, 1), 2)), vf.tree((0, 1))])
        >>> x, matrix = torch.randn(8, 8), torch.eye(8).repeat(8, 1, 1)
        >>> model(batch, x=x, matrix=matrix).h[batch.roots].shape
        torch.Size([2, 8])
    """

    def __init__(self, hidden_size: int, *, backend: str = "auto") -> None:
        shape = (hidden_size, hidden_size)
        super().__init__(state={"h": hidden_size, "matrix": shape, "exists": 1}, backend=backend)
        self.w = nn.Linear(2 * hidden_size, hidden_size)
        self.w_matrix = nn.Parameter(torch.eye(hidden_size).repeat(1, 2) / 2)

    def vertex(self, v: Vertex) -> None:
        left, right = v.gather(0), v.gather(1)
        x, matrix = v.pull("x"), v.pull("matrix")
        inner = is_inner([left, right])
        changed = torch.cat([right.matrix @ left.h.unsqueeze(-1), left.matrix @ right.h.unsqueeze(-1)], 1).squeeze(-1)
        h = torch.where(inner, torch.tanh(self.w(changed)), x)
        joined = self.w_matrix @ torch.cat([left.matrix, right.matrix], 1)
        joined = torch.where(inner.unsqueeze(-1), joined, matrix)
        v.scatter(h=h, matrix=joined, exists=torch.ones_like(x[:, :1]))
        v.push(h=h, matrix=joined)
