"""Large memory is used again once nobody has it, and never before."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vertexflow as vf
from benchmarks.device import status
from vertexflow.kernels.memory import pool

from ...models import FromCode, TreeRNN

CPU = torch.device("cpu")
ROWS = pool.LARGE // 4  # of one float each


@pytest.fixture(autouse=True)
def _nothing_waits():
    gc.collect()
    pool.clear()
    yield
    pool.clear()


def test_a_piece_is_used_again_when_its_last_view_is_gone():
    first = pool.empty((ROWS, 1), torch.float32, CPU)
    address, view = first.data_ptr(), first[3:]
    del first
    other = pool.empty((ROWS, 1), torch.float32, CPU)
    assert other.data_ptr() != address
    del view
    assert pool.empty((ROWS, 1), torch.float32, CPU).data_ptr() == address


def test_a_piece_serves_other_shapes_and_dtypes_but_no_much_smaller_ones():
    first = pool.empty((2 * ROWS, 1), torch.float32, CPU)
    address = first.data_ptr()
    del first
    assert pool.empty((ROWS, 1), torch.float32, CPU).data_ptr() != address  # it would waste more than it uses
    other = pool.empty((ROWS, 1), torch.float64, CPU)
    assert other.data_ptr() == address
    assert other.shape == (ROWS, 1)
    assert other.dtype == torch.float64


def test_small_memory_is_left_to_pytorch():
    small = pool.empty((3, 2), torch.bool, CPU)
    assert small.shape == (3, 2)
    del small
    assert pool._free == []


def test_what_waits_is_bounded(monkeypatch):
    monkeypatch.setattr(pool, "KEPT", 3 * pool.LARGE)
    pieces = [pool.empty((ROWS,), torch.float32, CPU) for _ in range(8)]
    del pieces
    assert 0 < sum(piece.nbytes for piece in pool._free) <= pool.KEPT


def test_results_stay_as_they_are_through_later_steps(monkeypatch):
    """Outputs, gradients and saved values of one step are not the memory of the next, whatever is kept of them."""
    monkeypatch.setattr(pool, "LARGE", 4096)
    model = TreeRNN(16, 16)
    model.backend = "native"
    batch = vf.pack([vf.tree(((0, 1), (2, 3)))] * 100)  # every value is large
    x = torch.randn(batch.num_vertices, 16, requires_grad=True)
    out = model(batch, x=x).h
    loss = out.square().mean()
    (grad,) = torch.autograd.grad(loss, x, retain_graph=True)
    kept = [out.detach().clone(), grad.clone()]
    for _ in range(3):
        other = torch.randn_like(x, requires_grad=True)
        model(batch, x=other).h.square().mean().backward()
    (again,) = torch.autograd.grad(loss, x)
    for actual, expected in zip([out, grad, again], [*kept, kept[1]], strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_large_output_may_be_changed_in_place(backend):
    """As a small one; PyTorch forbids it where a function returns several views."""

    def vertex(self, v):
        v.push(one=v.pull("x") * self.scale, other=v.pull("x"))

    model = FromCode(vertex, {}, scale=nn.Parameter(torch.ones(1)))
    model.backend = backend
    x = torch.ones(ROWS // 64, 64, requires_grad=True)
    out = model([vf.graph(len(x), [])], x=x)
    out.one.mul_(2).add_(out.other)
    out.one.sum().backward()
    assert (x.grad == 3).all()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_piece_that_is_let_go_goes_back_to_the_system_though_others_are_kept():
    """The C library keeps what is freed below other pieces, once it has freed as large a piece."""
    np.ones(24 << 20, np.uint8)
    first, second = (pool.empty((16 << 20,), torch.uint8, CPU).fill_(1) for _ in range(2))
    held = status("VmRSS")
    del first
    pool.clear()
    assert status("VmRSS") < held - (14 << 20)
    assert second[-1] == 1


def test_more_memory_than_there_is_is_said_as_pytorch_and_numpy_say_it():
    with pytest.raises(MemoryError, match="no memory for"):
        pool.empty((1 << 60,), torch.uint8, CPU)
