"""What ranks compute together: models and graphs of every sort, and losses of their rows, with a weight each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import vertexflow as vf

from ..models import TreeRNN

TREES = [
    vf.tree(((0, 1), 2)),
    vf.chain(7),
    vf.tree((0, 1)),
    vf.tree((((0, 1), (2, 3)), 4)),
    vf.chain(1),
    vf.tree(((0, (1, 2)), (3, 4))),
    vf.chain(2),
]
# In which one vertex has several parents, and vertices more children than slots are gathered.
DAGS = [
    vf.graph(4, [(0, 1), (0, 2), (1, 3), (2, 3)]),
    vf.graph(2, [(0, 1), (0, 1)]),
    vf.graph(5, [(0, 4), (1, 4), (0, 3), (3, 2), (4, 2)]),
    vf.graph(1, []),
    vf.graph(6, [(0, 5), (0, 4), (4, 5), (1, 3), (2, 3)]),
]
MANY = [
    vf.graph(6, [(child, 5) for child in range(5)]),
    vf.graph(4, [(0, 3), (1, 3), (2, 3)]),
    vf.chain(4),
    vf.graph(1, []),
    vf.graph(7, [(0, 4), (1, 4), (2, 4), (3, 4), (4, 6), (5, 6)]),
]
KINDS = [
    vf.graph(3, [(0, 2), (1, 2)], kind=["leaf", "leaf", "node"]),
    vf.graph(1, [], kind=["leaf"]),
    vf.graph(5, [(0, 3), (1, 3), (3, 4), (2, 4)], kind=["leaf", "leaf", "leaf", "node", "node"]),
    vf.graph(1, [], kind=["leaf"]),
    vf.graph(2, [(0, 1)], kind=["leaf", "node"]),
]


class Classified(nn.Module):
    """A vertex function between layers of plain PyTorch."""

    def __init__(self, function: vf.VertexFunction, size: int = 4):
        super().__init__()
        self.embed = nn.Linear(3, 3)
        self.function = function
        self.out = nn.Linear(size, 1)

    def forward(self, batch, x):
        return self.out(self.function(batch, x=self.embed(x)).h).square().squeeze(-1)


class BothWays(nn.Module):
    """From the leaves to the roots, and back on what was found."""

    def __init__(self):
        super().__init__()
        self.up, self.down = TreeRNN(3, 4), TreeRNN(4, 2)

    def forward(self, batch, x):
        return self.down(batch, x=self.up(batch, x=x).h, reverse=True).h.square().sum(-1)


class Begun(nn.Module):
    """Vertices without children read a state that is learned."""

    def __init__(self):
        super().__init__()
        self.start = nn.Parameter(torch.randn(4))
        self.tree = TreeRNN(3, 4)

    def forward(self, batch, x):
        h0 = self.start.expand(len(batch.leaves), 4)
        return self.tree(batch, x=x, initial={"h": h0}).h.square().sum(-1)


class OfKinds(vf.VertexFunction):
    """Each kind has parameters of its own; nodes alone push."""

    def __init__(self):
        super().__init__(state={"h": 3})
        self.of_leaf, self.of_node = nn.Linear(3, 3), nn.Linear(6, 3)

    @vf.vertex("leaf")
    def leaf(self, v):
        v.scatter(h=torch.tanh(self.of_leaf(v.pull("x"))))

    @vf.vertex("node")
    def node(self, v):
        h = torch.tanh(self.of_node(torch.cat([v.gather(0).h, v.gather(1).h], -1)))
        v.scatter(h=h)
        v.push(h=h)


class Phrases(nn.Module):
    def __init__(self):
        super().__init__()
        self.function = OfKinds()

    def forward(self, batch, x):
        return self.function(batch, x=x[batch.of_kind("leaf")]).h.square()  # two dimensions; rows of nodes


class Dropped(TreeRNN):
    """With noise in each state."""

    def forward(self, batch, x):
        return super().forward(batch, x=x).h.square().sum(-1)

    def vertex(self, v):
        h = torch.tanh(self.w(v.pull("x")) + self.u(torch.cat([v.gather(0).h, v.gather(1).h], -1)))
        h = nn.functional.dropout(h, 0.5, self.training)
        v.scatter(h=h)
        v.push(h=h)


@dataclass(frozen=True)
class Case:
    """A model and graphs. Weights are none, booleans or numbers; with `is_random`, what is drawn depends on the rank."""

    make: Callable[[], nn.Module]
    graphs: Sequence[vf.InputGraph]
    weights: str = "numbers"
    is_random: bool = False

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().double()

    def losses(self, call: Callable[..., Tensor], chosen: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """A loss for each row of some graphs, and weights."""
        rows = []
        for number in chosen:
            generator = torch.Generator().manual_seed(number)
            rows.append(torch.randn(self.graphs[number].num_vertices, 3, generator=generator, dtype=torch.float64))
        batch = vf.pack([self.graphs[number] for number in chosen])
        losses = call(batch, torch.cat(rows) if rows else torch.empty(0, 3, dtype=torch.float64))
        if self.weights == "none":
            return losses, None
        # Something that differs from row to row and is known without the other graphs.
        rows = losses.detach()
        numbers = (1000 * (rows if rows.dim() == 1 else rows.sum(1))).frac().abs()
        return losses, numbers > 0.3 if self.weights == "booleans" else numbers


CASES = {
    "slots": Case(lambda: Classified(TreeRNN(3, 4)), TREES),
    "plain mean": Case(lambda: Classified(TreeRNN(3, 4)), TREES, weights="none"),
    "ragged": Case(lambda: Classified(vf.nn.ChildSumTreeLSTM(3, 4)), MANY),
    "kinds": Case(Phrases, KINDS),
    "dags": Case(lambda: Classified(TreeRNN(3, 4)), DAGS, weights="booleans"),
    "both directions": Case(BothWays, TREES),
    "initial": Case(Begun, TREES, weights="none"),
    "dropout": Case(lambda: Dropped(3, 4), TREES, weights="booleans", is_random=True),
}


def weighted(model, batch, x):
    """Of one process: outputs, weights, the mean with these, and its gradients, of the input and of parameters by name."""
    wanted = model(batch, x)
    weights = torch.arange(1, wanted.numel() + 1, dtype=torch.float64).reshape(wanted.shape).sin().abs()
    loss = (wanted * weights).sum() / weights.sum()
    of_x, *of_parameters = torch.autograd.grad(loss, [x, *model.parameters()], retain_graph=True)
    return wanted, weights, loss, of_x, dict(zip(dict(model.named_parameters()), of_parameters, strict=True))
