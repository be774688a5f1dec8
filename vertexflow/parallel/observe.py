"""What a model does with a batch, seen without computing it: its parts, their work, and what they keep.

The model's own `forward` runs on tensors without memory (`kernels/memory/rehearsal.py`); calls of vertex functions are seen by an
observer, all other operations by a dispatch mode.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ..call import kinds
from ..call.arguments import Arguments
from ..call.bind import bind_call
from ..call.estimate import real, rehearse
from ..call.inputs import check_inputs
from ..call.observer import observed_by
from ..call.outputs import Outputs
from ..call.selection import each_wanted
from ..errors import BackendError, InputError, VertexFlowError
from ..function import VertexFunction
from ..graph.inputs.derived import Derived
from ..graph.inputs.pack import GraphBatch, replaced
from ..graph.symbolic.trace import Trace
from ..kernels.compile import choose_backend
from ..kernels.memory import rehearsal
from .cost import Floats
from .levels import Levels, levels_of
from .work import COUNTED, PartWork, works_of

_FEW = 8  # rows, with which a trace is checked
BACKWARD = 2  # a backward pass has twice the products of a forward pass


@dataclass(frozen=True)
class Call:
    """A call of a vertex function.

    Attributes:
        works: of each kind in the batch, the work of the parts of its program, by name.
        levels: the steps of the batch.
        has_initial: whether vertices without children read states, and are computed as all others.
        is_in_parts: whether forward parts run once more before backward, because of `max_vertices`.
        state_bytes: of a row of all states.
        traces: of each method.
        has_own: whether the parameters are those of the module, and not given with the call.
        batch, reverse: what it is called on.
    """

    works: tuple[dict[str, PartWork], ...]
    levels: Levels
    has_initial: bool
    is_in_parts: bool
    state_bytes: float
    traces: Mapping[str, Trace] = field(default_factory=dict, repr=False, compare=False)
    has_own: bool = True
    batch: GraphBatch = field(kw_only=True, repr=False, compare=False)
    reverse: bool = field(kw_only=True)


@dataclass
class ModelPart:
    """A vertex function, or a layer with parameters, of a model, as one batch shows it.

    Attributes:
        name: of the module; "" is the model itself.
        parameters: the names, in the model, of those that it reads first.
        param_bytes: of all of them.
        trained_bytes: of those that have gradients.
        calls: of vertex functions.
        plain: float64 [len(COUNTED)], the work of everything else, forward and backward.
        plain_sizes: of each operation of that, the bytes that it reads and writes, and those of the largest tensor among them.
        kept_bytes: what is kept for the backward pass.
        passing_bytes: what its backward pass takes beside that, while it runs: gradients of outputs and of states.
        output_bytes: of what the last operation gives.
    """

    name: str
    parameters: list[str] = field(default_factory=list)
    param_bytes: float = 0.0
    trained_bytes: float = 0.0
    calls: list[Call] = field(default_factory=list)
    plain: Floats = field(default_factory=lambda: np.zeros(len(COUNTED)))
    plain_sizes: list[tuple[float, float]] = field(default_factory=list)
    kept_bytes: float = 0.0
    passing_bytes: float = 0.0
    output_bytes: float = 0.0


@dataclass(frozen=True)
class Observation:
    """What a model does with one batch: its parts in the order in which they are first run."""

    parts: list[ModelPart]
    num_graphs: int
    num_vertices: int

    @property
    def kept_bytes(self) -> float:
        """What all parts keep for the backward pass."""
        return sum(part.kept_bytes for part in self.parts)


def observe(model: nn.Module, batch: Any, call: Callable[[nn.Module, Any], Any] | None = None) -> Observation:
    """See what a training step on a batch does.

    Args:
        batch: a `GraphBatch`, or `(batch, x, ...)`, the arguments of a call, or `(batch, {"x": x})`. Tensors may be on "meta".
        call: how else the model is called on it.

    Raises:
        InputError: the model has no vertex function, or asks for values, which are not computed.
        BackendError: the backend "eager", which has no programs.
    """
    observer = _Observer(model)
    batch = tree_map(_fresh, batch, is_leaf=lambda value: isinstance(value, GraphBatch))
    known = [
        value for value in (*model.parameters(), *model.buffers(), *tree_leaves(batch)) if isinstance(value, Tensor)
    ]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        observer.rehearsal = stack.enter_context(rehearsal.rehearsed(known))
        stack.enter_context(_hooked(model, observer))
        stack.enter_context(_Plain(observer))
        stack.enter_context(observed_by(observer))
        try:
            outputs = (call or call_plainly)(model, batch)
        except (VertexFlowError, MemoryError):
            raise
        except Exception as error:
            raise InputError(
                f"the model cannot be gone through without numbers: {type(error).__name__}: {error}. It gets tensors on the "
                "device meta, which have shapes and no values (no .item(), no boolean masks); or call= is needed, or another"
            ) from error
        observer.finish(outputs)
    if not observer.batches:
        raise InputError(f"{type(model).__name__} has called no vertex function; there is nothing to plan")
    first = next(iter(observer.batches.values()))
    for other in observer.batches.values():
        if other.num_graphs != first.num_graphs:
            raise InputError(
                f"the model calls vertex functions on {first.num_graphs} graphs and on {other.num_graphs}: its parts do not "
                "share the graphs of a batch, and are planned one by one"
            )
    parts = [part for part in observer.parts.values() if part.calls or part.param_bytes or part.plain.any()]
    return Observation(parts, first.num_graphs, first.num_vertices)


def _some_vertices(vertices: Tensor, device: torch.device) -> Tensor:
    """As many, if they are on "meta", where it is not known which they are; that does not matter."""
    return torch.arange(len(vertices), device=device) if vertices.is_meta else vertices


def _fresh(value: Any) -> Any:
    """A batch without what was derived from it, so that nothing without memory is kept with the user's."""
    return replaced(value, derived=Derived()) if isinstance(value, GraphBatch) else value


def call_plainly(model: nn.Module, batch: Any) -> Any:
    """Call a model on a batch, alone or with the other arguments in a tuple."""
    if not isinstance(batch, tuple):
        return model(batch)
    if len(batch) == 2 and isinstance(batch[1], Mapping):
        return model(batch[0], **batch[1])
    return model(*batch)


class _Observer:
    """Puts what is seen to the part that does it."""

    rehearsal: rehearsal.Rehearsal

    def __init__(self, model: nn.Module) -> None:
        self.parts: dict[str, ModelPart] = {}
        self.batches: dict[int, GraphBatch] = {}
        self.levels: dict[tuple[int, bool], Levels] = {}
        self.names = {id(module): name for name, module in model.named_modules()}
        self.param_names = {id(tensor): name for name, tensor in model.named_parameters()}
        self.unseen = set(self.param_names)
        self.stack: list[str] = [""]
        self.is_inside = False
        self.in_use = 0
        self.alive: list[Any] = []  # batches by address, and outputs, which count as kept while they live

    def part(self, name: str) -> ModelPart:
        if name not in self.parts:
            self.parts[name] = ModelPart(name)
        return self.parts[name]

    def reads(self, part: ModelPart, tensors: Sequence[Any]) -> None:
        """Note parameters that a part reads, with the part that reads them first."""
        for tensor in tensors:
            if id(tensor) in self.unseen:
                self.unseen.discard(id(tensor))
                part.parameters.append(self.param_names[id(tensor)])
                part.param_bytes += tensor.nbytes
                part.trained_bytes += tensor.nbytes * tensor.requires_grad

    def settle(self, part: ModelPart) -> None:
        """What is in use now and was not before is kept by this part."""
        part.kept_bytes += max(0, self.rehearsal.in_use - self.in_use)
        self.in_use = self.rehearsal.in_use

    def finish(self, outputs: Any) -> None:
        self.alive.append(outputs)
        self.settle(self.part(self.stack[0]) if "" in self.parts else next(iter(self.parts.values()), ModelPart("")))

    def see(self, model: VertexFunction, call: Arguments) -> Outputs:
        """A call of a vertex function."""
        part = self.part(self.names.get(id(model), self.stack[-1]))
        batch = call.batch()
        self.alive.append(batch)
        self.batches[id(batch)] = batch
        self.is_inside = True
        try:
            with rehearsal.interrupted():
                version, own = model._see()
                tensors = own if call.tensors is None else call.tensors
                device = next((tensor.device for tensor in tensors.values()), torch.device("cpu"))
                if choose_backend(model.backend, device) == "eager":
                    raise BackendError(
                        'with the backend "eager" nothing is traced, and nothing is known of a step; plan the model with '
                        'another one: model.backend = "auto"'
                    )
                groups = (call.inputs, call.initial, call.shared)
                inputs, initial, shared = (real(group, device) for group in groups)
                version = version.apart()  # traces that were checked with zeros, or few rows, are for nobody else
                if not shared:
                    few = {name: value[:_FEW].clone() for name, value in (inputs or {}).items()}
                    model._trace(version, few, tensors, {}, check_inputs(tensors, few))  # quick, and found below
                wanted = call.wanted
                if wanted is not None:
                    wanted = each_wanted(wanted, functools.partial(_some_vertices, device=device))
                real_call = Arguments(None, batch, call.reverse, initial, inputs or {}, shared, wanted)
                bound, _ = bind_call(model, version, tensors, real_call)
                compiled = dict(model._programs.latest or {})
                self._note(part, model, batch, call, compiled)
                estimate = rehearse(bound, call.inputs, None, True)
                part.passing_bytes = max(part.passing_bytes, float(estimate.loss + estimate.backward))
            given = [self._without_memory(group) for group in (bound.tensors, call.inputs, bound.external)]
            outputs = Outputs(bound.as_given(bound.run(*given)))
        finally:
            self.is_inside = False
        self.reads(part, list(tensors.values()))
        part.output_bytes = float(rehearsal.size_of(outputs.values()))
        self.settle(part)
        return outputs

    def _without_memory(self, group: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given = {}
        for name, value in group.items():
            given[name] = value
            if not value.is_meta:
                with rehearsal.interrupted():
                    given[name] = rehearsal.stand_in(value)
                self.rehearsal.note_known(given[name])
        return given

    def _note(
        self, part: ModelPart, model: VertexFunction, batch: GraphBatch, call: Arguments, compiled: Mapping[str, Any]
    ) -> None:
        key = (id(batch), bool(call.reverse))
        if key not in self.levels:
            self.levels[key] = levels_of(batch.reversed() if call.reverse else batch)
        methods = kinds.methods_in(batch, model._methods) if batch.num_graphs else ()
        works = {name: works_of(program) for name, program in compiled.items()}
        trace = next(iter(compiled.values())).program.trace
        state_bytes = sum(math.prod(shape) * trace.state_dtypes[name].itemsize for name, shape in trace.state.items())
        by_kind = tuple(works[name] for name in methods)
        is_in_parts = model.max_vertices is not None and batch.num_vertices > model.max_vertices
        has_initial = call.initial is not None
        traces = {name: each.program.trace for name, each in compiled.items()}
        levels, has_own = self.levels[key], call.tensors is None
        part.calls.append(
            Call(
                by_kind, levels, has_initial, is_in_parts, float(state_bytes), traces, has_own, batch=batch,
                reverse=bool(call.reverse),
            )
        )  # fmt: skip


class _Plain(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what a model does beside its vertex functions."""

    def __init__(self, observer: _Observer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.observer = observer

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        observer = self.observer
        if observer.is_inside:
            return result
        read = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        written = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        observer.reads(observer.part(observer.stack[-1]), read)
        is_view = any(argument.alias_info is not None for argument in function._schema.arguments)
        if is_view or not written:
            return result
        part = observer.part(observer.stack[-1])
        from torch.utils.flop_counter import flop_registry  # here, since it imports Triton

        count = flop_registry.get(function._overloadpacket)
        flops = count(*args, **(kwargs or {}), out_val=result) if count is not None else 0
        sizes = [float(value.numel() * value.element_size()) for value in (*read, *written)]
        size = sum(sizes)
        part.plain_sizes.append((size * (1 + BACKWARD), max(sizes)))
        counted = {"flops": flops * (1 + BACKWARD), "bytes": size * (1 + BACKWARD), "calls": 1 + BACKWARD}
        part.plain = part.plain + np.array([float(counted.get(name, 0)) for name in COUNTED])
        part.output_bytes = float(rehearsal.size_of(written))
        observer.settle(part)
        return result


@contextmanager
def _hooked(model: nn.Module, observer: _Observer) -> Iterator[None]:
    """Know which module with parameters of its own is at work; vertex functions and what is in them are left alone."""
    inside = {id(each) for module in model.modules() if isinstance(module, VertexFunction) for each in module.modules()}
    handles = []
    for name, module in model.named_modules():
        if id(module) in inside or not any(True for _ in module.parameters(recurse=False)):
            continue
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: observer.stack.append(name)))
        handles.append(module.register_forward_hook(lambda *_: _leave(observer), always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _leave(observer: _Observer) -> None:
    observer.stack.pop()
