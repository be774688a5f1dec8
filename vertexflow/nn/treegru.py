"""N-ary TreeGRU."""

from __future__ import annotations

import torch
from torch import nn

from ..function import VertexFunction
from ..graph.symbolic.vertex import Vertex
from .slots import check_arity


class TreeGRU(VertexFunction):
    """N-ary TreeGRU.

    It is the child-sum Tree-GRU of Zhou, Liu and Pan (2016, arXiv 1610.02806), with matrices U of their own for every
    child, as the N-ary TreeLSTM has them (Tai, Socher and Manning 2015). Of vertex j with the children 1 .. N:

        z_j  = sigmoid(W^z x_j + Σ_l U^z_l h_l + b^z)
        r_jk = sigmoid(W^r x_j + Σ_l U^r_kl h_l + b^r)        for each child k
        n_j  = tanh(W^n x_j + Σ_l U^n_l (r_jl ⊙ h_l) + b^n)
        h_j  = (1 - z_j) ⊙ n_j + z_j ⊙ Σ_l h_l

    A missing child has h = 0. Over chains it is the GRU of Cho et al. (2014, arXiv 1406.1078, version 3), in which the
    reset gate works on h and not, as in `torch.nn.GRU`, on U h.

    Args:
        input_size: columns of `x`.
        hidden_size: columns of h.
        arity: N, the largest number of children.
        backend: as of `vf.VertexFunction`.

    Input: `x`, `[num_vertices, input_size]`. Output: `h`, `[num_vertices, hidden_size]`.

    Example:
        >>> model = vf.nn.TreeGRU(8, 16)
        >>> batch = vf.pack([vf.tree(((0, 1), 2)), vf.tree((0, 1))])
        >>> model(batch, x=torch.randn(batch.num_vertices, 8)).h[batch.roots].shape
        torch.Size([2, 16])
    """

    def __init__(self, input_size: int, hidden_size: int, arity: int = 2, *, backend: str = "auto") -> None:
        super().__init__(state={"h": hidden_size}, backend=backend)
        self.arity = check_arity(arity)
        self.w = nn.Linear(input_size, 3 * hidden_size)
        self.u_gates = nn.Linear(arity * hidden_size, (1 + arity) * hidden_size, bias=False)
        self.u_new = nn.Linear(arity * hidden_size, hidden_size, bias=False)

    def vertex(self, v: Vertex) -> None:
        children = [v.gather(k).h for k in range(self.arity)]
        xz, xr, xn = self.w(v.pull("x")).chunk(3, -1)
        update, *resets = self.u_gates(torch.cat(children, -1)).chunk(1 + self.arity, -1)
        reset_states = [torch.sigmoid(xr + r) * h for r, h in zip(resets, children, strict=True)]
        n = torch.tanh(xn + self.u_new(torch.cat(reset_states, -1)))
        h = n + torch.sigmoid(xz + update) * (torch.stack(children).sum(0) - n)
        v.scatter(h=h)
        v.push(h=h)
