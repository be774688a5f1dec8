"""Ranks that have vertices of the same graphs: outputs, losses and gradients are those of one process."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from datetime import timedelta
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.parallel import DistributedDataParallel

import vertexflow as vf
from vertexflow.kernels import autograd
from vertexflow.kernels.prepared import windows
from vertexflow.parallel import over_vertices

from ..models import TreeRNN
from .cases import CASES, DAGS, KINDS, MANY, TREES, Case, Dropped, OfKinds
from .ranks import run_on_ranks
from .test_hidden_processes import on_edges
from .test_processes import EXACT, agree

pytestmark = pytest.mark.ranks


class OfManySorts(vf.VertexFunction):
    """States of several dtypes and shapes, one of which has no gradient."""

    def __init__(self):
        super().__init__(
            state={"h": 3, "m": (2, 2), "n": (), "low": 2}, state_dtype={"n": torch.int64, "low": torch.float32}
        )
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


VERTICES = {name: CASES[name] for name in ("slots", "ragged", "kinds", "dags", "both directions", "initial")} | {
    "many sorts": Case(Counted, [*MANY, *DAGS]),
}


def divisions(batch: vf.GraphBatch, ranks: int) -> Iterator[tuple[str, np.ndarray | None]]:
    """Ways of giving vertices to ranks."""
    count, rng = batch.num_vertices, np.random.default_rng(1)
    yield "found", None
    yield "at random", rng.integers(0, ranks, count)
    yield "one has nothing", rng.integers(0, ranks, count) % max(1, ranks - 1)
    yield "leaves apart", np.minimum(vf.parallel.divide_graph.levels_of(batch), ranks - 1)
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
        call = DistributedDataParallel(model, bucket_cap_mb=1e-4)  # whose messages are between the exchanges
        batch, x = inputs_of(case)
        x.requires_grad_()
        wanted = one(batch, x)
        weights = torch.arange(1, wanted.numel() + 1, dtype=torch.float64).reshape(wanted.shape).sin().abs()
        loss = (wanted * weights).sum() / weights.sum()
        gradients = dict(
            zip(dict(one.named_parameters()), torch.autograd.grad(loss, [*one.parameters(), x]), strict=False)
        )
        of_x = torch.autograd.grad((one(batch, x) * weights).sum() / weights.sum(), x)[0]
        for how, rank_of in divisions(batch, ranks):
            part = vf.parallel.divide(batch, ranks, reverse=name == "both directions", rank_of=rank_of)[rank]
            own_x = x.detach()[part.own].requires_grad_()
            model.zero_grad()
            ours = call(part, own_x)
            rows = rows_of(name, batch, part)
            torch.testing.assert_close(
                ours, wanted[rows], **EXACT, msg=lambda text, at=f"{name}, {how}": f"{at}: {text}"
            )
            found = vf.parallel.mean(ours, weights[rows])
            torch.testing.assert_close(found.detach(), loss.detach(), **EXACT)
            found.backward()
            agree(f"{name}, {how}", model, gradients)
            torch.testing.assert_close(own_x.grad / ranks, of_x[part.own], **EXACT)
            with torch.no_grad():
                torch.testing.assert_close(call(part, own_x), wanted.detach()[rows], **EXACT)


def of_plans() -> None:
    """Data ranks x ranks of vertices; parameters whole (DDP) and sharded; each data rank has other graphs."""
    mesh = DeviceMesh("cpu", torch.arange(4).reshape(2, 2), mesh_dim_names=("data", "vertices"))
    case = VERTICES["slots"]
    one, batch = case.model(), vf.pack(TREES)
    rows = inputs_of(case)[1].split([graph.num_vertices for graph in TREES])
    loss = one(batch, torch.cat(rows)).mean()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in one.named_parameters()}
    mine = [number for number in range(len(TREES)) if number % 2 == mesh["data"].get_local_rank()]
    part = vf.parallel.divide([TREES[number] for number in mine], 2, rank_of=None)[mesh["vertices"].get_local_rank()]
    x = torch.cat([rows[number] for number in mine])[part.own]
    links = {"devices": vf.parallel.Link(1e-6, 1e9)}
    cluster = vf.parallel.Cluster(1, 4, flops=1e9, bandwidth=1e9, memory=1e9, links=links)
    batches = [(batch, torch.empty(batch.num_vertices, 3, dtype=torch.float64, device="meta"))]
    for strategy in ("whole", "sharded"):
        model = case.model()
        parts = dict.fromkeys(["embed", "function", "out", ""], strategy)
        plan = vf.parallel.plan(model, batches, cluster, like=vf.parallel.Plan({"data": 2, "vertices": 2}, parts))
        assert plan.prediction.seconds > 0
        call = plan.apply(model, mesh)
        found = vf.parallel.mean(call(part, x))
        torch.testing.assert_close(found.detach(), loss.detach(), **EXACT)
        found.backward()
        agree(strategy, model, gradients)


def of_what_is_refused() -> None:
    """On all ranks, and before anybody waits for a message that does not come."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model, batch = TreeRNN(3, 4), vf.pack(TREES)
    rank_of = np.arange(batch.num_vertices) % ranks
    parts = vf.parallel.divide(batch, ranks, rank_of=rank_of)
    part, others = parts[rank], vf.parallel.divide(batch, ranks, rank_of=rank_of[::-1])
    x = torch.randn(part.num_vertices, 3)
    out = model(part, x=x)
    for call, wanted in [
        (lambda: model(parts[0], x=x), r"rank 1 of 2 was called with part 0" if rank else "rank 1 refused"),
        (lambda: model([part, others[rank]][rank], x=x), "parts of different graphs, or divisions"),
        (
            lambda: model(part, x=x.clone().requires_grad_(rank == 0)),
            "inputs, parameters or states of different names, dtypes, widths or gradients",
        ),
        (lambda: TreeRNN(3, 4 + rank)(part, x=x), "inputs, parameters or states of different names, dtypes, widths"),
        (lambda: model(part, x=x, shared=[1] if rank else None), "shared is a list" if rank else "rank 1 refused"),
        (lambda: model(part, x=x, outputs=torch.ones(5) > 0), "5 booleans for 18 vertices"),
        (lambda: model(part, x=x, outputs=torch.ones(part.upward.batch.num_vertices) > 0), "booleans for 18 vertices"),
        (lambda: model(part, x=x, outputs=torch.tensor([-1])), "the vertices 0 to 17"),
        (lambda: OfKinds()(part, x=x), "'leaf', 'node', but the graphs of this part have no kinds"),
        (
            lambda: model(part, x=x[rank:]),
            "has 17 rows, but the batch has 18 vertices of kind 'own'" if rank else "rank 1 refused the call",
        ),
        (lambda: model(part, x=x, reverse=True), r"divide\(batch, ranks, reverse=True\)"),
        (lambda: torch.func.vmap(lambda x: model(part, x=x).h)(x[None]), "other parameters, or inside torch.func"),
        (lambda: model.start(part, x=x), "vf.pack takes a list|input graphs"),
        (lambda: model.estimate_memory(part, x=x), "vf.pack takes a list|input graphs"),
        (lambda: vf.parallel.GradientNoise(model), "the model is called with parts of graphs, whose other vertices"),
        (
            lambda: torch.autograd.grad(out.h.sum(), list(model.parameters()), create_graph=True),
            "gradients of gradients",
        ),
    ]:
        with pytest.raises((vf.VertexFlowError, RuntimeError), match=wanted):
            call()
    with patch.dict(os.environ, VERTEXFLOW_BACKEND="eager"), pytest.raises(vf.InputError, match='backend="eager"'):
        model(part, x=x)
    out.h.sum().backward()  # nothing was changed
    model(part, x=x).h.sum().backward()


def of_edges() -> None:
    """Inputs and outputs of edges, a tensor that all vertices share, outputs of some vertices, gradients of all of them."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    one, model, batch, given = on_edges()
    wanted = one(batch, *given)
    sum(value.sin().sum() for value in wanted.values()).backward()
    part = vf.parallel.divide(batch, ranks, rank_of=np.arange(batch.num_vertices) % ranks)[rank]
    x, e, w = (value.detach() for value in given)
    own = [value.requires_grad_() for value in (x[part.own], e[part.edges], w.clone())]
    ours = model(part, *own)
    sum(value.sin().sum() for value in ours.values()).backward()
    for name, rows in (("h", part.own), ("e", part.edges)):
        torch.testing.assert_close(ours[name], wanted[name][rows], **EXACT)
    torch.testing.assert_close(own[0].grad, given[0].grad[part.own], **EXACT)
    torch.testing.assert_close(own[1].grad, given[1].grad[part.edges], **EXACT)
    sums = [own[2].grad, *(parameter.grad for parameter in model.parameters())]
    for gradient, other in zip(sums, [given[2].grad, *(each.grad for each in one.parameters())], strict=True):
        dist.all_reduce(gradient)
        torch.testing.assert_close(gradient, other, **EXACT)
    some = torch.tensor([2, 0])
    chosen = model.function(part, x=own[0], e=own[1], shared={"W": own[2]}, outputs=some)
    torch.testing.assert_close(chosen.h, ours.h[some], **EXACT)
    by_name = model.function(part, x=own[0], e=own[1], shared={"W": own[2]}, outputs={"h": some})
    torch.testing.assert_close(by_name.h, ours.h[some], **EXACT)
    torch.testing.assert_close(
        model.function(part, x=own[0], e=own[1], shared={"W": w}, outputs=part.roots).h, ours.h[part.roots]
    )


def of_a_part_that_is_gone() -> None:
    """What a backward pass needs of a part lives as long as the outputs."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model, batch = TreeRNN(3, 4), vf.pack(TREES)
    out = model(
        vf.parallel.divide(batch, ranks, rank_of=np.arange(batch.num_vertices) % ranks)[rank],
        x=torch.ones(len(range(rank, batch.num_vertices, ranks)), 3),
    )
    gc.collect()
    out.h.sum().backward()


class OfNamesLikeOurs(vf.VertexFunction):
    """Its parts have names that a reader might expect in the package."""

    def __init__(self):
        super().__init__(state={"h": 3})
        self._start, self.w = nn.Parameter(torch.ones(3)), nn.Linear(3, 3)

    def _exchange(self, h):
        return torch.tanh(self.w(h))

    def vertex(self, v):
        h = self._exchange(v.pull("x") + v.sum(v.children.h) + self._start)
        v.scatter(h=h)
        v.push(h=h)


def of_names() -> None:
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model, batch = OfNamesLikeOurs(), vf.pack(MANY)
    part = vf.parallel.divide(batch, ranks, rank_of=np.arange(batch.num_vertices) % ranks)[rank]
    x = torch.ones(batch.num_vertices, 3)
    torch.testing.assert_close(model(part, x=x[part.own]).h, model(batch, x=x).h[part.own])


def of_what_no_method_reads() -> None:
    """It has no gradient on any rank, as in one process; what is read on some rank has one on all."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model, batch = OfKinds(), vf.pack(KINDS)
    model.unread = nn.Parameter(torch.ones(3))
    is_leaf = np.isin(np.arange(batch.num_vertices), batch.of_kind("leaf").numpy())
    for rank_of in (np.zeros(batch.num_vertices, np.int64), is_leaf.astype(np.int64)):
        part = vf.parallel.divide(batch, ranks, rank_of=rank_of)[rank]
        model.zero_grad()
        model(part, x=torch.ones(len(part.of_kind("leaf")), 3)).h.sum().backward()
        assert {name for name, value in model.named_parameters() if value.grad is None} == {"unread"}


def of_patience() -> None:
    """Ranks wait as long for an exchange as for other messages."""
    ranks = list(range(dist.get_world_size()))
    group, cpu = dist.new_group(ranks, timeout=timedelta(seconds=77)), torch.device("cpu")
    model, batch = TreeRNN(3, 4), vf.pack(TREES)
    model._part_group = group
    part = vf.parallel.divide(batch, len(ranks), rank_of=np.zeros(batch.num_vertices, np.int64))[dist.get_rank()]
    model(part, x=torch.ones(part.num_vertices, 3))
    assert over_vertices._own_groups[group]._get_backend(cpu).options._timeout == timedelta(seconds=77)


def of_noise() -> None:
    """Each rank draws for its own vertices, from its own generator: the same again with the same seed; none in evaluation."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    model, batch = Case(lambda: Dropped(3, 4), TREES).model(), vf.pack(TREES)
    part = vf.parallel.divide(batch, ranks, rank_of=np.arange(batch.num_vertices) % ranks)[rank]
    x = torch.randn(batch.num_vertices, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed + 10 * rank)
        found.append(model(part, x[part.own]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    model.eval()
    torch.testing.assert_close(model(part, x[part.own]), model(batch, x)[part.own], **EXACT)


def test_one_process(tmp_path):
    run_on_ranks(tmp_path, 1, of_losses_and_gradients, ["dags"])


def test_two_processes(tmp_path):
    run_on_ranks(tmp_path, 2, on_two)


def on_two() -> None:
    of_losses_and_gradients(["slots", "kinds", "both directions", "initial", "many sorts"])
    of_native_code()
    of_edges()
    of_a_part_that_is_gone()
    of_names()
    of_what_no_method_reads()
    of_patience()
    of_noise()
    of_what_is_refused()


def test_four_processes(tmp_path):
    run_on_ranks(tmp_path, 4, on_four)


def on_four() -> None:
    of_plans()
    of_layers()
    of_losses_and_gradients(["ragged"])


def of_layers() -> None:
    """Two layers of a DAGNN in both directions, which share a trace; its readout reads whole graphs, and is refused."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    one, model = (Case(lambda: vf.nn.DAGNN(3, 2, bidirectional=True), DAGS).model() for _ in range(2))
    batch, x = inputs_of(Case(TreeRNN, DAGS))
    wanted = one(batch, x).h
    wanted.sin().sum().backward()
    rank_of = np.arange(batch.num_vertices) % ranks
    part = vf.parallel.divide(batch, ranks, reverse=True, rank_of=rank_of)[rank]
    call = DistributedDataParallel(model)
    ours = call(part, x[part.own]).h
    torch.testing.assert_close(ours, wanted[part.own], **EXACT)
    vf.parallel.sum(ours.sin()).backward()
    agree("layers", model, {name: parameter.grad for name, parameter in one.named_parameters()})
    with pytest.raises(vf.InputError, match="readout of a graph reads vertices that are on several ranks"):
        vf.nn.DAGNN(3, 2, output_size=1)(part, x[part.own].float())


def of_native_code() -> None:
    """The same in passes that are written down, of small windows; none of them says that it is slow."""
    prepared, found = autograd.prepared_for, []
    model, batch = TreeRNN(3, 4), vf.pack(DAGS)
    ranks = dist.get_world_size()
    part = vf.parallel.divide(batch, ranks, rank_of=np.arange(batch.num_vertices) % ranks)[dist.get_rank()]
    with (
        patch.dict(os.environ, VERTEXFLOW_BACKEND="native"),
        patch.object(windows, "rows_of_a_window", lambda *_: 3),
        patch.object(autograd, "prepared_for", lambda *given: found.append(prepared(*given)) or found[-1]),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error", vf.SlowCoreWarning)
        model(part, x=torch.randn(part.num_vertices, 3))
        assert "vertexflow.exchange_rows" in model._kept_on_ranks.explain()
        of_losses_and_gradients(["dags"])
    assert len(found) > 5
    assert None not in found
