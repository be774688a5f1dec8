"""Ranks that have vertices of the same graphs, in each of two stages: outputs, losses and gradients are those of one process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh

import vertexflow as vf

from .cases import TREES, weighted
from .ranks import run_on_ranks
from .test_processes import EXACT, agree, clipped
from .test_stages_processes import IN_TWO, ROWS
from .test_vertices_processes import divisions, inputs_of, rows_of

pytestmark = pytest.mark.ranks


def test_stages_of_parts_agree_with_one_process(tmp_path):
    run_on_ranks(tmp_path, 4, on_four)


def on_four() -> None:
    mesh = DeviceMesh("cpu", torch.arange(4).reshape(2, 2), mesh_dim_names=("stages", "vertices"))
    for name in IN_TWO:
        of_losses_and_gradients(mesh, name)
    of_what_is_refused(mesh)


def of_losses_and_gradients(mesh: DeviceMesh, name: str) -> None:
    rows, staged = mesh["vertices"], IN_TWO[name]
    one, model = staged.case.model(), staged.case.model()
    plan = vf.parallel.Plan({"stages": 2, "vertices": 2}, dict.fromkeys(staged.stages, "whole"), staged.stages)
    call = plan.apply(model, mesh, rows=ROWS)
    batch, x = inputs_of(staged.case)
    x.requires_grad_()
    wanted, weights, loss, of_x, gradients = weighted(one, batch, x)
    for how, rank_of in divisions(batch, 2):
        if how not in ("at random", "one has nothing", "leaves apart"):
            continue
        part = vf.parallel.divide(batch, 2, reverse=True, rank_of=rank_of)[rows.get_local_rank()]
        own_x = x.detach()[part.own].requires_grad_()
        model.zero_grad()
        ours, chosen = call(part, own_x), rows_of(name, batch, part)
        torch.testing.assert_close(ours, wanted[chosen], **EXACT, msg=lambda text, at=f"{name}, {how}": f"{at}: {text}")
        found = vf.parallel.mean(ours, weights[chosen], group=rows)
        torch.testing.assert_close(found.detach(), loss.detach(), **EXACT)
        found.backward()
        agree(f"{name}, {how}", model, gradients)
        torch.testing.assert_close(own_x.grad / 2, of_x[part.own], **EXACT)
        agree(f"{name}, {how}, clipped", model, clipped(call, gradients))
        with torch.no_grad():
            torch.testing.assert_close(call(part, own_x), wanted.detach()[chosen], **EXACT)


def of_what_is_refused(mesh: DeviceMesh) -> None:
    """Stages that have different parts; on all ranks."""
    staged, row = IN_TWO["slots"], mesh["vertices"].get_local_rank()
    model, batch = staged.case.model(), vf.pack(TREES)
    plan = vf.parallel.Plan({"stages": 2, "vertices": 2}, dict.fromkeys(staged.stages, "whole"), staged.stages)
    call = plan.apply(model, mesh, rows=ROWS)
    parts = vf.parallel.divide(batch, 2, rank_of=np.arange(batch.num_vertices) % 2)
    others = vf.parallel.divide(batch, 2, rank_of=np.arange(1, 1 + batch.num_vertices) % 2)
    x = torch.randn(batch.num_vertices, 3).double()
    for of_stage in ([parts[row], parts[1 - row]], [parts[row], others[row]]):
        part = of_stage[mesh["stages"].get_local_rank()]
        with pytest.raises(vf.InputError, match="were called with different graphs"):
            call(part, x[part.own])
    whole = call(batch, x)  # a batch of the ranks of a pipeline alone
    torch.testing.assert_close(whole, staged.case.model()(batch, x), **EXACT)
    for mesh_of, micro, wanted in [
        ({"vertices": 2, "stages": 2}, 2, "goes through the stages in one piece"),
        ({"vertices": 2, "stages": 2, "hidden": 2}, 1, "not carried out all together; any two of them are"),
    ]:
        with pytest.raises(vf.InputError, match=wanted):
            vf.parallel.Plan(mesh_of, dict.fromkeys(staged.stages, "whole"), staged.stages, micro)
