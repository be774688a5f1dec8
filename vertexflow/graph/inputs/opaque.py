"""Frozen dataclasses that nobody takes apart."""

from __future__ import annotations

from typing import TypeVar

Class = TypeVar("Class", bound=type)


def opaque(cls: Class) -> Class:
    """Makes a dataclass one that is not known as such.

    Whoever converts the tensors among a model's inputs (Lightning in the precisions "bf16-true" and "64-true", DDP and FSDP in
    mixed precision) rebuilds the dataclasses that it meets, field by field, at every step: frozen ones are refused, and of
    others all that was derived from them is lost. What is no dataclass stays as it is.
    """
    for name in ("__dataclass_fields__", "__replace__"):  # the second one since Python 3.13
        if name in vars(cls):
            delattr(cls, name)
    return cls
