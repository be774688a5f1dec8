"""Ranks that share the columns of a vertex function: losses and gradients are those of one process."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

import vertexflow as vf
from vertexflow.parallel.columns import own

from ..models import TreeRNN
from .cases import CASES, DAGS, KINDS, MANY, TREES, BothWays, Case, Classified, Dropped
from .ranks import run_on_ranks
from .test_processes import EXACT, clipped, shares
from .test_stages_processes import expected

pytestmark = pytest.mark.ranks


class Gated(vf.VertexFunction):
    """Gates that lie side by side, a norm and a softmax over columns, a state of two dimensions and one that is not cut."""

    def __init__(self):
        super().__init__(state={"h": 4, "m": (3, 4), "n": 1})
        self.w, self.u = nn.Linear(3, 12), nn.Linear(4, 12, bias=False)
        self.mix, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)
        self.attend = nn.Linear(4, 1)

    def vertex(self, v):
        left, right = v.gather(0), v.gather(1)
        gates = self.w(v.pull("x")) + self.u(left.h - right.h)
        i, f, u = gates.view(-1, 3, 4).unbind(1)
        score = torch.sigmoid(self.attend(self.norm(left.h + right.h)) + left.n)
        h = torch.sigmoid(i) * torch.tanh(u) + torch.sigmoid(f) * score * self.mix(torch.softmax(left.h * right.h, -1))
        m = torch.stack([h, left.m[:, 0], right.m[:, 1:].sum(1)], 1)
        v.scatter(h=h, m=m, n=score)
        v.push(h=h + m.mean(1), n=score)


class Both(nn.Module):
    """Outputs of two sorts, rows of roots, and an input without layers before it."""

    def __init__(self):
        super().__init__()
        self.function = Gated()

    def forward(self, batch, x):
        out = self.function(batch, x=x)
        return out.h.square().sum(-1) + out.n[:, 0]


class Attention(vf.VertexFunction):
    """Any number of children: a softmax of their scores, and what they are multiplied by, by kind of vertex."""

    def __init__(self):
        super().__init__(state={"h": 4})
        self.of_leaf, self.of_node = nn.Linear(3, 4), nn.Linear(4, 8)

    @vf.vertex("leaf")
    def leaf(self, v):
        h = torch.tanh(self.of_leaf(v.pull("x")))
        v.scatter(h=h)

    @vf.vertex("node")
    def node(self, v):
        kids = v.children
        value, score = self.of_node(kids.h).chunk(2, -1)
        h = v.sum(v.softmax(score) * value) / v.num_children[:, None]
        v.scatter(h=h)
        v.push(h=h)


class Begun(nn.Module):
    """Vertices without children read a state that is learned; only roots are asked for."""

    def __init__(self):
        super().__init__()
        self.start = nn.Parameter(torch.randn(8))
        self.tree = vf.nn.NaryTreeLSTM(3, 8, 2)

    def forward(self, batch, x):
        h0 = self.start.expand(len(batch.leaves), 8)
        return self.tree(batch, x=x, initial={"h": h0}, outputs=batch.roots).h.square().sum(-1)


class Phrases(nn.Module):
    def __init__(self):
        super().__init__()
        self.function = Attention()

    def forward(self, batch, x):
        return self.function(batch, x=x[batch.of_kind("leaf")]).h.square()


HIDDEN = {
    "slots": (Case(lambda: Classified(vf.nn.NaryTreeLSTM(3, 4, 2)), TREES), ["function"]),
    "ragged": (CASES["ragged"], ["function"]),
    "kinds": (Case(Phrases, KINDS), ["function"]),
    "dags": (Case(lambda: Classified(vf.nn.TreeGRU(3, 4)), DAGS, weights="booleans"), ["function"]),
    "both directions": (Case(BothWays, TREES), ["up", "down"]),
    "initial": (Case(Begun, TREES, weights="none"), ["tree"]),
    "views": (Case(Both, TREES), ["function"]),
}


def plan_of(model: nn.Module, mesh: DeviceMesh, hidden: Sequence[str], stages=None) -> vf.parallel.Plan:
    functions = [name for name, each in model.named_modules() if isinstance(each, vf.VertexFunction)]
    others = [
        name
        for name, each in model.named_modules()
        if list(each.parameters(recurse=False)) and not any(name == f or name.startswith(f"{f}.") for f in functions)
    ]
    parts = {**dict.fromkeys(others, "whole"), **dict.fromkeys(hidden, "hidden")}
    sizes = {name: mesh[name].size() for name in mesh.mesh_dim_names}
    return vf.parallel.Plan(sizes, parts, stages or {}, 2 if stages else 1)


def agree(name: str, model: nn.Module, gradients: dict[str, torch.Tensor], rank: int, ranks: int) -> int:
    """Gradients of one process, or this rank's columns of them; returns how many parameters are cut."""
    cut = {}
    for prefix, module in model.named_modules():
        if (divided := getattr(module, "_divided", None)) is not None:
            cut |= {f"{prefix}.{key}".removeprefix("."): columns for key, columns in divided.params.items()}
    for key, parameter in model.named_parameters():
        whole = gradients[key]
        wanted = own(whole, cut[key], rank, ranks) if key in cut else whole
        assert parameter.numel() == whole.numel() // (ranks if key in cut else 1)
        torch.testing.assert_close(parameter.grad, wanted, **EXACT, msg=lambda text, at=key: f"{name}, {at}: {text}")
    return len(cut)


def of_columns(mesh: DeviceMesh, names, found) -> None:
    data, columns = mesh["data"], mesh["hidden"]
    for name in names:
        case, hidden = HIDDEN[name]
        model = case.model()
        batch = vf.pack(case.graphs)
        x = torch.empty(batch.num_vertices, 3, dtype=torch.float64)
        call = plan_of(model, mesh, hidden).apply(model, mesh, (batch, x))
        loss, gradients = found[name]
        for share in shares(case, data.size()) if data.size() > 1 else [[list(range(len(case.graphs)))]]:
            model.zero_grad()
            losses, weights = case.losses(call, share[data.get_local_rank()])
            ours = vf.parallel.mean(losses, weights, group=data)
            torch.testing.assert_close(ours.detach(), loss, **EXACT)
            ours.backward()
            assert agree(f"{name}, {share}", model, gradients, columns.get_local_rank(), columns.size()) > 1
        agree(name, model, clipped(call, gradients), columns.get_local_rank(), columns.size())


def of_noise_and_inputs(mesh: DeviceMesh) -> None:
    """Dropout is that of one process with the first rank's generator; inputs have gradients; evaluation has no noise."""
    columns = mesh["hidden"]
    rank, ranks = columns.get_local_rank(), columns.size()
    one, model = (Case(lambda: Dropped(3, 4), TREES).model() for _ in range(2))
    batch = vf.pack(TREES)
    a = torch.randn(
        batch.num_vertices, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    b = a.detach().clone().requires_grad_()
    call = vf.parallel.Plan({"hidden": ranks}, {"": "hidden"}).apply(model, columns, (batch, a))
    for seed in (3, 4):
        torch.manual_seed(seed)
        wanted = one(batch, a)
        torch.manual_seed(seed + 10 * rank)
        ours = call(batch, b)
        torch.testing.assert_close(ours, wanted, **EXACT)
    wanted.sin().sum().backward()
    ours.sin().sum().backward()
    torch.testing.assert_close(b.grad, a.grad, **EXACT)
    agree("dropout", model, {name: parameter.grad for name, parameter in one.named_parameters()}, rank, ranks)
    one.eval(), model.eval()
    with torch.no_grad():
        torch.testing.assert_close(call(batch, b), one(batch, a), **EXACT)
    with pytest.raises(vf.InputError, match="can only be called"):
        model.start()
    with pytest.raises(vf.InputError, match=r"different graphs \(of 34, 25 vertices\)"):
        call(vf.pack(TREES[: -1 - rank]), b)
    with pytest.raises(vf.InputError, match=r'group=mesh\["data"\]'):
        vf.parallel.mean(ours)


class Noisy(TreeRNN):
    """With noise in a state of one column, which no rank has less of."""

    def __init__(self):
        super().__init__(3, 4)
        self.one = nn.Linear(4, 1)

    def vertex(self, v):
        h = torch.tanh(self.w(v.pull("x")) + self.u(torch.cat([v.gather(0).h, v.gather(1).h], -1)))
        h = h * nn.functional.dropout(self.one(h), 0.5, self.training)
        v.scatter(h=h)
        v.push(h=h)


class AroundNoisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.function = Noisy()

    def forward(self, batch, x):
        return self.function(batch, x=nn.functional.dropout(x, 0.2)).h


def of_noise_of_a_part_that_is_called_by_itself(mesh: DeviceMesh) -> None:
    columns = mesh["hidden"]
    one, model = (Case(AroundNoisy, TREES).model() for _ in range(2))
    batch = vf.pack(TREES)
    x = torch.randn(batch.num_vertices, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plan = vf.parallel.Plan({"hidden": columns.size()}, {"function": "hidden"})
    call = plan.apply(model, columns, (batch, x))
    for ours, whole in [
        (lambda: call(batch, x), lambda: one(batch, x)),
        (lambda: model.function(batch, x=x).h, lambda: one.function(batch, x=x).h),
    ] * 2:
        torch.manual_seed(5)
        wanted = whole()
        torch.manual_seed(5 + 10 * columns.get_local_rank())
        torch.testing.assert_close(ours(), wanted, **EXACT)


class Edges(vf.VertexFunction):
    """Inputs and outputs of edges, a tensor that all vertices share, two layers in a cell, what is detached."""

    def __init__(self):
        super().__init__(state={"h": 4, "c": (2, 3)})
        self.w, self.u = nn.Linear(3, 4), nn.Linear(4, 4)
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))

    def vertex(self, v):
        kids = v.children
        e = torch.tanh(self.u(kids.h) * kids.pull("e") + kids.expand(self.w(v.pull("x"))) + kids.slot[:, None] / 10)
        h = (
            v.sum(e) @ v.shared("W")
            + self.layers(v.max(kids.h))
            + v.mean(kids.c).flatten(1)[:, :4] * e.new_ones(4).detach()
        )
        h = torch.tanh(h + v.logsumexp(kids.h.detach()).clamp(-3, 3))
        v.scatter(h=h, c=torch.stack([h[:, :3], h[:, 1:]], 1))
        v.push(h=h, e=e)


class OnEdges(nn.Module):
    def __init__(self):
        super().__init__()
        self.function = Edges()

    def forward(self, batch, x, e, w):
        return self.function(batch, x=x, e=e, shared={"W": w})


def on_edges():
    """Two models of edges that are alike, graphs, and inputs of vertices, of edges and of all."""
    one, model = (Case(OnEdges, MANY).model() for _ in range(2))
    batch, generator = vf.pack(MANY), torch.Generator().manual_seed(0)
    shapes = (batch.num_vertices, 3), (batch.num_edges, 1), (4, 4)
    given = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    return one, model, batch, given


def of_edges(mesh: DeviceMesh) -> None:
    """In parts of some vertices as well, whose backward pass computes them once more."""
    columns = mesh["hidden"]
    rank, ranks = columns.get_local_rank(), columns.size()
    one, model, batch, given = on_edges()
    again = [value.detach().clone().requires_grad_() for value in given]
    call = vf.parallel.Plan({"hidden": ranks}, {"function": "hidden"}).apply(model, columns, (batch, *given))
    for most in (None, 6):
        one.function.max_vertices = model.function.max_vertices = most
        one.zero_grad(), model.zero_grad()
        for value in (*given, *again):
            value.grad = None
        wanted, ours = one(batch, *given), call(batch, *again)
        for outputs in (wanted, ours):
            sum(value.sin().sum() for value in outputs.values()).backward()
        for name, value in wanted.items():
            torch.testing.assert_close(ours[name], value, **EXACT)
        for value, other in zip(given, again, strict=True):
            torch.testing.assert_close(other.grad, value.grad, **EXACT)
        agree("edges", model, {name: parameter.grad for name, parameter in one.named_parameters()}, rank, ranks)


def tied() -> nn.Module:
    model = BothWays()
    model.down = TreeRNN(4, 4)
    model.down.u = model.up.u
    return model


def of_what_is_refused(mesh: DeviceMesh) -> None:
    columns = mesh["hidden"]
    batch = vf.pack(TREES)
    x = torch.empty(batch.num_vertices, 3)
    ranks = columns.size()
    for model, parts, given, wanted in [
        (TreeRNN(3, 4), {"": "hidden"}, None, r"give a batch, plan\.apply"),
        (TreeRNN(3, 5), {"": "hidden"}, (batch, {"x": x}), r"no product .* 2 ranks can share.*h \[5\]"),
        (
            Classified(TreeRNN(3, 4)),
            {"embed": "hidden", "function": "whole", "out": "whole"},
            (batch, x),
            "no vertex function",
        ),
        (
            Classified(TreeRNN(3, 4)),
            {"embed": "whole", "function": "hidden", "out": "sharded"},
            (batch, x),
            "parameters are",
        ),
        (tied(), {"up": "hidden", "down": "whole"}, (batch, x), r"in several places, up\.u\.weight, down\.u\.weight"),
        (nn.ModuleList([TreeRNN(3, 4), TreeRNN(3, 4)]), {"0": "hidden"}, (batch, x), "cannot be gone through"),
    ]:
        before = {name: value.shape for name, value in model.named_parameters()}
        with pytest.raises(vf.VertexFlowError, match=wanted):
            vf.parallel.Plan({"hidden": ranks}, parts).apply(model, columns, given)
        assert before == {name: value.shape for name, value in model.named_parameters()}
    spread = vf.parallel.Plan({"hidden": ranks}, {"": "hidden"}).apply(TreeRNN(3, 4), columns, (batch, {"x": x}))
    part = vf.parallel.divide(batch, ranks, rank_of=torch.arange(batch.num_vertices) % ranks)[columns.get_local_rank()]
    with pytest.raises(vf.InputError, match=r"with a part of graphs .* a plan says so"):
        spread(part, x=torch.ones(part.num_vertices, 3))
    with pytest.raises(vf.InputError, match='no ranks of "hidden"'):
        vf.parallel.Plan({"data": 2}, {"": "hidden"}).apply(TreeRNN(3, 4), mesh["data"])


def of_stages_and_columns(mesh: DeviceMesh, found) -> None:
    """Two stages of two ranks each."""
    case, hidden = HIDDEN["both directions"]
    model, batch = case.model(), vf.pack(case.graphs)
    x = torch.empty(batch.num_vertices, 3, dtype=torch.float64)
    call = plan_of(model, mesh, hidden, {"up": 0, "down": 1}).apply(model, mesh, (batch, x), rows={"x": "vertices"})
    losses, weights = case.losses(call, range(len(case.graphs)))
    loss = (losses * weights).sum() / weights.sum()
    torch.testing.assert_close(loss.detach(), found["both directions"][0], **EXACT)
    loss.backward()
    agree("stages", model, found["both directions"][1], mesh["hidden"].get_local_rank(), 2)
    agree("clipped", model, clipped(call, found["both directions"][1]), mesh["hidden"].get_local_rank(), 2)


def test_shared_columns_agree_with_one_process(tmp_path):
    found = {name: expected(case) for name, (case, _) in HIDDEN.items()}
    run_on_ranks(tmp_path, 4, agree_on_meshes, found)


def agree_on_meshes(found) -> None:
    two = DeviceMesh("cpu", torch.arange(4).reshape(2, 2), mesh_dim_names=("data", "hidden"))
    of_columns(two, ("slots", "ragged", "kinds", "dags", "views"), found)
    of_noise_and_inputs(two)
    of_noise_of_a_part_that_is_called_by_itself(two)
    of_edges(two)
    of_what_is_refused(two)
    four = DeviceMesh("cpu", torch.arange(4).reshape(1, 4), mesh_dim_names=("data", "hidden"))
    of_columns(four, ("initial",), found)
    staged = DeviceMesh("cpu", torch.arange(4).reshape(2, 2), mesh_dim_names=("stages", "hidden"))
    of_stages_and_columns(staged, found)
