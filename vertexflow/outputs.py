"""`Outputs`: what a call returns, a mapping whose entries are attributes too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from .errors import OutputError


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
        there = ", ".join(map(repr, self)) or "nothing, or no vertex was computed yet"
        raise OutputError(f"there is no output {name!r}; the vertex function pushed {there}")

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


pytree.register_pytree_node(
    Outputs,
    _flatten,
    _unflatten,
    serialized_type_name="vertexflow.Outputs",
    flatten_with_keys_fn=_flatten_with_keys,
)
