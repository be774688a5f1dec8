"""Modules that return `Outputs`, where PyTorch knows tensors and tuples only: backward hooks, reentrant checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as around_all
from torch.utils import _pytree as pytree
from torch.utils.hooks import BackwardHook

from ..errors import VertexFunctionError
from ..graph.symbolic.method import without_init
from ..graph.uncompiled import must_be_whole, uncompiled
from .outputs import Outputs, of_call


class ReturnsOutputs(nn.Module):
    """A module whose full backward hooks see its outputs as if it returned the tuple of them, in their order."""

    @uncompiled
    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        if "_backward_hooks" not in self.__dict__:
            raise VertexFunctionError(without_init(self))
        if must_be_whole():
            raise VertexFunctionError(
                f"torch.compile(..., fullgraph=True) was given {type(self).__name__}, which is compiled by itself and cannot be "
                "part of a graph of PyTorch's; call it as it is, or compile what is around it, without fullgraph=True"
            )
        if (
            self._backward_hooks
            or self._backward_pre_hooks
            or around_all._global_backward_hooks
            or around_all._global_backward_pre_hooks
        ):
            result = _call_with_hooks(self, super()._call_impl, args, kwargs)
        else:
            result = super()._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]
        if torch.is_grad_enabled() or not isinstance(result, Outputs):
            return result
        return of_call(result, lambda: (*pytree.tree_leaves(kwargs), *args, *self.parameters()))

    def __prepare_scriptable__(self) -> None:
        raise VertexFunctionError(
            f"{type(self).__name__} cannot be made TorchScript (torch.jit.script): what it does differs with every batch; "
            "save its state_dict instead"
        )

    def _get_backward_hooks(self) -> tuple[list[Any], list[Any]]:
        return [], _hooks(self)[1]  # PyTorch's own `_call_impl` shall call the non-full hooks alone

    def _get_backward_pre_hooks(self) -> list[Any]:
        return []


def _hooks(module: nn.Module) -> tuple[list[Any], list[Any]]:
    """Full backward hooks, and non-full ones (`register_backward_hook`)."""
    return nn.Module._get_backward_hooks(module)  # type: ignore[no-untyped-call, no-any-return]


def _call_with_hooks(module: nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    full, full_pre = _hooks(module)[0], nn.Module._get_backward_pre_hooks(module)  # type: ignore[no-untyped-call]
    if not (full or full_pre):
        return call(*args, **kwargs)
    hook = BackwardHook(module, full, full_pre)
    result = call(*hook.setup_input_hook(args), **kwargs)  # type: ignore[no-untyped-call]
    if not isinstance(result, Outputs):  # a forward hook replaced the outputs
        return hook.setup_output_hook(result)  # type: ignore[no-untyped-call]
    values = hook.setup_output_hook(tuple(result.values()))  # type: ignore[no-untyped-call]
    return Outputs(zip(result, values, strict=True))
