"""Calls inside the transforms of `torch.func`: what they wrap tensors in, and the plain tensors that a call is traced with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch as functorch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import forward_ad

from ..errors import VertexFunctionError

_SERVED = {"grad", "vmap", "jvp"}  # of which others are made: vjp, jacrev, jacfwd, hessian, linearize


def are_active() -> bool:
    """Whether a transform is.

    Raises:
        VertexFunctionError: it is `functionalize`.
    """
    if functorch.peek_interpreter_stack() is None:
        return False
    for interpreter in functorch.get_interpreter_stack():
        kind = str(interpreter.key()).rsplit(".", 1)[-1].lower()
        if kind not in _SERVED:
            raise VertexFunctionError(
                f"a vertex function cannot be called inside torch.func's transform {kind}, only inside grad, vjp, jacrev, jvp, "
                "jacfwd, hessian and vmap; call it outside"
            )
    return True


@contextmanager
def suspended() -> Iterator[None]:
    """Outside of all transforms, and without gradients: for what does not depend on them, and is kept."""
    if functorch.peek_interpreter_stack() is None:
        with torch.no_grad():
            yield
        return
    no_hooks = torch._C._autograd._saved_tensors_hooks_get_disabled_error_message()
    torch._C._autograd._saved_tensors_hooks_enable()  # tracing sets hooks, which transforms forbid
    try:
        with temporarily_clear_interpreter_stack(), torch.no_grad():
            yield
    finally:
        if no_hooks is not None:
            torch._C._autograd._saved_tensors_hooks_disable(no_hooks)


def plain(tensors: Any) -> Any:
    """Tensors by name without what transforms that are active wrap them in; of several that `vmap` stacked, the first."""
    if not isinstance(tensors, Mapping):
        return tensors
    return {name: _unwrapped(value) if isinstance(value, Tensor) else value for name, value in tensors.items()}


def _unwrapped(tensor: Tensor) -> Tensor:
    while functorch.is_functorch_wrapped_tensor(tensor) and not functorch.is_dead_tensor_wrapper(tensor):  # type: ignore[attr-defined]
        dim = functorch.maybe_get_bdim(tensor)
        tensor = functorch.get_unwrapped(tensor)
        tensor = tensor if dim < 0 else tensor.select(dim, 0)
    if forward_ad._current_level >= 0:
        tensor = forward_ad.unpack_dual(tensor).primal  # type: ignore[no-untyped-call]
    return tensor
