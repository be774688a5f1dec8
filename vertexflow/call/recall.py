"""A call that is like an earlier one on the same batch runs what that one was bound to.

The checks, traces, programs and the order that a call looks up follow from the version of the model, the batch, and what is
compared here.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .. import _core
from ..graph.inputs.pack import GraphBatch
from ..kernels import autograd
from ..kernels.compiled import Compiled
from ..kernels.parts import BoundPart
from ..kernels.plain import is_recorded, lie_in_memory
from .estimate import AsGiven, BoundCall
from .outputs import Outputs
from .programs import Programs, Seen, Version
from .same_call import TensorGuards, can_be_told, positions, surroundings
from .selection import Wanted
from .unchanged import Unchanged

Tensors = Mapping[str, Tensor]


class Model(Protocol):
    """What of a vertex function decides how a call is bound, beside its version."""

    @property
    def _programs(self) -> Programs: ...

    backend: str
    policy: Any
    max_vertices: int | None
    state_dtype: Any


@dataclass(frozen=True, eq=False)
class KeptReadout:
    """What the readout of some vertices was bound to."""

    part: BoundPart
    flat: list[int | str]  # the positions of what is read among tensors, and the names of outputs of the trunk

    @classmethod
    def of(cls, part: BoundPart, tensors: Tensors) -> KeptReadout:
        """That of a call with these parameters and buffers."""
        position = {name: at for at, name in enumerate(tensors)}
        return cls(part, [*(position[name] for name in part.bound.params), *part.bound.pulls])

    def run(self, given: Sequence[Tensor], made: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of trunk and readout; `made` are those of the trunk."""
        read = [made[each] if isinstance(each, str) else given[each] for each in self.flat]
        for name in self.part.bound.pulls:
            del made[name]
        return made | autograd.run_flat(self.part.bound, self.part.order, read, {})


@dataclass(frozen=True, eq=False)
class Recall:
    """What a call was bound to, and all that decided it."""

    surroundings: list[Any]  # compared by identity
    names: list[Any]  # see `_names`
    guards: Any  # of all these
    wanted: list[Tensor]  # those of `outputs=`, on a CPU copies
    device: torch.device
    part: BoundPart
    flat: list[int]  # the positions of what is read, among tensors, then inputs
    readout: KeptReadout | None  # of a call in two
    as_given: AsGiven
    latest: Mapping[str, Compiled] | None

    def fits(
        self, model: Model, backend: str, names: Sequence[Any], given: Sequence[Tensor], wanted: Sequence[Tensor]
    ) -> bool:
        """Whether a call with these tensors and inputs, and vertices of `outputs=`, would be bound to the same."""
        return (
            names == self.names
            and all(map(operator.is_, _surroundings(model, backend, self.device), self.surroundings))
            and self.guards.check(*given, *wanted)
            and lie_in_memory(given)
            and all(map(_are_the_same, wanted, self.wanted))
        )


@dataclass(eq=False)
class AsBefore:
    """A model and its surroundings as they were at a call that was like an earlier one, to be compared in one native call."""

    seen: Seen
    # `Unchanged`, without the check of tensors; parameters and buffers. None after these were exchanged: they are not held on to.
    held: tuple[tuple[Any, ...], list[Tensor]] | None
    attributes: tuple[Any, ...]  # of the model; compared by identity
    names: list[str]  # of parameters and buffers
    surroundings: list[Any]
    has_served: bool = False

    @classmethod
    def of(cls, model: Model, seen: Seen, tensors: Tensors, surroundings: list[Any]) -> AsBefore | None:
        """All as it is now; None where it is unusual."""
        given = list(tensors.values())
        unchanged = Unchanged.of(seen, given, bool, with_versions=False)
        if unchanged is None:
            return None
        return cls(seen, (tuple(unchanged)[:-1], given), _attributes(model), [*tensors], surroundings)


def run_unchanged(model: Model, batch: object, reverse: bool, inputs: Tensors, wanted: Wanted | None) -> Outputs | None:
    """What `run_again` returns, if neither the model nor its surroundings have changed since that was asked."""
    programs, is_grad_enabled = model._programs, torch.is_grad_enabled()
    as_before: AsBefore | None = programs.as_before.get(is_grad_enabled)
    held = None if as_before is None else as_before.held
    if as_before is None or held is None or type(batch) is not GraphBatch or as_before.seen is not programs.seen:
        return None
    seen = as_before.seen
    recall: Recall | None = seen.version.recalls.get(batch, {}).get((reverse, is_grad_enabled))
    if recall is None:
        return None
    looked_at: object = seen.snapshot.modules[0]()  # another one, where a model was copied
    vertices = _vertices_of(wanted)
    further = [*inputs.values(), *vertices]
    if not (
        [*as_before.names, *_names((), inputs, wanted)] == recall.names
        and all(map(operator.is_, _attributes(model), as_before.attributes))
        and all(map(operator.is_, as_before.surroundings, recall.surroundings))
        and looked_at is model
        and _core.is_unchanged((*held[0], recall.guards.check), further)
        and lie_in_memory(further)
        and all(map(_are_the_same, vertices, recall.wanted))
    ):
        return None
    as_before.has_served = True
    return _run(model, recall, [*held[1], *further], wanted)


def run_again(
    model: Model,
    version: Version,
    tensors: Tensors,
    backend: str,
    batch: object,
    reverse: bool,
    inputs: Tensors,
    wanted: Wanted | None,
) -> Outputs | None:
    """What a call returns, if it is like an earlier one.

    `tensors` are parameters and buffers, `backend` is what `named_backend` says.
    """
    for noted in [*model._programs.as_before.values()]:
        if noted.held is not None and list(map(id, noted.held[1])) != list(map(id, tensors.values())):
            noted.held = None
    if type(batch) is not GraphBatch or is_recorded():
        return None
    recall: Recall | None = version.recalls.get(batch, {}).get((reverse, torch.is_grad_enabled()))
    given = [*tensors.values(), *inputs.values()]
    if recall is None or not recall.fits(model, backend, _names(tensors, inputs, wanted), given, _vertices_of(wanted)):
        return None
    _note(model, version, tensors, recall)
    return _run(model, recall, given, wanted)


def _note(model: Model, version: Version, tensors: Tensors, recall: Recall) -> None:
    """Remember the model and its surroundings as they are now, unless that was of no use before."""
    programs, is_grad_enabled = model._programs, torch.is_grad_enabled()
    seen, noted = programs.seen, programs.as_before.get(is_grad_enabled)
    if seen is None or seen.version is not version or (noted and noted.seen is seen and not noted.has_served):
        return
    as_before = AsBefore.of(model, seen, tensors, recall.surroundings)
    if as_before is not None:
        programs.as_before[is_grad_enabled] = as_before


def _run(model: Model, recall: Recall, given: Sequence[Tensor], wanted: Wanted | None) -> Outputs:
    """Run what a call was bound to, with these parameters and buffers, then inputs."""
    model._programs.latest = recall.latest
    outputs = autograd.run_flat(recall.part.bound, recall.part.order, [given[at] for at in recall.flat], {})
    if recall.readout is not None:
        outputs = recall.readout.run(given, outputs)
    return Outputs(outputs if wanted is None else recall.as_given(outputs))


def keep(
    model: Model,
    version: Version,
    call: BoundCall,
    backend: str,
    batch: object,
    reverse: bool,
    inputs: Tensors,
    wanted: Wanted | None,
    result: Outputs,
) -> None:
    """Remember a call, if what it was bound to can be told from these arguments without waiting for a device."""
    vertices = _vertices_of(wanted)
    given = [*call.tensors.values(), *inputs.values(), *vertices]
    is_told = can_be_told(model.state_dtype, given) and all(_can_be_compared(each, batch) for each in vertices)
    parts = call.whole_parts
    if not (is_told and parts and type(batch) is GraphBatch):
        return
    readout, pushed = None, set(parts[0].bound.pushes)
    if len(parts) > 1:
        readout = KeptReadout.of(parts[1], call.tensors)
        pushed = pushed.difference(parts[1].bound.pulls).union(parts[1].bound.pushes)
    if result.keys() != pushed:
        return  # outputs of kinds that are not in the batch were added
    recall = Recall(
        _surroundings(model, backend, call.device),
        _names(call.tensors, inputs, wanted),
        TensorGuards(*given, dynamic_dims_sizes=None, dynamic_dims_strides=None),
        [each.clone() if each.device.type == "cpu" else each for each in vertices],
        call.device,
        parts[0],
        positions(parts[0].bound, call.tensors, inputs),
        readout,
        call.as_given,
        model._programs.latest,
    )
    version.recalls.setdefault(batch, {})[reverse, torch.is_grad_enabled()] = recall


def _names(tensors: Iterable[str], inputs: Iterable[str], wanted: Wanted | None) -> list[Any]:
    """The names of tensors and of inputs, and what `outputs=` has of the tensors of `_vertices_of`."""
    if isinstance(wanted, Mapping):
        number = {id(each): at for at, each in enumerate(_vertices_of(wanted))}
        return [*tensors, "", *inputs, [(name, number[id(each)]) for name, each in wanted.items()]]
    return [*tensors, "", *inputs, wanted is None]


def _vertices_of(wanted: Wanted | None) -> list[Tensor]:
    """The tensors of `outputs=`, each once: guards refuse others."""
    if isinstance(wanted, Mapping):
        return [*{id(each): each for each in wanted.values()}.values()]
    return [] if wanted is None else [wanted]


def _can_be_compared(vertices: Tensor, batch: object) -> bool:
    """Whether a later call can tell without waiting for a device that it asks for the same vertices."""
    own = vars(batch)
    return vertices.device.type == "cpu" or vertices is own.get("roots") or vertices is own.get("leaves")


def _are_the_same(vertices: Tensor, before: Tensor) -> bool:
    return vertices is before or (vertices.device.type == "cpu" and torch.equal(vertices, before))


def _surroundings(model: Model, backend: str, device: torch.device) -> list[Any]:
    """What decides how a call is bound, beside the model and its arguments."""
    return [model.policy, model.max_vertices, *surroundings(model.state_dtype, backend, device)]


def _attributes(model: Model) -> tuple[Any, ...]:
    return model.backend, model.policy, model.max_vertices, model.state_dtype
