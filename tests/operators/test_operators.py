"""A choice of PyTorch's operator database; `python -m tests.operators` runs all of it, and says what it is about."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

import vertexflow as vf

from .__main__ import groups
from .samples import ALIKE, MIXING, RANDOM, Sample, classify, samples
from .vertices import REFUSED, RIGHT, WRONG, check, reference

POINTWISE = """abs addcmul atan2 clamp copysign cos div.no_rounding_mode erf exp expm1 fmod lerp log1p logaddexp lt maximum
nan_to_num nn.functional.elu nn.functional.gelu nn.functional.leaky_relu nn.functional.logsigmoid nn.functional.softplus
pow round rsqrt sigmoid sign tanh where"""
VIEWS = """cat chunk diagonal expand flatten gather index_select masked_fill narrow nn.functional.pad.constant permute repeat
select slice squeeze stack take_along_dim tensor_split unbind unflatten"""
OTHERS = """amax argmax bmm cumsum einsum linalg.norm logsumexp matmul mean nn.functional.bilinear nn.functional.conv1d
nn.functional.dropout nn.functional.embedding nn.functional.group_norm nn.functional.layer_norm nn.functional.linear
prod scatter_add softmax sort var"""
MIXED = "amax cumsum flip roll scatter_add softmax sort sum tril"


def first_samples(names: str, *kinds: str) -> list[Sample]:
    """For each operator, its first sample of these kinds."""
    drawn = (sample for name in names.split() for sample in samples(name, most=1) if sample.kind in kinds)
    return list(drawn)


@pytest.mark.slow
def test_operators_that_treat_rows_alike_are_right_or_refused():
    refused = set()
    for group in groups(first_samples(f"{POINTWISE} {VIEWS} {OTHERS}", ALIKE, RANDOM)):
        answers = [reference(sample) for sample in group]
        for backend, outcomes in check(group, answers, ["torch", "native"]).items():
            for sample, outcome in zip(group, outcomes, strict=True):
                assert outcome.verdict in (RIGHT, REFUSED), f"{sample.title}, {backend}: {outcome.detail}"
                refused |= {sample.operator} if outcome.verdict == REFUSED else set()
    assert refused <= {"take_along_dim", "tensor_split"}


@pytest.mark.parametrize("name", MIXED.split())
@pytest.mark.cases(1)
def test_operators_that_mix_rows_are_refused(name):
    (sample,) = first_samples(name, MIXING)
    outcome = check([sample], [reference(sample)], ["torch"])["torch"][0]
    assert outcome.verdict == REFUSED, outcome.detail


# What the tests above, and the whole run, rest on.


def sample_of(call, *shapes: tuple[int, ...]) -> Sample:
    tensors = tuple(torch.rand(shape, dtype=torch.float64).requires_grad_() for shape in shapes)
    kind, rows = classify(lambda given: [call(*given)], tensors)
    return Sample("", torch.float64, 0, kind, lambda given: [call(*given)], tensors, rows)


@pytest.mark.parametrize(
    ("call", "shapes", "kind", "rows"),
    [
        (lambda x: x.exp(), [(3, 2)], ALIKE, (0,)),
        (lambda x: x.sum(1), [(3, 2)], ALIKE, (0,)),
        (lambda x: x.sum(0), [(3, 3)], MIXING, (0,)),
        (lambda x: x.flip(0), [(3, 2)], MIXING, (0,)),
        (lambda x: x / x.shape[0], [(3, 2)], MIXING, (0,)),
        (lambda x: torch.rand_like(x), [(3, 2)], RANDOM, (0,)),
        (lambda x, y: x + y, [(3, 2), (3, 2)], ALIKE, (0, 1)),
        (lambda x, y: x @ y, [(3, 3), (3, 2)], ALIKE, (0,)),
        (lambda x, y, z: (x @ y) * z, [(3, 3), (3, 1), (3, 1)], ALIKE, (0, 2)),
    ],
)
def test_a_sample_treats_rows_alike_if_one_row_gives_one_row(call, shapes, kind, rows):
    assert classify(lambda given: [call(*given)], tuple(torch.rand(shape) for shape in shapes)) == (kind, rows)


def doubled_while_tracing(x):
    return x * 2 if isinstance(x, FakeTensor) else x


class DoubledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * 2 if isinstance(grad, FakeTensor) else grad


def fails_while_tracing(x):
    if isinstance(x, FakeTensor):
        raise vf.VertexFlowError("no")
    return x.clone()


@pytest.mark.parametrize(
    ("call", "verdict", "detail"),
    [
        (doubled_while_tracing, WRONG, "out0_0: Tensor-likes are not close"),
        (DoubledGradient.apply, WRONG, "gradient of rows0_0: Tensor-likes are not close"),
        (lambda x: x.double() if isinstance(x, FakeTensor) else x.double()[:, 0], WRONG, "instead of"),
        (fails_while_tracing, REFUSED, "VertexFlowError: no"),
        (torch.sin, RIGHT, ""),
    ],
)  # fmt: skip
@pytest.mark.cases(1)
def test_a_wrong_value_a_wrong_gradient_and_a_refusal_are_told_apart_and_from_others(call, verdict, detail):
    good = sample_of(torch.cos, (5, 2))
    other = Sample("", torch.float64, 1, ALIKE, lambda given: [call(*given)], good.tensors, (0,))
    first, second = check([good, other], [reference(one) for one in (good, other)], ["torch"])["torch"]
    assert first.verdict == RIGHT
    assert second.verdict == verdict
    assert detail in second.detail
