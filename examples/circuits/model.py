"""The vertex function: the classical rule for the probability of a gate, and a learned correction to it."""

from __future__ import annotations

import torch
from torch import nn

import vertexflow as vf

from .structure import COLUMNS


class GateProbability(vf.VertexFunction):
    """The probability of 1 at every gate, after those of its operands.

    Whatever the operands have to do with each other, the probability of a AND b is between max(0, p_a + p_b - 1) and
    min(p_a, p_b) (Frechet), and p_a p_b if they are independent. `correct` learns how far from that it is, as a shift of
    the log odds between the bounds. It starts at 0: untrained, this is the classical rule. What gates tell each other beyond p
    is a vector h.

    Pulls `probability`, [S, 1], at sources, and `structure`, [G, COLUMNS], at gates; pushes `p`, [G, 1].
    """

    def __init__(self, hidden: int) -> None:
        super().__init__(state={"p": 1, "h": hidden})
        self.begin = nn.Linear(1, hidden)
        self.enter = nn.Linear(COLUMNS, hidden)
        self.join = nn.Linear(2 * hidden + 6, hidden, bias=False)
        self.inner = nn.Linear(hidden, hidden)
        self.leave = nn.Linear(hidden, hidden)
        self.correct = nn.Linear(hidden, 1)
        nn.init.zeros_(self.correct.weight)
        nn.init.zeros_(self.correct.bias)

    @vf.vertex("source")
    def source(self, v: vf.Vertex) -> None:
        p = v.pull("probability")
        v.scatter(p=p, h=torch.tanh(self.begin(p)))

    @vf.vertex("gate")
    def gate(self, v: vf.Vertex) -> None:
        a, b, structure = v.gather(0), v.gather(1), v.pull("structure")
        inverted = structure[:, :2]
        pa, pb = (inverted + (1 - 2 * inverted) * torch.cat([a.p, b.p], -1)).chunk(2, -1)
        least, most = torch.relu(pa + pb - 1), torch.minimum(pa, pb)
        share = ((pa * pb - least) / (most - least + 1e-6)).clamp(1e-4, 1 - 1e-4)  # where between the bounds
        known = torch.cat([a.h, b.h, pa, pb, pa * pb, least, most, share], -1)
        x = torch.relu(self.inner(torch.relu(self.enter(structure) + self.join(known))))
        odds = share / (1 - share) * torch.exp(self.correct(x).clamp(-12, 12))
        p = least + (most - least) * odds / (1 + odds)
        v.scatter(p=p, h=torch.tanh(self.leave(x)))
        v.push(p=p)
