"""Carry out a plan: DDP where parameters are whole, `fully_shard` where they are divided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError, InputTypeError
from ..function import VertexFunction
from .options import CARRIED_OUT

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from .plan import Plan


def apply(plan: Plan, model: nn.Module, mesh: DeviceMesh | None) -> nn.Module:
    """See `Plan.apply`."""
    modules = _check(plan, model)
    ways = {plan.parts[name] for name in _with_parameters(plan, modules)}
    if plan.size == 1 and mesh is None:
        return model
    data = _data_mesh(plan, mesh)
    if plan.size == 1:
        return model
    if ways <= {"whole"}:
        return DistributedDataParallel(model, process_group=data.get_group())
    from torch.distributed.fsdp import fully_shard

    # Inner modules first: each takes the parameters that no module in it has taken, the model the rest.
    for name in _with_parameters(plan, modules):
        if name:
            fully_shard(modules[name], mesh=data, reshard_after_forward=plan.parts[name] == "sharded")
    sharded = fully_shard(model, mesh=data, reshard_after_forward=plan.parts.get("") == "sharded")
    sharded.set_reduce_scatter_unused_params(True)  # a rank may have no vertex of some kind
    return model


def _check(plan: Plan, model: nn.Module) -> dict[str, nn.Module]:
    """The modules of the plan's parts; refuses what cannot be carried out, before anything is changed."""
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"the model is a {type(model).__name__}, no nn.Module")
    not_yet = [name for name, strategy in plan.parts.items() if strategy not in CARRIED_OUT]
    if not_yet:
        raise InputError(
            f"part {not_yet[0]!r} has the strategy {plan.parts[not_yet[0]]!r}, which is simulated and not carried out yet; "
            f"search with strategies={tuple(sorted(CARRIED_OUT))}"
        )
    for dimension in ("stages", "hidden"):
        if plan.ranks(dimension) > 1:
            raise InputError(
                f"the plan has {plan.ranks(dimension)} ranks of {dimension!r}, which is simulated and not carried out yet; "
                f"search with strategies={tuple(sorted(CARRIED_OUT))}"
            )
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
    strategies = {name: plan.parts[name] for name in _with_parameters(plan, modules)}
    whole = [name for name, strategy in strategies.items() if strategy == "whole"]
    if plan.size > 1 and whole and len(whole) < len(strategies):
        other = next(name for name in strategies if name not in whole)
        raise InputError(
            f"part {whole[0]!r} is whole and part {other!r} {strategies[other]}: parameters are whole in all parts (DDP), or in "
            'none (fully_shard); "gathered" keeps them whole between the passes'
        )
    return modules


def _with_parameters(plan: Plan, modules: Mapping[str, nn.Module]) -> list[str]:
    """The parts that have parameters which no part inside them has."""
    found, seen = [], set[int]()
    for name in sorted(plan.parts, key=lambda name: -len(name)):  # inner parts have longer names
        own = {id(parameter) for parameter in modules[name].parameters()} - seen
        seen |= own
        found += [name] if own else []
    return found


def _data_mesh(plan: Plan, mesh: DeviceMesh | None) -> DeviceMesh:
    """The dimension over which graphs are divided."""
    if not (distributed.is_available() and distributed.is_initialized()):
        raise InputError(
            f"the plan is for {plan.size} ranks, but torch.distributed is not initialised: init_process_group()"
        )
    if mesh is None:
        raise InputError(
            f'the plan is for {plan.size} ranks; give the mesh of them: init_device_mesh("cpu", ({plan.size},))'
        )
    data = mesh
    if mesh.ndim > 1:
        names = mesh.mesh_dim_names or ()
        if "data" not in names or mesh.size() != mesh["data"].size():
            raise InputError(
                f"the mesh has {mesh.ndim} dimensions, {list(mesh.mesh.shape)}; a plan of data alone takes one dimension, or one "
                'named "data" beside others of size 1'
            )
        data = mesh["data"]
    if data.size() != plan.size:
        raise InputError(f"the plan is for {plan.size} ranks, the mesh has {data.size()}")
    return data
