"""A run that is saved, continued and killed, under torchrun or alone.

    python -m tests.parallel.continued FOLDER WAYS STEPS [--kill]

It trains to STEPS steps, from the last checkpoint in FOLDER on, writes one every second step, and the weights in the end to
FOLDER/weights.pt. With `--kill`, the last rank kills itself in its first life, in the middle of step 5, while others wait for it.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

import vertexflow as vf

from .cases import CASES

BATCH = 3
CASE = CASES["plain mean"]


def main(folder: str, way: str, steps: int, is_killed: bool = False) -> None:
    torch.set_num_threads(1)
    count = distributed.get_world_size() if distributed.is_initialized() else 1
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    model = CASE.model()
    for module in model.modules():  # noise that each rank draws for itself is not that of one process
        assert not isinstance(module, nn.Dropout)
    call, data = wrapped(model, way) if count > 1 else (model, None)
    spread = call if way in ("hidden", "stages") else model
    optimizer = torch.optim.AdamW(call.parameters(), lr=0.01)
    of_rank = {} if data is None else {"num_replicas": data.size(), "rank": data.get_local_rank()}
    sampler = vf.parallel.BalancedSampler(CASE.graphs, BATCH, **of_rank)
    step = vf.parallel.load(folder, spread, optimizer, sampler=sampler)
    while step < steps:
        if step and step % len(sampler) == 0:
            sampler.set_epoch(step // len(sampler))
        for chosen in sampler:
            optimizer.zero_grad()
            losses, _ = CASE.losses(call, chosen)
            if is_killed and step == 5 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and rank == count - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            vf.parallel.mean(losses, group=data).backward()
            optimizer.step()
            step += 1
            if step % 2 == 0:
                vf.parallel.save(folder, step, spread, optimizer, sampler=sampler)
            if step == steps:
                break
    if count > 1 and way in ("hidden", "stages"):  # ranks have parts of the weights; they are in the checkpoint
        return
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        torch.save(weights, Path(folder) / "weights.pt")


def wrapped(model: nn.Module, way: str) -> tuple[nn.Module, DeviceMesh]:
    """The model on all ranks, and the ranks that have different graphs: all, or half of them, of two columns or stages."""
    count = distributed.get_world_size()
    if way in ("whole", "sharded"):
        mesh = init_device_mesh("cpu", (count,), mesh_dim_names=("data",))
        return vf.parallel.Plan({"data": count}, {"": way}).apply(model, mesh), mesh
    mesh = init_device_mesh("cpu", (count // 2, 2), mesh_dim_names=("data", way))
    parts, stages = dict.fromkeys(("embed", "function", "out"), "whole"), {"embed": 0, "function": 0, "out": 1}
    sizes = {"data": count // 2, way: 2}
    if way == "stages":
        return vf.parallel.Plan(sizes, parts, stages, micro_batches=2).apply(model, mesh, rows={"x": "vertices"}), mesh[
            "data"
        ]
    batch = vf.pack(CASE.graphs)
    x = torch.empty(batch.num_vertices, 3, dtype=torch.float64)
    return vf.parallel.Plan(sizes, {**parts, "function": "hidden"}).apply(model, mesh, (batch, x)), mesh["data"]


if __name__ == "__main__":
    if "RANK" in os.environ:
        distributed.init_process_group("gloo")
    for asked in sys.argv[2].split(","):  # to start processes takes longer than a run
        main(f"{sys.argv[1]}/{asked}", asked, int(sys.argv[3]), "--kill" in sys.argv)
    if distributed.is_initialized():
        distributed.barrier()
        gc.collect()  # DDP, if it is there, before the group that it holds
        distributed.destroy_process_group()
