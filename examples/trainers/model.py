"""A formula's value, computed from its parts up by what was learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import vertexflow as vf

from .formulas import TOKENS


class Formula(vf.VertexFunction):
    """A state for each part of a formula, from its token and the states of its two parts."""

    def __init__(self, hidden: int) -> None:
        super().__init__(state={"h": hidden})
        self.embed = nn.Embedding(len(TOKENS), hidden)
        self.join = nn.Linear(3 * hidden, 2 * hidden)
        self.out = nn.Linear(2 * hidden, hidden)

    def vertex(self, v: vf.Vertex) -> None:
        left, right = v.gather(0).h, v.gather(1).h
        token = self.embed(v.pull("token"))
        h = torch.tanh(self.out(torch.relu(self.join(torch.cat([token, left, right], -1)))))
        v.scatter(h=h)
        v.push(h=h)


class Classifier(nn.Module):
    """Scores of 0 and 1 for each formula, [formulas, 2], from the state of its root."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.formula = Formula(hidden)
        self.readout = nn.Linear(hidden, 2)

    def forward(self, batch: vf.GraphBatch, token: Tensor) -> Tensor:
        return self.readout(self.formula(batch, token=token, outputs=batch.roots).h)  # type: ignore[no-any-return]
