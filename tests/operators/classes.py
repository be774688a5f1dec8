"""What sort of operation an operator is, by its entry in PyTorch's database and the tags and schema of its overloads."""

from __future__ import annotations

from functools import cache

import torch

CLASSES = ("pointwise", "view", "reduction")


def class_of(name: str) -> str:
    """One of `CLASSES`, or "" for what is none of them by itself; an operator in place is what the other is."""
    known = _classes()
    return known.get(name) or known.get(name.rstrip("_"), "")


@cache
def _classes() -> dict[str, str]:
    from torch.testing._internal.common_methods_invocations import op_db  # which takes seconds

    return {f"{op.name}.{op.variant_test_name}".rstrip("."): _class(op) for op in op_db}


def _class(op: object) -> str:
    from torch.testing._internal.opinfo.core import BinaryUfuncInfo, ReductionOpInfo, ShapeFuncInfo, UnaryUfuncInfo

    packet = getattr(torch.ops.aten, op.aten_name, None)
    overloads = [] if packet is None else [getattr(packet, name) for name in packet.overloads()]
    tags = {tag for overload in overloads for tag in overload.tags}
    arguments = [argument for overload in overloads for argument in overload._schema.arguments]
    if isinstance(op, UnaryUfuncInfo | BinaryUfuncInfo) or torch.Tag.pointwise in tags:
        return "pointwise"
    if isinstance(op, ReductionOpInfo) or torch.Tag.reduction in tags:
        return "reduction"
    is_view = any(argument.alias_info is not None and not argument.alias_info.is_write for argument in arguments)
    return "view" if is_view or isinstance(op, ShapeFuncInfo) else ""
