"""Ranks that have vertices of the same graphs, and of each of these ranks that share its columns: outputs, losses and gradients
are those of one process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

import vertexflow as vf

from ..models import TreeRNN
from .cases import DAGS, MANY, TREES, Case, Dropped
from .ranks import run_on_ranks
from .test_hidden_processes import HIDDEN, OnEdges, agree, plan_of
from .test_processes import EXACT, clipped
from .test_vertices_processes import OfManySorts, divisions, inputs_of

pytestmark = pytest.mark.ranks


class Beside(nn.Module):
    """A vertex function whose columns are shared, on what one gives that is whole on all ranks."""

    def __init__(self):
        super().__init__()
        self.whole, self.function = OfManySorts(), vf.nn.ChildSumTreeLSTM(3, 4)

    def forward(self, batch, x):
        return self.function(batch, x=self.whole(batch, x=x).h).h.square().sum(-1)


BOTH = {
    **HIDDEN,
    "many sorts": (Case(Beside, [*MANY, *DAGS]), ["function"]),
    "many sorts divided": (Case(Beside, [*MANY, *DAGS]), ["whole", "function"]),
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
        wanted = one(batch, x)
        weights = torch.arange(1, wanted.numel() + 1, dtype=torch.float64).reshape(wanted.shape).sin().abs()
        loss = (wanted * weights).sum() / weights.sum()
        of_x, *of_parameters = torch.autograd.grad(loss, [x, *one.parameters()], retain_graph=True)
        gradients = dict(zip(dict(one.named_parameters()), of_parameters, strict=True))
        for how, rank_of in divisions(batch, rows.size()):
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
            assert agree(f"{name}, {how}", model, gradients, *at) > 1
            torch.testing.assert_close(own_x.grad / rows.size(), of_x[part.own], **EXACT)
            agree(f"{name}, {how}, clipped", model, clipped(call, gradients), *at)
            with torch.no_grad():
                torch.testing.assert_close(call(part, own_x), wanted.detach()[chosen], **EXACT)


def test_both_agree_with_one_process(tmp_path):
    run_on_ranks(tmp_path, 4, on_four)


def on_four() -> None:
    mesh = a_mesh()
    of_losses_and_gradients(mesh, BOTH)
