"""The state of a model and its optimizer as one process has it, whatever columns and stages its ranks have.

Checkpoints are made of it, so that any other way of spreading the model can go on from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError
from .columns import Columns, joined, own
from .pipeline import Elsewhere, Pipeline

_Tensors = dict[str, Any]


class Logical:
    """How the tensors of this rank are made of those of the whole model.

    Attributes:
        model: the one whose state has the names that one process has; of several stages, with the parts of this rank alone.
        stages: the ranks of the other stages, with this one; None if there are none.
        cut: the columns that this rank has of a parameter, by name, and the ranks that have the others.
    """

    def __init__(self, model: nn.Module) -> None:
        bare = model.module if isinstance(model, DistributedDataParallel) else model
        pipeline = bare if isinstance(bare, Pipeline) else None
        if pipeline is None and any(isinstance(module, (Pipeline, Elsewhere)) for module in model.modules()):
            raise InputError(
                "the model has parts of one stage alone; give what plan.apply returned, which knows the other stages"
            )
        self.model = model if pipeline is None else pipeline.module
        self.stages: ProcessGroup | None = None if pipeline is None else pipeline.group
        self.cut: dict[str, tuple[Columns, ProcessGroup]] = {}
        self._shapes: dict[str, torch.Size] = {}
        for prefix, module in _named(self.model, ""):
            divided: Any = getattr(module, "_divided", None)
            if divided is not None:
                for name, columns in divided.params.items():
                    self.cut[prefix + name] = columns, divided.group
                    self._shapes[prefix + name] = module.get_parameter(name).shape

    def whole(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The state of the whole model, of that of this rank: all columns; all ranks call it. Of several stages, each rank has
        the tensors of its own, and the options of all."""
        if unknown := sorted(self.cut.keys() - state["model"].keys()):
            raise InputError(f"{unknown[0]!r}, of which ranks have columns, has another name in the state of the model")
        shown = _mapped(state, self._joined)
        if self.stages is not None:
            theirs: list[Any] = [None] * distributed.get_world_size(self.stages)
            distributed.all_gather_object(theirs, [group["params"] for group in _groups(shown)], self.stages)
            for number, group in enumerate(_groups(shown)):
                of_ranks = [names[number] for names in theirs if number < len(names)]
                group["params"] = [name for names in of_ranks for name in names]
        return shown

    def room(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Tensors without values, into which the state of the whole model is read, beside those of this rank."""
        return _mapped(state, lambda name, key, value: self._room(name, value))

    def of_rank(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """What this rank has of the state of the whole model."""
        return _mapped(state, lambda name, key, value: self._own(name, value))

    def sizes(self, tensors: Mapping[str, Any]) -> dict[str, str]:
        """The shapes and dtypes of all tensors of the whole model by name; all ranks call it. `tensors` are those of `whole` or
        `room`."""
        sizes = {
            name: described(value.shape, value.dtype) for name, value in tensors.items() if isinstance(value, Tensor)
        }
        if self.stages is None:
            return sizes
        theirs: list[Any] = [None] * distributed.get_world_size(self.stages)
        distributed.all_gather_object(theirs, sizes, self.stages)
        return {name: size for each in theirs for name, size in each.items()}

    def _joined(self, name: str, key: str, value: Tensor) -> Tensor:
        if name not in self.cut or not value.dim():
            return value
        columns, group = self.cut[name]
        if value.shape != self._shapes[name]:
            raise InputError(
                f"the optimizer keeps {key!r} of shape {list(value.shape)} for the parameter {name!r}, of which ranks have "
                f"columns ({list(self._shapes[name])} each); how the whole is made of such parts is not known"
            )
        pieces = [torch.empty_like(value) for _ in range(distributed.get_world_size(group))]
        distributed.all_gather(pieces, value.contiguous(), group=group)
        return joined(pieces, columns)

    def _room(self, name: str, value: Tensor) -> Tensor:
        if hasattr(value, "full_tensor"):  # a rank's piece, beside which there is room for another
            return torch.empty_like(value)
        shape = value.shape
        if name in self.cut and value.dim():
            columns, _ = self.cut[name]
            shape = torch.Size((*shape[: columns.dim], columns.extent, *shape[columns.dim + 1 :]))
        return torch.empty(shape, dtype=value.dtype, device="cpu")

    def _own(self, name: str, value: Tensor) -> Tensor:
        if name not in self.cut or not value.dim():
            return value
        columns, group = self.cut[name]
        return own(value, columns, distributed.get_rank(group), distributed.get_world_size(group)).clone()


def described(shape: Sequence[int], dtype: torch.dtype) -> str:
    """A shape and a dtype in words."""
    return f"{list(shape)} of {str(dtype).removeprefix('torch.')}"


def _named(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """All modules by all their names in a state, in which DDP is not seen; each with the dot that its parameters follow."""
    if isinstance(module, DistributedDataParallel):
        module = module.module
    yield prefix, module
    for name, child in module.named_children():
        yield from _named(child, f"{prefix}{name}.")


def _groups(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = state["optimizer"]["param_groups"]
    return groups


def _mapped(state: Mapping[str, Any], change: Any) -> dict[str, Any]:
    """The state of a model and its optimizer with other tensors, `change(name of the parameter, what it is, tensor)`; in one
    order on all ranks."""
    kept = state["optimizer"]["state"]
    of_optimizer = {
        name: {
            key: change(name, key, value) if isinstance(value, Tensor) else value for key, value in _sorted(kept[name])
        }
        for name in kept
    }
    model = {
        name: change(name, "value", value) if isinstance(value, Tensor) else value
        for name, value in state["model"].items()
    }
    groups = [dict(group) for group in state["optimizer"]["param_groups"]]
    return {"model": model, "optimizer": {**state["optimizer"], "state": of_optimizer, "param_groups": groups}}


def _sorted(entries: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return iter(sorted(entries.items()))
