"""What a graph of operations does not say of its derivative: gradients are traced, but not the gradients of gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.utils import _pytree as pytree

_OF_OPERATORS = (
    "GeneratedBackwardFor"  # the derivative of an operator that was registered, which stays one in the graph
)
_DATA = Tensor.data.__get__  # type: ignore[attr-defined]
_HOOKS = {Tensor.register_hook, Tensor.retain_grad, Tensor.register_post_accumulate_grad_hook}
_GRADIENTS = {torch.autograd.grad, torch.autograd.backward, Tensor.backward}


def reason(function: Any, kwargs: Mapping[str, Any], result: Any) -> str | None:
    """What of a call is not in the graph; None where it says all. (Of `detach` it does.)"""
    if function == _DATA:
        return "it reads `.data`; call .detach() instead"
    if function in _HOOKS:
        return f"it calls `{function.__name__}` on a tensor"
    if function in _GRADIENTS and not kwargs.get("create_graph"):
        return f"it calls `{function.__name__}` without create_graph=True"
    if not torch.is_grad_enabled() and any(map(_is_real, pytree.tree_leaves(result))):
        return "it computes under torch.no_grad(); call .detach() on what shall have no gradient instead"
    return None


def custom_function(results: Iterable[Tensor]) -> str | None:
    """The `torch.autograd.Function` that results were computed with, if any: the graph has its operations, not its derivative."""
    stack = [value.grad_fn for value in results if value.grad_fn is not None]
    seen: set[Any] = set(stack)
    while stack:
        node = stack.pop()
        name = type(node).__name__
        if isinstance(node, BackwardCFunction) and not name.startswith(_OF_OPERATORS):
            return f"it calls a torch.autograd.Function, {name.removesuffix('Backward')}, with a derivative of its own"
        following = [following for following, _ in node.next_functions if following is not None]
        stack += [following for following in following if following not in seen]
        seen.update(following)
    return None


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
