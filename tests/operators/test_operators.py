"""A choice of PyTorch's operator database; `python -m tests.operators` runs all of it, and says what it is about."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

import vertexflow as vf

from .__main__ import groups
from .samples import ALIKE, MIXING, RANDOM, Sample, classify, samples
from .vertices import REFUSED, RIGHT, WRONG, check, reference

POINTWISE = """abs add addcmul atan2 ceil clamp copysign cos div.no_rounding_mode eq erf exp expm1 fmod frac ge lerp log log1p
logaddexp logical_and logit lt maximum mul nan_to_num ne neg nn.functional.elu nn.functional.gelu nn.functional.hardtanh
nn.functional.leaky_relu nn.functional.logsigmoid nn.functional.mish nn.functional.relu nn.functional.silu
nn.functional.softplus pow reciprocal remainder round rsqrt sigmoid sign sin sqrt square sub tanh trunc where"""
VIEWS = """cat chunk diagonal expand flatten flip gather index_select masked_fill movedim narrow nn.functional.pad.constant permute
repeat reshape select slice split squeeze stack t take_along_dim tensor_split transpose tril unbind unflatten unsqueeze
view roll"""
OTHERS = """amax argmax bmm cumsum einsum linalg.norm log_softmax logsumexp matmul max.reduction_with_dim mean
nn.functional.bilinear nn.functional.conv1d nn.functional.cosine_similarity nn.functional.dropout nn.functional.embedding
nn.functional.group_norm nn.functional.layer_norm nn.functional.linear nn.functional.normalize norm prod rand_like
scatter_add softmax sort sum topk var"""
EVERY = f"{POINTWISE} {VIEWS} {OTHERS}".split()


@pytest.fixture(scope="module")
def chosen() -> list[Sample]:
    """For each operator, one sample of each kind that it has."""
    return [sample for name in EVERY for sample in samples(name, most=1)]


@pytest.mark.parametrize("backend", ["torch", "compile"])
def test_rows_alike_are_right_and_mixed_rows_are_refused(chosen, backend):
    for group in groups(chosen):
        outcomes = check(group, [reference(sample) for sample in group], [backend])[backend]
        for sample, outcome in zip(group, outcomes, strict=True):
            allowed = (REFUSED,) if sample.kind == MIXING else (RIGHT, REFUSED)
            assert outcome.verdict in allowed, f"{sample.title}: {outcome.detail}"


# What the test above, and the whole run, rest on.


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
def test_a_wrong_value_a_wrong_gradient_and_a_refusal_are_told_apart_and_from_others(call, verdict, detail):
    good = sample_of(torch.cos, (5, 2))
    other = Sample("", torch.float64, 1, ALIKE, lambda given: [call(*given)], good.tensors, (0,))
    first, second, third = check([good, other, good], [reference(one) for one in (good, other, good)], ["torch"])["torch"]
    assert (first.verdict, third.verdict) == (RIGHT, RIGHT)
    assert second.verdict == verdict
    assert detail in second.detail
