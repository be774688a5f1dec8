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
from .arguments import Arguments
from .bind import AsGiven, BoundCall
from .outputs import Outputs
from .programs import Programs, Seen, Version
from .same_call import TensorGuards, can_be_told, positions, surroundings
from .selection import Wanted
from .unchanged import Unchanged

Tensors = Mapping[str, Tensor]

_MOST_CALLS = 4  # that are kept of a batch: layers of a model may run one cell on different inputs


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
    names: list[Any]  # see `_asked`
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
        """Whether a call with these tensors, inputs and, last, the vertices of `outputs=` would be bound to the same."""
        return (
            names == self.names
            and all(map(operator.is_, _surroundings(model, backend, self.device), self.surroundings))
            and self.guards.check(*given)
            and lie_in_memory(given)
            and all(map(_are_the_same, wanted, self.wanted))
        )


@dataclass(eq=False)
class AsBefore:
    """A model and its surroundings as they were at a call that was like an earlier one, to be compared in one native call."""

    seen: Seen
    # `Unchanged`, without the check of tensors, and the model's parameters and buffers, unless others are given in their place.
    # None after these were exchanged: they are not held on to.
    held: tuple[tuple[Any, ...], Tensors] | None
    attributes: tuple[Any, ...]  # of the model; compared by identity
    device: torch.device
    surroundings: list[Any]
    has_served: bool = False

    @classmethod
    def of(cls, model: Model, seen: Seen, tensors: Tensors, are_own: bool, recall: Recall) -> AsBefore | None:
        """All as it is now; None where it is unusual."""
        if are_own:
            unchanged = Unchanged.of(seen, [*tensors.values()], bool, with_versions=False)
        else:
            unchanged, tensors = Unchanged.of_given(seen, bool, recall.device.type), {}
        if unchanged is None:
            return None
        return cls(seen, (tuple(unchanged)[:-1], tensors), _attributes(model), recall.device, recall.surroundings)


def run_unchanged(model: Model, call: Arguments) -> Outputs | None:
    """What `run_again` returns, if neither the model nor its surroundings have changed since that was asked."""
    tensors, batch, reverse, initial, inputs, shared, wanted = call
    programs, is_grad_enabled = model._programs, torch.is_grad_enabled()
    as_before: AsBefore | None = programs.as_before.get((is_grad_enabled, tensors is None))
    held = None if as_before is None else as_before.held
    if as_before is None or held is None or type(batch) is not GraphBatch or as_before.seen is not programs.seen:
        return None
    seen, (unchanged, own) = as_before.seen, held
    names, vertices = _asked(own if tensors is None else tensors, inputs, wanted)
    others = [*inputs.values(), *vertices] if tensors is None else [*tensors.values(), *inputs.values(), *vertices]
    looked_at: object = seen.snapshot.modules[0]()  # another one, where a model was copied
    if looked_at is not model or initial is not None or shared is not None:
        return None
    of_batch: Mapping[tuple[bool, bool], Sequence[Recall]] = seen.version.recalls.get(batch, {})
    for recall in of_batch.get((reverse, is_grad_enabled), ()):
        if (
            names == recall.names
            and recall.device == as_before.device
            and all(map(operator.is_, _attributes(model), as_before.attributes))
            and all(map(operator.is_, as_before.surroundings, recall.surroundings))
            and _core.is_unchanged((*unchanged, recall.guards.check), others)
            and lie_in_memory(others)
            and all(map(_are_the_same, vertices, recall.wanted))
        ):
            as_before.has_served = True
            return _run(model, recall, [*own.values(), *others], wanted)
    return None


def run_again(model: Model, version: Version, tensors: Tensors, backend: str, call: Arguments) -> Outputs | None:
    """What a call returns, if it is like an earlier one.

    `tensors` are parameters and buffers, the model's own or others, `backend` is what `named_backend` says.
    """
    own = model._programs.as_before.items() if call.tensors is None else ()
    for noted in [each for (_, are_own), each in [*own] if are_own]:
        if noted.held is not None and [*map(id, noted.held[1].values())] != [*map(id, tensors.values())]:
            noted.held = None
    batch = call.graphs
    if call.initial is not None or call.shared is not None or type(batch) is not GraphBatch or is_recorded():
        return None
    names, vertices = _asked(tensors, call.inputs, call.wanted)
    given = [*tensors.values(), *call.inputs.values(), *vertices]
    of_batch: Mapping[tuple[bool, bool], Sequence[Recall]] = version.recalls.get(batch, {})
    for recall in of_batch.get((call.reverse, torch.is_grad_enabled()), ()):
        if recall.fits(model, backend, names, given, vertices):
            _note(model, version, tensors, call.tensors is None, recall)
            return _run(model, recall, given, call.wanted)
    return None


def _note(model: Model, version: Version, tensors: Tensors, are_own: bool, recall: Recall) -> None:
    """Remember the model and its surroundings as they are now, unless that was of no use before."""
    programs, key = model._programs, (torch.is_grad_enabled(), are_own)
    seen, noted = programs.seen, programs.as_before.get(key)
    if seen is None or seen.version is not version or (noted and noted.seen is seen and not noted.has_served):
        return
    as_before = AsBefore.of(model, seen, tensors, are_own, recall)
    if as_before is not None:
        programs.as_before[key] = as_before


def _run(model: Model, recall: Recall, given: Sequence[Tensor], wanted: Wanted | None) -> Outputs:
    """Run what a call was bound to, with these parameters and buffers, then inputs."""
    model._programs.latest = recall.latest
    outputs = autograd.run_flat(recall.part.bound, recall.part.order, [given[at] for at in recall.flat], {})
    if recall.readout is not None:
        outputs = recall.readout.run(given, outputs)
    return Outputs(outputs if wanted is None else recall.as_given(outputs))


def keep(model: Model, version: Version, bound: BoundCall, backend: str, call: Arguments, result: Outputs) -> None:
    """Remember a call, if what it was bound to can be told from its arguments without waiting for a device."""
    batch, inputs, parts = call.graphs, call.inputs, bound.whole_parts
    if call.initial is not None or call.shared is not None or not parts or type(batch) is not GraphBatch:
        return
    names, vertices = _asked(bound.tensors, inputs, call.wanted)
    given = [*bound.tensors.values(), *inputs.values(), *vertices]
    if not (can_be_told(model.state_dtype, given) and all(_can_be_compared(each, batch) for each in vertices)):
        return
    readout, pushed = None, set(parts[0].bound.pushes)
    if len(parts) > 1:
        readout = KeptReadout.of(parts[1], bound.tensors)
        pushed = pushed.difference(parts[1].bound.pulls).union(parts[1].bound.pushes)
    if result.keys() != pushed:
        return  # outputs of kinds that are not in the batch were added
    recall = Recall(
        _surroundings(model, backend, bound.device),
        names,
        TensorGuards(*given, dynamic_dims_sizes=None, dynamic_dims_strides=None),
        [each.clone() if each.is_cpu else each for each in vertices],
        bound.device,
        parts[0],
        positions(parts[0].bound, bound.tensors, inputs),
        readout,
        bound.as_given,
        model._programs.latest,
    )
    of_batch, key = version.recalls.setdefault(batch, {}), (call.reverse, torch.is_grad_enabled())
    of_batch[key] = (recall, *of_batch.get(key, ())[: _MOST_CALLS - 1])


def _asked(tensors: Iterable[str], inputs: Iterable[str], wanted: Wanted | None) -> tuple[list[Any], list[Tensor]]:
    """The names of tensors and of inputs, and what `outputs=` has; and its tensors, each once, as guards refuse others."""
    if wanted is None:
        return [*tensors, "", *inputs, None], []
    if not isinstance(wanted, Mapping):
        return [*tensors, "", *inputs, True], [wanted]
    vertices = [*{id(each): each for each in wanted.values()}.values()]
    number = {id(each): at for at, each in enumerate(vertices)}
    return [*tensors, "", *inputs, [(name, number[id(each)]) for name, each in wanted.items()]], vertices


def _can_be_compared(vertices: Tensor, batch: GraphBatch) -> bool:
    """Whether a later call can tell without waiting for a device that it asks for the same vertices."""
    own = vars(batch)
    return vertices.is_cpu or vertices is own.get("roots") or vertices is own.get("leaves")


def _are_the_same(vertices: Tensor, before: Tensor) -> bool:
    return vertices is before or (vertices.is_cpu and torch.equal(vertices, before))


def _surroundings(model: Model, backend: str, device: torch.device) -> list[Any]:
    """What decides how a call is bound, beside the model and its arguments."""
    return [model.policy, model.max_vertices, *surroundings(model.state_dtype, backend, device)]


def _attributes(model: Model) -> tuple[Any, ...]:
    return model.backend, model.policy, model.max_vertices, model.state_dtype
