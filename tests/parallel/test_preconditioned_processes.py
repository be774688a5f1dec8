"""The noise of Adam's steps, over processes of gloo: that which one process measures with the graphs of ranks as parts."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

import vertexflow as vf
from vertexflow.parallel.own_group import own_group

from ..versions import SHARDS
from .cases import CASES
from .ranks import run_on_ranks
from .test_processes import ddp, gathered, of_noise_of_accumulated_gradients, sharded, shares

CASE = CASES["plain mean"]


def adam(model, **options) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.8, 0.9), eps=1e-4, **options)


def of_all_ways(mesh: DeviceMesh, **options) -> None:
    """Parameters whole, sharded, and gathered by parts; each with its own optimizer, over its first steps."""
    rank, num_ranks = mesh.get_local_rank(), mesh.size()
    models = {"whole": CASE.model(), "sharded": sharded(CASE.model(), mesh), "kept": gathered(CASE.model(), mesh)}
    if num_ranks == 4:
        two_by_two = DeviceMesh("cpu", [[0, 1], [2, 3]], mesh_dim_names=("copies", "pieces"))
        models["copies of pieces"] = sharded(CASE.model(), two_by_two)
    calls = {name: ddp(model, mesh) if name == "whole" else model for name, model in models.items()}
    optimizers = {name: adam(model, **options) for name, model in models.items()}
    noises = {
        name: vf.parallel.GradientNoise(model, optimizer=optimizers[name], decay=0, group=mesh)
        for name, model in models.items()
    }
    one = CASE.model()
    optimizer = adam(one, **options)
    alone = own_group([dist.get_rank()], [mesh.get_group()])
    wanted = vf.parallel.GradientNoise(one, optimizer=optimizer, decay=0, group=alone)
    for step in range(9):
        share = shares(CASE, num_ranks)[step % 2]
        rows = sum(CASE.graphs[number].num_vertices for part in share for number in part)
        one.zero_grad()
        for part in share:
            losses = CASE.losses(one, part)[0]
            (losses.sum() / rows).backward()
            wanted.add(len(losses))
        wanted.update(len(CASE.graphs))
        assert wanted.updates == max(step - 4, 0)
        optimizer.step()
        for name, call in calls.items():
            with torch.no_grad():
                CASE.losses(call, share[rank])
            optimizers[name].zero_grad()  # after an evaluation, the model's own parameters may be whole ones
            losses = CASE.losses(call, share[rank])[0]
            vf.parallel.mean(losses, group=mesh).backward()
            noises[name].add(len(losses))
            noises[name].update(len(share[rank]))
            optimizers[name].step()
            state, of_one = noises[name].state_dict(), wanted.state_dict()
            assert state == pytest.approx(of_one, rel=1e-10), f"{name}, step {step}"
    assert wanted.state_dict()["trace"] > 0
    vf.parallel.check_same(group=mesh, noise=[noise.state_dict() for noise in noises.values()])
    of_noise_of_accumulated_gradients(mesh, calls, noises)


def of_what_is_refused(mesh: DeviceMesh) -> None:
    model = CASE.model()
    early = adam(model)
    sharded(model, mesh)
    with pytest.raises(vf.InputError, match=r"the optimizer has no parameter 'embed\.weight' of the model"):
        vf.parallel.GradientNoise(model, optimizer=early, group=mesh)
    optimizer = adam(model)
    noise = vf.parallel.GradientNoise(model, optimizer=optimizer, group=mesh)
    for is_late in (True, False):
        model.zero_grad()
        losses = CASE.losses(model, [0, 1])[0]
        vf.parallel.mean(losses, group=mesh).backward()
        noise.add(len(losses))
        if is_late:
            optimizer.step()
            with pytest.raises(vf.InputError, match=r"before optimizer.step\(\)"):
                noise.update(2)
    noise.update(2)


def on_all_ranks() -> None:
    mesh = DeviceMesh("cpu", list(range(dist.get_world_size())))
    of_all_ways(mesh)
    of_what_is_refused(mesh)
    if mesh.size() == 4:
        of_all_ways(mesh, amsgrad=True, foreach=True)


@SHARDS
@pytest.mark.ranks
def test_two_ranks_measure_what_one_process_measures(tmp_path):
    run_on_ranks(tmp_path, 2, on_all_ranks)


@SHARDS
@pytest.mark.slow
def test_four_ranks_measure_what_one_process_measures(tmp_path):
    run_on_ranks(tmp_path, 4, on_all_ranks)
