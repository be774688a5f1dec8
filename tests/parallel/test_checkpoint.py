"""Runs that are continued by another number of ranks, and after a rank was killed, end with the weights of an undisturbed one."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

import vertexflow as vf

from . import continued
from .ranks import run_on_ranks

ROOT = Path(__file__).parents[2]
STEPS = 8
WAYS = ("whole", "sharded")


@pytest.fixture(autouse=True)
def _backend(monkeypatch):
    monkeypatch.setenv("VERTEXFLOW_BACKEND", "torch")


def launched(folder, ways, steps, processes, *more):
    """The run under torchrun, or, of one process, without."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--nproc-per-node", str(processes), "--max-restarts", "1", "--rdzv-backend", "c10d",
                    "--rdzv-endpoint", "localhost:0", "--local-addr", "localhost", "-m"]  # fmt: skip
    command += ["tests.parallel.continued", str(folder), ",".join(ways), str(steps), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "VERTEXFLOW_BACKEND": "torch"}
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # or gloo finds the addresses of ranks that were killed
    done = subprocess.run(command, env=environment, cwd=ROOT, text=True, capture_output=True, timeout=500, check=False)
    assert not done.returncode, (done.stdout + done.stderr)[-4000:]


def agree(folder, wanted):
    for (name, ours), other in zip(torch.load(folder / "weights.pt").items(), wanted.values(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-10, msg=lambda text, at=name: f"{at}: {text}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The weights of one process that was never stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERTEXFLOW_BACKEND", "torch")
        folder = tmp_path_factory.mktemp("undisturbed")
        continued.main(str(folder), "whole", STEPS)
    return torch.load(folder / "weights.pt")


@pytest.mark.slow
def test_a_run_is_continued_where_it_stopped(tmp_path, undisturbed):
    for steps in (1, 4, STEPS):  # the first leaves nothing
        continued.main(str(tmp_path), "whole", steps)
    agree(tmp_path, undisturbed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000000008", "weights.pt"]


def step(model, optimizer, number):
    optimizer.zero_grad()
    losses, _ = continued.CASE.losses(model, [number % 7, (number + 3) % 7])
    losses.mean().backward()
    optimizer.step()


def made(kind):
    model = continued.CASE.model()
    if kind == "momentum":
        return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


@pytest.mark.parametrize("kind", ["adam", "momentum"])
@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.cases(1)
def test_an_optimizer_goes_on_as_if_it_had_not_stopped(tmp_path, kind, at):
    """Also before its first step, which must not become its second; rates that were changed are kept."""
    model, optimizer = made(kind)
    optimizer.param_groups[0]["lr"] = 0.03
    for number in range(at):
        step(model, optimizer, number)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    vf.parallel.save(tmp_path, 1, model, optimizer)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert bool(optimizer.state) == bool(at)
    other, of_other = made(kind)
    assert vf.parallel.load(tmp_path, other, of_other) == 1
    for number in range(at, at + 3):
        step(model, optimizer, number)
        step(other, of_other, number)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def test_noise_is_drawn_on(tmp_path):
    model, optimizer = made("adam")
    vf.parallel.save(tmp_path, 1, model, optimizer)
    wanted = torch.rand(3)
    vf.parallel.load(tmp_path, model, optimizer)
    assert torch.equal(torch.rand(3), wanted)


def test_what_was_not_written_to_its_end_does_not_count(tmp_path):
    model, optimizer = made("adam")
    assert vf.parallel.load(tmp_path, model, optimizer) == 0
    vf.parallel.save(tmp_path, 2, model, optimizer)
    shutil.copytree(tmp_path / "step-000000000002", tmp_path / "step-000000000003")
    (tmp_path / "step-000000000003" / ".metadata").unlink()
    assert vf.parallel.load(tmp_path, model, optimizer) == 2
    vf.parallel.save(tmp_path, 3, model, optimizer)
    assert vf.parallel.load(tmp_path, model, optimizer) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000003"]


def test_checkpoints_of_something_else_are_refused(tmp_path):
    model, optimizer = made("adam")
    sampler = vf.parallel.BalancedSampler(continued.CASE.graphs, 3)
    vf.parallel.save(tmp_path, 1, model, optimizer)
    with pytest.raises(vf.InputError, match="has no 'sampler': it was saved without"):
        vf.parallel.load(tmp_path, model, optimizer, sampler=sampler)
    other = nn.Linear(2, 2)
    of_other = torch.optim.SGD(other.parameters(), lr=1)
    with pytest.raises(vf.InputError, match=r"is of another model: weight is not there, \[2, 2\] of float32 here"):
        vf.parallel.load(tmp_path, other, of_other)
    with pytest.raises(vf.InputError, match="epoch is a int without state_dict"):
        vf.parallel.save(tmp_path, 1, model, optimizer, epoch=3)
    for wrong in (0, True, 1.5):
        with pytest.raises(vf.InputError, match="give the number of steps"):
            vf.parallel.save(tmp_path, wrong, model, optimizer)


@pytest.mark.ranks
def test_four_ranks_write_and_one_two_and_eight_go_on(tmp_path, undisturbed):
    ways = (*WAYS, "hidden", "stages")
    launched(tmp_path / "four", ways, 4, 4)
    for processes in (1, 2, 8):
        folder = tmp_path / str(processes)
        for way, other in zip(ways, (*WAYS, "stages", "hidden") if processes == 2 else ways, strict=True):
            shutil.copytree(tmp_path / "four" / other, folder / way)  # two go on in another way
        launched(folder, ways, STEPS, processes)
        for way in ways:
            if processes == 1 or way in WAYS:
                agree(folder / way, undisturbed)
            model = continued.CASE.model()
            assert vf.parallel.load(folder / way, model, torch.optim.AdamW(model.parameters())) == STEPS
            for (name, ours), wanted in zip(model.state_dict().items(), undisturbed.values(), strict=True):
                torch.testing.assert_close(
                    ours, wanted, rtol=1e-10, atol=1e-10, msg=lambda text, at=name: f"{at}: {text}"
                )


@pytest.mark.ranks
@pytest.mark.parametrize("way", WAYS)
def test_a_rank_is_killed_and_torchrun_goes_on(tmp_path, undisturbed, way):
    launched(tmp_path, [way], STEPS, 2, "--kill")
    agree(tmp_path / way, undisturbed)


def of_kind(kind, model):
    two = [{"params": list(model.embed.parameters())}, {"params": list(model.function.parameters()), "lr": 0.02}]
    other = [{"params": [*model.embed.parameters(), model.function.bias]}, {"params": [model.function.weight]}]
    made = {
        "adam": lambda: torch.optim.AdamW(model.parameters()),
        "amsgrad": lambda: torch.optim.AdamW(model.parameters(), amsgrad=True),
        "momentum": lambda: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "groups": lambda: torch.optim.AdamW(two),
        "other groups": lambda: torch.optim.AdamW(other),
    }
    return made[kind]()


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.function = nn.Linear(2, 2), nn.Linear(2, 2)

    def step(self, optimizer):
        optimizer.zero_grad()
        self.function(self.embed(torch.ones(2))).sum().backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("there", "here", "wanted"),
    [
        ("adam", "momentum", "it has no option 'dampening' there"),
        ("adam", "amsgrad", "for embed.weight it keeps exp_avg, exp_avg_sq, step there, exp_avg, exp_avg_sq, max"),
        ("amsgrad", "adam", "max_exp_avg_sq, step there, exp_avg, exp_avg_sq, step here"),
        ("groups", "adam", "it has 2 groups of parameters there, 1 here"),
        ("adam", "groups", "it has 1 groups of parameters there, 2 here"),
        ("groups", "other groups", "function.bias is in group 1 of its parameters there, in group 0 here"),
    ],
)
@pytest.mark.parametrize("has_state", [False, True])
def test_another_optimizer_is_refused_and_nothing_is_changed(tmp_path, there, here, wanted, has_state):
    model = Plain()
    optimizer = of_kind(there, model)
    model.step(optimizer)
    vf.parallel.save(tmp_path, 1, model, optimizer)
    other = Plain()
    of_other = of_kind(here, other)
    if has_state:
        other.step(of_other)
    before = copy.deepcopy((other.state_dict(), of_other.state_dict()))
    with pytest.raises(vf.InputError, match=f"is of another optimizer: .*{wanted}"):
        vf.parallel.load(tmp_path, other, of_other)
    torch.testing.assert_close((other.state_dict(), of_other.state_dict()), before, rtol=0, atol=0)
    assert not has_state or other.embed.weight.grad is not None


def test_what_an_optimizer_did_not_keep_yet_is_read(tmp_path):
    """It has made steps, and of a parameter without gradients so far it has no state."""
    model = Plain()
    optimizer = of_kind("adam", model)
    model.step(optimizer)
    vf.parallel.save(tmp_path, 1, model, optimizer)
    other = Plain()
    of_other = of_kind("adam", other)
    other.embed.requires_grad_(False)
    other.step(of_other)
    other.embed.requires_grad_(True)
    vf.parallel.load(tmp_path, other, of_other)
    model.step(optimizer)
    other.step(of_other)
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("is_frozen_there", [True, False])
def test_what_an_optimizer_keeps_of_parameters_that_are_frozen_meanwhile_is_read(tmp_path, is_frozen_there):
    model = Plain()
    optimizer = of_kind("adam", model)
    model.step(optimizer)
    model.embed.requires_grad_(False)
    model.step(optimizer)
    vf.parallel.save(tmp_path, 2, model, optimizer)
    other = Plain()
    of_other = of_kind("adam", other)
    other.embed.requires_grad_(not is_frozen_there)
    vf.parallel.load(tmp_path, other, of_other)
    assert other.embed.weight.requires_grad != is_frozen_there
    for each, its_optimizer in ((model, optimizer), (other, of_other)):
        each.embed.requires_grad_(True)
        each.step(its_optimizer)
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


class Larger(nn.Module):
    """A model that was spread, inside another; the function has a second name."""

    def __init__(self, inner, function):
        super().__init__()
        self.inner, self.again = inner, function


def of_models_spread_in_other_ways(folder):
    """Two ranks, before the first step and after one; groups of which a stage has no parameter."""
    rank, case = torch.distributed.get_rank(), continued.CASE

    def groups(model):
        first = [each for name, each in model.named_parameters() if "embed" in name]
        second = [each for name, each in model.named_parameters() if "out" in name]
        third = [each for name, each in model.named_parameters() if "out" not in name and "embed" not in name]
        return torch.optim.AdamW([{"params": first}, {"params": second, "lr": 0.3}, {"params": third, "lr": 0.4}])

    def stages(plan):
        mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("stages",))
        of_stages = vf.parallel.Plan({"stages": 2}, dict.fromkeys(plan, "whole"), plan)
        return of_stages.apply(case.model(), mesh, rows={"x": "vertices"})

    late = {"embed": 0, "function": 0, "out": 1}
    early = {"embed": 0, "function": 1, "out": 1}
    for number, plan in enumerate((late, early, {"embed": 0, "function": 1, "out": 0})):
        call = stages(plan)
        optimizer = groups(call)
        assert vf.parallel.load(folder, call, optimizer) == number
        assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 0.3, 0.4]
        if number == 1:
            case.losses(call, [0, 1])[0].sum().backward()
            optimizer.step()
        vf.parallel.save(folder, number + 1, call, optimizer)
    with pytest.raises(vf.InputError, match=r"give what plan\.apply returned"):
        vf.parallel.save(folder, 9, nn.ModuleList([call]), optimizer)
    one, other = case.model(), case.model()
    of_one, of_other = groups(one), groups(other)
    case.losses(one, [0, 1])[0].sum().backward()
    of_one.step()
    vf.parallel.load(folder, other, of_other)
    torch.testing.assert_close(other.state_dict(), one.state_dict(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(of_other.state_dict(), of_one.state_dict(), rtol=1e-10, atol=1e-10)

    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("hidden",))
    batch, x = vf.pack(case.graphs), torch.empty(sum(graph.num_vertices for graph in case.graphs), 3).double()
    plan = vf.parallel.Plan({"hidden": 2}, {"embed": "whole", "function": "hidden", "out": "whole"})
    spread = plan.apply(case.model(), mesh, (batch, x))
    alone = init_device_mesh("cpu", (2, 1), mesh_dim_names=("all", "one"))["one"]
    larger = Larger(DistributedDataParallel(spread, process_group=alone.get_group()), spread.function)
    vf.parallel.save(folder / "larger", 1, larger, torch.optim.SGD(larger.parameters(), lr=1))
    whole = case.model()
    wanted = copy.deepcopy(whole.state_dict())
    nn.init.zeros_(whole.embed.weight)
    for parameter in whole.function.parameters():
        nn.init.zeros_(parameter)
    read = Larger(whole, whole.function)
    vf.parallel.load(folder / "larger", read, torch.optim.SGD(read.parameters(), lr=1))
    torch.testing.assert_close(whole.state_dict(), wanted, rtol=0, atol=0, msg=lambda text: f"rank {rank}: {text}")

    vf.parallel.save(folder / "refused", 1, whole, torch.optim.Adam(whole.parameters()))
    optimizer = (torch.optim.Adam if rank else torch.optim.Adagrad)(whole.parameters())
    with pytest.raises(vf.InputError, match="is of another optimizer"):  # on all ranks
        vf.parallel.load(folder / "refused", whole, optimizer)


@pytest.mark.slow
def test_models_spread_in_other_ways(tmp_path):
    run_on_ranks(tmp_path, 2, of_models_spread_in_other_ways, tmp_path / "run")
