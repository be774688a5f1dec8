"""N-ary TreeLSTM."""

from __future__ import annotations

import torch
from torch import nn

from ..function import VertexFunction
from ..graph.symbolic.vertex import Vertex
from .slots import check_arity


class NaryTreeLSTM(VertexFunction):
    """N-ary TreeLSTM (Tai, Socher and Manning 2015, arXiv 1503.00075, section 3.2).

    Of vertex j with the children 1 .. N, of whom each has a forget gate (equations 9 to 14):

        i_j  = sigmoid(W^i x_j + Σ_l U^i_l h_l + b^i)
        f_jk = sigmoid(W^f x_j + Σ_l U^f_kl h_l + b^f)        for each child k
        o_j  = sigmoid(W^o x_j + Σ_l U^o_l h_l + b^o)
        u_j  = tanh(W^u x_j + Σ_l U^u_l h_l + b^u)
        c_j  = i_j ⊙ u_j + Σ_l f_jl ⊙ c_l
        h_j  = o_j ⊙ tanh(c_j)

    A missing child has h = c = 0. Where only leaves have an input, as in constituency trees, give other vertices zeros.

    Args:
        input_size: columns of `x`.
        hidden_size: columns of h and c.
        arity: N, the largest number of children.
        backend: as of `vf.VertexFunction`.

    Input: `x`, `[num_vertices, input_size]`. Output: `h`, `[num_vertices, hidden_size]`.

    Example:
        >>> model = vf.nn.NaryTreeLSTM(8, 16)
        >>> batch = vf.pack([vf.tree(((0, 1), 2)), vf.tree((0, 1))])
        >>> model(batch, x=torch.randn(batch.num_vertices, 8)).h[batch.roots].shape
        torch.Size([2, 16])
    """

    def __init__(self, input_size: int, hidden_size: int, arity: int = 2, *, backend: str = "auto") -> None:
        super().__init__(state={"h": hidden_size, "c": hidden_size}, backend=backend)
        self.arity = check_arity(arity)
        self.w = nn.Linear(input_size, 4 * hidden_size)
        self.u = nn.Linear(arity * hidden_size, (3 + arity) * hidden_size, bias=False)

    def vertex(self, v: Vertex) -> None:
        children = [v.gather(k) for k in range(self.arity)]
        xi, xo, xu, xf = self.w(v.pull("x")).chunk(4, -1)
        i, o, u, *forget = self.u(torch.cat([child.h for child in children], -1)).chunk(3 + self.arity, -1)
        c = torch.sigmoid(xi + i) * torch.tanh(xu + u)
        for f, child in zip(forget, children, strict=True):
            c = c + torch.sigmoid(xf + f) * child.c
        h = torch.sigmoid(xo + o) * torch.tanh(c)
        v.scatter(h=h, c=c)
        v.push(h=h)
