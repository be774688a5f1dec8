"""Checkpoints that are not what was written, or of something else, are refused, and nothing has changed then."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import vertexflow as vf

from .ranks import run_on_ranks


class Plain(nn.Module):
    def __init__(self, size=2):
        super().__init__()
        self.embed, self.function = nn.Linear(size, 300), nn.Linear(300, 2)

    def step(self, optimizer):
        optimizer.zero_grad()
        self.function(self.embed(torch.ones(1, self.embed.in_features))).sum().backward()
        optimizer.step()


def run(optimizer_of=torch.optim.AdamW, **settings):
    """A model that has made a step, its optimizer, and a sampler in the middle of an epoch."""
    model = Plain(**settings)
    optimizer = optimizer_of(model.parameters())
    model.step(optimizer)
    sampler = vf.parallel.BalancedSampler([vf.chain(length) for length in range(1, 9)], 2, num_replicas=1, rank=0)
    return model, optimizer, sampler


def state_of(model, optimizer, sampler):
    random = torch.get_rng_state()
    grads = [each.grad for each in model.parameters()]
    return copy.deepcopy((model.state_dict(), optimizer.state_dict(), sampler.state_dict(), grads, random))


def refused(folder, model, optimizer, sampler, match, **more):
    before = state_of(model, optimizer, sampler)
    with pytest.raises(vf.InputError, match=match):
        vf.parallel.load(folder, model, optimizer, sampler=sampler, **more)
    torch.testing.assert_close(state_of(model, optimizer, sampler), before, rtol=0, atol=0)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def taken_away(path):
    path.unlink()


def one_number_changed(path):
    data = bytearray(path.read_bytes())
    at = data.index(torch.full((7,), 1.25).numpy().tobytes())  # in the middle of a tensor
    data[at + 14] ^= 1
    path.write_bytes(bytes(data))


def filled_with_noise(path):
    path.write_bytes(torch.randint(256, (path.stat().st_size,), dtype=torch.uint8).numpy().tobytes())


@pytest.mark.parametrize(
    ("damage", "wanted"),
    [
        (cut_short, "it has .* bytes, of at least"),
        (cut_in_half, "it has .* bytes, of at least"),
        (emptied, "it has 0 bytes, of at least"),
        (taken_away, "No such file"),
        (one_number_changed, "from byte .*other numbers than were written"),
        (filled_with_noise, "from byte .*: BadZipFile"),
    ],
)
def test_files_that_are_damaged_are_refused(tmp_path, damage, wanted):
    model, optimizer, sampler = run()
    nn.init.constant_(model.function.weight, 1.25)
    vf.parallel.save(tmp_path, 1, model, optimizer, sampler=sampler)
    damage(tmp_path / "step-000000000001" / "__0_0.distcp")
    refused(tmp_path, *run(), rf"__0_0\.distcp is not what was written \({wanted}.*nothing was read")


@pytest.mark.parametrize("damage", [cut_short, cut_in_half, emptied, filled_with_noise])
def test_metadata_that_is_damaged_is_refused(tmp_path, damage):
    model, optimizer, sampler = run()
    vf.parallel.save(tmp_path, 1, model, optimizer, sampler=sampler)
    damage(tmp_path / "step-000000000001" / ".metadata")
    refused(tmp_path, *run(), r"metadata is not what was written \(")


def test_files_of_another_model_are_refused(tmp_path):
    """The data of one checkpoint with the metadata of another: the larger one has the smaller one's places."""
    for name, size in (("one", 2), ("other", 900)):
        vf.parallel.save(tmp_path / name, 1, *run(size=size)[:2])
    here = tmp_path / "one" / "step-000000000001"
    shutil.copy(tmp_path / "other" / "step-000000000001" / "__0_0.distcp", here)
    model, optimizer, sampler = run()
    before = state_of(model, optimizer, sampler)
    with pytest.raises(vf.InputError, match=r"__0_0\.distcp is not what was written"):
        vf.parallel.load(tmp_path / "one", model, optimizer)
    torch.testing.assert_close(state_of(model, optimizer, sampler), before, rtol=0, atol=0)


def test_other_dtypes_are_refused(tmp_path):
    model, optimizer, sampler = run()
    vf.parallel.save(tmp_path, 1, model, optimizer, sampler=sampler)
    other, of_other, sampler = run()
    refused(
        tmp_path, other.double(), of_other, sampler, r"embed.weight is \[300, 2\] of float32 there, .* of float64 here"
    )
    other, of_other, sampler = run()
    for state in of_other.state.values():
        state["exp_avg"] = state["exp_avg"].bfloat16()
    refused(tmp_path, other, of_other, sampler, r"exp_avg of embed.weight is torch.float32 there, torch.bfloat16 here")


def test_what_refuses_its_state_changes_nothing(tmp_path):
    """A sampler of other data; what came before it has its old state again."""
    model, optimizer, sampler = run()
    rates = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    rates.step()
    vf.parallel.save(tmp_path, 1, model, optimizer, sampler=sampler, rates=rates)
    other, of_other, _ = run()
    of_other_data = vf.parallel.BalancedSampler([vf.chain(3)] * 5, 2, num_replicas=1, rank=0)
    others_rates = torch.optim.lr_scheduler.StepLR(of_other, 3)
    before = copy.deepcopy(others_rates.state_dict())
    refused(tmp_path, other, of_other, of_other_data, "sampler refuses its state .*num_samples=8", rates=others_rates)
    assert others_rates.state_dict() == before


def test_checksums_are_written_also_where_pytorch_is_told_not_to(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        model, optimizer, _ = run()
        vf.parallel.save(tmp_path, 1, model, optimizer)
        assert not torch.serialization.get_crc32_options()
    finally:
        torch.serialization.set_crc32_options(True)
    assert vf.parallel.load(tmp_path, *run()[:2]) == 1


def of_one_rank_s_file(folder):
    """What one rank cannot read, no rank takes; sharded, so that each has something else to read."""
    rank = distributed.get_rank()
    model, optimizer, _ = run()
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters())
    vf.parallel.save(folder, 1, model, optimizer)
    before = [each.to_local().clone() for each in model.parameters() if isinstance(each, DTensor)]
    after = [each + 1 for each in before]
    with torch.no_grad():
        for each in model.parameters():
            each.add_(1)
    if rank == 0:
        whole = (folder / "step-000000000001" / "__1_0.distcp").read_bytes()
        cut_short(folder / "step-000000000001" / "__1_0.distcp")
    distributed.barrier()
    with pytest.raises(vf.InputError, match=r"__1_0\.distcp is not what was written"):
        vf.parallel.load(folder, model, optimizer)
    for each, value in zip(model.parameters(), after, strict=True):
        assert torch.equal(each.to_local(), value)
    assert not optimizer.state
    distributed.barrier()
    if rank == 0:
        (folder / "step-000000000001" / "__1_0.distcp").write_bytes(whole)
    distributed.barrier()
    assert vf.parallel.load(folder, model, optimizer) == 1
    for each, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(each.to_local(), value)


@pytest.mark.slow
def test_what_one_rank_cannot_read_no_rank_takes(tmp_path):
    run_on_ranks(tmp_path, 2, of_one_rank_s_file, tmp_path / "run")


def test_metadata_with_one_wrong_byte_are_not_unpickled(tmp_path, monkeypatch):
    model, optimizer, _ = run()
    vf.parallel.save(tmp_path, 1, model, optimizer)
    file = next(tmp_path.glob("*/.metadata"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    monkeypatch.setattr("pickle.load", lambda *_, **__: pytest.fail("it was unpickled"))
    with pytest.raises(
        vf.InputError, match=r"metadata is not what was written \(ValueError: its checksum is another one\)"
    ):
        vf.parallel.load(tmp_path, model, optimizer)


class Refuses:
    def state_dict(self):
        return {"step": 1}

    def load_state_dict(self, state):
        raise ValueError("not mine")


def test_a_learning_rate_that_is_a_tensor_stays_where_something_is_refused(tmp_path):
    model, *_ = run()
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.01))
    vf.parallel.save(tmp_path, 1, model, optimizer, other=Refuses())
    rate = optimizer.param_groups[0]["lr"]
    rate.fill_(0.5)
    with pytest.raises(vf.InputError, match="other refuses its state"):
        vf.parallel.load(tmp_path, model, optimizer, other=Refuses())
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate == 0.5


class NeedsAClosure(torch.optim.SGD):
    def step(self, closure=None):
        raise RuntimeError("no closure")


def test_a_learning_rate_stays_where_an_optimizer_refuses_an_empty_step(tmp_path):
    model, *_ = run()
    optimizer = NeedsAClosure(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = None
    with pytest.raises(RuntimeError, match="no closure"):
        vf.parallel.save(tmp_path, 1, model, optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert all(parameter.grad is None for parameter in model.parameters())
