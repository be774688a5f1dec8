"""Calls of vertex functions on graphs whose vertices are on several ranks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

from ..call import programs
from ..call.arguments import Arguments
from ..call.bind import BoundCall, bind_call
from ..call.outputs import Outputs
from ..call.selection import selection_of
from ..errors import GraphError, InputError
from ..function import VertexFunction
from ..graph import transforms
from ..graph.symbolic.trace import Trace
from ..graph.symbolic.vertex import Vertex
from ..kernels.bound import Bound
from ..kernels.compile import named_backend
from ..scheduler.policies import Structure
from . import exchange
from .graph_part import EXCHANGE, OWN, START, GraphPart, Ints, LocalGraph
from .own_group import own_group
from .same_part import Place, agree

_TABLE, _TOKEN = "_vertexflow_table", "_vertexflow_token"  # an input and an output of the rows of exchanges
_STEPS = "vertexflow steps"
# Methods that a model is given; names that no model has for something else.
_EXCHANGE_METHOD, _START_METHOD = "_vertexflow_exchange", "_vertexflow_start"
# For each group one of the same ranks for exchanges alone: in a backward pass, ranks may come to those and to the messages of
# DDP in different orders, as gradients of what a rank does not have are there at once.
_own_groups: dict[Any, Any] = {}


class _AsDivided:
    """The policy of all local graphs: the steps that they were made with, on which the ranks agree."""

    __hash__ = None  # type: ignore[assignment]  # graphs that look alike may have other steps: no schedule is taken for another

    def __eq__(self, other: object) -> bool:
        return self is other

    def steps(self, structure: Structure) -> Ints:
        steps: Ints = structure.derived.user_cache[_STEPS]  # type: ignore[attr-defined]
        return steps


_AS_DIVIDED = _AsDivided()


def _exchange(self: VertexFunction, v: Vertex) -> None:
    """The method of the rows of exchanges: each reads what leaves, and scatters what arrives."""
    child, table = v.gather(0), v.pull(_TABLE)
    arrived: dict[str, Tensor] = {}
    tokens: list[Tensor] = []
    names: dict[torch.dtype, list[str]] = {}
    for name, dtype in v._state_dtypes.items():
        names.setdefault(dtype, []).append(name)
    for dtype, group in names.items():  # all states of a dtype in one message
        rows = torch.cat([getattr(child, name).unsqueeze(1).flatten(1) for name in group], 1)
        rows = exchange.exchange(rows, table, False)
        widths = [int(np.prod(self.state[name])) for name in group]
        for name, piece in zip(group, torch.split(rows, widths, 1), strict=True):
            arrived[name] = piece.reshape(-1, *self.state[name])
        if dtype.is_floating_point or dtype.is_complex:
            tokens.append(rows[:, 0])
    v.scatter(**arrived)
    if tokens:
        v.push(**{_TOKEN: tokens[0]})


def _start(self: VertexFunction, v: Vertex) -> None:
    """The method of the vertex that is read where nothing leaves: its state is zero."""
    child = v.gather(0)
    v.scatter(**{name: getattr(child, name) for name in self.state})


@functools.cache
def _class_on_ranks(cls: Any) -> Any:
    """The class of a model, with methods for what is added to local graphs."""

    def trace(self: VertexFunction, *args: Any, **kwargs: Any) -> dict[str, Trace]:
        with exchange.nobody_else():
            traces: dict[str, Trace] = cls._trace(self, *args, **kwargs)
            return traces

    methods = {_EXCHANGE_METHOD: _exchange, _START_METHOD: _start, "_trace": trace}
    return type(cls)(cls.__name__, (cls,), {"__module__": cls.__module__, **methods})


def _on_ranks(model: VertexFunction, local: LocalGraph) -> VertexFunction:
    """The model with methods for local graphs: it shares everything else with the model, as that is now."""
    on_ranks: VertexFunction | None = getattr(model, "_kept_on_ranks", None)
    if on_ranks is None or type(on_ranks).__mro__[1] is not type(model):
        cls: Any = type(model)
        on_ranks = object.__new__(_class_on_ranks(cls))
        object.__setattr__(model, "_kept_on_ranks", on_ranks)  # no submodule
    methods = dict(model._methods)
    if None in methods:
        kinds = local.batch.kinds or ()
        methods = {kind: methods[None] for kind in (OWN, *kinds) if kind not in (START, EXCHANGE)}
    methods |= {START: _START_METHOD, EXCHANGE: _EXCHANGE_METHOD}
    on_ranks.__dict__.clear()
    on_ranks.__dict__.update(model.__dict__)
    on_ranks.__dict__.update(_methods=methods, policy=_AS_DIVIDED, max_vertices=None)
    return on_ranks


@dataclass(frozen=True)
class Ready:
    """A call of this rank that is checked, traced and bound; nobody has been waited for yet."""

    function: VertexFunction
    part: GraphPart
    call: Arguments
    place: Place
    version: programs.Version
    traces: dict[str, Trace]
    inputs: Mapping[str, Tensor]
    bound: BoundCall

    @property
    def how(self) -> str:
        """What ranks must have in common: what crosses, and what gets gradients."""
        call, bound = self.call, self.bound
        named = [*call.inputs.items(), *(call.shared or {}).items(), *bound.external.items()]
        grads = torch.is_grad_enabled()
        inputs = sorted(
            (name, str(value.dtype), tuple(value.shape[1:]), grads and value.requires_grad) for name, value in named
        )
        parameters = [(name, grads and value.requires_grad) for name, value in bound.tensors.items()]
        trace = next(iter(self.traces.values()))
        states = [(name, str(dtype), tuple(trace.state[name])) for name, dtype in trace.state_dtypes.items()]
        return repr((inputs, parameters, states, grads))

    def outputs(self) -> Outputs:
        """What the call gives; all ranks compute it at the same time."""
        outputs = self.bound.results(self.inputs, self.traces.values())
        through = any(value.requires_grad for value in self.bound.external.values())
        # The programs of all methods, also of kinds that are on other ranks alone.
        everything = self.function._bind(
            self.version, self.traces, self.inputs, self.bound.tensors, self.bound.device, through, tuple(self.traces)
        )
        outputs = _tied(outputs, self.bound, self.call.inputs, everything)
        for value in outputs.values():
            if value.grad_fn is not None:  # the part itself may be gone before the backward pass
                routes = _routes(self.part, self.part.local(self.call.reverse), self.place.group)
                value.grad_fn.metadata["vertexflow routes"] = routes  # type: ignore[index]
        return outputs


def run(model: VertexFunction, part: GraphPart, call: Arguments) -> Outputs:
    """A call of a model on a part, on all ranks at the same time; see `GraphPart`.

    Raises:
        as `agreed`.
    """
    return agreed(model, part, call, lambda place: bind(model, part, call, place)).outputs()


def agreed(model: VertexFunction, part: GraphPart, call: Arguments, prepare: Callable[[Place], Ready]) -> Ready:
    """What `prepare` has made ready, if all ranks can go on; it waits for nobody.

    Raises:
        InputError, on all ranks: what is not carried out for parts, or ranks that were called with different things.
        As a call of the model, on all ranks: what one of them refuses.
    """
    place = _place_of(model, part, call)
    ready: Ready | None = None
    failure: Exception | None = None
    try:
        ready = prepare(place)
    except Exception as error:
        failure = error
    agree(part, call.reverse, place, failure, "" if ready is None else ready.how)
    assert ready is not None
    return ready


def bind(model: VertexFunction, part: GraphPart, call: Arguments, place: Place) -> Ready:
    """A call of a model, made ready; messages of others are not waited for."""
    _refuse(model, part, call, place.group)
    local = part.local(call.reverse)
    function = _on_ranks(model, local)
    version, tensors = programs.see(function._programs, function)
    local_call = _as_local(part, local, call, place.group, place.device)
    bound, traces = bind_call(function, version, tensors, local_call)
    return Ready(function, part, call, place, version, traces, local_call.inputs, bound)


def _place_of(model: VertexFunction, part: GraphPart, call: Arguments) -> Place:
    """Where a call is computed; what ranks tell each other before anything can fail lies on its device too."""
    if not (distributed.is_available() and distributed.is_initialized()):
        raise InputError(
            f"a part of graphs, of {part.ranks}, is computed by {part.ranks} ranks together, but torch.distributed is not "
            "initialised: init_process_group()"
        )
    group = getattr(model, "_part_group", None) or distributed.group.WORLD
    if group not in _own_groups:
        ranks = distributed.get_process_group_ranks(group)
        _own_groups[group] = own_group(ranks, [group], timeout=_timeout_of(cast(ProcessGroup, group)))
    columns = getattr(model, "_column_group", None)
    return Place(cast(ProcessGroup, _own_groups[group]), columns, _device_of(model, call))


def _device_of(model: VertexFunction, call: Arguments) -> torch.device:
    given = itertools.chain(model.parameters(), model.buffers(), call.inputs.values())
    return next((value.device for value in given if isinstance(value, Tensor)), torch.device("cpu"))


def _timeout_of(group: ProcessGroup) -> timedelta | None:
    """How long the ranks of a group wait for each other; None: as PyTorch has it."""
    options = getattr(group._get_backend(group._device_types[0]), "options", None)
    timeout: timedelta | None = getattr(options, "_timeout", None)
    return timeout


def _refuse(model: VertexFunction, part: GraphPart, call: Arguments, group: ProcessGroup) -> None:
    """Refuse another rank's part, and what is not carried out for parts."""
    rank, ranks = distributed.get_rank(group), distributed.get_world_size(group)
    if (rank, ranks) != (part.rank, part.ranks):
        raise InputError(
            f"rank {rank} of {ranks} was called with part {part.rank} of {part.ranks}; give each rank its own, "
            "vf.parallel.divide(batch, ranks)[rank]; where other ranks have other graphs, a plan says so: "
            'Plan({"data": 2, "vertices": 4}, ...).apply(model, mesh)'
        )
    if call.tensors is not None or transforms.are_active():
        raise InputError("a part of graphs cannot be computed with other parameters, or inside torch.func")
    if named_backend(model.backend) == "eager":
        raise InputError('backend="eager" does not compute parts of graphs; choose another backend')
    if part.kinds is None and None not in model._methods:
        known = ", ".join(map(repr, model._methods))
        raise GraphError(
            f"the vertex function has methods for the kinds {known}, but the graphs of this part have no kinds"
        )
    if _TABLE in call.inputs:
        raise InputError(f"an input of a part of graphs cannot be called {_TABLE!r}")


def _as_local(
    part: GraphPart, local: LocalGraph, call: Arguments, group: ProcessGroup, device: torch.device
) -> Arguments:
    """A call of a rank, for its local graph."""
    local.batch.cache[_STEPS] = local.steps
    inputs, initial, wanted = {**call.inputs, _TABLE: _table(part, local, group, device)}, call.initial, call.wanted
    if initial is not None:
        local.batch.with_initial().cache[_STEPS] = local.steps
    if isinstance(initial, Mapping):
        count = len(part.roots if call.reverse else part.leaves)
        for name, value in initial.items():
            if isinstance(value, Tensor) and value.dim() and len(value) != count:
                raise InputError(
                    f"initial[{name!r}] has {len(value)} rows; give one for each of the {count} vertices of this rank that "
                    f"have no children in the whole graphs (part.{'roots' if call.reverse else 'leaves'})"
                )
        if START in (local.batch.kinds or ()):  # which has no children either
            initial = {
                name: torch.cat([value, value.new_zeros((1, *value.shape[1:]))]) if _has_rows(value) else value
                for name, value in initial.items()
            }
    if wanted is not None:  # by number, as the local graph has more vertices
        wanted = selection_of(cast(Any, part), wanted).numbers()
    return Arguments(None, local.batch, False, initial, inputs, call.shared, wanted)


def _has_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _routes(part: GraphPart, local: LocalGraph, group: ProcessGroup) -> exchange.Routes:
    """What exchanges look up; made once."""
    key = local is part.upward, group
    if key not in part.prepared:
        part.prepared[key] = exchange.Routes(local.sent.tolist(), local.received.tolist(), group)
    return cast(exchange.Routes, part.prepared[key])


def _table(part: GraphPart, local: LocalGraph, group: ProcessGroup, device: torch.device) -> Tensor:
    """What the rows of exchanges are told; made once."""
    routes = _routes(part, local, group)
    key = routes, device
    if key not in part.prepared:
        table = np.stack([np.full(len(local.exchange), routes.number), local.exchange, local.place], 1)
        with torch.inference_mode(False):
            part.prepared[key] = torch.from_numpy(table).to(device)
    return cast(Tensor, part.prepared[key])


def _tied(outputs: Outputs, call: BoundCall, inputs: Mapping[str, Tensor], everything: Bound) -> Outputs:
    """The outputs of the user's vertices. Whichever of them a loss is made of, all of this rank runs backwards, as others wait
    for it, and what gets gradients on other ranks alone has gradients of zero. What gets none anywhere, as no method reads it,
    has none here either: DDP and optimizers tell None from zero."""
    token = outputs.pop(_TOKEN, None)
    if not call.parts:  # there is nothing here, and nobody waits
        return outputs
    bound = call.parts[0].bound
    (params, pulled), (own_params, own_pulled) = _differentiated(everything), _differentiated(bound)
    sources = [call.tensors[name] for name in params if name not in own_params]
    sources += [inputs[name] for name in pulled if name not in own_pulled]
    missing = [name for name, value in outputs.items() if name not in bound.pushes]
    if not torch.is_grad_enabled() or not (sources or missing):
        return outputs
    real = {name: value for name, value in outputs.items() if value.is_floating_point() or value.is_complex()}
    if not any(value.requires_grad for value in (*real.values(), *sources, *([] if token is None else [token]))):
        return outputs
    tied = _Tied.apply(len(real), token, *real.values(), *sources)  # type: ignore[no-untyped-call]
    return Outputs({**outputs, **dict(zip(real, tied, strict=True))})


def _differentiated(bound: Bound) -> tuple[list[str], list[str]]:
    """The parameters, and the inputs, whose gradients a backward pass computes."""
    return [*filter(bound.has_param_gradient, bound.params)], [*filter(bound.has_input_gradient, bound.pulls)]


class _Tied(torch.autograd.Function):
    """Outputs as they are, that need the token; sources have gradients of zero."""

    @staticmethod
    def forward(ctx: Any, count: int, token: Tensor | None, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.count, ctx.token = count, None if token is None else token.new_empty(()).expand(token.shape)
        ctx.likes = [value.new_empty(()).expand(value.shape) for value in tensors[count:]]
        return tuple(value.view_as(value) for value in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        token = None if ctx.token is None else torch.zeros_like(ctx.token)
        return None, token, *grads, *(like.new_zeros(like.shape) for like in ctx.likes)
