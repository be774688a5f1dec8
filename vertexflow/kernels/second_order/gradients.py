"""Gradients that are differentiated themselves (`create_graph=True`): of the forward pass, replayed on the tensors of the call.

Programs compute gradients as numbers. Where the gradients' own gradients are wanted, they are autograd's, of operations that it
knows (`replay`); so are those of any order after them. A call after one of which they were wanted is a replay from the start,
which saves the pass before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import VertexFlowError
from ..bound import Bound
from ..plain import check_plain

Outputs = Mapping[str, Tensor]


def remember(ctx: Any, tensors: Sequence[Tensor]) -> None:
    """Hold on to the tensors of a call, which its backward pass may need as they are, and to the state that they are in."""
    ctx.given = tensors
    try:
        ctx.state_of_given = [(tensor._version, tensor.data_ptr()) for tensor in tensors]
    except RuntimeError:  # an inference tensor, in which no change is noticed
        ctx.state_of_given = None


def gradients(
    ctx: Any, pushed: Mapping[str, Tensor], outputs_of: Callable[[Sequence[Tensor]], Outputs]
) -> list[Tensor | None]:
    """The gradients of the remembered tensors that this call of backward wants, from those of outputs; they have a graph.

    `outputs_of` computes the outputs from as many tensors, by operations that PyTorch differentiates.

    Raises:
        VertexFlowError: a tensor has changed since the call.
    """
    _check_unchanged(ctx)
    wanted = [node is not None and _is_wanted(node) for node, _ in ctx.next_functions]
    check_plain("the gradient of output", pushed)
    # Aliases: a tensor may have been computed from another one, and the path between them is not to be counted here.
    leaves = [
        tensor.view_as(tensor) if is_wanted else tensor for tensor, is_wanted in zip(ctx.given, wanted, strict=True)
    ]
    outputs = outputs_of(leaves)
    names = [name for name in pushed if outputs[name].requires_grad]
    all_gradients: list[Tensor | None] = [None] * len(leaves)
    numbers = [number for number, is_wanted in enumerate(wanted) if is_wanted]
    if names and numbers:
        results = torch.autograd.grad(
            [outputs[name] for name in names],
            [leaves[number] for number in numbers],
            [pushed[name] for name in names],
            create_graph=True,
            allow_unused=True,
        )
        for number, gradient in zip(numbers, results, strict=True):
            all_gradients[number] = gradient
    return all_gradients


def are_saved_by_hooks() -> bool:
    """Whether tensors are saved in another way, as `torch.utils.checkpoint` does: then each call must save the same ones."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def watched(bound: Bound, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs of a replay, whose first gradient tells whether the next call shall be one, too."""
    is_first = [True]

    def note(grad: Tensor) -> None:
        if is_first[0]:
            is_first[0], bound.is_differentiated_twice = False, torch.is_grad_enabled()

    for value in outputs.values():
        if value.requires_grad:
            value.register_hook(note)  # type: ignore[no-untyped-call]
    return outputs


def _is_wanted(node: Any) -> bool:
    """Whether this call of backward goes on to a node; of leaves, `torch.autograd.grad` does not tell."""
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:
        return True


def _check_unchanged(ctx: Any) -> None:
    if ctx.state_of_given is None:
        raise VertexFlowError(
            "gradients of gradients (create_graph=True) compute once more with the tensors of the call, and one of these is an "
            "inference tensor, of which nobody knows whether it has changed; call the model with tensors made outside "
            "torch.inference_mode, x.clone() for instance"
        )
    for tensor, (version, address) in zip(ctx.given, ctx.state_of_given, strict=True):
        if tensor._version != version or tensor.data_ptr() != address:
            raise VertexFlowError(
                f"a tensor {list(tensor.shape)} that a vertex function was called with has been changed in place, or given other "
                "data, and gradients of gradients (create_graph=True) compute with it once more; take them before it changes, "
                "or call the model with a clone"
            )
