"""Frozen dataclasses that other libraries take for ordinary objects."""

from __future__ import annotations

from typing import TypeVar

Class = TypeVar("Class", bound=type)


def opaque(cls: Class) -> Class:
    """Hide that a class is a dataclass: `dataclasses.is_dataclass` then says no.

    Libraries that convert the tensors among a model's inputs (Lightning in the precisions "bf16-true" and "64-true", DDP and
    FSDP in mixed precision) rebuild every dataclass that they meet, field by field, at every step: they fail on frozen ones,
    and whatever was derived from the others is lost. Other objects they leave alone.
    """
    for name in ("__dataclass_fields__", "__replace__"):  # the second one since Python 3.13
        if name in vars(cls):
            delattr(cls, name)
    return cls
