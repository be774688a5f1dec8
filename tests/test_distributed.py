"""Two processes over gloo: DDP and FSDP2 give what one process gives for the mean of both losses."""

from __future__ import annotations

import os
import socket
import traceback
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import vertexflow as vf

from .models import TreeRNN
from .versions import SHARDS

STEPS = 2


class Classifier(nn.Module):
    """A vertex function within a larger module."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 3)
        self.tree = TreeRNN(3, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, batch, x):
        return vf.Outputs(h=self.out(self.tree(batch, x=self.embed(x)).h))


class Kinds(vf.VertexFunction):
    """Each kind has parameters of its own."""

    def __init__(self):
        super().__init__(state={"h": 3})
        self.of_leaf, self.of_node = nn.Linear(3, 3), nn.Linear(3, 3)

    @vf.vertex("leaf")
    def leaf(self, v):
        h = torch.tanh(self.of_leaf(v.pull("x")))
        v.scatter(h=h)
        v.push(h=h)

    @vf.vertex("node")
    def node(self, v):
        h = torch.tanh(self.of_node(v.gather(0).h))
        v.scatter(h=h)
        v.push(h=h)


def tree() -> nn.Module:
    return TreeRNN(3, 4)


def seeded(make) -> nn.Module:
    torch.manual_seed(0)
    return make()


def loss(call, model: nn.Module, rank: int, step: int) -> torch.Tensor:
    """Of the batch of one rank, of a step; `call` is the model, or what is wrapped around it."""
    generator = torch.Generator().manual_seed(10 * rank + step)
    if isinstance(model, Kinds):  # the second rank has no nodes
        kind = ["leaf", "leaf", "node"] if rank == 0 else ["leaf"]
        batch = vf.pack([vf.graph(len(kind), [(0, 2)] if rank == 0 else [], kind=kind)])
        x = torch.randn(kind.count("leaf"), 3, generator=generator)
    else:
        batch = vf.pack([vf.chain(3 + rank + step), vf.tree(((0, 1), 2))])
        x = torch.randn(batch.num_vertices, 3, generator=generator)
    out = call(batch, x) if isinstance(model, Classifier) else call(batch, x=x)
    assert type(out) is vf.Outputs
    return out.h.square().sum()


def train(make, wrap, rank: int) -> nn.Module:
    model = seeded(make)
    call = wrap(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        optimiser.zero_grad()
        loss(call, model, rank, step).backward()
        optimiser.step()
    return model


@cache
def expected(make) -> nn.Module:
    """One process, the mean of the losses of both ranks."""
    model = seeded(make)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        optimiser.zero_grad()
        sum(loss(model, model, rank, step) / 2 for rank in (0, 1)).backward()
        optimiser.step()
    return model


def agree(model: nn.Module, other: nn.Module) -> None:
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        whole = one.full_tensor() if hasattr(one, "full_tensor") else one
        torch.testing.assert_close(whole, two.data, msg=lambda text, name=name: f"{name}: {text}")


def ddp(**options):
    return lambda model: DistributedDataParallel(model, **options)


def sharded(reshard: bool, inside: tuple[str, ...] = ()):
    def wrap(model: nn.Module) -> nn.Module:
        for name in inside:
            fully_shard(getattr(model, name), reshard_after_forward=reshard)
        return fully_shard(model, reshard_after_forward=reshard)

    return wrap


def of_ddp(rank: int) -> None:
    agree(train(Classifier, ddp(), rank), expected(Classifier))
    for options in (
        {},
        {"static_graph": True},
        {"find_unused_parameters": True},
        {"gradient_as_bucket_view": True},
    ):
        agree(train(tree, ddp(**options), rank), expected(tree))
    agree(train(Kinds, ddp(find_unused_parameters=True), rank), expected(Kinds))
    agree(train(Kinds, ddp(), rank), expected(Kinds))  # those of a missing kind get zeros: nobody waits for them


def of_ddp_that_accumulates(rank: int) -> None:
    model = seeded(tree)
    call = DistributedDataParallel(model)
    with call.no_sync():
        loss(call, model, rank, 0).backward()
    loss(call, model, rank, 1).backward()
    one = seeded(tree)
    sum(loss(one, one, other, step) / 2 for other in (0, 1) for step in (0, 1)).backward()
    for ours, other in zip(model.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, other.grad)


def of_fsdp(rank: int) -> None:
    agree(train(tree, sharded(True), rank), expected(tree))
    for reshard, inside in ((True, ("tree",)), (False, ())):
        agree(train(Classifier, sharded(reshard, inside), rank), expected(Classifier))


def of_fsdp_with_kinds(rank: int) -> None:
    """As with any module: FSDP2 must be told that a process may have no gradient where another has one."""

    def wrap(model: nn.Module) -> nn.Module:
        fully_shard(model).set_reduce_scatter_unused_params(True)
        return model

    agree(train(Kinds, wrap, rank), expected(Kinds))


def of_what_is_refused(rank: int) -> None:
    itself = "parameter or buffer '[uw].weight' is a DTensor, .* fully_shard the vertex function itself"
    for shards in (("u",), ("u", "w")):
        model = tree()
        for name in shards:
            fully_shard(getattr(model, name))
        with pytest.raises(vf.InputTypeError, match=itself):
            loss(model, model, rank, 0)
    traced = tree()
    loss(traced, traced, rank, 0)
    fully_shard(traced.u)
    with pytest.raises(vf.InputTypeError, match=itself):
        loss(traced, traced, rank, 0)
    whole = fully_shard(tree())
    with pytest.raises(vf.InputTypeError, match=r"'w\.weight' is a DTensor"):
        loss(whole.forward, whole, rank, 0)  # around FSDP's hooks
    x = distribute_tensor(torch.ones(4, 3), init_device_mesh("cpu", (2,)))
    with pytest.raises(vf.InputTypeError, match=r"input 'x' is a DTensor, .* x.full_tensor\(\)"):
        tree()([vf.chain(4)], x=x)


def of_native_code(rank: int) -> None:
    os.environ["VERTEXFLOW_BACKEND"] = "native"
    agree(train(tree, ddp(), rank), expected(tree))
    agree(train(tree, sharded(True), rank), expected(tree))


PARTS = [
    of_ddp,
    of_ddp_that_accumulates,
    of_fsdp,
    of_fsdp_with_kinds,
    of_what_is_refused,
    of_native_code,
]


@SHARDS
@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path):
    """All parts in one pair of processes: to start these takes longer than a part."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_process, (port, tmp_path), nprocs=2)
    assert [(tmp_path / str(rank)).read_text() for rank in (0, 1)] == ["passed", "passed"]


def _process(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ.update(GLOO_SOCKET_IFNAME="lo", VERTEXFLOW_BACKEND="torch")
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        for part in PARTS:
            part(rank)
        (folder / str(rank)).write_text("passed")
    except BaseException:
        (folder / str(rank)).write_text(traceback.format_exc())
        os._exit(1)  # the other one waits for this one
    dist.destroy_process_group()
