"""How the ranks of a run share a model: as `vf.parallel.plan` finds it, as a file has it, or each with a whole copy.

States are read and written whole, whatever the plan, so that a run continues with another plan or another number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

import vertexflow as vf

from . import ranks
from .task import Sample

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)  # the first rank has it, the others have nothing
MEASURED = 5.0  # seconds for which the machine is measured


def choose(
    choice: str | None, model: nn.Module, samples: Sequence[Sample], batch_size: int, device: torch.device
) -> vf.parallel.Plan:
    """The plan for `choice`: None, a file, or "auto", which measures the processors and predicts steps on them.

    Raises:
        OSError, ValueError: there is no such plan, or no finding one here.
    """
    if choice is None:
        return vf.parallel.Plan({"data": ranks.count()}, {"": "whole"})
    if choice != "auto":
        return vf.parallel.Plan.load(choice)
    if device.type != "cpu":
        raise ValueError(
            f"auto measures CPUs; for {device.type}, give the file of a plan (vf.parallel.plan, plan.save)"
        )
    with torch.random.fork_rng(devices=[]):  # measuring draws numbers
        cluster = vf.parallel.Cluster.measure(_mesh(device), seconds=MEASURED)
    batch, tokens, _ = vf.collate(list(samples[:batch_size]), rows=(1, 2))
    return vf.parallel.plan(model, [(batch, {"token": tokens})], cluster, strategies=("whole", "gathered", "sharded"))


def apply(plan: vf.parallel.Plan, model: nn.Module, device: torch.device) -> nn.Module:
    """The model as the plan has it. Raises ValueError for a plan of other ranks, or of another model."""
    return plan.apply(model, _mesh(device))


def _mesh(device: torch.device) -> DeviceMesh | None:
    return init_device_mesh(device.type, (ranks.count(),), mesh_dim_names=("data",)) if ranks.count() > 1 else None


def state(model: nn.Module) -> dict[str, Any]:
    """All parameters, on the first rank. All ranks call it."""
    return get_model_state_dict(model, options=WHOLE)


def load(model: nn.Module, saved: dict[str, Any]) -> None:
    """Take what `state` gave; all ranks have read it."""
    set_model_state_dict(model, saved, options=StateDictOptions(full_state_dict=True))


def state_of_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """The same of the optimizer; None before its first step, as PyTorch would take a step to have a state."""
    return get_optimizer_state_dict(model, optimizer, options=WHOLE) if optimizer.state else None


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, saved: dict[str, Any] | None) -> None:
    """Take what `state_of_optimizer` gave."""
    if saved is not None:
        set_optimizer_state_dict(model, optimizer, saved, options=StateDictOptions(full_state_dict=True))
