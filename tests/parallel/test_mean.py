"""`vf.parallel.mean` and `sum` in one process: the plain ones. In several processes: `test_processes.py`."""

from __future__ import annotations

import pytest
import torch

import vertexflow as vf
from vertexflow import parallel


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4)])
@pytest.mark.parametrize("weights", [None, "rows", "all", "mask"])
def test_the_plain_mean(shape, weights):
    values = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = None
    if weights is not None:
        weight = torch.rand(shape[:1] if weights == "rows" else shape, dtype=torch.float64)
        weight = weight > 0.3 if weights == "mask" else weight.requires_grad_()
    leaves = [values] if weight is None or weights == "mask" else [values, weight]
    ours = parallel.mean(values, weight)
    if weight is None:
        plain = values.mean()
    elif weights == "mask":
        plain = values[weight].mean()
    else:
        whole = weight.reshape(-1, *[1] * (len(shape) - 1)).expand(shape) if weights == "rows" else weight
        plain = (values * whole).sum() / whole.sum()
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(ours, leaves), torch.autograd.grad(plain, leaves))


def test_what_a_mask_leaves_out_may_be_anything():
    values = torch.tensor([1.0, torch.nan, 3.0], requires_grad=True)
    loss = parallel.mean(values, values.detach() == values.detach())
    loss.backward()
    assert loss.item() == 2
    assert values.grad.tolist() == [0.5, 0, 0.5]


@pytest.mark.parametrize("weight", [None, torch.zeros(0), torch.zeros(0, dtype=torch.bool)])
def test_no_rows(weight):
    values = torch.zeros(0, requires_grad=True)
    loss = parallel.mean(values, weight)
    loss.backward()
    assert loss.item() == 0
    assert values.grad.shape == (0,)
    assert parallel.sum(values).item() == 0


@pytest.mark.parametrize("weight", [torch.zeros(3), torch.zeros(3, dtype=torch.bool)])
def test_no_weights(weight):
    values = torch.randn(3, requires_grad=True)
    loss = parallel.mean(values, weight)
    loss.backward()
    assert loss.item() == 0
    assert not values.grad.any()


def test_half_precision_is_added_up_in_float32():
    values = torch.full((257,), 3.0, dtype=torch.bfloat16)  # which has neither 257 nor 771
    ones = torch.ones(257, dtype=torch.bfloat16)
    for mean in (parallel.mean(values), parallel.mean(values, ones), parallel.mean(values, ones > 0)):
        assert mean.dtype == torch.bfloat16
        assert mean == 3
    assert parallel.sum(values) == torch.tensor(771.0).bfloat16()


def test_weights_do_not_make_half_precision_overflow():
    values = torch.tensor([60000.0, 30048.0], dtype=torch.float16, requires_grad=True)
    loss = parallel.mean(values, torch.tensor([4, 4]))
    loss.backward()
    assert loss.item() == 45024
    assert loss.dtype == torch.float16
    assert values.grad.tolist() == [0.5, 0.5]


def test_sums():
    assert parallel.sum(torch.tensor([True, True, False])).item() == 2
    assert parallel.sum(torch.tensor([[1, 2], [3, 4]])).dtype == torch.int64
    values = torch.randn(3, requires_grad=True)
    parallel.sum(values * 2).backward()
    assert values.grad.tolist() == [2, 2, 2]


def test_what_is_refused():
    ones = torch.ones(3, 2)
    for call, error, match in [
        (lambda: parallel.mean(torch.tensor(1.0)), vf.InputError, 'a single number; .* reduction="none"'),
        (lambda: parallel.mean(3.0), vf.InputTypeError, "takes a tensor, not float"),
        (lambda: parallel.mean(torch.tensor([1, 2])), vf.InputTypeError, r"not int64: values\.float\(\)"),
        (lambda: parallel.mean(ones, torch.ones(2)), vf.InputError, r"weight has the shape \[2\], values \[3, 2\]"),
        (lambda: parallel.mean(ones, torch.tensor(1.0)), vf.InputError, r"weight has the shape \[\]"),
        (lambda: parallel.mean(ones, [1, 2, 3]), vf.InputTypeError, "weight is a list; give a tensor"),
        (lambda: parallel.mean(ones, 1j * ones), vf.InputTypeError, "weight is complex64; give real numbers"),
        (lambda: parallel.mean(ones, group=object()), vf.InputError, "a group was given, but torch.distributed is not"),
        (lambda: parallel.sum(3), vf.InputTypeError, r"not int: torch\.tensor"),
    ]:
        with pytest.raises(error, match=match):
            call()
