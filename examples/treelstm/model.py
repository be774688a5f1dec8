"""The two models: a binary TreeLSTM, and a bag of leaves that does not see the tree. Both are vertex functions."""

from __future__ import annotations

import torch
from torch import nn

import vertexflow as vf


class TreeLSTM(vf.VertexFunction):
    """Binary TreeLSTM (Tai, Socher, Manning 2015, section 3.2) with a class for every vertex.

    Pulls `token`, int64 [V], 0 where a vertex has no token; pushes `logits`, [V, num_classes].
    """

    def __init__(self, vocabulary: int, embed: int, hidden: int, num_classes: int, dropout: float) -> None:
        super().__init__(state={"h": hidden, "c": hidden})
        self.embed = nn.Embedding(vocabulary, embed, padding_idx=0)
        self.w = nn.Linear(embed, 3 * hidden)
        self.u = nn.Linear(2 * hidden, 5 * hidden, bias=False)
        self.out = nn.Linear(hidden, num_classes)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embed.weight, std=0.1)

    def vertex(self, v: vf.Vertex) -> None:
        left, right = v.gather(0), v.gather(1)
        x = self.w(self.dropout(self.embed(v.pull("token"))))
        i, o, u, fl, fr = self.u(torch.cat([left.h, right.h], -1)).chunk(5, -1)
        xi, xo, xu = x.chunk(3, -1)
        # A forget gate starts open (+ 1), so that deep trees have gradients from the beginning.
        kept = torch.sigmoid(fl + 1) * left.c + torch.sigmoid(fr + 1) * right.c
        c = torch.sigmoid(i + xi) * torch.tanh(u + xu) + kept
        h = torch.sigmoid(o + xo) * torch.tanh(c)
        v.scatter(h=h, c=c)
        v.push(logits=self.out(self.dropout(h)))


class BagOfLeaves(vf.VertexFunction):
    """The baseline: the mean of the embeddings of all leaves below a vertex, and a perceptron with one hidden layer."""

    def __init__(self, vocabulary: int, embed: int, hidden: int, num_classes: int, dropout: float) -> None:
        super().__init__(state={"total": embed, "count": 1})
        self.embed = nn.Embedding(vocabulary, embed, padding_idx=0)
        self.mlp = nn.Sequential(
            nn.Linear(embed, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, num_classes)
        )
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embed.weight, std=0.1)

    def vertex(self, v: vf.Vertex) -> None:
        left, right, token = v.gather(0), v.gather(1), v.pull("token")
        total = left.total + right.total + self.dropout(self.embed(token))
        count = left.count + right.count + (token > 0).to(left.count.dtype).unsqueeze(-1)
        v.scatter(total=total, count=count)
        v.push(logits=self.mlp(total / count))


MODELS = {"treelstm": TreeLSTM, "bag": BagOfLeaves}
