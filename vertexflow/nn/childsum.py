"""Child-sum TreeLSTM."""

from __future__ import annotations

import torch
from torch import nn

from ..function import VertexFunction
from ..graph.symbolic.vertex import Vertex


class ChildSumTreeLSTM(VertexFunction):
    """Child-sum TreeLSTM (Tai, Socher and Manning 2015, arXiv 1503.00075, section 3.1).

    Of vertex j with the children C(j), any number of them in no order (equations 2 to 8):

        s_j  = Σ_k h_k
        i_j  = sigmoid(W^i x_j + U^i s_j + b^i)
        f_jk = sigmoid(W^f x_j + U^f h_k + b^f)               for each child k
        o_j  = sigmoid(W^o x_j + U^o s_j + b^o)
        u_j  = tanh(W^u x_j + U^u s_j + b^u)
        c_j  = i_j ⊙ u_j + Σ_k f_jk ⊙ c_k
        h_j  = o_j ⊙ tanh(c_j)

    As in dependency trees, where each word is a vertex; it works on DAGs as well.

    Args:
        input_size: columns of `x`.
        hidden_size: columns of h and c.
        backend: as of `vf.VertexFunction`.

    Input: `x`, `[num_vertices, input_size]`. Output: `h`, `[num_vertices, hidden_size]`.

    Example:
        >>> model = vf.nn.ChildSumTreeLSTM(8, 16)
        >>> batch = vf.pack([vf.tree_from_parents([1, -1, 1, 1]), vf.tree_from_parents([1, -1])])
        >>> model(batch, x=torch.randn(batch.num_vertices, 8)).h[batch.roots].shape
        torch.Size([2, 16])
    """

    def __init__(self, input_size: int, hidden_size: int, *, backend: str = "auto") -> None:
        super().__init__(state={"h": hidden_size, "c": hidden_size}, backend=backend)
        self.w = nn.Linear(input_size, 4 * hidden_size)
        self.u = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.uf = nn.Linear(hidden_size, hidden_size, bias=False)

    def vertex(self, v: Vertex) -> None:
        kids = v.children
        xi, xo, xu, xf = self.w(v.pull("x")).chunk(4, -1)
        i, o, u = self.u(v.sum(kids.h)).chunk(3, -1)
        forget = torch.sigmoid(kids.expand(xf) + self.uf(kids.h))
        c = torch.sigmoid(xi + i) * torch.tanh(xu + u) + v.sum(forget * kids.c)
        h = torch.sigmoid(xo + o) * torch.tanh(c)
        v.scatter(h=h, c=c)
        v.push(h=h)
