"""Four models of a molecule: its junction tree, messages along its bonds, and two bags."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import vertexflow as vf

from .data import ORDERS


class TreeMessages(vf.VertexFunction):
    """Messages between the clusters of a junction tree by a gated unit (Jin et al. 2018, section 2.3, equations 4 to 8)."""

    def __init__(self, clusters: int, size: int) -> None:
        super().__init__(state={"m": size})
        self.embed = nn.Embedding(clusters, size)
        self.w = nn.Linear(size, 3 * size)
        self.u_update = nn.Linear(size, size, bias=False)
        self.u_reset = nn.Linear(size, size, bias=False)
        self.u_new = nn.Linear(size, size, bias=False)
        self.out = nn.Linear(2 * size, size)

    @vf.vertex("message")
    def message(self, v: vf.Vertex) -> None:
        kids = v.children
        update, reset, new = self.w(self.embed(v.pull("cluster"))).chunk(3, -1)
        total = v.sum(kids.m)
        z = torch.sigmoid(update + self.u_update(total))
        r = torch.sigmoid(kids.expand(reset) + self.u_reset(kids.m))  # a gate for each message before this one
        v.scatter(m=(1 - z) * total + z * torch.tanh(new + self.u_new(v.sum(r * kids.m))))

    @vf.vertex("vertex")
    def cluster(self, v: vf.Vertex) -> None:
        reached = torch.cat([self.embed(v.pull("cluster")), v.sum(v.children.m)], -1)
        v.push(h=torch.relu(self.out(reached)))


class JunctionTree(nn.Module):
    """All that the clusters know once messages went both ways, added up."""

    def __init__(self, clusters: int, atoms: int, size: int) -> None:
        super().__init__()
        self.messages = TreeMessages(clusters, size)
        self.guess = _head(size)

    def forward(self, molecules: Any) -> Tensor:
        batch = molecules.messages
        return self.guess(batch.sum(self.messages(batch, cluster=molecules.cluster).h, "vertex")).squeeze(-1)  # type: ignore[no-any-return]


class BondMessages(nn.Module):
    """Messages along the bonds in both directions, for some rounds (D-MPNN: Yang et al. 2019), in plain PyTorch."""

    def __init__(self, clusters: int, atoms: int, size: int, rounds: int = 3) -> None:
        super().__init__()
        self.rounds = rounds
        self.atom, self.bond = nn.Embedding(atoms, size), nn.Embedding(len(ORDERS), size)
        self.first, self.again = nn.Linear(2 * size, size), nn.Linear(size, size)
        self.out = nn.Linear(2 * size, size)
        self.guess = _head(size)

    def forward(self, molecules: Any) -> Tensor:
        batch, atom, bond = molecules.bonds, self.atom(molecules.atom), self.bond(molecules.bond)
        one, other = batch.edge_index
        source, target = torch.cat([one, other]), torch.cat([other, one])
        begin = self.first(torch.cat([atom[source], torch.cat([bond, bond])], -1))
        message = torch.relu(begin)
        for _ in range(self.rounds):
            reached = torch.zeros_like(atom).index_add(0, target, message)
            answer = message.roll(len(one), 0)  # the message along the same bond, the other way
            message = torch.relu(begin + self.again(reached[source] - answer))
        reached = torch.zeros_like(atom).index_add(0, target, message)
        return self.guess(batch.sum(torch.relu(self.out(torch.cat([atom, reached], -1))))).squeeze(-1)  # type: ignore[no-any-return]


class AtomBag(nn.Module):
    """The atoms, without what they are bound to."""

    def __init__(self, clusters: int, atoms: int, size: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(atoms, size)
        self.guess = _head(size)

    def forward(self, molecules: Any) -> Tensor:
        return self.guess(molecules.bonds.sum(self.embed(molecules.atom))).squeeze(-1)  # type: ignore[no-any-return]


class ClusterBag(nn.Module):
    """The clusters of the junction tree, without its edges."""

    def __init__(self, clusters: int, atoms: int, size: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(clusters, size)
        self.guess = _head(size)

    def forward(self, molecules: Any) -> Tensor:
        batch = molecules.messages
        own = molecules.cluster[batch.of_kind("vertex")]
        return self.guess(batch.sum(self.embed(own), "vertex")).squeeze(-1)  # type: ignore[no-any-return]


def _head(size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 1))


MODELS: dict[str, type[nn.Module]] = {
    "junction-tree": JunctionTree, "bond-messages": BondMessages, "cluster-bag": ClusterBag, "atom-bag": AtomBag,
}  # fmt: skip
