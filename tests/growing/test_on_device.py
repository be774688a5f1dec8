"""Children on the device of a model: nothing waits for that device, forward or backward.

There need be no device: what is in memory is taken for what only a device knows, and whoever reads it is refused.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import vertexflow as vf
from vertexflow.growing import chosen, frontier, growth

from ..agreement import TOLERANCE
from ..models import BinaryTreeLSTM
from .test_growing_kinds import Tracked

READS = {
    *("_local_scalar_dense", "is_nonzero", "item", "equal", "nonzero", "masked_select"),
    *("_unique2", "unique_dim", "repeat_interleave"),
}


class _Watched(TorchDispatchMode):
    """Refuses operations that give numbers, or sizes, which a device has to compute first."""

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        name = operation.overloadpacket.__name__
        assert name not in READS, f"{operation} waits for the device"
        if name in ("index", "_index_put_impl_"):
            assert all(index is None or index.dtype != torch.bool for index in arguments[1]), f"{operation} counts rows"
        if name in ("index_put", "index_put_"):  # many versions of PyTorch read whether such rows are there
            assert not any(arguments[3:]), f"{operation} waits for the device"
        return operation(*arguments, **(keywords or {}))


@contextlib.contextmanager
def nothing_waits():
    """Refuses to read what is taken for a device's."""

    def refused(tensor, *arguments, **keywords):
        raise AssertionError(f"a tensor of shape {tuple(tensor.shape)} is read, which waits for the device")

    with pytest.MonkeyPatch.context() as patch, _Watched():
        for module in (growth, frontier, chosen):
            patch.setattr(module, "is_on_device", lambda value, device: True)
        for name in ("cpu", "numpy", "tolist", "item", "__array__", "__bool__", "__int__", "__float__", "__index__"):
            patch.setattr(torch.Tensor, name, refused, raising=False)
        yield


def begun(make, x, **settings):
    torch.manual_seed(0)
    model = make().double()
    model.backend = "torch"
    return model, model.start(x=x, **settings)


def grow(make, watched, settings, kinds, rows):
    """Outputs and gradients of a run whose children, and what is read, are on a device, which must not be waited for; or are
    given as arrays, and nobody looks."""
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    model, run = begun(make, x, **settings)
    tables = [torch.tensor([[0, 1], [2, -1], [5, 4]]), torch.tensor([[6, 7], [8, 0], [1, 6]]), torch.tensor([[9, 10]])]
    wanted, outputs = [x, *model.parameters()], []
    for number in range(3):  # the first time, the vertex function is traced
        with nothing_waits() if watched and number else contextlib.nullcontext():
            for table, kind in zip(tables, kinds, strict=True):
                run.extend(table if watched else table.numpy(), **kind)
                outputs.append(run[rows])
            total = sum(value.sin().sum() for output in outputs for value in output.values())
            gradients = torch.autograd.grad(total, wanted, retain_graph=True, materialize_grads=True)
    return [total, *gradients]


CASES = {
    "one method": (lambda: BinaryTreeLSTM(4, 4), {}, [{}] * 3, torch.tensor([6, 8, 8, -1])),
    # What vertices pushed depends on their kinds, which are known here alone.
    "kinds": (Tracked, {"kind": "word"}, [{"kind": "track"}] * 3, slice(6, None)),
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_waits_for_a_device(case):
    make, *settings = CASES[case]
    for one, other in zip(grow(make, True, *settings), grow(make, False, *settings), strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


@pytest.fixture
def device(monkeypatch):
    for module in (growth, frontier, chosen):
        monkeypatch.setattr(module, "is_on_device", lambda value, device: True)


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ([[0, 6]], "vertices that the run had before"),
        ([[-2, 1]], "vertices that the run had before"),
        ([[0, 1, 2]], "more slots than the vertex function gathers"),
    ],
)
def test_a_device_refuses_wrong_children(device, table, error):
    _, run = begun(lambda: BinaryTreeLSTM(4, 4), torch.zeros(6, 4, dtype=torch.float64))
    with pytest.raises(RuntimeError, match=error):
        run.extend(torch.tensor(table))
    assert len(run) == 6
    assert run.extend(torch.tensor([[0, 1, -1]])).tolist() == [6]


def test_children_on_a_device_may_be_refused_without_it(device):
    _, run = begun(lambda: BinaryTreeLSTM(4, 4), torch.zeros(6, 4, dtype=torch.float64))
    with pytest.raises(vf.GraphError, match="children must be a table"):
        run.extend(torch.tensor([0, 1]))
    with pytest.raises(vf.InputTypeError, match="children must be integers, not float32"):
        run.extend(torch.tensor([[0.0, 1.0]]))
    assert run.extend(torch.zeros(0, 2)).tolist() == []


@pytest.mark.parametrize("backend", ["torch", "eager", "native"])
@pytest.mark.cases(2)
def test_where_the_structure_must_be_known_the_device_is_waited_for(device, backend):
    """Children of several kinds, or in any number, may be among the new vertices."""
    torch.manual_seed(0)
    model, x = Tracked().double(), torch.randn(3, 4, dtype=torch.float64)
    model.backend, found = backend, []
    for given in (torch.tensor, np.array):
        run = model.start(x=x, kind="word")
        new = run.extend(given([[0, 1, 2], [3, 0, -1]]), kind=["track", "join"], weight=torch.ones(1, 1).double())
        found.append(run[new].score)
    torch.testing.assert_close(*found, **TOLERANCE)


def test_numbers_on_a_device_are_of_vertices_with_gradients_unless_none_has_any(device):
    model, run = begun(lambda: BinaryTreeLSTM(4, 4), torch.zeros(6, 4, dtype=torch.float64))
    with torch.no_grad():
        run.extend(torch.tensor([[0, 1]]))
    read = run[torch.tensor([6])].h
    assert read.requires_grad
    gradients = torch.autograd.grad(read.sum(), [*model.parameters()], materialize_grads=True)
    assert not any(gradient.any() for gradient in gradients)
    model.requires_grad_(False)
    run = model.start(x=torch.zeros(6, 4, dtype=torch.float64))
    assert not run[torch.tensor([5])].h.requires_grad
