"""Gradients of gradients (`create_graph=True`)."""

from __future__ import annotations

import torch
from torch import Tensor

import vertexflow as vf

from .call import Call
from .expected import reference_outputs
from .inputs import Leaves, bases_of

OF_PYTORCH = ("is not implemented", "once_differentiable")  # operations that have no second derivative there
LARGEST = 1e4  # of second derivatives; what is beyond says nothing at this tolerance


def gradients_of_gradients(call: Call) -> None:
    """They are right, or refused with a sentence that names `create_graph`."""
    call.check(call.run())
    try:
        ours = _second(call.run(), call.expected.weights, call.leaves())
    except (RuntimeError, vf.VertexFlowError) as error:
        ours_to_refuse = isinstance(error, vf.VertexFlowError) and "create_graph" in str(error)
        if not ours_to_refuse and not any(text in str(error) for text in OF_PYTORCH):
            raise
        return
    if not call.function.is_exact or call.sample.special or ours is None:
        return
    wanted = [_reference(call, shake) for shake in (0.0, 1e-14)]
    for name, value in (wanted[0] or {}).items():
        shaken = (wanted[1] or {})[name]
        if value is None or shaken is None or float(value.abs().max() if value.numel() else 0) > LARGEST:
            continue
        given = ours[name]
        assert given is not None, f"second gradient of {name} is missing"
        limit = 1e-9 * (1 + value.abs()) + 100 * (value - shaken).abs().max() if value.numel() else value.abs()
        assert ((given - value).abs() <= limit).all() or value.isnan().any(), (
            f"second gradient of {name}: {given} for {value}"
        )


def _reference(call: Call, shake: float) -> dict[str, Tensor | None] | None:
    bases = bases_of(call.function, call.sample)
    with torch.no_grad():
        for value in bases.values():
            if value.is_floating_point():
                value.mul_(1 + shake)
    outputs = reference_outputs(call.model, call.function, call.sample, bases)
    return _second(outputs, call.expected.weights, {**dict(call.model.named_parameters()), **bases})


def _second(outputs: Leaves, weights: Leaves, leaves: Leaves) -> dict[str, Tensor | None] | None:
    """Of a sum of squares of all first gradients."""
    wanted = [leaf for leaf in leaves.values() if leaf.requires_grad]
    if not wanted or not weights:
        return None
    loss = sum((outputs[name] * weight).sum() for name, weight in weights.items())
    first = torch.autograd.grad(loss, wanted, create_graph=True, allow_unused=True)
    squares = [value.square().sum() for value in first if value is not None and value.requires_grad]
    if not squares:
        return None
    second = torch.autograd.grad(sum(squares), wanted, allow_unused=True)
    return dict(zip([name for name, leaf in leaves.items() if leaf.requires_grad], second, strict=True))
