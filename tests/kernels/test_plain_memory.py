"""Whether tensors lie in memory, at high addresses and at low ones, where Debian's Python has its heap."""

from __future__ import annotations

import pytest
import torch

from vertexflow.kernels import plain


@pytest.fixture(params=["high", "low"], autouse=True)
def _addresses(request, monkeypatch):
    monkeypatch.setattr(plain, "_HIGH", {"high": 1 << 32, "low": 1 << 63}[request.param])


def freed():
    rows = torch.randn(4, 3)
    some = rows[2:]  # its address becomes an offset
    rows.untyped_storage().resize_(0)
    return some


def test_memory_is_told_from_offsets_into_none():
    x = torch.empty(1_000_000)  # mapped, at a high address anywhere
    assert plain.lie_in_memory([])
    assert plain.lie_in_memory([x, x[5:]])
    for other in (freed(), torch.empty(0), torch.empty(3, device="meta")):
        assert not plain.lie_in_memory([x, other])
    assert plain.are_rows_in_memory([x[:4]], 4)
    assert not plain.are_rows_in_memory([freed()], 2)


def test_small_tensors_lie_in_memory_wherever_python_has_them():
    assert plain.lie_in_memory([torch.randn(3), torch.randn(2, 2)])
