"""Vertex functions whose columns are on different ranks: parameters are cut, and calls run the computation of this rank."""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup

from ..call import programs
from ..call.arguments import Arguments
from ..call.inputs import check_inputs, check_shared
from ..call.on_ranks import OnRanks
from ..call.outputs import Outputs
from ..errors import InputError, VertexFunctionError
from ..function import VertexFunction
from ..graph import transforms
from ..graph.symbolic import isolation
from ..graph.symbolic.isolation import without_autocast
from ..graph.symbolic.prepare import prepare
from ..graph.symbolic.roles import shared_key
from ..graph.symbolic.states import dtypes_of, usual_dtype
from ..graph.symbolic.trace import Trace
from ..graph.symbolic.vertex import Vertex
from ..kernels.compile import named_backend
from . import collectives
from .collectives import Enter, Leave
from .columns import Columns, joined, own
from .division import Ranks
from .graph_part import GraphPart
from .local_program import Divider, LocalProgram, StateColumns, run, state_columns
from .observe import observe
from .over_vertices import Ready, agreed, bind
from .same_batch import check_same_graphs
from .same_part import Place

_numbers = itertools.count()
_functions: weakref.WeakValueDictionary[int, _OfRank] = weakref.WeakValueDictionary()


@dataclass(eq=False)
class _OfRank:
    """The methods of one rank, by name, and the columns of its outputs and parameters."""

    programs: dict[str, LocalProgram]
    pushes: dict[str, Columns | None]
    params: Mapping[str, Columns]
    function: VertexFunction = field(init=False)

    def reads(self, name: str) -> bool:
        """Whether any method reads this parameter."""
        return any(name in program.params for program in self.programs.values())

    def param(self, v: Vertex, ranks: Ranks, name: str, columns: Columns | None) -> Tensor:
        """Columns of a parameter, or all of it."""
        value, cut = v.shared(name), self.params.get(name)
        if cut == columns:
            return value
        if cut is not None:
            value = collectives.gather(value, cut.dim, cut.outer, cut.size, cut.inner, ranks.group, ranks.count)
        return value if columns is None else own(value, columns, ranks.rank, ranks.count)


@dataclass(frozen=True)
class _Own:
    """A call of a model as this rank has it: of the vertex function of its columns."""

    of_rank: _OfRank
    call: Arguments
    device: torch.device


class _Local(VertexFunction):
    """The vertex function of one rank. `number` says which; what it computes is not watched for changes."""

    number: int
    _runs_in_two = False  # what is traced again would meet the other ranks

    def _trace(self, *args: Any, **kwargs: Any) -> dict[str, Trace]:
        with collectives.alone():
            return super()._trace(*args, **kwargs)


def _method(name: str) -> Any:
    def method(self: _Local, v: Vertex) -> None:
        of_rank = _functions[self.number]
        program = of_rank.programs[name]
        run(program, v, lambda param, columns: of_rank.param(v, program.ranks, param, columns))

    method.__name__ = name
    return method


@functools.cache
def _class_of_rank(name: str, methods: tuple[str, ...]) -> type[_Local]:
    return type(name, (_Local,), {method: _method(method) for method in methods})


class Divided:
    """How the columns of a vertex function are divided over ranks; it runs the calls of the vertex function.

    Attributes:
        states: the columns of each state of a row that this rank has; None: all ranks have it whole.
        params: the columns of each parameter that this rank has; of those that are not here, ranks have all.
    """

    def __init__(self, model: VertexFunction, group: ProcessGroup) -> None:
        self.group = group
        count = distributed.get_world_size(group)
        self.ranks = Ranks(distributed.get_rank(group), count, collectives.name_of(group))
        self.states: StateColumns = {name: state_columns(name, shape, count) for name, shape in model.state.items()}
        self.params: dict[str, Columns] = {}
        self._made: dict[Any, tuple[_OfRank, Any]] = {}

    def choose(self, model: VertexFunction, traces: Iterable[Mapping[str, Trace]], part: str) -> None:
        """Decide which parameters are cut: those of which all methods, in all calls, read the same columns alone."""
        local_programs = [program for each in traces for program in self._programs(each, part)[0].values()]
        if not any(program.num_products for program in local_programs):
            shapes = ", ".join(f"{name} {list(shape)}" for name, shape in model.state.items())
            raise InputError(
                f"part {part!r} cannot be hidden: no product of its vertex function has columns that {self.ranks.count} ranks "
                f"can share. A product is shared whose columns are read element by element until a state; the states are "
                f"{shapes}, and a dimension that the number of ranks divides is cut"
            )
        read: dict[str, set[Columns | None]] = {}
        for program in local_programs:
            for name, columns in program.params.items():
                read.setdefault(name, set()).update(columns)
        chosen = {name: next(iter(columns)) for name, columns in read.items() if len(columns) == 1}
        trained = dict(model.named_parameters())
        self.params = {name: columns for name, columns in chosen.items() if columns is not None and name in trained}

    def cut(self, model: VertexFunction) -> None:
        """Leave the model the columns of this rank; calls run divided from now on."""
        modules = dict(model.named_modules())
        for name, columns in self.params.items():
            prefix, _, attribute = name.rpartition(".")
            parameter = modules[prefix]._parameters[attribute]
            assert parameter is not None
            columns_of_rank = own(parameter.detach(), columns, self.ranks.rank, self.ranks.count).clone()
            modules[prefix]._parameters[attribute] = nn.Parameter(columns_of_rank, parameter.requires_grad)
        model._divided = self

    def run(self, model: VertexFunction, call: Arguments) -> Outputs:
        """A call of the model."""
        if isinstance(call.graphs, OnRanks):
            return self._run_on_part(model, cast(GraphPart, call.graphs), call)
        graphs = call.batch()
        own = self._own_call(model, call)
        check_same_graphs([graphs], self.group, own.device)
        with without_autocast(own.device.type):  # the trace has its casts in it
            outputs = own.of_rank.function._run(own.call._replace(graphs=graphs))
        return self._whole(own.of_rank, outputs)

    def _run_on_part(self, model: VertexFunction, part: GraphPart, call: Arguments) -> Outputs:
        """A call with the vertices that the ranks of `group` have of graphs whose other vertices are elsewhere. An exchange of
        states moves the columns that this rank has of them, between ranks that have the same columns."""
        if getattr(model, "_part_group", None) is None:
            raise InputError(
                "a model whose columns are on several ranks was called with a part of graphs (vf.parallel.divide), whose other "
                'vertices are on other ranks; a plan says so, Plan({"vertices": 2, "hidden": 2}, ...).apply(model, mesh, batch)'
            )
        of_ranks: list[_OfRank] = []

        def prepare(place: Place) -> Ready:
            own = self._own_call(model, call)
            of_ranks.append(own.of_rank)
            own.of_rank.function._part_group = model._part_group
            with without_autocast(own.device.type):  # the trace has its casts in it
                return bind(own.of_rank.function, part, own.call, place)

        ready = agreed(model, part, call, prepare)
        with without_autocast(ready.place.device.type):
            outputs = ready.outputs()
        return self._whole(of_ranks[0], outputs)

    def _own_call(self, model: VertexFunction, call: Arguments) -> _Own:
        """What this rank computes of a call; it waits for nobody."""
        if call.tensors is not None or transforms.are_active():
            raise InputError(
                "a model whose columns are on several ranks cannot be called with other parameters, or inside torch.func"
            )
        if named_backend(model.backend) == "eager":
            raise InputError('backend="eager" has no program of which ranks could have parts; choose another backend')
        version, tensors = programs.see(model._programs, model)
        shared = check_shared(tensors, call.inputs, call.shared)
        device = check_inputs(tensors, call.inputs)
        of_rank = self._of_rank(model, version, tensors, call.inputs, shared, device)
        params = {name: value for name, value in tensors.items() if of_rank.reads(name)}
        initial = self._check_initial(model, call.initial)
        own_params = {name: value for name, value in params.items() if name in self.params}
        other_params = {name: value for name, value in params.items() if name not in self.params}
        other_params, inputs, shared, initial = self._entered(other_params, call.inputs, shared, initial)
        states = {name: self._own_state(name, value) for name, value in initial.items()}
        shared = {**own_params, **other_params, **{shared_key(name): value for name, value in shared.items()}}
        given = states if isinstance(call.initial, Mapping) else call.initial
        return _Own(of_rank, call._replace(initial=given, inputs=inputs, shared=shared), device)

    def _whole(self, of_rank: _OfRank, outputs: Outputs) -> Outputs:
        """All columns of what a rank has its own of."""
        leave: Any = Leave.apply
        return Outputs({name: leave(self.group, of_rank.pushes[name], value) for name, value in outputs.items()})

    def _entered(self, *groups: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Tensors that all ranks have whole, whose gradients are added up over ranks."""
        flat = [
            (at, name, value) for at, group in enumerate(groups) for name, value in group.items() if value.requires_grad
        ]
        results = [dict(group) for group in groups]
        if flat and torch.is_grad_enabled():
            entered = Enter.apply(self.group, *(value for _, _, value in flat))  # type: ignore[no-untyped-call]
            for (at, name, _), value in zip(flat, entered, strict=True):
                results[at][name] = value
        return results

    def _check_initial(self, model: VertexFunction, initial: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
        if not isinstance(initial, Mapping):
            return {}  # or refused by the call
        for name, value in initial.items():
            shape = model.state.get(name)
            if shape is not None and (not isinstance(value, Tensor) or tuple(value.shape[1:]) != shape):
                actual = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise InputError(
                    f"initial[{name!r}] is {actual}; give a tensor [vertices without children, {', '.join(map(str, shape))}]"
                )
        return initial

    def _own_state(self, name: str, value: Tensor) -> Tensor:
        columns = self.states.get(name)
        return (
            value if columns is None else own(value, columns.along(columns.dim + 1), self.ranks.rank, self.ranks.count)
        )

    def _of_rank(
        self,
        model: VertexFunction,
        version: programs.Version,
        tensors: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
        shared: Mapping[str, Tensor],
        device: torch.device,
    ) -> _OfRank:
        """The computation of this rank for a call; found from a trace of the whole one, once for each version of the model."""
        named = {**tensors, **{shared_key(name): value for name, value in shared.items()}}
        configuration = programs.Configuration.of(named, inputs, device, model.state_dtype)
        key = id(version), configuration
        if key not in self._made:
            with isolation.lock:
                if len(self._made) >= programs.MOST_VERSIONS:
                    self._made.pop(next(iter(self._made)))
                self._made[key] = self._make(model, named, inputs, shared, device), version
        return self._made[key][0]

    def _make(
        self,
        model: VertexFunction,
        tensors: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
        shared: Mapping[str, Tensor],
        device: torch.device,
    ) -> _OfRank:
        whole = {name: value.detach() for name, value in tensors.items()}
        # The trace is tried on numbers: those of this rank are in the place of the others'.
        for name, columns in self.params.items():
            whole[name] = joined([whole[name]] * self.ranks.count, columns)
        dtypes = dtypes_of(model.state, model.state_dtype, usual_dtype(tensors, inputs))
        names = dict.fromkeys(model._methods.values())
        traces = {name: prepare(model, name, model.state, dtypes, inputs, whole, shared, device) for name in names}
        local_programs, pushes = self._programs(traces, type(model).__name__)
        of_rank = _OfRank(local_programs, pushes, self.params)
        function = _class_of_rank(f"{type(model).__name__}OfRank", tuple(names))(
            {name: self._local_shape(name, shape) for name, shape in model.state.items()},
            model.backend,
            model.policy,
            dict(dtypes),
            model.max_vertices,
        )
        function.number = next(_numbers)
        function._methods = model._methods
        function.train(model.training)
        of_rank.function = function
        _functions[function.number] = of_rank
        return of_rank

    def _programs(
        self, traces: Mapping[str, Trace], part: str
    ) -> tuple[dict[str, LocalProgram], dict[str, Columns | None]]:
        """The program of each method, and the columns of what they push, which are the same in all of them."""
        for trace in traces.values():
            if trace.hidden is not None:
                raise VertexFunctionError(
                    f"part {part!r} cannot be hidden: its derivative is not found from its trace, {trace.hidden}"
                )
        dividers = {name: Divider(trace, self.states, self.ranks) for name, trace in traces.items()}
        columns: dict[str, set[Columns | None]] = {}
        for name, trace in traces.items():
            for pushed in trace.pushes:
                columns.setdefault(pushed, set()).add(dividers[name].push_columns(pushed))
        pushes = {name: next(iter(each)) if len(each) == 1 else None for name, each in columns.items()}
        return {name: divider.program(pushes) for name, divider in dividers.items()}, pushes

    def _local_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        columns = self.states[name]
        if columns is None:
            return shape
        return tuple(size // self.ranks.count if dim == columns.dim else size for dim, size in enumerate(shape))


def divide(model: nn.Module, parts: Sequence[tuple[str, bool]], group: ProcessGroup, batch: Any) -> None:
    """Leave the vertex functions of these names the columns of this rank, if this rank has them at all; nothing is changed if any
    of them cannot be divided.

    Raises:
        InputError: there is no batch; a vertex function is not called on it, or has no columns to share.
    """
    if parts and batch is None:
        raise InputError(
            f"part {parts[0][0]!r} is hidden: give a batch, plan.apply(model, mesh, (batch, x)), on which it is traced to see "
            "which columns ranks can share"
        )
    modules = dict(model.named_modules())
    seen = {part.name: part for part in observe(model, batch).parts} if parts else {}
    places: dict[int, list[str]] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(tensor), []).append(name)
    chosen: list[tuple[VertexFunction, Divided]] = []
    for name, is_here in parts:
        function = modules[name]
        assert isinstance(function, VertexFunction)
        calls = seen[name].calls if name in seen else []
        if not calls or not all(call.has_own for call in calls):
            what = "is called with the parameters of other modules" if calls else "is not called on the batch"
            raise InputError(f"part {name!r} is hidden, and {what}; leave it whole")
        divided = Divided(function, group)
        divided.choose(function, [call.traces for call in calls], name)
        for parameter in divided.params:
            if len(names := places[id(function.get_parameter(parameter))]) > 1:
                raise InputError(
                    f"part {name!r} is hidden, and a parameter of it is in several places, {', '.join(names)}: a rank would have "
                    "its columns in one and all of it in the other. Leave the part whole"
                )
        chosen += [(function, divided)] if is_here else []
    for function, divided in chosen:
        divided.cut(function)
    noise = _SameNoise(collectives.name_of(group))
    model.register_forward_pre_hook(noise.before)
    model.register_forward_hook(noise.after, always_call=True)
    for function, _ in chosen:
        if function is not model:  # it may be called by itself
            function.register_forward_pre_hook(noise.before_function)


@dataclass(eq=False)
class _SameNoise:
    """Before a call: all ranks that share columns draw the random numbers of the first of them from now on."""

    group: str
    is_called: bool = False  # the whole model, so that generators are the same already

    def before(self, module: nn.Module, args: Any) -> None:
        collectives.share_generators(self.group)
        self.is_called = True

    def after(self, module: nn.Module, args: Any, results: Any) -> None:
        self.is_called = False

    def before_function(self, module: nn.Module, args: Any) -> None:
        if not self.is_called:
            collectives.share_generators(self.group)
