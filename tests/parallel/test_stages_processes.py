"""Models in stages over processes, beside ranks that share the graphs: losses and gradients are those of one process."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

import vertexflow as vf

from ..models import TreeRNN
from .cases import CASES, KINDS, MANY, TREES, BothWays, Case, Classified, OfKinds
from .ranks import run_on_ranks
from .test_processes import EXACT, agree, clipped, shares

pytestmark = pytest.mark.ranks
ROWS = {"x": "vertices"}


class Stacked(nn.Module):
    """A part reads what two parts before it gave, and the input of the model."""

    def __init__(self):
        super().__init__()
        self.embed, self.up, self.down = nn.Linear(3, 4), TreeRNN(4, 4), TreeRNN(4, 4)
        self.out = nn.Linear(11, 1)

    def forward(self, batch, x):
        embedded = torch.tanh(self.embed(x))
        up = self.up(batch, x=embedded).h
        down = self.down(batch, x=1 - (embedded + up) / 2, reverse=True).h
        is_any = (up > -2) & (up < 2) | (up > 5)
        return self.out(torch.cat([up * is_any, down, x], -1)).square()[:, 0]


class Start(nn.Module):
    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.randn(4))

    def forward(self, count):
        return self.value.expand(count, 4)


class Begun(nn.Module):
    """Vertices without children read a state that is learned in another stage."""

    def __init__(self):
        super().__init__()
        self.start, self.tree = Start(), TreeRNN(3, 4)

    def forward(self, batch, x):
        return self.tree(batch, x=x, initial={"h": self.start(len(batch.leaves))}).h.square().sum(-1)


class Phrases(nn.Module):
    """Rows of one kind go in, rows of another come out."""

    def __init__(self):
        super().__init__()
        self.embed, self.function = nn.Linear(3, 3), OfKinds()

    def forward(self, batch, x):
        return self.function(batch, x=self.embed(x[batch.of_kind("leaf")])).h.square()


@dataclass(frozen=True)
class Staged:
    case: Case
    stages: dict[str, int]
    micro_batches: int = 3


def classified(function: Callable[[], nn.Module], graphs, **more) -> Case:
    return Case(lambda: Classified(function()), graphs, **more)


IN_TWO = {
    "slots": Staged(CASES["slots"], {"embed": 0, "function": 0, "out": 1}),
    "ragged": Staged(classified(lambda: vf.nn.ChildSumTreeLSTM(3, 4), MANY), {"embed": 0, "function": 1, "out": 1}, 2),
    "kinds": Staged(Case(Phrases, KINDS), {"embed": 0, "function": 1}),
    "dags": Staged(CASES["dags"], {"embed": 0, "function": 1, "out": 1}, 5),
    "both directions": Staged(Case(BothWays, TREES), {"up": 0, "down": 1}),
    "initial": Staged(Case(Begun, TREES, weights="none"), {"start": 0, "tree": 1}, 2),
    "stacked": Staged(Case(Stacked, TREES), {"embed": 0, "up": 0, "down": 1, "out": 1}, 1),
}
IN_FOUR = {"stacked": Staged(Case(Stacked, TREES), {"embed": 0, "up": 1, "down": 2, "out": 3}, 4)}


def expected(case: Case) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model = case.model()
    losses, weights = case.losses(model, range(len(case.graphs)))
    if weights is None:
        loss = losses.mean()
    else:
        rows, columns = (losses, 1) if losses.dim() == 1 else (losses.sum(1), losses.shape[1])
        loss = (rows * weights.double()).sum() / (weights.double().sum() * columns)
    return loss.detach(), dict(
        zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters())), strict=True)
    )


def of_stages(mesh: DeviceMesh, cases: dict[str, Staged], found) -> None:
    """Losses and gradients, with graphs balanced over data ranks, uneven, and all on one of them."""
    data, stage = mesh["data"], mesh["stages"].get_local_rank()
    for name, staged in cases.items():
        case, model = staged.case, staged.case.model()
        plan = vf.parallel.Plan(
            {"stages": mesh["stages"].size(), "data": data.size()},
            dict.fromkeys(staged.stages, "whole"),
            staged.stages,
            staged.micro_batches,
        )
        call = plan.apply(model, mesh, rows=ROWS)
        mine = {part for part, number in staged.stages.items() if number == stage}
        assert {parameter.split(".")[0] for parameter, _ in model.named_parameters()} == mine
        loss, gradients = found[name]
        for share in shares(case, data.size()) if data.size() > 1 else [[list(range(len(case.graphs)))]]:
            model.zero_grad()
            losses, weights = case.losses(call, share[data.get_local_rank()])
            ours = vf.parallel.mean(losses, weights, group=data)
            torch.testing.assert_close(ours.detach(), loss, **EXACT)
            ours.backward()
            agree(f"{name}, {share}", model, gradients)
        agree(f"{name}, clipped", model, clipped(call, gradients))
        with torch.no_grad():
            losses, weights = case.losses(call, share[data.get_local_rank()])
            torch.testing.assert_close(vf.parallel.mean(losses, weights, group=data), loss, **EXACT)


class Noisy(nn.Module):
    """The second stage alone draws numbers; gives a mapping, and what is not of any part."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), TreeRNN(3, 4)

    def forward(self, batch, x):
        out = self.second(batch, x=nn.functional.dropout(self.first(x)))
        return out, (out.h * 2, x + 1)


def of_micro_batches(mesh: DeviceMesh) -> None:
    """Two micro-batches of two graphs each: what is drawn is what a loop over them draws; inputs have gradients on all ranks."""
    stages = {"first": 0, "second": 1}
    one, model = (Case(Noisy, ()).model() for _ in range(2))
    graphs = [vf.chain(3), vf.tree((0, 1)), vf.chain(1), vf.chain(5)]
    x = torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    call = vf.parallel.Plan({"stages": 2}, dict.fromkeys(stages, "whole"), stages, 2).apply(
        model, mesh["stages"], rows=ROWS
    )
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.manual_seed(5)
    pieces = [one(vf.pack(graphs[:2]), a[:6]), one(vf.pack(graphs[2:]), a[6:])]
    torch.manual_seed(5)
    out, (twice, more) = call(vf.pack(graphs), x=b)
    assert isinstance(out, vf.Outputs)
    torch.testing.assert_close(out.h, torch.cat([piece[0].h for piece in pieces]), **EXACT)
    torch.testing.assert_close(more, x + 1, **EXACT)
    sum((piece[0].h.sin() + piece[1][0]).sum() + piece[1][1].square().sum() for piece in pieces).backward()
    result = (out.h.sin() + twice).sum() + more.square().sum()
    result.backward(retain_graph=True)
    torch.testing.assert_close(b.grad, a.grad, **EXACT)
    agree("noisy", model, {name: parameter.grad for name, parameter in one.named_parameters()})
    with pytest.raises(vf.VertexFlowError, match="twice on what a model in stages gave"):
        result.backward()


class Does(nn.Module):
    """Two parts, and something that the ranks of stages cannot do."""

    def __init__(self, does):
        super().__init__()
        self.first, self.second, self.does = nn.Linear(3, 3), nn.Linear(3, 3), does

    def forward(self, batch, x):
        return self.does(self, x)


def of_what_is_refused(mesh: DeviceMesh) -> None:
    batch, x = vf.pack([vf.chain(2), vf.chain(3)]), torch.ones(5, 3)
    stages = {"first": 0, "second": 1}
    plan = vf.parallel.Plan({"stages": 2}, dict.fromkeys(stages, "whole"), stages, 2)
    for does, wanted in [
        (lambda model, x: model.first(model.second(x)), "a value of stage 1 is read in stage 0"),
        (lambda model, x: model.second(model.first(x)).sum(), "a single number, of each micro-batch"),
        (
            lambda model, x: model.second(model.first(x).view(-1, model.first(x).shape[1])),
            r"\.shape of what a part gives",
        ),
        (lambda model, x: [*model.first(x)], "the number of its items"),
        (lambda model, x: model.second(x) if model.first(x).sum() > 0 else x, "whether it is true"),
        (lambda model, x: "text", "gives a str"),
        (
            lambda model, x: (model.second(model.first(x)), model.second(model.first(x[:1])).new_ones(7, 7)),
            r"a tensor of 7, 7 rows in its micro-batches, which have \[2, 3\] vertices; \[1, 2\] edges; \[1, 1\] graphs",
        ),
        (lambda model, x: operator.iadd(model.first(x), 1), r"changed in place \(operator\.iadd\)"),
        (lambda model, x: model.second(h := model.first(x)) + h.mul_(2), r"changed in place \(\.mul_\)"),
        (lambda model, x: nn.functional.relu(model.first(x), inplace=True), r"in place \(relu\(inplace=True\)\)"),
        (lambda model, x: torch.relu_(model.first(x)), r"changed in place \(relu_\)"),
        (
            lambda model, x: model.second(model.first(x).split(1, -1)),
            "a value of stage 0 is read in stage 1 and is no tensor",
        ),
    ]:
        call = plan.apply(Does(does), mesh["stages"], rows=ROWS)
        with pytest.raises(vf.VertexFlowError, match=wanted):
            call(batch, x)
    two = Does(lambda model, x: model.second(model.first(x)))
    with pytest.raises(vf.InputError, match="no such argument; it has batch, x"):  # and nothing has changed
        plan.apply(two, mesh["stages"], rows={"y": "vertices"})
    unsaid = plan.apply(copy.deepcopy(two), mesh["stages"])
    with pytest.raises(
        vf.InputError, match=r"'x' of a model in stages has 5 rows, as many as the batch has vertices. Whether"
    ):
        unsaid(batch, x)
    call = plan.apply(two, mesh["stages"], rows=ROWS)
    for arguments, wanted in [
        ((torch.ones(2), x), "is called on graphs"),
        ((vf.pack([vf.graph(1, []), vf.graph(3, [(0, 1), (1, 2)])]), torch.ones(2, 3)), "the batch 4 vertices"),
    ]:
        with pytest.raises(vf.VertexFlowError, match=wanted):
            call(*arguments)
    with pytest.raises(vf.InputError, match="different graphs"):
        call(vf.pack([vf.chain(2), vf.chain(3 + call.stage)]), torch.ones(5 + call.stage, 3))
    for function in (vf.parallel.load, lambda *arguments: vf.parallel.save("nowhere", 1, *arguments[1:])):
        with pytest.raises(vf.InputError, match="has parts of one stage alone"):
            function("nowhere", call.module, torch.optim.Adam(call.parameters()))
    with pytest.raises(vf.InputError, match="'x' of a model in stages has 4 rows, and the batch 5 vertices"):
        call(batch, torch.ones(4, 3))
    other = call.module.second if call.stage == 0 else call.module.first
    with pytest.raises(AttributeError, match="on another rank, which alone has its 'weight'"):
        other.weight  # noqa: B018
    with pytest.raises(vf.InputError, match="on another rank; call the whole model"):
        other(x)


def test_stages_agree_with_one_process(tmp_path):
    found = {name: expected(staged.case) for name, staged in (IN_TWO | IN_FOUR).items()}
    run_on_ranks(tmp_path, 4, agree_on_meshes, found)


def agree_on_meshes(found) -> None:
    names = ("stages", "data")
    two = DeviceMesh("cpu", torch.arange(4).reshape(2, 2), mesh_dim_names=names)
    of_stages(two, IN_TWO, found)
    of_stages(DeviceMesh("cpu", torch.arange(4).reshape(4, 1), mesh_dim_names=names), IN_FOUR, found)
    of_micro_batches(two)
    of_what_is_refused(two)
