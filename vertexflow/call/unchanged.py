"""All that decides how a call is computed, as it was at an earlier one: written down once, then compared in one native call.

That is worth it where calls are many and small, as the extensions of a run that grows: the code and data with which Python asks
have left the cache since the call before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .programs import Seen

Check = Callable[..., bool]

_VARIABLE = "VERTEXFLOW_BACKEND"


class Unchanged(NamedTuple):
    """Objects beside what they held: `_core.is_unchanged` compares them, by identity where nothing else is said."""

    dictionaries: list[Mapping[Any, Any]]
    names: list[Any]
    values: list[Any]  # None where there is no such entry
    tensors: list[Tensor]
    versions: list[int]  # none, if what tensors hold may change
    addresses: list[int]
    attributes: list[int]  # the address of the dictionary of each tensor's own attributes, 0 if it has none
    containers: list[Any]  # as in `Snapshot`, up to `set_ids`
    container_contents: list[tuple[Any, ...]]
    modules: list[Callable[[], Any]]
    classes: list[type]
    holders: list[dict[str, Any]]
    holder_keys: list[tuple[str, ...]]
    sets: list[Any]
    set_ids: list[list[int]]
    functions: list[Callable[..., Any]]
    arguments: list[tuple[Any, ...]]
    results: list[Any]
    check: Check  # of all tensors, and of further ones

    @classmethod
    def of(cls, seen: Seen, tensors: Sequence[Tensor], check: Check, with_versions: bool = True) -> Unchanged | None:
        """All as it is now, for calls with these parameters, buffers and shared tensors, which `check` checks beside inputs; None
        where it is unusual, so that no list tells all. Without versions, what tensors hold may change."""
        known = set(map(id, tensors))
        if any(id(holder[name]) not in known for _, holder, name in seen.places):
            return None  # others are given in the place of parameters, or another thread exchanges these
        return cls._of(seen, tensors, check, with_versions, tensors[0].device.type if tensors else "cpu")

    @classmethod
    def of_given(cls, seen: Seen, check: Check, kind: str) -> Unchanged | None:
        """The same for calls with other tensors in the place of the model's parameters and buffers, on this kind of device."""
        own_attributes = [vars(holder[name]) for _, holder, name in seen.places]
        unchanged = None if any(own_attributes) else cls._of(seen, [], check, False, kind)
        if unchanged is None:
            return None
        holders, keys = [*unchanged.holders, *own_attributes], [*unchanged.holder_keys, *(() for _ in own_attributes)]
        return unchanged._replace(holders=holders, holder_keys=keys)

    @classmethod
    def _of(
        cls, seen: Seen, tensors: Sequence[Tensor], check: Check, with_versions: bool, kind: str
    ) -> Unchanged | None:
        held: list[tuple[Mapping[Any, Any], Any, Any]] = [
            (holder, name, holder[name]) for _, holder, name in seen.places
        ]
        snapshot = seen.snapshot
        environment = getattr(os.environ, "_data", None)
        functions: list[tuple[Callable[..., Any], tuple[Any, ...], Any]] = [
            (torch._C._functorch.peek_interpreter_stack, (), None),
            (torch._C._len_torch_dispatch_stack, (), 0),
            (torch._C._len_torch_function_stack, (), 0),
            (torch._C._is_tracing, (), False),
            (getattr, (torch._GLOBAL_DEVICE_CONTEXT, "device_context", None), None),
            (torch.is_autocast_enabled, (kind,), False),
            (snapshot.has_the_rest, (), True),
        ]
        is_usual = forward_ad._current_level == -1 and all(
            function(*arguments) is result for function, arguments, result in functions
        )
        if not is_usual or not isinstance(environment, dict) or any(map(Tensor.is_inference, tensors)):
            return None
        functions += [
            (function, (), function())
            for function in (torch.get_default_dtype, torch.is_grad_enabled, torch.is_inference_mode_enabled)
        ]
        variable = os.environ.encodekey(_VARIABLE)
        held += [(vars(forward_ad), "_current_level", -1), (environment, variable, environment.get(variable))]
        return cls(
            [dictionary for dictionary, _, _ in held],
            [name for _, name, _ in held],
            [value for _, _, value in held],
            list(tensors),
            [tensor._version for tensor in tensors] if with_versions else [],
            [tensor.data_ptr() for tensor in tensors],
            [id(own) if own else 0 for own in map(vars, tensors)],
            snapshot.containers,
            snapshot.container_contents,
            snapshot.modules,
            snapshot.classes,
            snapshot.holders,
            snapshot.holder_keys,
            snapshot.sets,
            snapshot.set_ids,
            [function for function, _, _ in functions],
            [arguments for _, arguments, _ in functions],
            [result for _, _, result in functions],
            check,
        )
