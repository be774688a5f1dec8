"""Ranks that have vertices of the same graphs, and of each of these ranks that share its columns: outputs, losses and gradients
are those of one process."""

from __future__ import annotations

import os
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

import vertexflow as vf

from ..models import TreeRNN
from .cases import DAGS, TREES, Case, Dropped, weighted
from .ranks import run_on_ranks
from .test_hidden_processes import HIDDEN, agree, on_edges, plan_of
from .test_processes import EXACT, clipped
from .test_vertices_processes import divisions, inputs_of

pytestmark = pytest.mark.ranks


class OfSorts(vf.VertexFunction):
    """States of several dtypes and shapes, one of which has no gradient, and one that ranks do not divide."""

    def __init__(self):
        super().__init__(
            state={"h": 4, "m": (2, 2), "n": (), "low": 2, "odd": 3},
            state_dtype={"n": torch.int64, "low": torch.float32},
        )
        self.w, self.u = nn.Linear(3, 4), nn.Linear(14, 10)
        self.to_odd = nn.Linear(4, 3)

    def vertex(self, v):
        kids = v.children
        n = 1 + v.sum(kids.n)
        m, low, odd = v.max(kids.m), v.sum(kids.low), v.sum(kids.odd)
        h, of_m, of_low = self.u(torch.cat([v.sum(kids.h), m.flatten(1), low.double(), odd, n[:, None] / 9], -1)).split(
            [4, 4, 2], -1
        )
        h = torch.tanh(self.w(v.pull("x")) + h)
        low = (low.double() + torch.tanh(of_low)).float()
        v.scatter(h=h, m=m + torch.tanh(of_m).view(-1, 2, 2), n=n, low=low, odd=torch.tanh(self.to_odd(h)))
        v.push(h=h + low.double().sum(1, keepdim=True) + odd.sum(1, keepdim=True), n=n)


class Beside(nn.Module):
    """On what a vertex function gives that is whole on all ranks, one whose columns are shared, of states of many sorts."""

    def __init__(self):
        super().__init__()
        self.whole, self.function = TreeRNN(3, 3), OfSorts()

    def forward(self, batch, x):
        out = self.function(batch, x=self.whole(batch, x=x).h)
        return (out.h / out.n[:, None]).square().sum(-1)


BOTH = {
    **HIDDEN,
    "sorts": (Case(Beside, DAGS), ["function"]),
}


def a_mesh() -> DeviceMesh:
    return DeviceMesh("cpu", torch.arange(4).reshape(2, 2), mesh_dim_names=("vertices", "hidden"))


def spread(name: str, mesh: DeviceMesh) -> tuple[nn.Module, nn.Module]:
    """The model of a case, and what a plan makes of it."""
    case, hidden = BOTH[name]
    model, batch = case.model(), vf.pack(case.graphs)
    plan = plan_of(model, mesh, hidden)
    for at, module in model.named_modules():
        if isinstance(module, vf.VertexFunction) and at not in hidden:
            plan.parts[at] = "whole"
    return model, plan.apply(model, mesh, (batch, torch.empty(batch.num_vertices, 3).double()))


def rows_of(name: str, batch: vf.GraphBatch, part: vf.parallel.GraphPart) -> torch.Tensor:
    """Which rows of the whole outputs this rank has."""
    given = {"kinds": lambda: batch.of_kind("node"), "initial": lambda: batch.roots}
    return torch.isin(given[name](), part.own).nonzero()[:, 0] if name in given else part.own


def of_losses_and_gradients(mesh: DeviceMesh, names) -> None:
    rows, columns = mesh["vertices"], mesh["hidden"]
    at = columns.get_local_rank(), columns.size()
    for name in names:
        case, _ = BOTH[name]
        one = case.model()
        model, call = spread(name, mesh)
        batch, x = inputs_of(case)
        x.requires_grad_()
        wanted, weights, loss, of_x, gradients = weighted(one, batch, x)
        for how, rank_of in divisions(batch, rows.size()):
            if name not in ("slots", "kinds") and how not in ("at random", "one has nothing"):
                continue  # each takes a while
            both = name == "both directions"
            part = vf.parallel.divide(batch, rows.size(), reverse=both, rank_of=rank_of)[rows.get_local_rank()]
            own_x = x.detach()[part.own].requires_grad_()
            model.zero_grad()
            ours = call(part, own_x)
            chosen = rows_of(name, batch, part)
            torch.testing.assert_close(ours, wanted[chosen], **EXACT, msg=lambda text, it=(name, how): f"{it}: {text}")
            found = vf.parallel.mean(ours, weights[chosen], group=rows)
            torch.testing.assert_close(found.detach(), loss.detach(), **EXACT)
            found.backward()
            assert agree(f"{name}, {how}", model, gradients, *at) > 0
            torch.testing.assert_close(own_x.grad / rows.size(), of_x[part.own], **EXACT)
            agree(f"{name}, {how}, clipped", model, clipped(call, gradients), *at)
            with torch.no_grad():
                torch.testing.assert_close(call(part, own_x), wanted.detach()[chosen], **EXACT)


def of_edges(mesh: DeviceMesh) -> None:
    """Inputs and outputs of edges, a tensor that all vertices share, outputs of some vertices, and gradients of all of them."""
    rows, columns = mesh["vertices"], mesh["hidden"]
    one, model, batch, given = on_edges()
    wanted = one(batch, *given)
    sum(value.sin().sum() for value in wanted.values()).backward()
    call = plan_of(model, mesh, ["function"]).apply(model, mesh, (batch, *given))
    rank_of = np.arange(batch.num_vertices) % rows.size()
    part = vf.parallel.divide(batch, rows.size(), rank_of=rank_of)[rows.get_local_rank()]
    x, e, w = (value.detach() for value in given)
    own = [value.requires_grad_() for value in (x[part.own], e[part.edges], w.clone())]
    ours = call(part, *own)
    sum(vf.parallel.sum(value.sin(), group=rows) for value in ours.values()).backward()
    for name, chosen in (("h", part.own), ("e", part.edges)):
        torch.testing.assert_close(ours[name], wanted[name][chosen], **EXACT)
    torch.testing.assert_close(own[0].grad / rows.size(), given[0].grad[part.own], **EXACT)
    torch.testing.assert_close(own[1].grad / rows.size(), given[1].grad[part.edges], **EXACT)
    dist.all_reduce(own[2].grad, group=rows.get_group())
    torch.testing.assert_close(own[2].grad / rows.size(), given[2].grad, **EXACT)
    gradients = {name: parameter.grad for name, parameter in one.named_parameters()}
    agree("edges", model, gradients, columns.get_local_rank(), columns.size())
    some = torch.tensor([2, 0])
    chosen = model.function(part, x=own[0], e=own[1], shared={"W": own[2]}, outputs=some)
    torch.testing.assert_close(chosen.h, ours.h[some], **EXACT)
    torch.testing.assert_close(call(batch, *given).h, wanted.h, **EXACT)  # a batch of these ranks of columns alone


def of_noise(mesh: DeviceMesh) -> None:
    """Ranks that share columns draw the same, those with other vertices their own."""
    rows, columns = mesh["vertices"], mesh["hidden"]
    batch = vf.pack(TREES)
    x = torch.randn(batch.num_vertices, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one, model = (Case(lambda: Dropped(3, 4), TREES).model() for _ in range(2))
    call = vf.parallel.Plan({"vertices": 2, "hidden": 2}, {"": "hidden"}).apply(model, mesh, (batch, {"x": x}))
    rank_of = np.arange(batch.num_vertices) % rows.size()
    part = vf.parallel.divide(batch, rows.size(), rank_of=rank_of)[rows.get_local_rank()]
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed + 10 * dist.get_rank())
        found.append(call(part, x[part.own]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    theirs = [torch.empty_like(found[2]) for _ in range(2)]
    dist.all_gather(theirs, found[2].detach(), group=columns.get_group())
    assert torch.equal(*theirs)
    one.eval(), model.eval()
    torch.testing.assert_close(call(part, x[part.own]), one(batch, x)[part.own], **EXACT)


def of_what_is_refused(mesh: DeviceMesh) -> None:
    """On all ranks, also where one alone has a reason, and before anybody waits for a message that does not come."""
    row, column, rank = mesh["vertices"].get_local_rank(), mesh["hidden"].get_local_rank(), dist.get_rank()
    model, batch = BOTH["sorts"][0].model(), vf.pack(DAGS)
    x = torch.randn(batch.num_vertices, 3).double()
    plan = vf.parallel.Plan({"vertices": 2, "hidden": 2}, {"whole": "whole", "function": "hidden"})
    plan.apply(model, mesh, (batch, x))
    rank_of = np.arange(batch.num_vertices) % 2
    parts, others = (vf.parallel.divide(batch, 2, rank_of=each) for each in (rank_of, rank_of[::-1]))
    part, x = parts[row], x[parts[row].own]
    ours = model(part, x)
    different = "parts of different graphs, or divisions", "different names, dtypes, widths or gradients"
    for function in (model.whole, model.function):
        # Rank 1 has part 0, as rank 0 has, and exchanges states with rank 3, which has part 1, as rank 2 has.
        for of_rank_1, of_all in [
            ((parts[1], x, {}), "rank 0 of 2 was called with part 1 of 2"),
            ((part, x[1:], {}), "rows, but the batch has"),
            ((part, [1.0], {}), "list"),
            ((part, x, {"shared": [1]}), "shared is a list"),
            ((part, x, {"initial": {"h": torch.ones(1, 7)}}), ""),
        ]:
            wanted = ["rank 1 refused the call", of_all, "rank 3 refused the call", "rank 1 refused the call"][rank]
            given, values, more = of_rank_1 if rank == 1 else (part, x, {})
            with pytest.raises(vf.VertexFlowError, match=wanted):
                function(given, x=values, **more)
        for given, values, wanted in [
            ([parts, others][column][row], x, different[0]),
            (part, x.clone().requires_grad_(column == 0), different[1]),
            (part, x.clone().requires_grad_(row == 0), different[1]),
        ]:
            with pytest.raises(vf.InputError, match=wanted):
                function(given, x=values)
    with patch.dict(os.environ, VERTEXFLOW_BACKEND="eager"), pytest.raises(vf.InputError, match='backend="eager"'):
        model(part, x)
    with pytest.raises((vf.InputError, RuntimeError), match="gradients of gradients"):
        torch.autograd.grad(model(part, x).sum(), list(model.parameters()), create_graph=True)
    for function, wanted in ((model.whole, "parts of graphs"), (model.function, "its columns on several ranks")):
        with pytest.raises(vf.InputError, match=wanted):
            vf.parallel.GradientNoise(function, group=mesh["vertices"])
    ours.sum().backward()  # nothing was changed
    model(part, x).sum().backward()


def of_native_code(mesh: DeviceMesh) -> None:
    """The same where PyTorch is called from generated code: for exchanges and for gatherings."""
    with patch.dict(os.environ, VERTEXFLOW_BACKEND="native"):
        of_losses_and_gradients(mesh, ["dags"])


def of_autocast(mesh: DeviceMesh) -> None:
    """In half precision as one process has it: the exchanges too carry what a rank's columns are there."""
    case, _ = BOTH["slots"]
    one, (model, call), (batch, x) = case.model(), spread("slots", mesh), inputs_of(case)
    rank_of = np.arange(batch.num_vertices) % 2
    part = vf.parallel.divide(batch, 2, rank_of=rank_of)[mesh["vertices"].get_local_rank()]
    one.float(), model.float()
    with torch.autocast("cpu", torch.bfloat16):
        wanted, ours = one(batch, x.float())[part.own], call(part, x[part.own].float())
    assert ours.dtype == wanted.dtype
    torch.testing.assert_close(ours, wanted, rtol=0.03, atol=0.03)
    vf.parallel.mean(ours, group=mesh["vertices"]).backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def of_checkpoints(mesh: DeviceMesh, folder: str) -> None:
    """What both write, one process reads, and both go on from what it wrote."""
    rows, columns = mesh["vertices"], mesh["hidden"]
    case, _ = BOTH["slots"]
    batch, x = inputs_of(case)
    part = vf.parallel.divide(batch, 2, rank_of=np.arange(batch.num_vertices) % 2)[rows.get_local_rank()]

    def steps(call, model, optimizer, count, *given):
        for _ in range(count):
            optimizer.zero_grad()
            losses = call(*given)
            (vf.parallel.mean(losses, group=rows) if call is not model else losses.mean()).backward()
            vf.parallel.clip_grad_norm_(call, 0.1)
            optimizer.step()

    one = case.model()
    of_one = torch.optim.Adam(one.parameters(), lr=0.01)
    steps(one, one, of_one, 2, batch, x)
    model, call = spread("slots", mesh)
    of_both = torch.optim.Adam(model.parameters(), lr=0.01)
    steps(call, model, of_both, 2, part, x[part.own])
    vf.parallel.save(folder, 2, call, of_both)
    read = Case(lambda: BOTH["slots"][0].make(), TREES).model()
    of_read = torch.optim.Adam(read.parameters(), lr=0.01)
    assert vf.parallel.load(folder, read, of_read) == 2
    for (name, ours), wanted in zip(read.named_parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(ours, wanted, **EXACT, msg=lambda text, at=name: f"{at}: {text}")
    vf.parallel.save(folder, 3, read, of_read)
    model, call = spread("slots", mesh)
    of_both = torch.optim.Adam(model.parameters(), lr=0.01)
    assert vf.parallel.load(folder, call, of_both) == 3
    steps(call, model, of_both, 1, part, x[part.own])
    steps(one, one, of_one, 1, batch, x)
    for parameter in model.parameters():
        parameter.grad = parameter.detach()
    values = {name: parameter.detach() for name, parameter in one.named_parameters()}
    agree("continued", model, values, columns.get_local_rank(), columns.size())


def test_losses_and_gradients_are_those_of_one_process(tmp_path):
    run_on_ranks(tmp_path, 4, agree_on_four, list(BOTH))


def agree_on_four(names) -> None:
    of_losses_and_gradients(a_mesh(), names)


def test_what_else_goes_with_both(tmp_path):
    run_on_ranks(tmp_path, 4, on_four, str(tmp_path / "run"))


def on_four(folder) -> None:
    mesh = a_mesh()
    of_what_is_refused(mesh)
    of_edges(mesh)
    of_noise(mesh)
    of_native_code(mesh)
    of_autocast(mesh)
    of_checkpoints(mesh, folder)


def test_eight_ranks(tmp_path):
    run_on_ranks(tmp_path, 8, on_eight)


def on_eight() -> None:
    """Two data ranks of two parts of two columns each; four parts of two columns each, of which one may have no vertex and takes
    part in exchanges."""
    four = DeviceMesh("cpu", torch.arange(8).reshape(4, 2), mesh_dim_names=("vertices", "hidden"))
    of_losses_and_gradients(four, ["ragged"])
    mesh = DeviceMesh("cpu", torch.arange(8).reshape(2, 2, 2), mesh_dim_names=("data", "vertices", "hidden"))
    case, _ = BOTH["slots"]
    one, batch = case.model(), vf.pack(TREES)
    rows = inputs_of(case)[1].split([graph.num_vertices for graph in TREES])
    loss = one(batch, torch.cat(rows)).mean()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in one.named_parameters()}
    mine = [number for number in range(len(TREES)) if number % 2 == mesh["data"].get_local_rank()]
    part = vf.parallel.divide([TREES[number] for number in mine], 2)[mesh["vertices"].get_local_rank()]
    model, call = spread("slots", mesh)
    found = vf.parallel.mean(
        call(part, torch.cat([rows[number] for number in mine])[part.own]), group=call.process_group
    )
    torch.testing.assert_close(found.detach(), loss.detach(), **EXACT)
    found.backward()
    assert agree("data", model, gradients, mesh["hidden"].get_local_rank(), 2) > 1
