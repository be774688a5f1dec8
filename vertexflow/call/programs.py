"""What vertex functions became: traces and compiled programs, kept for every state and configuration that a model was seen in."""

from __future__ import annotations

import operator
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .. import forked, log
from ..errors import SlowCoreWarning, VertexFlowError, VertexFunctionError
from ..graph.inputs.pack import GraphBatch
from ..graph.symbolic import isolation
from ..graph.symbolic.partition import partition
from ..graph.symbolic.passes.choices import constant_states
from ..graph.symbolic.passes.wanted import wanted_states
from ..graph.symbolic.program import CORES, Program
from ..graph.symbolic.readout import Divided, Readout
from ..graph.symbolic.show import SymbolicGraph
from ..graph.symbolic.trace import Trace
from ..graph.symbolic.watch.look import take_snapshot
from ..graph.symbolic.watch.snapshot import Held, Path, Snapshot
from ..kernels.bound import Bound, bind
from ..kernels.compile import choose_backend, compile_program, named_backend
from ..kernels.compiled import Compiled
from ..kernels.growing.grown import Usual
from .orders import Orders

MOST_VERSIONS = 32  # of a model that are kept; the least recently used go first
_MANY_VERSIONS = 8  # so many versions, and a warning says what changes

_CPU = torch.device("cpu")
_DICTIONARY = operator.attrgetter("__dict__")

Value = TypeVar("Value")
Key = TypeVar("Key", bound=Hashable)


class Configuration(NamedTuple):
    """What a trace depends on beside the version of the model."""

    tensors: tuple[tuple[str, torch.dtype, torch.Size], ...]
    inputs: tuple[tuple[str, torch.dtype, torch.Size], ...]  # with the shape of a row
    device: torch.device
    autocast: torch.dtype | None
    default_dtype: torch.dtype
    default_device: torch.device
    state_dtype: str
    methods: tuple[str, ...] = ()  # of runs that grow, those of the new vertices; otherwise all

    @classmethod
    def of(
        cls,
        tensors: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
        device: torch.device,
        state_dtype: object,
        methods: tuple[str, ...] = (),
    ) -> Configuration:
        """That of a call."""
        return cls(
            tuple([(name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()]),
            tuple([(name, value.dtype, value.shape[1:]) for name, value in sorted(inputs.items())]),
            device,
            torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None,
            torch.get_default_dtype(),
            default_device(),
            str(state_dtype),
            methods,
        )


def default_device() -> torch.device:
    """What `torch.get_default_device()` returns; that takes longer where nobody has set a device, as is usual."""
    is_set = torch._C._len_torch_function_stack() or getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return torch.get_default_device() if is_set else _CPU


class Request(NamedTuple):
    """What programs are compiled for: the parameters and inputs whose gradients are wanted, and whether children get gradients
    whatever these are (`through`: an initial state, or an earlier part of a run, wants its own)."""

    params: tuple[str, ...]
    inputs: tuple[str, ...]
    through: bool
    backend: str  # as it was named: "auto" becomes another when programs are compiled
    device: torch.device
    grows: bool = False  # whether a run that grows keeps the states, a row of each for every vertex
    # Whether all children are vertices of the batch; others may be an initial state, which vertices read without children.
    is_whole: bool = False

    @classmethod
    def of(
        cls,
        tensors: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
        through: bool,
        backend: str,
        device: torch.device,
        grows: bool = False,
        is_whole: bool = False,
    ) -> Request:
        """That of a call with these parameters, buffers and inputs."""
        if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            return cls((), (), False, backend, device, grows, is_whole)
        params = tuple([name for name, tensor in tensors.items() if tensor.requires_grad])
        wanted = tuple([name for name, value in inputs.items() if value.requires_grad])
        return cls(params, wanted, through, backend, device, grows, is_whole)


Traces = tuple[
    int, ...
]  # the traces of all methods by their addresses, which stay valid while `Version` keeps the traces


@dataclass
class Version:
    """A model with its attributes as they were at some call: its traces and all that was compiled of them."""

    alive: list[Any]  # the objects that the version's key names by address, so that no other object gets that address
    traces: dict[Configuration, dict[str, Trace]] = field(default_factory=dict)  # by method
    compiled: dict[tuple[Traces, Request], dict[str, Compiled]] = field(default_factory=dict)
    # By the methods of a batch's groups: their programs together; and the programs of all methods.
    bound: dict[tuple[Traces, Request, tuple[str, ...]], tuple[Bound, dict[str, Compiled]]] = field(
        default_factory=dict
    )
    # What only outputs need, and the methods cut in two where some were asked for.
    readouts: dict[Traces, tuple[dict[str, Readout]]] = field(default_factory=dict)
    divided: dict[Traces, tuple[Divided | None]] = field(default_factory=dict)
    recalls: WeakKeyDictionary[GraphBatch, dict[tuple[bool, bool], tuple[Any, ...]]] = field(
        default_factory=WeakKeyDictionary
    )  # `recall`
    growing: dict[Hashable, Any] = field(default_factory=dict)  # what computes the vertices that are added to runs

    def apart(self) -> Version:
        """This version with what it has so far; what is added to one is not in the other."""
        kept = dict(self.traces), dict(self.compiled), dict(self.bound), dict(self.readouts), dict(self.divided)
        return Version(self.alive, *kept)


@dataclass(frozen=True)
class Seen:
    """A model as it was at its last call: a snapshot, where its parameters and buffers are, and its version."""

    snapshot: Snapshot
    places: list[tuple[str, dict[str, Any], str]]  # qualified name, and the dictionary and key that hold the tensor
    num_tensors: int  # without duplicates: two places may hold one tensor
    attributes: list[int]  # of each tensor, the address of the dictionary of its own attributes, or 0
    version: Version


@dataclass
class Programs:
    """All versions of a model. `latest` is for reports only: the programs of whichever call came last."""

    versions: OrderedDict[Hashable, Version] = field(default_factory=OrderedDict)
    seen: Seen | None = None
    latest: Mapping[str, Compiled] | None = None
    num_versions: int = 0
    unwatched: set[Path] = field(default_factory=set)  # what functions write to when they are traced: counters, logs
    orders: Orders = field(default_factory=OrderedDict)  # of what was added to runs that grow
    usual_runs: Usual = field(default_factory=Usual)
    # `recall.AsBefore`, with gradients and without, of calls with the model's own parameters, and with others in their place.
    as_before: dict[tuple[bool, bool], Any] = field(default_factory=dict)


def see(programs: Programs, model: nn.Module) -> tuple[Version, dict[str, Tensor]]:
    """The version that `model` is in now, and its parameters and buffers by qualified name."""
    seen = programs.seen
    if seen is None or seen.snapshot.modules[0]() is not model or not seen.snapshot.is_current():
        with isolation.lock:
            seen = programs.seen = _look(programs, model)
    tensors = _fetch(seen)
    if tensors is None:
        with isolation.lock:
            seen = programs.seen = _look(programs, model)
        tensors = {name: holder[key] for name, holder, key in seen.places}
    return seen.version, tensors if len(tensors) == seen.num_tensors else _once_each(tensors)


def _fetch(seen: Seen) -> dict[str, Tensor] | None:
    """The parameters and buffers by the names of their places; None if some were tied, untied or removed since."""
    tensors = {name: holder[key] for name, holder, key in seen.places}
    different = set(map(id, tensors.values()))
    is_as_before = len(different) == seen.num_tensors and id(None) not in different
    return tensors if is_as_before and _attributes(tensors) == seen.attributes else None


def _attributes(tensors: Mapping[str, Tensor]) -> list[int]:
    """The addresses of the dictionaries of the tensors' own attributes; 0 for most tensors, which have none."""
    return [id(attributes) if attributes else 0 for attributes in map(_DICTIONARY, tensors.values())]


def traces(
    programs: Programs,
    model: nn.Module,
    version: Version,
    configuration: Configuration,
    make: Callable[[], dict[str, Trace]],
) -> dict[str, Trace]:
    """The traces for a configuration, made by the first thread that asks for them."""

    def make_and_forget() -> dict[str, Trace]:
        result = make()
        _unwatch_written(programs, model, version)
        return result

    return _get_or_make(version.traces, configuration, make_and_forget)


def _unwatch_written(programs: Programs, model: nn.Module, version: Version) -> None:
    """Watch no longer what functions wrote to while they were just traced, as a hook that counts its calls does: it would
    change with every trace, and so ask for another."""
    seen = programs.seen
    if seen is None or seen.version is not version or seen.snapshot.is_current():
        return
    changed = seen.snapshot.differing(take_snapshot(model, programs.unwatched))
    programs.unwatched.intersection_update(seen.snapshot.skipped)  # other paths are no longer in the model
    programs.unwatched.update(path for path in changed if any(isinstance(part, Held) for part in path))
    snapshot = take_snapshot(model, programs.unwatched)
    for key in [key for key, other_version in programs.versions.items() if other_version is version]:
        del programs.versions[key]
    programs.versions[snapshot.key, _ties(model)] = version
    programs.seen = replace(seen, snapshot=snapshot)
    version.alive += snapshot.alive


def bound(
    programs: Programs, version: Version, traces: Mapping[str, Trace], request: Request, methods: tuple[str, ...]
) -> Bound:
    """The programs of `methods`, which are those of a batch's groups of rows; compiles the programs of all methods."""
    trace_ids = tuple(map(id, traces.values()))

    def make() -> tuple[Bound, dict[str, Compiled]]:
        compiled = _get_or_make(version.compiled, (trace_ids, request), lambda: _compiled(traces, request))
        return bind(compiled[name] for name in methods), compiled

    result, programs.latest = _get_or_make(version.bound, (trace_ids, request, methods), make)
    return result


def kept_with(table: dict[Traces, tuple[Value]], traces: Mapping[str, Trace], make: Callable[[], Value]) -> Value:
    """What is made of traces, by the first thread that asks for it, and kept in a table of their version."""
    return _get_or_make(table, tuple(map(id, traces.values())), lambda: (make(),))[0]


def _compiled(traces: Mapping[str, Trace], request: Request) -> dict[str, Compiled]:
    all_traces, wanted, through = traces.values(), (request.params, request.inputs), request.through
    states = {state for trace in all_traces for state in trace.state} if through else wanted_states(all_traces, *wanted)
    partial = frozenset[str]() if request.grows else frozenset[str]().union(*(trace.left_out for trace in all_traces))
    constants = constant_states(all_traces) if request.is_whole else None

    def partitioned(through: bool) -> dict[str, Program]:
        return {
            name: partition(trace, *wanted, through, states, partial, request.grows, constants)
            for name, trace in traces.items()
        }

    programs = partitioned(through)
    # Where one method gets gradients from its parents, all methods must send them: any may be the parent.
    if len(programs) > 1 and any(program.state_grads for program in programs.values()):
        programs = partitioned(True)
    log.show("trace", SymbolicGraph(programs))
    backend = choose_backend(request.backend, request.device)
    if backend == "torch" and request.device.type == "cpu" and named_backend(request.backend) == "auto":
        _say_that_there_is_no_compiler()
    compiled = {name: compile_program(program, backend) for name, program in programs.items()}
    for method, method_compiled in compiled.items():
        _say_what_is_slow(method, method_compiled)
    return compiled


@cache
def _say_that_there_is_no_compiler() -> None:
    """Once in a process, whatever the filters: PyTorch changes them, after which Python shows equal warnings again."""
    warnings.warn(
        'there is no C++ compiler (g++, clang++ or c++ on the PATH; CXX names another): backend "auto" is "torch", calls of '
        "PyTorch in each step. The numbers are the same, it takes longer",
        SlowCoreWarning,
        stacklevel=2,
    )


def _say_what_is_slow(method: str, compiled: Compiled) -> None:
    """Warn of what leaves the generated code in each step; Python shows equal warnings once."""
    reasons = dict.fromkeys(compiled.reasons[core] for core in CORES if core in compiled.reasons)
    if reasons:
        warnings.warn(
            f"steps of {method!r} leave the generated code for PyTorch: {'; '.join(reasons)}. The numbers are the same, it takes "
            "longer; model.explain() says what runs how",
            SlowCoreWarning,
            stacklevel=2,
        )


def _get_or_make(table: dict[Key, Value], key: Key, make: Callable[[], Value]) -> Value:
    value = table.get(key)
    if value is None:
        with isolation.lock:
            if key not in table:
                try:
                    with _no_other_errors():
                        table[key] = make()
                finally:
                    isolation.forget_sizes()
            value = table[key]
    return value


@contextmanager
def _no_other_errors() -> Iterator[None]:
    """Refuse a vertex function that fails to be compiled, for whatever reason; lack of memory stays what it is."""
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
    """Take a snapshot of the model, and look up the version that it shows, or begin one."""
    forked.note_call()
    snapshot, previous = take_snapshot(model, programs.unwatched), programs.seen
    key = (snapshot.key, _ties(model))
    if key not in programs.versions:
        programs.versions[key] = Version(snapshot.alive)
        programs.num_versions += 1
        if programs.num_versions == _MANY_VERSIONS and previous is not None:
            _warn(model, previous.snapshot.changes(snapshot))
        while len(programs.versions) > MOST_VERSIONS:
            programs.versions.popitem(last=False)
    programs.versions.move_to_end(key)
    places = _places(model)
    tensors = {name: holder[key] for name, holder, key in places}
    different = set(map(id, tensors.values()))
    return Seen(snapshot, places, len(different), _attributes(tensors), programs.versions[key])


def _places(model: nn.Module) -> list[tuple[str, dict[str, Any], str]]:
    """Where the parameters are, and after them the buffers."""
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
        f"{type(model).__name__} was traced in {_MANY_VERSIONS} different states, which takes long each time; the last change "
        f"was of {', '.join(changed[:3]) or 'its parts'}: pass what changes often as an input, or keep it in a buffer",
        UserWarning,
        stacklevel=6,
    )
