"""Operations that PyTorch has no derivative of: the forward pass computes them, and a gradient that reaches them is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
from torch.utils import _pytree as pytree

from ...errors import VertexFunctionError
from .passes.checks import is_passing


class DerivativeError(VertexFunctionError):
    """The vertex function was traced, but its derivative was not."""


def refuse(grad: Tensor, value: Tensor, message: str) -> Tensor:
    """The gradient of `value` where PyTorch has none, from the gradient `grad` of the result: zeros if `grad` is zero.

    Raises:
        VertexFunctionError: `grad` is not zero.
    """
    if not is_passing() and bool(grad.any()):
        raise VertexFunctionError(message)
    return torch.zeros_like(value)


_refuse = torch.library.custom_op("vertexflow::no_derivative", refuse, mutates_args=())
torch.library.register_fake("vertexflow::no_derivative", lambda grad, value, message: torch.empty_like(value))


class _Refused(torch.autograd.Function):
    """Results that were computed from detached operands, put back into autograd's graph: `refuse` is their derivative."""

    @staticmethod
    def forward(ctx: Any, message: str, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.message = message
        ctx.save_for_backward(*tensors[count:])
        return tuple(result.view_as(result) for result in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        refused = []
        for value in ctx.saved_tensors:
            parts = [_refuse(grad, value, ctx.message) for grad in grads]
            refused.append(sum(parts[1:], parts[0]))
        return (None, None, *grads, *refused)


def call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], where: Callable[[], str]) -> Any:
    """`function(*args, **kwargs)`, with a derivative that refuses the gradients that PyTorch does not compute. `where` tells the
    line of the call."""
    name = str(getattr(function, "__name__", function))
    is_in_place = (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
    inputs, spec = pytree.tree_flatten((args, kwargs))

    def compute(leaves: Sequence[Any]) -> Any:
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        return function(*((args[0].clone(), *args[1:]) if is_in_place else args), **kwargs)

    is_in_place = is_in_place and bool(inputs) and isinstance(inputs[0], Tensor)
    operands = _differentiable(inputs)
    result, failures = _compute_without_forbidden(compute, inputs, operands)
    outputs = _differentiable(pytree.tree_leaves(result))
    if outputs and not failures:
        failures = [(value, error) for value in operands if (error := _failure(outputs, value)) is not None]
    if not failures:
        return function(*args, **kwargs) if is_in_place else result
    error = failures[0][1]
    reason = "whose derivative cannot be traced: its shapes depend on values"
    if not isinstance(error, (DynamicOutputShapeException, DataDependentOutputException)):
        reason = "of which PyTorch gives no derivative"
    message = (
        f"a gradient reaches `{name}`, {reason} ({error}); call .detach() on its operand where the gradient is not wanted\n"
        f"  in the vertex function, {where()}"
    )
    refused = [value for value, _ in failures]
    leaves, spec_of_result = pytree.tree_flatten(compute([_without_gradient(value, refused) for value in inputs]))
    results = [leaf for leaf in leaves if _is_real(leaf)]
    guarded = dict(zip(map(id, results), _Refused.apply(message, len(results), *results, *refused), strict=True))  # type: ignore[no-untyped-call]
    if is_in_place:
        return args[0].copy_(guarded[id(leaves[0])])
    return pytree.tree_unflatten([guarded.get(id(leaf), leaf) for leaf in leaves], spec_of_result)


def is_forbidden(error: Exception) -> bool:
    """Whether PyTorch refuses to compute an operation at all on a tensor that requires grad."""
    return "is not differentiable with respect to argument" in str(error)


def _compute_without_forbidden(
    compute: Callable[[Sequence[Any]], Any], inputs: Sequence[Any], operands: Sequence[Tensor]
) -> tuple[Any, list[tuple[Tensor, Exception]]]:
    """The result, and the operands that must not require grad in it, each with PyTorch's error."""
    forbidden: list[tuple[Tensor, Exception]] = []
    try:
        return compute(inputs), forbidden
    except RuntimeError as first_error:
        if not is_forbidden(first_error):
            raise
        error = first_error
    for value in operands:
        try:
            return compute([_without_gradient(leaf, [*(v for v, _ in forbidden), value]) for leaf in inputs]), [
                *forbidden,
                (value, error),
            ]
        except RuntimeError as next_error:
            if not is_forbidden(next_error):
                raise
            if str(next_error) != str(error):  # the error is now about another operand: detaching this one helped
                forbidden.append((value, error))
                error = next_error
    raise error


def _without_gradient(value: Any, refused: Sequence[Tensor]) -> Any:
    return value.detach() if any(value is tensor for tensor in refused) else value


def _differentiable(values: Sequence[Any]) -> list[Tensor]:
    return [value for value in values if _is_real(value) and value.requires_grad]


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _failure(outputs: Sequence[Tensor], value: Tensor) -> Exception | None:
    """PyTorch's error for the derivative with respect to one operand, if it has no such derivative."""
    with disable_proxy_modes_tracing():
        try:
            torch.autograd.grad(
                outputs, [value], [torch.empty_like(output) for output in outputs], retain_graph=True, allow_unused=True
            )
        except Exception as error:
            return error
    return None
