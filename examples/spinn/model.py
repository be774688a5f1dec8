"""The vertex function that composes, the head that chooses actions, and the baseline that sees no tree."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import vertexflow as vf

from .data import WORDS, Ints
from .parser import States


class Compose(vf.VertexFunction):
    """Binary TreeLSTM: a word is a vertex without children, a REDUCE one with two.

    Pulls `token`, int64 [V], 0 where a vertex is no word; pushes `h`, [V, hidden].
    """

    def __init__(self, embed: int, hidden: int) -> None:
        super().__init__(state={"h": hidden, "c": hidden})
        self.embed = nn.Embedding(len(WORDS), embed, padding_idx=0)
        self.w = nn.Linear(embed, 3 * hidden)
        self.u = nn.Linear(2 * hidden, 5 * hidden, bias=False)
        nn.init.normal_(self.embed.weight, std=0.1)

    def vertex(self, v: vf.Vertex) -> None:
        left, right = v.gather(0), v.gather(1)
        i, o, u, fl, fr = self.u(torch.cat([left.h, right.h], -1)).chunk(5, -1)
        xi, xo, xu = self.w(self.embed(v.pull("token"))).chunk(3, -1)
        # A forget gate starts open (+ 1), so that deep trees have gradients from the beginning.
        kept = torch.sigmoid(fl + 1) * left.c + torch.sigmoid(fr + 1) * right.c
        c = torch.sigmoid(i + xi) * torch.tanh(u + xu) + kept
        h = torch.sigmoid(o + xo) * torch.tanh(c)
        v.scatter(h=h, c=c)
        v.push(h=h)


class Parser(nn.Module):
    """`compose` makes vertices, `head` scores SHIFT and REDUCE, `answer` the ten values of a vertex."""

    def __init__(self, embed: int, hidden: int) -> None:
        super().__init__()
        self.compose = Compose(embed, hidden)
        self.head = nn.Sequential(nn.Linear(3 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2))
        self.answer = nn.Linear(hidden, 10)

    def scores(self, run: vf.Frontier, states: States) -> Tensor:
        """Scores of SHIFT and REDUCE in each state, [n, 2]; -inf for what is not allowed."""
        items = torch.from_numpy(states.items)
        read = run[items.clamp(min=0)].h * (items >= 0).unsqueeze(-1)  # zeros for what is missing
        return self.head(read.flatten(1)).masked_fill(torch.from_numpy(~states.allowed), -torch.inf)  # type: ignore[no-any-return]

    @torch.no_grad()
    def choose(self, run: vf.Frontier, states: States) -> Ints:
        """The action with the better score in each state."""
        return self.scores(run, states).argmax(-1).numpy()


class Bag(nn.Module):
    """The mean of the embeddings of the tokens of a span, and a perceptron with one hidden layer."""

    def __init__(self, embed: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(WORDS), embed)
        self.mlp = nn.Sequential(nn.Linear(embed, hidden), nn.ReLU(), nn.Linear(hidden, 10))
        nn.init.normal_(self.embed.weight, std=0.1)

    def forward(self, token: Ints, begin: Ints, end: Ints) -> Tensor:
        """Scores of the ten values of each span, [n, 10]."""
        length = torch.from_numpy(end - begin).unsqueeze(-1)
        below = self.embed(torch.from_numpy(np.append(token, 0))).cumsum(0)  # of the tokens up to and with this one
        below = torch.cat([torch.zeros_like(below[:1]), below])
        total = below[torch.from_numpy(end)] - below[torch.from_numpy(begin)]
        return self.mlp(total / length)  # type: ignore[no-any-return]
