"""What the reference says of a sample, and how far from it a result may be."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..agreement import join
from ..reference import run_reference
from .functions import Function
from .inputs import Leaves, bases_of, laid_out, shared_of
from .samples import Sample

LARGEST = 1e5  # beyond, 1e-10 is no longer a matter of rounding
EXACT = 1e-10


class UnsuitableError(Exception):
    """The reference cannot tell right from wrong: the code fails in plain PyTorch, or its values are too large."""


@dataclass
class Expected:
    """Outputs, and gradients of a weighting of them by leaf, in the dtypes that they must have.

    Where not all is float64, the numbers themselves are compared with `truth`, the same in float64, and `allowed` says how far
    from it each may be: not much farther than the reference. Gradients go by "gradient of ..." in both. `undefined` says where
    they are infinite or NaN, whichever: where they are not finite, or would not be if gradients of zero came back to states
    that nobody read. In a batch they do, and zero times an infinite derivative is NaN. `hidden` says which gradients of
    parameters need not show a NaN: only vertices without children have it (docs/guarantees.md).
    """

    outputs: Leaves
    weights: Leaves
    gradients: dict[str, Tensor | None]
    truth: Leaves = field(default_factory=dict)
    allowed: dict[str, float] = field(default_factory=dict)
    undefined: Leaves = field(default_factory=dict)
    hidden: Leaves = field(default_factory=dict)

    def all(self) -> Leaves:
        gradients = {f"gradient of {name}": value for name, value in self.gradients.items() if value is not None}
        return {**self.outputs, **gradients}

    def compare(self, name: str, ours: Tensor, own: Tensor, times: int = 1) -> None:
        """Raises an AssertionError unless `ours` is what the reference says: `own`, or the truth behind it."""
        assert ours.dtype == own.dtype, f"{name}: {ours.dtype} instead of {own.dtype}"
        assert ours.shape == own.shape, f"{name}: {tuple(ours.shape)} instead of {tuple(own.shape)}"
        allowed = self.allowed.get(name, 0.0) * times
        if math.isinf(allowed):
            return
        given, pattern, target = (
            ours.detach().double(),
            own.detach().double(),
            self.truth.get(name, own).detach().double(),
        )
        same = (given == pattern) | (given.isnan() & pattern.isnan())
        if name in self.undefined:
            same |= self.undefined[name] & ~given.isfinite()
        if name in self.hidden:
            same |= self.hidden[name] & given.isfinite()
        near = given.isfinite() & pattern.isfinite()
        relative = EXACT if own.is_floating_point() and name not in self.truth else 0.0
        limit = allowed + relative * (1 + target.abs())
        wrong = ~(same | (near & ((given - target * times).abs() <= limit * times)))
        if wrong.any():
            at = tuple(wrong.nonzero()[0].tolist())
            raise AssertionError(
                f"{name}: {int(wrong.sum())} of {wrong.numel()} are wrong, the first at {at}: {given[at].item()!r} instead of "
                f"{target[at].item() * times!r} (allowed: {float(limit.reshape(-1)[0]) if limit.numel() else 0:.1e})"
            )


def expect(model: Any, exact: Any, function: Function, sample: Sample) -> Expected:
    """`exact` is the same model in float64."""
    expected = _expect(model, function, sample)
    if sample.special or function.shared:  # zeros times what is shared are zeros, of which reciprocals are infinite
        through = _expect(model, function, sample, through_all=True).gradients
        for name, value in expected.gradients.items():
            finite = [gradient.isfinite() for gradient in (value, through[name]) if gradient is not None]
            if finite:
                expected.undefined[f"gradient of {name}"] = ~torch.stack(finite).all(0)
        inner = _expect(model, function, sample, leaves_apart=True).gradients
        for name in (*dict(model.named_parameters()), *(f"shared.{name}" for name in function.shared)):
            value, rest = expected.gradients.get(name), inner.get(name)
            if value is not None:
                is_finite = torch.ones_like(value, dtype=torch.bool) if rest is None else rest.isfinite()
                expected.hidden[f"gradient of {name}"] = ~value.isfinite() & is_finite
    if function.is_exact:
        if not sample.special and any(_largest(value) > LARGEST for value in expected.all().values()):
            raise UnsuitableError("values that are too large")
        return expected
    truth = _expect(exact, function, sample, like=expected).all()
    for name, own in expected.all().items():
        if name not in truth:
            raise UnsuitableError("a gradient in few digits only")
        if not _same_pattern(own, truth[name]):
            raise UnsuitableError("overflow in few digits")
        error, scale = _distance(own, truth[name]), _largest(truth[name])
        if error > 0.1 * scale and own.is_floating_point():
            raise UnsuitableError("rounding decides in few digits")
        if not own.is_floating_point():
            if error:
                raise UnsuitableError("rounding decides in few digits")
            continue
        expected.truth[name] = truth[name]
        fine, coarse = (torch.finfo(dtype).eps * scale for dtype in (own.dtype, function.coarsest))
        # What was rounded coarsely on its way may be so once more, however lucky the reference was.
        expected.allowed[name] = 4 * error + (2 * coarse if error > 16 * fine else 4 * fine)
    return expected


def with_rounding(expected: Expected, model: Any, function: Function, sample: Sample) -> Expected:
    """The same, with as much more allowed as the reference itself changes when its numbers change in their last places."""
    eps = torch.finfo(function.coarsest).eps
    allowed = dict(expected.allowed)
    for seed, shake in enumerate([1e-15, 1e-14, 1e-14] if function.is_exact else [eps / 2] * 4 + [eps] * 4):
        try:
            other = _expect(model, function, sample, shake=shake, seed=seed).all()
        except UnsuitableError:
            return replace(expected, allowed=dict.fromkeys(expected.all(), math.inf))
        for name, own in expected.all().items():
            there = other.get(name)
            if there is None or not _same_pattern(own, there):
                allowed[name] = math.inf
            elif own.numel():
                allowed[name] = max(allowed.get(name, 0.0), 4 * _distance(own, there) + expected.allowed.get(name, 0.0))
    return replace(expected, allowed=allowed)


def _expect(
    model: Any,
    function: Function,
    sample: Sample,
    like: Expected | None = None,
    shake: float = 0.0,
    seed: int = 0,
    through_all: bool = False,
    leaves_apart: bool = False,
) -> Expected:
    """With `like`, in float64 and with its weights; with `shake`, after all numbers were changed by that much; with
    `through_all`, gradients of zero come back to all states; with `leaves_apart`, gradients of parameters without what vertices
    without children add."""
    bases = bases_of(function, sample)
    if like is not None:
        bases = {
            name: value.detach().double().requires_grad_(value.requires_grad) if value.is_floating_point() else value
            for name, value in bases.items()
        }
    own = {name: value.detach().clone() for name, value in model.named_parameters()}
    if shake:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for value in (*bases.values(), *model.parameters()):
                if value.is_floating_point():
                    noise = torch.randn(value.shape, dtype=torch.float64, generator=generator)
                    value.copy_(value.double() * (1 + shake * noise))
    try:
        with function.context() if like is None else contextlib.nullcontext():
            states: list[Tensor] = []
            of_leaves = copy.deepcopy(model) if leaves_apart else model
            outputs = reference_outputs(model, function, sample, bases, states, of_leaves)
        weights = (
            weights_of(outputs) if like is None else {name: value.double() for name, value in like.weights.items()}
        )
        back = [state for state in states if state.requires_grad] if through_all else []
        gradients = gradients_of(outputs, weights, {**dict(model.named_parameters()), **bases}, back)
    except RuntimeError as error:
        raise UnsuitableError(f"in plain PyTorch: {error}") from error
    finally:
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.copy_(own[name])
    return Expected(outputs, weights, gradients)


def reference_outputs(
    model: Any,
    function: Function,
    sample: Sample,
    bases: Leaves,
    states: list[Tensor] | None = None,
    of_leaves: Any = None,
) -> Leaves:
    """Of plain PyTorch; vertices without children may have a model of their own."""
    inputs, edge_inputs, initial = laid_out(function, sample, bases)
    count, edges = join(sample.parts)
    names = ["vertex"] * count if sample.kinds is None else [f"of_{kind}" for kind in sample.kinds]
    inner = {child if sample.reverse else parent for child, parent, _ in edges}
    models = [model if vertex in inner or of_leaves is None else of_leaves for vertex in range(count)]
    methods = [getattr(one, name) for one, name in zip(models, names, strict=True)]
    shared = shared_of(bases)
    apart = {name: value.detach().clone() for name, value in shared.items()}
    shares = [shared if one is model else apart for one in models]
    return run_reference(model, count, edges, inputs, sample.reverse, edge_inputs, methods, initial, states, shares)


def _same_pattern(one: Tensor, other: Tensor) -> bool:
    """Whether the same numbers are NaN and infinite."""
    first, second = one.double().nan_to_num(1.0, 2.0, 3.0), other.double().nan_to_num(1.0, 2.0, 3.0)
    rest = ~(one.isfinite() & other.isfinite())
    return bool((one.isfinite() == other.isfinite()).all() and (first[rest] == second[rest]).all())


def _distance(one: Tensor, other: Tensor) -> float:
    """The largest difference of finite numbers."""
    return _largest(one.double() - other.double())


def _largest(value: Tensor) -> float:
    finite = value.detach().double().nan_to_num(0, 0, 0).abs()
    return float(finite.max()) if finite.numel() else 0.0


def weights_of(outputs: Leaves) -> Leaves:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(value.shape, dtype=torch.float64, generator=generator).to(value.dtype)
        for name, value in outputs.items()
        if value.requires_grad
    }


def gradients_of(
    outputs: Leaves, weights: Leaves, leaves: Leaves, also: Sequence[Tensor] = (), **options: bool
) -> dict[str, Tensor | None]:
    """Gradients of the weighted outputs with respect to all leaves that require grad; None where no path leads to a leaf.

    `also` are further outputs, whose gradients are zeros.
    """
    wanted = [name for name, leaf in leaves.items() if leaf.requires_grad]
    if not wanted or not weights:
        return dict.fromkeys(wanted)
    loss = sum((outputs[name] * weight).sum() for name, weight in weights.items())
    ends, given = [loss, *also], [torch.ones_like(loss), *map(torch.zeros_like, also)]
    gradients = torch.autograd.grad(ends, [leaves[name] for name in wanted], given, allow_unused=True, **options)
    return dict(zip(wanted, gradients, strict=True))
