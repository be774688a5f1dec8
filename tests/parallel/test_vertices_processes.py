"""Ranks that have vertices of the same graphs: outputs, losses and gradients are those of one process."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import vertexflow as vf

from ..models import TreeRNN
from .cases import CASES, DAGS, KINDS, MANY, TREES, BothWays, Case, Classified
from .ranks import run_on_ranks
from .test_hidden_processes import Both, OnEdges
from .test_hidden_processes import Begun as BegunAtLeaves
from .test_processes import EXACT, agree

pytestmark = pytest.mark.ranks


class OfManySorts(vf.VertexFunction):
    """States of several dtypes and shapes, one of which has no gradient."""

    def __init__(self):
        super().__init__(state={"h": 3, "m": (2, 2), "n": (), "low": 2}, state_dtype={"n": torch.int64, "low": torch.float32})
        self.w, self.u = nn.Linear(3, 3), nn.Linear(8, 3)

    def vertex(self, v):
        kids = v.children
        n = 1 + v.sum(kids.n)
        m, low = v.max(kids.m), v.sum(kids.low)
        h = torch.tanh(self.w(v.pull("x")) + self.u(torch.cat([v.sum(kids.h), m.flatten(1), n[:, None] / 9], -1)))
        v.scatter(h=h, m=torch.stack([h[:, :2], m[:, 0] + h[:, 1:]], 1), n=n, low=(low.double() + h[:, :2]).float())
        v.push(h=h + low.double().sum(1, keepdim=True), n=n)


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.function = OfManySorts()

    def forward(self, batch, x):
        out = self.function(batch, x=x)
        return (out.h / out.n[:, None]).square().sum(-1)


VERTICES = {
    name: CASES[name] for name in ("slots", "ragged", "kinds", "dags", "both directions", "initial")
} | {
    "views": Case(Both, TREES),
    "many sorts": Case(Counted, [*MANY, *DAGS]),
}


def divisions(batch: vf.GraphBatch, ranks: int) -> Iterator[tuple[str, np.ndarray | None]]:
    """Ways of giving vertices to ranks."""
    count, rng = batch.num_vertices, np.random.default_rng(1)
    yield "found", None
    yield "at random", rng.integers(0, ranks, count)
    yield "one has nothing", rng.integers(0, ranks, count) % max(1, ranks - 1)
    yield "by levels", vf.parallel.divide_graph.levels_of(batch) % ranks
    yield "all on the last", np.full(count, ranks - 1)


def inputs_of(case: Case) -> tuple[vf.GraphBatch, torch.Tensor]:
    batch = vf.pack(case.graphs)
    generator = torch.Generator().manual_seed(0)
    return batch, torch.randn(batch.num_vertices, 3, generator=generator, dtype=torch.float64)


def rows_of(name: str, batch: vf.GraphBatch, part: vf.parallel.GraphPart) -> torch.Tensor:
    """Which rows of the whole outputs this rank has: of vertices, or, of kinds, of nodes alone."""
    if name != "kinds":
        return part.own
    nodes = batch.of_kind("node")
    return torch.isin(nodes, part.own).nonzero()[:, 0]


def of_losses_and_gradients(names) -> None:
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for name in names:
        case = VERTICES[name]
        one, model = case.model(), case.model()
        call = DistributedDataParallel(model)
        batch, x = inputs_of(case)
        x.requires_grad_()
        wanted = one(batch, x)
        weights = torch.arange(1, wanted.numel() + 1, dtype=torch.float64).reshape(wanted.shape).sin().abs()
        loss = (wanted * weights).sum() / weights.sum()
        gradients = dict(zip(dict(one.named_parameters()), torch.autograd.grad(loss, [*one.parameters(), x]), strict=False))
        of_x = torch.autograd.grad((one(batch, x) * weights).sum() / weights.sum(), x)[0]
        for how, rank_of in divisions(batch, ranks):
            part = vf.parallel.divide(batch, ranks, reverse=name == "both directions", rank_of=rank_of)[rank]
            own_x = x.detach()[part.own].requires_grad_()
            model.zero_grad()
            ours = call(part, own_x)
            rows = rows_of(name, batch, part)
            torch.testing.assert_close(ours, wanted[rows], **EXACT, msg=lambda text: f"{name}, {how}: {text}")
            found = vf.parallel.mean(ours, weights[rows])
            torch.testing.assert_close(found.detach(), loss.detach(), **EXACT)
            found.backward()
            agree(f"{name}, {how}", model, gradients)
            torch.testing.assert_close(own_x.grad / ranks, of_x[part.own], **EXACT)
            with torch.no_grad():
                torch.testing.assert_close(call(part, own_x), wanted.detach()[rows], **EXACT)


def test_parts_of_graphs_agree_with_one_process(tmp_path):
    run_on_ranks(tmp_path, 2, of_losses_and_gradients, list(VERTICES))
