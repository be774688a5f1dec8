"""What vertex functions became: traces and compiled programs, kept for every state and configuration that a model was seen in."""

from __future__ import annotations

import operator
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from . import forked, log
from .errors import SlowCoreWarning, VertexFlowError, VertexFunctionError
from .graph.symbolic import isolation
from .graph.symbolic.partition import partition
from .graph.symbolic.passes.wanted import wanted_states
from .graph.symbolic.program import CORES
from .graph.symbolic.show import SymbolicGraph
from .graph.symbolic.trace import Trace
from .graph.symbolic.watch.look import take_snapshot
from .graph.symbolic.watch.snapshot import Held, Path, Snapshot
from .kernels.bound import Bound, bind
from .kernels.compile import choose_backend, compile_program
from .kernels.compiled import Compiled

MOST_STATES = 32  # of a model that are kept; the least recently seen go first
_MANY_STATES = 8  # from which on a warning says what changes

_CPU = torch.device("cpu")
_DICTIONARY = operator.attrgetter("__dict__")

Made = TypeVar("Made")
Key = TypeVar("Key", bound=Hashable)


class Configuration(NamedTuple):
    """What traces depend on, beside the state of the model."""

    tensors: tuple[tuple[str, torch.dtype, torch.Size], ...]
    inputs: tuple[tuple[str, torch.dtype, torch.Size], ...]  # with the shape of a row
    device: torch.device
    autocast: torch.dtype | None
    default_dtype: torch.dtype
    default_device: torch.device
    state_dtype: str

    @classmethod
    def of(
        cls, tensors: Mapping[str, Tensor], inputs: Mapping[str, Tensor], device: torch.device, state_dtype: object
    ) -> Configuration:
        """That of a call."""
        return cls(
            tuple([(name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()]),
            tuple([(name, value.dtype, value.shape[1:]) for name, value in sorted(inputs.items())]),
            device,
            torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None,
            torch.get_default_dtype(),
            _default_device(),
            str(state_dtype),
        )


def _default_device() -> torch.device:
    """As `torch.get_default_device()`, which looks longer where nobody has set one."""
    is_set = torch._C._len_torch_function_stack() or getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return torch.get_default_device() if is_set else _CPU


class Asked(NamedTuple):
    """What programs are compiled for: the parameters and inputs whose gradients are wanted; with `through`, gradients are sent
    to children in any case."""

    params: tuple[str, ...]
    inputs: tuple[str, ...]
    through: bool
    backend: str  # by its name: which one "auto" is, is chosen when programs are compiled
    device: torch.device


Traces = tuple[int, ...]  # those of all methods, by address: `Kept` keeps them


@dataclass
class Kept:
    """What a model became in one of its states."""

    alive: list[Any]  # what the key of the state speaks of by its address
    traces: dict[Configuration, dict[str, Trace]] = field(default_factory=dict)  # a trace a method
    compiled: dict[tuple[Traces, Asked], dict[str, Compiled]] = field(default_factory=dict)
    # By methods of groups: these together, and those of all kinds.
    bound: dict[tuple[Traces, Asked, tuple[str, ...]], tuple[Bound, dict[str, Compiled]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """A model as it was seen last: a snapshot, where its parameters and buffers are, and what is kept for that state."""

    snapshot: Snapshot
    places: list[tuple[str, dict[str, Any], str]]  # qualified name, and the dictionary and key that hold the tensor
    num_tensors: int  # that are different ones: two places may hold the same
    attributes: list[int]  # the dictionary of what was set on each of the tensors, by its address
    kept: Kept


@dataclass
class Programs:
    """All that is kept of a model. `latest` is for reports only: the programs of whichever call came last."""

    states: OrderedDict[Hashable, Kept] = field(default_factory=OrderedDict)
    seen: Seen | None = None
    latest: Mapping[str, Compiled] | None = None
    num_states: int = 0
    unwatched: set[Path] = field(default_factory=set)  # what functions wrote to while they were traced: counts, logs


def see(programs: Programs, model: nn.Module) -> tuple[Kept, dict[str, Tensor]]:
    """What is kept for the state that `model` is in, and its parameters and buffers by qualified name."""
    seen = programs.seen
    if seen is None or seen.snapshot.modules[0]() is not model or not seen.snapshot.is_current():
        with isolation.lock:
            seen = programs.seen = _look(programs, model)
    tensors = _fetch(seen)
    if tensors is None:
        with isolation.lock:
            seen = programs.seen = _look(programs, model)
        tensors = {name: holder[key] for name, holder, key in seen.places}
    return seen.kept, tensors if len(tensors) == seen.num_tensors else _once_each(tensors)


def _fetch(seen: Seen) -> dict[str, Tensor] | None:
    """The parameters and buffers by the names of their places; None where some were tied, untied or taken away since."""
    tensors = {name: holder[key] for name, holder, key in seen.places}
    different = {id(tensor) for tensor in tensors.values() if tensor is not None}
    is_complete = not any(tensor is None for tensor in tensors.values())
    is_as_before = is_complete and len(different) == seen.num_tensors and _attributes(tensors) == seen.attributes
    return tensors if is_as_before else None


def _attributes(tensors: Mapping[str, Tensor]) -> list[int]:
    """What holds the attributes that were set on tensors; 0 for most, which have none."""
    return [id(held) if held else 0 for held in map(_DICTIONARY, tensors.values())]


def traces(
    programs: Programs, model: nn.Module, kept: Kept, configuration: Configuration, make: Callable[[], dict[str, Trace]]
) -> dict[str, Trace]:
    """The traces for a configuration, made by the first thread that asks for them."""

    def made() -> dict[str, Trace]:
        found = make()
        _forget_written(programs, model, kept)
        return found

    return _made(kept.traces, configuration, made)


def _forget_written(programs: Programs, model: nn.Module, kept: Kept) -> None:
    """What functions have just written to, and nobody else: a hook that counts its calls. It would change at each trace."""
    seen = programs.seen
    if seen is None or seen.kept is not kept or seen.snapshot.is_current():
        return
    changed = seen.snapshot.differing(take_snapshot(model, programs.unwatched))
    programs.unwatched.intersection_update(seen.snapshot.skipped)  # others are gone
    programs.unwatched.update(path for path in changed if any(isinstance(part, Held) for part in path))
    snapshot = take_snapshot(model, programs.unwatched)
    for key in [key for key, state in programs.states.items() if state is kept]:
        del programs.states[key]
    programs.states[snapshot.key, _ties(model)] = kept
    programs.seen = replace(seen, snapshot=snapshot)
    kept.alive += snapshot.alive


def bound(programs: Programs, kept: Kept, traces: Mapping[str, Trace], asked: Asked, methods: tuple[str, ...]) -> Bound:
    """The compiled methods of the groups of rows of a batch, together; all methods are compiled."""
    of_traces = tuple(map(id, traces.values()))

    def made() -> tuple[Bound, dict[str, Compiled]]:
        compiled = _made(kept.compiled, (of_traces, asked), lambda: _compiled(traces, asked))
        return bind(compiled[name] for name in methods), compiled

    found, programs.latest = _made(kept.bound, (of_traces, asked, methods), made)
    return found


def _compiled(traces: Mapping[str, Trace], asked: Asked) -> dict[str, Compiled]:
    every, wanted, through = traces.values(), (asked.params, asked.inputs), asked.through
    states = {state for trace in every for state in trace.state} if through else wanted_states(every, *wanted)
    programs = {name: partition(trace, *wanted, through, states) for name, trace in traces.items()}
    if len(programs) > 1 and any(program.state_grads for program in programs.values()):  # what others send
        programs = {name: partition(trace, *wanted, True, states) for name, trace in traces.items()}
    log.show("trace", SymbolicGraph(programs))
    backend = choose_backend(asked.backend, asked.device)
    compiled = {name: compile_program(program, backend) for name, program in programs.items()}
    for method, one in compiled.items():
        _say_what_is_slow(method, one)
    return compiled


def _say_what_is_slow(method: str, compiled: Compiled) -> None:
    """Warn of what leaves the generated code in each step; Python says the same once."""
    reasons = dict.fromkeys(compiled.reasons[core] for core in CORES if core in compiled.reasons)
    if reasons:
        warnings.warn(
            f"steps of {method!r} leave the generated code for PyTorch: {'; '.join(reasons)}. The numbers are the same, it takes "
            "longer; model.explain() says what runs how",
            SlowCoreWarning,
            stacklevel=2,
        )


def _made(table: dict[Key, Made], key: Key, make: Callable[[], Made]) -> Made:
    have = table.get(key)
    if have is None:
        with isolation.lock:
            if key not in table:
                try:
                    with _no_other_errors():
                        table[key] = make()
                finally:
                    isolation.forget_sizes()
            have = table[key]
    return have


@contextmanager
def _no_other_errors() -> Iterator[None]:
    """What a vertex function cannot be made into is refused, whatever it failed on; lack of memory stays what it is."""
    try:
        yield
    except (VertexFlowError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise VertexFunctionError(
            f"vertexflow does not know what to make of the vertex function: {type(error).__name__}: {error}. This is a defect of "
            'vertexflow, please report it; backend="eager" calls the method itself'
        ) from error


def _look(programs: Programs, model: nn.Module) -> Seen:
    """Take a snapshot of the model, and find what is kept for a state like this one."""
    forked.note_call()
    snapshot, before = take_snapshot(model, programs.unwatched), programs.seen
    key = (snapshot.key, _ties(model))
    if key not in programs.states:
        programs.states[key] = Kept(snapshot.alive)
        programs.num_states += 1
        if programs.num_states == _MANY_STATES and before is not None:
            _warn(model, before.snapshot.changes(snapshot))
        while len(programs.states) > MOST_STATES:
            programs.states.popitem(last=False)
    programs.states.move_to_end(key)
    places = _places(model)
    tensors = {name: holder[key] for name, holder, key in places}
    different = set(map(id, tensors.values()))
    return Seen(snapshot, places, len(different), _attributes(tensors), programs.states[key])


def _places(model: nn.Module) -> list[tuple[str, dict[str, Any], str]]:
    """Where parameters are, and then buffers."""
    prefixes = list(model.named_modules())
    places: list[tuple[str, dict[str, Any], str]] = []
    for holders in ("_parameters", "_buffers"):
        for prefix, module in prefixes:
            holder = getattr(module, holders)
            dot = prefix and f"{prefix}."
            _refuse_without_shape(dot, holder)
            places += [(f"{dot}{key}", holder, key) for key, tensor in holder.items() if tensor is not None]
    return places


def _refuse_without_shape(prefix: str, holder: Mapping[str, Tensor | None]) -> None:
    for key, tensor in holder.items():
        if tensor is not None and nn.parameter.is_lazy(tensor):
            raise VertexFunctionError(
                f"{prefix}{key} has no shape yet (nn.LazyLinear and its like); call that module once on a tensor like those that "
                "it will get, or use one with given sizes"
            )


def _ties(model: nn.Module) -> tuple[int, ...]:
    """For each place, the first one that holds the same tensor."""
    numbers: dict[int, int] = {}
    return tuple(numbers.setdefault(id(holder[key]), at) for at, (_, holder, key) in enumerate(_places(model)))


def _once_each(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor by the first of its names."""
    seen: set[int] = set()
    return {name: t for name, t in tensors.items() if id(t) not in seen and not seen.add(id(t))}  # type: ignore[func-returns-value]


def _warn(model: nn.Module, changed: list[str]) -> None:
    warnings.warn(
        f"{type(model).__name__} was traced in {_MANY_STATES} different states, which takes long each time; the last change was "
        f"of {', '.join(changed[:3]) or 'its parts'}: pass what changes often as an input, or keep it in a buffer",
        UserWarning,
        stacklevel=6,
    )
