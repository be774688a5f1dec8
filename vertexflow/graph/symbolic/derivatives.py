"""Operations that PyTorch has no derivative of: they are computed all the same, and refused where a gradient reaches them."""

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
    """Stands for a gradient of `value` that there is none of, given that of the result: zeros where that is zero.

    Raises:
        VertexFunctionError: it is not.
    """
    if not is_passing() and bool(grad.any()):
        raise VertexFunctionError(message)
    return torch.zeros_like(value)


_refuse = torch.library.custom_op("vertexflow::no_derivative", refuse, mutates_args=())
torch.library.register_fake("vertexflow::no_derivative", lambda grad, value, message: torch.empty_like(value))


class _Refused(torch.autograd.Function):
    """Results that were computed without these operands' gradients, as if made of the operands."""

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
    """`function(*args, **kwargs)`, where gradients of operands that PyTorch does not compute are refused when they are asked
    for. `where` tells the line of the call."""
    name = str(getattr(function, "__name__", function))
    in_place = (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
    given, spec = pytree.tree_flatten((args, kwargs))

    def compute(leaves: Sequence[Any]) -> Any:
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        return function(*((args[0].clone(), *args[1:]) if in_place else args), **kwargs)

    in_place = in_place and bool(given) and isinstance(given[0], Tensor)
    operands = _differentiable(given)
    result, failures = _computed(compute, given, operands)
    outputs = _differentiable(pytree.tree_leaves(result))
    if outputs and not failures:
        failures = [(value, error) for value in operands if (error := _failure(outputs, value)) is not None]
    if not failures:
        return function(*args, **kwargs) if in_place else result
    error = failures[0][1]
    what = "whose derivative cannot be traced: its shapes depend on values"
    if not isinstance(error, (DynamicOutputShapeException, DataDependentOutputException)):
        what = "of which PyTorch gives no derivative"
    message = (
        f"a gradient reaches `{name}`, {what} ({error}); call .detach() on its operand where the gradient is not wanted\n"
        f"  in the vertex function, {where()}"
    )
    refused = [value for value, _ in failures]
    leaves, spec_of_result = pytree.tree_flatten(compute([_apart(value, refused) for value in given]))
    results = [leaf for leaf in leaves if _is_real(leaf)]
    made = dict(zip(map(id, results), _Refused.apply(message, len(results), *results, *refused), strict=True))  # type: ignore[no-untyped-call]
    if in_place:
        return args[0].copy_(made[id(leaves[0])])
    return pytree.tree_unflatten([made.get(id(leaf), leaf) for leaf in leaves], spec_of_result)


def is_forbidden(error: Exception) -> bool:
    """Whether PyTorch does not compute an operation at all of a tensor that requires grad."""
    return "is not differentiable with respect to argument" in str(error)


def _computed(
    compute: Callable[[Sequence[Any]], Any], given: Sequence[Any], operands: Sequence[Tensor]
) -> tuple[Any, list[tuple[Tensor, Exception]]]:
    """A result, and the operands that may not require grad in it, each with what PyTorch says of it."""
    forbidden: list[tuple[Tensor, Exception]] = []
    try:
        return compute(given), forbidden
    except RuntimeError as first:
        if not is_forbidden(first):
            raise
        error = first
    for value in operands:
        try:
            return compute([_apart(one, [*(v for v, _ in forbidden), value]) for one in given]), [
                *forbidden,
                (value, error),
            ]
        except RuntimeError as other:
            if not is_forbidden(other):
                raise
            if str(other) != str(error):  # of another operand: this one was the one
                forbidden.append((value, error))
                error = other
    raise error


def _apart(value: Any, refused: Sequence[Tensor]) -> Any:
    return value.detach() if any(value is one for one in refused) else value


def _differentiable(values: Sequence[Any]) -> list[Tensor]:
    return [value for value in values if _is_real(value) and value.requires_grad]


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _failure(outputs: Sequence[Tensor], value: Tensor) -> Exception | None:
    """What PyTorch says of the derivative with respect to one operand, if it does not give it."""
    with disable_proxy_modes_tracing():
        try:
            torch.autograd.grad(
                outputs, [value], [torch.empty_like(output) for output in outputs], retain_graph=True, allow_unused=True
            )
        except Exception as error:
            return error
    return None
