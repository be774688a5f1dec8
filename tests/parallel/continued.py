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
    call = wrapped(model, way) if count > 1 else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    sampler = vf.parallel.BalancedSampler(CASE.graphs, BATCH)
    step = vf.parallel.load(folder, model, optimizer, sampler=sampler)
    while step < steps:
        if step and step % len(sampler) == 0:
            sampler.set_epoch(step // len(sampler))
        for chosen in sampler:
            optimizer.zero_grad()
            losses, _ = CASE.losses(call, chosen)
            if is_killed and step == 5 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and rank == count - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            vf.parallel.mean(losses).backward()
            optimizer.step()
            step += 1
            if step % 2 == 0:
                vf.parallel.save(folder, step, model, optimizer, sampler=sampler)
            if step == steps:
                break
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        torch.save(weights, Path(folder) / "weights.pt")


def wrapped(model: nn.Module, way: str) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh

    plan = vf.parallel.Plan({"data": distributed.get_world_size()}, {"": way})
    return plan.apply(model, init_device_mesh("cpu", (distributed.get_world_size(),)))


if __name__ == "__main__":
    if "RANK" in os.environ:
        distributed.init_process_group("gloo")
    for asked in sys.argv[2].split(","):  # to start processes takes longer than a run
        main(f"{sys.argv[1]}/{asked}", asked, int(sys.argv[3]), "--kill" in sys.argv)
    if distributed.is_initialized():
        distributed.barrier()
        gc.collect()  # DDP, if it is there, before the group that it holds
        distributed.destroy_process_group()
