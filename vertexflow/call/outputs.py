"""`Outputs`: what a call returns, a mapping whose entries are attributes too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import CheckpointFunction

from ..errors import OutputError, VertexFunctionError


class Outputs(dict[str, Tensor]):
    """What a vertex function pushed: a dict from names to tensors, whose entries are attributes too.

    PyTorch knows it as a pytree, so that whatever looks for tensors in the output of a module (DDP, FSDP2, checkpointing,
    accelerate, Lightning) meets them, and what it gives back is an `Outputs` again.

    An entry that is missing raises an error that names those there are, an `AttributeError` and a `KeyError`.

    Example:
        >>> out = model(batch, x=x)
        >>> out
        Outputs(h: float32 [10, 256], score: float32 [10])
        >>> out.h is out["h"]
        True
        >>> {name: value.detach() for name, value in out.items()}
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Tensor:
        return self[name]

    def __missing__(self, name: object) -> Tensor:
        pushed = ", ".join(map(repr, self)) or "nothing, or no vertex was computed yet"
        raise OutputError(f"there is no output {name!r}; the vertex function pushed {pushed}")

    def __setattr__(self, name: str, value: Tensor) -> None:
        if hasattr(type(self), name):
            raise AttributeError(f"{name!r} is a method of every mapping; write outputs[{name!r}] = ...")
        self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self:
            getattr(self, name)  # raises, with the names there are
            raise AttributeError(f"{name!r} is a method of every mapping and cannot be deleted")
        del self[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]

    def __repr__(self) -> str:
        return f"Outputs({', '.join(f'{name}: {_described(value)}' for name, value in self.items())})"

    def copy(self) -> Outputs:
        return type(self)(self)

    def __or__(self, other: Any) -> Any:
        return type(self)(super().__or__(other)) if isinstance(other, dict) else NotImplemented


class InCheckpoint(Outputs):
    """What a call inside `torch.utils.checkpoint(..., use_reentrant=True)` returned.

    Such a checkpoint tracks tensors only if they are returned alone or in a tuple; tensors in a mapping come out of it without
    a gradient. So these entries can be read inside the checkpoint, and outside they raise.
    """

    __slots__ = ()

    def __getitem__(self, name: str) -> Tensor:
        _refuse_outside()
        return super().__getitem__(name)

    def __iter__(self) -> Iterator[str]:  # so that `dict(outputs)` reads entries as above
        return super().__iter__()

    def get(self, name: str, default: Any = None) -> Any:
        _refuse_outside()
        return super().get(name, default)

    def values(self) -> Any:
        _refuse_outside()
        return super().values()

    def items(self) -> Any:
        _refuse_outside()
        return super().items()

    def __repr__(self) -> str:
        return "Outputs(of a checkpoint)"


def of_call(outputs: Outputs, sources: Callable[[], Iterable[object]]) -> Outputs:
    """What a call returns to its caller; `sources` gives the tensors that it computed with, among other objects."""
    is_plain = torch.is_grad_enabled() or torch.is_inference_mode_enabled() or type(outputs) is not Outputs
    if is_plain or not _is_in_checkpoint():  # which is quickly told, and parameters are many
        return outputs
    wants_gradient = any(isinstance(value, Tensor) and value.requires_grad for value in sources())
    return InCheckpoint(outputs) if wants_gradient else outputs


def _is_in_checkpoint() -> bool:
    """Whether the forward of a reentrant checkpoint is under way, in which gradients are off."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not CheckpointFunction.forward.__code__:
        frame = frame.f_back
    return frame is not None


def _refuse_outside() -> None:
    if torch.is_grad_enabled():
        raise VertexFunctionError(
            "torch.utils.checkpoint with use_reentrant=True returned a mapping of tensors, which come out of it without "
            "gradient; pass use_reentrant=False, or return the tensors themselves: lambda x: model(graphs, x=x).h"
        )


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _flatten(outputs: Outputs) -> tuple[list[Tensor], list[str]]:
    return list(outputs.values()), list(outputs)


def _flatten_with_keys(outputs: Outputs) -> tuple[list[tuple[Any, Tensor]], list[str]]:
    return [(pytree.MappingKey(name), value) for name, value in outputs.items()], list(outputs)


def _unflatten(values: Iterable[Any], names: Any) -> Outputs:
    return Outputs(zip(names, values, strict=True))


for _kind in (Outputs, InCheckpoint):
    pytree.register_pytree_node(
        _kind,
        _flatten,
        _unflatten,
        serialized_type_name=f"vertexflow.{_kind.__name__}",
        flatten_with_keys_fn=_flatten_with_keys,
    )
