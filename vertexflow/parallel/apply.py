"""Carry out a plan: DDP where parameters are whole, `fully_shard` where they are divided, a pipeline for stages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError, InputTypeError
from ..function import VertexFunction
from .micro_batches import Cutter, positions
from .own_group import own_group
from .plan import DIMENSIONS
from .reduce import name_groups

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from .plan import Plan


def apply(
    plan: Plan, model: nn.Module, mesh: DeviceMesh | None, batch: Any, rows: Mapping[str, str | None] | None
) -> nn.Module:
    """See `Plan.apply`."""
    if rows is not None and not isinstance(rows, Mapping):
        raise InputTypeError(f'rows is a {type(rows).__name__}; give a mapping by arguments: {{"x": "vertices"}}')
    modules = _check(plan, model)
    names = positions(model, rows or {}) if plan.ranks("stages") > 1 else []
    ways = {plan.parts[name] for name in _with_parameters(plan, modules)}
    if plan.size == 1 and mesh is None:
        return model
    meshes = _meshes(plan, mesh)
    if plan.size == 1:
        return model
    if plan.size > plan.with_rows:
        name_groups()
    if plan.ranks("hidden") > 1:
        from .hidden import divide

        of_stage = _parts_in_stages(plan, modules) if plan.ranks("stages") > 1 else {}
        own_stage = meshes["stages"].get_local_rank() if of_stage else 0
        hidden = [name for name, strategy in plan.parts.items() if strategy == "hidden"]
        divide(
            model, [(name, of_stage.get(name, 0) == own_stage) for name in hidden], meshes["hidden"].get_group(), batch
        )
    if plan.ranks("vertices") > 1:
        for module in model.modules():
            if isinstance(module, VertexFunction):
                module._part_group = meshes["vertices"].get_group()
                module._column_group = meshes["hidden"].get_group() if "hidden" in meshes else None
    if plan.ranks("stages") > 1:
        from .pipeline import Pipeline

        stages = meshes["stages"]
        model = Pipeline(
            model,
            _parts_in_stages(plan, modules),
            stages.get_group(),
            Cutter(plan.micro_batches, rows or {}, names, has_parts=plan.ranks("vertices") > 1),
            device_of(stages),
        )
    if ways <= {"whole", "hidden"}:
        has_gradients = any(parameter.requires_grad for parameter in model.parameters())
        if plan.size > plan.ranks("data") and (plan.with_rows == 1 or not has_gradients):
            return model
        return DistributedDataParallel(model, process_group=_with_rows(plan, meshes, mesh).get_group())
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
        raise InputError(
            f"parts that are gathered or sharded need PyTorch 2.13, this is {torch.__version__}: before, fully_shard fails or "
            "waits where one rank has no gradient and others have one, as of a kind that it lacks; take these parts whole"
        )
    data = _with_rows(plan, meshes, mesh)
    # Inner modules first: each takes the parameters that no module in it has taken, the model the rest.
    for name in _with_parameters(plan, modules):
        if name:
            fully_shard(modules[name], mesh=data, reshard_after_forward=plan.parts[name] == "sharded")
    sharded = fully_shard(model, mesh=data, reshard_after_forward=plan.parts.get("") == "sharded")
    sharded.set_reduce_scatter_unused_params(True)  # a rank may have no vertex of some kind
    return model


def _with_rows(plan: Plan, meshes: Mapping[str, DeviceMesh], mesh: DeviceMesh | None) -> DeviceMesh:
    """The ranks that have different rows, in one dimension: of those that share columns, the ones that have these columns."""
    if plan.ranks("vertices") == 1:
        return meshes["data"]
    if plan.ranks("data") == 1:
        return meshes["vertices"]
    from torch.distributed.device_mesh import DeviceMesh

    assert mesh is not None
    at = mesh.get_coordinate()
    assert at is not None
    with_rows = ("data", "vertices")
    names = mesh.mesh_dim_names or ()
    here = [slice(None) if name in with_rows else own for name, own in zip(names, at, strict=True)]
    ranks = mesh.mesh[tuple(here)].flatten().tolist()
    group = own_group(ranks, [mesh.get_group(name) for name in with_rows])
    return DeviceMesh.from_group(group, mesh.device_type, ranks, mesh_dim_names=("rows",))


def device_of(mesh: DeviceMesh) -> torch.device:
    """Where the tensors of this rank are."""
    if mesh.device_type == "cpu":
        return torch.device("cpu")
    return torch.device(mesh.device_type, torch.get_device_module(mesh.device_type).current_device())


def _check(plan: Plan, model: nn.Module) -> dict[str, nn.Module]:
    """The modules of the plan's parts; refuses what cannot be carried out, before anything is changed."""
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"the model is a {type(model).__name__}, no nn.Module")
    modules = dict(model.named_modules())
    for name in plan.parts:
        if name not in modules:
            raise InputError(
                f"the plan has a part {name!r}, and the model no module of that name; it is a plan of another model"
            )
    functions = [name for name, module in modules.items() if isinstance(module, VertexFunction)]
    for name in plan.parts:
        if outer := [other for other in functions if other != name and (name.startswith(f"{other}.") or not other)]:
            raise InputError(f"part {name!r} is inside the vertex function {outer[0]!r}, which is one part")
    hidden = [name for name, strategy in plan.parts.items() if strategy == "hidden"]
    if hidden and plan.ranks("hidden") == 1:
        raise InputError(
            f'part {hidden[0]!r} is hidden, and the mesh has no ranks of "hidden" that could share its columns'
        )
    if no_function := [name for name in hidden if name not in functions]:
        raise InputError(
            f"part {no_function[0]!r} is hidden and no vertex function; ranks share the columns of vertex functions"
        )
    strategies = {name: plan.parts[name] for name in _with_parameters(plan, modules)}
    whole = [name for name, strategy in strategies.items() if strategy in ("whole", "hidden")]
    if plan.size > 1 and whole and len(whole) < len(strategies):
        other = next(name for name in strategies if name not in whole)
        raise InputError(
            f"part {whole[0]!r} is {strategies[whole[0]]} and part {other!r} {strategies[other]}: parameters "
            'are whole in all parts (DDP), or in none (fully_shard); "gathered" keeps them whole between the passes'
        )
    if plan.size > plan.with_rows and len(whole) < len(strategies):
        other = next(name for name in strategies if name not in whole)
        raise InputError(
            f"part {other!r} is {strategies[other]} on a mesh of {plan.shape.split(':')[0]}; beside ranks that share columns or "
            'parts, parameters are "whole" on data ranks'
        )
    if plan.ranks("stages") > 1:
        _check_stages(plan, modules)
    return modules


def _check_stages(plan: Plan, modules: Mapping[str, nn.Module]) -> None:
    stages = _parts_in_stages(plan, modules)
    for name, module in modules.items():
        inside = [part for part in stages if name == part or name.startswith(f"{part}.") or not part]
        if inside or (
            not isinstance(module, VertexFunction) and not any(True for _ in module.parameters(recurse=False))
        ):
            continue
        what = "is a vertex function" if isinstance(module, VertexFunction) else "has parameters of its own"
        raise InputError(
            f"{f'module {name!r}' if name else 'the model itself'} {what} and is in no part that has a stage; every parameter is "
            "in one stage: put those of the model itself into modules, and give each a stage"
        )
    owners: dict[int, str] = {}
    for part in stages:
        for parameter in modules[part].parameters():
            first = owners.setdefault(id(parameter), part)
            if stages[first] != stages[part]:
                raise InputError(
                    f"parts {first!r} and {part!r} share a parameter, and are in stages {stages[first]} and {stages[part]}; "
                    "parts that share parameters are in one stage"
                )


def _parts_in_stages(plan: Plan, modules: Mapping[str, nn.Module]) -> dict[str, int]:
    """The stage of each part that is called as one; "", the model between its parts, runs where its operands are."""
    stages: dict[str, int] = {}
    for name in sorted(plan.stages, key=len):
        outer = [other for other in stages if name.startswith(f"{other}.")]
        if outer and stages[outer[0]] != plan.stages[name]:
            raise InputError(
                f"part {name!r} is in stage {plan.stages[name]} and inside part {outer[0]!r}, in stage {stages[outer[0]]}; a "
                "part and what is inside it are in one stage"
            )
        if name and not outer:
            stages[name] = plan.stages[name]
    return stages


def _with_parameters(plan: Plan, modules: Mapping[str, nn.Module]) -> list[str]:
    """The parts that have parameters which no part inside them has."""
    names, seen = [], set[int]()
    for name in sorted(plan.parts, key=lambda name: -len(name)):  # inner parts have longer names
        own = {id(parameter) for parameter in modules[name].parameters()} - seen
        seen |= own
        names += [name] if own else []
    return names


def _meshes(plan: Plan, mesh: DeviceMesh | None) -> dict[str, DeviceMesh]:
    """The dimension of the mesh for each of the plan: "data" always, the others where there are several ranks."""
    if not (distributed.is_available() and distributed.is_initialized()):
        raise InputError(
            f"the plan is for {plan.size} ranks, but torch.distributed is not initialised: init_process_group()"
        )
    wanted = [name for name in DIMENSIONS if plan.ranks(name) > 1] or ["data"]
    if mesh is None:
        shape = ", ".join(str(plan.ranks(name)) for name in wanted)
        named = "" if wanted == ["data"] else f", mesh_dim_names={tuple(wanted)}"
        raise InputError(
            f"the plan is for {plan.size} ranks; give the mesh of them: "
            f'init_device_mesh("cpu", ({shape}{"," if len(wanted) == 1 else ""}){named})'
        )
    if mesh.ndim == 1 and len(wanted) == 1:
        meshes = {wanted[0]: mesh}
    else:
        names = mesh.mesh_dim_names or ()
        meshes = {name: mesh[name] for name in wanted if name in names}
        if len(meshes) < len(wanted) or mesh.size() != math.prod(each.size() for each in meshes.values()):
            raise InputError(
                f"the mesh has the dimensions {dict(zip(names, mesh.mesh.shape, strict=True)) or list(mesh.mesh.shape)}, the "
                f"plan { ({name: plan.ranks(name) for name in wanted}) }; name them, and let all others be of size 1"
            )
    for name, each in meshes.items():
        if each.size() != plan.ranks(name):
            raise InputError(
                f"the plan is for {plan.ranks(name)} ranks{'' if name == 'data' else f' of {name!r}'}, the mesh has {each.size()}"
            )
    if "data" not in meshes and mesh.mesh_dim_names and "data" in mesh.mesh_dim_names:
        meshes["data"] = mesh["data"]
    return meshes
