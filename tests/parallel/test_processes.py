"""Processes over gloo: losses and gradients are those of one process with the whole batch."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from itertools import chain

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.parallel import DistributedDataParallel

import vertexflow as vf
from vertexflow.parallel import measure_links
from vertexflow.parallel.own_group import own_group

from ..versions import IS_OLD, SHARDS
from .cases import CASES, Case
from .ranks import run_on_ranks

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def shares(case: Case, num_ranks: int) -> list[list[list[int]]]:
    """Ways of giving graphs to ranks: balanced; one rank has almost all; ranks without graphs."""
    samplers = [
        vf.parallel.BalancedSampler(case.graphs, len(case.graphs), num_replicas=num_ranks, rank=rank)
        for rank in range(num_ranks)
    ]
    everything = list(range(len(case.graphs)))
    uneven = [everything[num_ranks - 1 :], *([number] for number in range(num_ranks - 1))]
    return [[next(iter(sampler)) for sampler in samplers], uneven, [[]] * (num_ranks - 1) + [everything]]


def seed(case: Case, rank: int) -> None:
    if case.is_random:
        torch.manual_seed(100 + rank)


def expected(case: Case, model: nn.Module, share: list[list[int]]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of the whole batch in one process, written with plain PyTorch, and its gradients."""
    parts = []
    for rank, chosen in enumerate(share if case.is_random else [sorted(chain.from_iterable(share))]):
        seed(case, rank)
        parts.append(case.losses(model, chosen))
    losses = torch.cat([losses for losses, _ in parts])
    if case.weights == "none":
        loss = losses.mean()
    else:
        weights = torch.cat([weights for _, weights in parts]).double()
        rows, columns = (losses, 1) if losses.dim() == 1 else (losses.sum(1), losses.shape[1])
        loss = (rows * weights).sum() / (weights.sum() * columns)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return loss.detach(), dict(zip(dict(model.named_parameters()), gradients, strict=True))


def agree(name: str, model: nn.Module, gradients: dict[str, torch.Tensor]) -> None:
    for parameter_name, parameter in model.named_parameters():
        grad = parameter.grad
        assert grad is not None, f"{name}: {parameter_name} has no gradient"
        whole = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
        torch.testing.assert_close(
            whole, gradients[parameter_name], **EXACT, msg=lambda text, at=parameter_name: f"{name}, {at}: {text}"
        )


def clipped(call: nn.Module, gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Half of the gradients, after those of the model were clipped to half their norm."""
    norm = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm()
    torch.testing.assert_close(vf.parallel.clip_grad_norm_(call, 2 * norm.item()), norm, **EXACT)  # changes nothing
    torch.testing.assert_close(vf.parallel.clip_grad_norm_(call, norm.item() / 2), norm, **EXACT)
    scale = norm / 2 / (norm + 1e-6)  # as PyTorch has it
    return {name: gradient * scale for name, gradient in gradients.items()}


def ddp(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    return DistributedDataParallel(model, process_group=mesh.get_group())


def sharded(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    from torch.distributed.fsdp import fully_shard  # a second, in each process

    fully_shard(model, mesh=mesh)
    model.set_reduce_scatter_unused_params(True)  # a rank may have no vertex of some kind
    return model


def of_losses_and_gradients(mesh: DeviceMesh, names=tuple(CASES), wraps=(ddp, sharded)) -> None:
    rank, num_ranks = mesh.get_local_rank(), mesh.size()
    for name in names:
        case = CASES[name]
        one, *models = (case.model() for _ in range(1 + len(wraps)))
        calls = [wrap(model, mesh) for wrap, model in zip(wraps, models, strict=True)]
        for share in shares(case, num_ranks):
            loss, gradients = expected(case, one, share)
            for model, call in zip(models, calls, strict=True):
                model.zero_grad()
                seed(case, rank)
                losses, weights = case.losses(call, share[rank])
                ours = vf.parallel.mean(losses, weights, group=mesh if num_ranks < dist.get_world_size() else None)
                torch.testing.assert_close(ours.detach(), loss, **EXACT)
                ours.backward()
                agree(f"{name}, {type(call).__name__}, {share}", model, gradients)


def of_gradients_that_are_added_up(mesh: DeviceMesh) -> None:
    """Two micro-batches; the second has no graphs on one rank."""
    rank, num_ranks = mesh.get_local_rank(), mesh.size()
    case = CASES["plain mean"]
    share = shares(case, num_ranks)[0]
    loss, gradients = expected(case, case.model(), share)
    parts = [share[rank][:2], share[rank][2:]]
    for wrap in (ddp, sharded):
        model = case.model()
        call = wrap(model, mesh)
        rows = sum(case.graphs[number].num_vertices for number in share[rank])
        rows = vf.parallel.sum(torch.tensor(rows), group=mesh)
        assert rows.item() == sum(graph.num_vertices for graph in case.graphs)
        total = 0.0
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            if wrap is sharded:
                model.set_requires_gradient_sync(is_last)
            with contextlib.nullcontext() if is_last or wrap is sharded else call.no_sync():
                ours = vf.parallel.sum(case.losses(call, part)[0], group=mesh) / rows
                ours.backward()
                total += ours.detach()
        torch.testing.assert_close(total, loss, **EXACT)
        agree(wrap.__name__, model, gradients)


def of_functions_of_means(mesh: DeviceMesh) -> None:
    """Gradients of what is made of several means, and of weights that are learned, are exact too."""
    rank, num_ranks = mesh.get_local_rank(), mesh.size()
    x = torch.arange(2 * num_ranks * (num_ranks + 1) / 2, dtype=torch.float64) + 1
    ours = x[rank * (rank + 1) : (rank + 1) * (rank + 2)]  # ranks have 2, 4, 6, ... numbers
    scale = torch.tensor([0.3, 0.7], dtype=torch.float64)

    def loss(scale, x, mean):
        first = mean(x * scale[0], torch.sigmoid(x * scale[1]))
        return first.sqrt() + 0.1 * mean((x * scale[1]).sin(), None).square()

    def plain(values, weight):
        return values.mean() if weight is None else (values * weight).sum() / weight.sum()

    a, b = scale.clone().requires_grad_(), scale.clone().requires_grad_()
    got = loss(a, ours, lambda values, weight: vf.parallel.mean(values, weight, group=mesh))
    wanted = loss(b, x[: num_ranks * (num_ranks + 1)], plain)
    torch.testing.assert_close(got, wanted, **EXACT)
    got.backward()
    wanted.backward()
    dist.all_reduce(a.grad, group=mesh.get_group())
    torch.testing.assert_close(a.grad / num_ranks, b.grad, **EXACT)


def of_rows_that_nobody_has(mesh: DeviceMesh) -> None:
    case = CASES["slots"]
    model = case.model()
    call = ddp(model, mesh)
    losses, weights = case.losses(call, [])
    loss = vf.parallel.mean(losses, weights, group=mesh)
    loss.backward()
    assert loss.item() == 0
    assert not any(parameter.grad.any() for parameter in model.parameters())


def of_a_sampler_s_ranks(mesh: DeviceMesh) -> None:
    sampler = vf.parallel.BalancedSampler(CASES["slots"].graphs, 3)
    assert (sampler.num_replicas, sampler.rank) == (dist.get_world_size(), dist.get_rank())


def of_what_is_refused(mesh: DeviceMesh) -> None:
    if mesh.size() != dist.get_world_size() or dist.get_world_size() < 4:
        return
    two = DeviceMesh("cpu", torch.arange(4).reshape(2, 2), mesh_dim_names=("data", "hidden"))
    with pytest.raises(vf.InputError, match=r"DeviceMesh of 2 dimensions; name one of them: mesh\['data'\]"):
        vf.parallel.mean(torch.ones(2), group=two)
    total = vf.parallel.sum(torch.tensor([dist.get_rank()]), group=two["data"])
    assert total.item() == 2 * (dist.get_rank() % 2) + 2


def of_ranks_that_disagree(mesh: DeviceMesh) -> None:
    rank, num_ranks = mesh.get_local_rank(), mesh.size()
    graphs = CASES["slots"].graphs
    model, sampler = CASES["slots"].model(), vf.parallel.BalancedSampler(graphs, 2, num_replicas=1, rank=0)
    vf.parallel.check_same(group=mesh, model=model, sampler=sampler, options={"lr": 0.1}, x=torch.ones(2))
    if num_ranks == 1:
        return
    is_last = rank == num_ranks - 1
    others = ", ".join(map(str, range(num_ranks - 1)))
    on_others = f"on rank{'s' if num_ranks > 2 else ''} {others}"
    short = vf.parallel.BalancedSampler(graphs[: 6 if is_last else 7], 2, num_replicas=1, rank=0)
    order = vf.parallel.BalancedSampler(graphs[:: -1 if is_last else 1], 2, num_replicas=1, rank=0)
    model.out.bias.data += is_last
    for values, wanted in [
        ({"sampler": short}, rf"sampler\.num_samples is 7 {on_others}, 6 on rank {num_ranks - 1}; sampler\.costs is"),
        ({"sampler": order}, r"disagree: sampler\.costs is checksum \w+ on rank"),
        ({"model": model}, r"disagree: model\.out\.bias is float64 \[1\], checksum \w+ on rank"),
        (
            {"options": {"lr": 0.1 + is_last}},
            rf"options\.lr is 0\.1 {on_others}, 1\.1 on rank {num_ranks - 1}\. Give all",
        ),
        ({"splits": np.arange(2000) + (np.arange(2000) == 1000) * is_last}, r"splits is int64 \[2000\], checksum"),
        ({"tables": [torch.arange(2000) + (torch.arange(2000) == 1000) * is_last]}, r"tables\[0\] is int64 \[2000\]"),
        ({f"extra{rank}": 1}, "extra0 is 1 on rank 0, nothing on rank"),
        ({"many": {str(number): rank for number in range(9)}}, "; 5 more differ"),
    ]:
        with pytest.raises(vf.InputError, match=wanted):
            vf.parallel.check_same(group=mesh, **values)


def of_plans(mesh: DeviceMesh, names=tuple(CASES), is_quick=False) -> None:
    """Models as plans have them give losses and gradients of one process."""
    rank, num_ranks = mesh.get_local_rank(), mesh.size()
    group = mesh if num_ranks < dist.get_world_size() else None
    for name in names:
        case = CASES[name]
        one = case.model()
        modules = [part for part, module in one.named_modules() if part and list(module.parameters())]
        parts = [part for part in modules if not any(part.startswith(f"{other}.") for other in modules)]
        parts = [""] if isinstance(one, vf.VertexFunction) else parts  # which is one part
        mixed = {part: ("sharded", "gathered")[number % 2] for number, part in enumerate(parts)}
        for strategies in ({"": "whole"},) if is_quick else ({"": "whole"}, {"": "sharded"}, mixed):
            model = case.model()
            call = vf.parallel.Plan({"data": num_ranks}, strategies).apply(model, mesh)
            for share in shares(case, num_ranks)[:2]:
                loss, gradients = expected(case, one, share)
                model.zero_grad()
                seed(case, rank)
                losses, weights = case.losses(call, share[rank])
                ours = vf.parallel.mean(losses, weights, group=group)
                torch.testing.assert_close(ours.detach(), loss, **EXACT)
                ours.backward()
                agree(f"{name}, {strategies}, {share}", model, gradients)
                agree(f"{name}, {strategies}, {share}, clipped", model, clipped(call, gradients))


def of_plans_of_other_meshes(mesh: DeviceMesh) -> None:
    model = CASES["slots"].model()
    plan = vf.parallel.Plan({"data": 3}, {"": "whole"})
    if mesh.size() > 1:
        with pytest.raises(vf.InputError, match=f"the plan is for 3 ranks, the mesh has {mesh.size()}"):
            plan.apply(model, mesh)
        with pytest.raises(vf.InputError, match="give the mesh of them"):
            plan.apply(model)


def of_groups_of_ranks_that_were_in_others(mesh: DeviceMesh) -> None:
    """PyTorch's own would wait without end: the first rank has been in one group more."""
    if mesh.get_local_rank() == 0:
        dist.new_group([dist.get_rank()], use_local_synchronization=True)
    group = own_group(list(range(mesh.size())), [mesh.get_group()], timeout=timedelta(seconds=30))
    ranks: list[int] = [-1] * mesh.size()
    dist.all_gather_object(ranks, dist.get_rank(), group=group)
    assert ranks == list(range(mesh.size()))


def of_a_measured_cluster(mesh: DeviceMesh) -> None:
    """Ranks get the same, with links of what they have; ranks that are not in the mesh take no part. Of two dimensions as well,
    along each of which two rows are measured."""
    group = mesh if mesh.size() < dist.get_world_size() else None
    if mesh.size() == 4:
        mesh = DeviceMesh("cpu", [[0, 1], [2, 3]])
    cluster = vf.parallel.Cluster.measure(mesh, seconds=0.01)
    assert (cluster.nodes, cluster.devices) == (2, 2) if mesh.size() == 4 else (1, mesh.size())
    kinds = {1: (), 2: ("devices",), 4: ("devices", "nodes")}[mesh.size()]
    names = ("", ".all_reduce", ".all_gather", ".reduce_scatter", ".all_to_all")
    assert set(cluster.links) == {f"{kind}{name}" for kind in kinds for name in names}
    vf.parallel.check_same(group=group, cluster=cluster)


def of_times_that_ranks_agree_on(mesh: DeviceMesh) -> None:
    """A rank that is slow, and its time is up first, does not stop alone, before others that would wait for it."""
    rank, group, runs, sizes = mesh.get_local_rank(), mesh.get_group(), [0], []

    def run() -> None:
        runs[0] += 1
        time.sleep(0.02 if rank == mesh.size() - 1 else 0)

    measure_links._median(run, group, 0.05)
    for size in measure_links._in_time(range(1000), group, 0.05):
        sizes.append(size)
        time.sleep(0.02 if rank == mesh.size() - 1 else 0)
    assert 2 <= runs[0] < measure_links._TURNS
    assert 2 <= len(sizes) < 10
    vf.parallel.check_same(group=mesh if mesh.size() < dist.get_world_size() else None, runs=runs[0], sizes=sizes)


def of_gradient_noise(mesh: DeviceMesh) -> None:
    """Ranks measure the same, what the gradients of their graphs alone say; with whole parameters and with sharded ones."""
    rank, num_ranks = mesh.get_local_rank(), mesh.size()
    if num_ranks == 1:
        return
    case = CASES["plain mean"]
    one = case.model()
    models = {"whole": case.model(), "sharded": sharded(case.model(), mesh), "kept": gathered(case.model(), mesh)}
    if num_ranks == 4:
        two_by_two = DeviceMesh("cpu", [[0, 1], [2, 3]], mesh_dim_names=("copies", "pieces"))
        models["copies of pieces"] = sharded(case.model(), two_by_two)
    calls = {name: ddp(model, mesh) if name == "whole" else model for name, model in models.items()}
    noises = {name: vf.parallel.GradientNoise(model, decay=0, group=mesh) for name, model in models.items()}
    for share in shares(case, num_ranks)[:2]:
        parts = [case.losses(one, part)[0] for part in share]
        shares_of_rows = [len(part) / sum(map(len, parts)) for part in parts]
        gradients = [
            torch.cat([grad.flatten() for grad in torch.autograd.grad(part.mean(), list(one.parameters()))])
            for part in parts
        ]
        square = sum(w * g for w, g in zip(shares_of_rows, gradients, strict=True)).square().sum().item()
        mean = sum(w * g.square().sum().item() for w, g in zip(shares_of_rows, gradients, strict=True))
        for name, call in calls.items():
            call.zero_grad()
            losses, _ = case.losses(call, share[rank])
            vf.parallel.mean(losses, group=mesh).backward()
            noises[name].add(len(losses))
            noises[name].update(len(share[rank]))
            state = noises[name].state_dict()
            assert state["trace"] == pytest.approx(len(case.graphs) * (mean - square) / (num_ranks - 1), rel=1e-10), (
                name
            )
            assert state["square"] == pytest.approx((num_ranks * square - mean) / (num_ranks - 1), rel=1e-10), name
    vf.parallel.check_same(group=mesh, noise=[noise.state_dict() for noise in noises.values()])
    of_noise_of_accumulated_gradients(mesh, calls, noises)


def gathered(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Parts of it sharded by themselves, and gathered until their backward pass."""
    from torch.distributed.fsdp import fully_shard

    for each in (model.embed, model.function, model):
        fully_shard(each, mesh=mesh, reshard_after_forward=False)
    return model


def of_noise_of_accumulated_gradients(mesh: DeviceMesh, calls: dict, noises: dict) -> None:
    """Two batches of each rank: averaged after each, and after the last alone. One that is not told of does not count."""
    case, rank = CASES["plain mean"], mesh.get_local_rank()
    two = [[[(rank + number) % 7], [(rank + number + 2) % 7, 5]] for number in (0, 3)]
    rows = [sum(len(case.losses(case.model(), each)[0]) for each in batches) for batches in two]
    states = []
    for name, call in calls.items():
        for is_late in (False, True):
            for count, batches in zip(rows, two, strict=True):
                call.zero_grad()
                total = vf.parallel.sum(torch.tensor(count), group=mesh)
                for number, batch in enumerate(batches):
                    last = number == len(batches) - 1
                    if name != "whole":
                        call.set_requires_gradient_sync(last or not is_late)
                    with call.no_sync() if name == "whole" and is_late and not last else contextlib.nullcontext():
                        losses = case.losses(call, batch)[0]
                        if number:  # what is taken beside the backward pass is not added
                            torch.autograd.grad(
                                losses.sum(), next(call.parameters()), retain_graph=True, allow_unused=True
                            )
                        (vf.parallel.sum(losses, group=mesh) / total).backward()
                    noises[name].add(len(losses))
                noises[name].update(3)
            states.append(noises[name].state_dict())
    for state in states[1:]:
        assert state["trace"] == pytest.approx(states[0]["trace"], rel=1e-10)
        assert state["square"] == pytest.approx(states[0]["square"], rel=1e-10)


def of_noise_that_is_refused(mesh: DeviceMesh) -> None:
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    if mesh.size() == 1:
        return
    case = CASES["plain mean"]
    model = case.model()
    early = vf.parallel.GradientNoise(model, group=mesh)
    sharded(model, mesh)
    losses, _ = case.losses(model, [0, 1])
    vf.parallel.mean(losses, group=mesh).backward()
    early.add(len(losses))
    with pytest.raises(vf.InputError, match="another parameter than it was; make GradientNoise after fully_shard"):
        early.update(2)
    half = case.model()
    fully_shard(half.embed, mesh=mesh)
    with pytest.raises(vf.InputError, match="some parameters are sharded and others are not"):
        vf.parallel.GradientNoise(half, group=mesh)
    alone = None
    if mesh.size() == dist.get_world_size():
        alone = DeviceMesh("cpu", [[rank] for rank in range(mesh.size())], mesh_dim_names=("all", "one"))["one"]
    with pytest.raises(vf.InputError, match=r"sharded over the ranks \[0, 1.*and noise is asked of"):
        vf.parallel.GradientNoise(model, group=alone)
    called = nn.Sequential(nn.Linear(3, 1))
    called.again = lambda x: called[0](x)
    fully_shard(called, mesh=mesh)
    register_fsdp_forward_method(called, "again")
    noise = vf.parallel.GradientNoise(called, group=mesh)
    called.again(torch.ones(2, 3)).mean().backward()
    noise.add(2)
    with pytest.raises(vf.InputError, match="the gradient of 'weight' was averaged before it was seen"):
        noise.update(2)
    called.zero_grad()
    called(torch.ones(2, 3)).mean().backward()
    noise.add(2)
    noise.update(2)
    assert noise.updates == 1


PARTS = [
    of_gradient_noise,
    of_noise_that_is_refused,
    of_plans,
    of_plans_of_other_meshes,
    of_groups_of_ranks_that_were_in_others,
    of_a_measured_cluster,
    of_times_that_ranks_agree_on,
    of_ranks_that_disagree,
    of_losses_and_gradients,
    of_gradients_that_are_added_up,
    of_functions_of_means,
    of_rows_that_nobody_has,
    of_a_sampler_s_ranks,
    of_what_is_refused,
]


def quick(mesh: DeviceMesh) -> None:
    """What takes no second, for all ranks."""
    if mesh.size() == dist.get_world_size():
        of_losses_and_gradients(mesh, ("slots",), (ddp,))
        of_plans(mesh, ("slots",), is_quick=True)
        of_plans_of_other_meshes(mesh)
        if not IS_OLD:
            of_gradient_noise(mesh)
            of_noise_that_is_refused(mesh)
        of_times_that_ranks_agree_on(mesh)
        of_groups_of_ranks_that_were_in_others(mesh)
        of_functions_of_means(mesh)
        of_ranks_that_disagree(mesh)


@pytest.mark.ranks
def test_two_processes_agree_with_one(tmp_path):
    run_on_ranks(tmp_path, 2, on_meshes, [quick])


@SHARDS
@pytest.mark.slow
def test_one_two_and_four_processes_agree_with_one(tmp_path):
    run_on_ranks(tmp_path, 4, on_meshes, PARTS)  # to start processes takes longer than a part


def on_meshes(parts) -> None:
    for mesh in [DeviceMesh("cpu", list(range(size))) for size in (1, 2, 4) if size <= dist.get_world_size()]:
        for part in parts:
            if dist.get_rank() < mesh.size():
                part(mesh)
