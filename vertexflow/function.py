"""`VertexFunction`: the nn.Module that a user subclasses; it binds tracing, scheduling and execution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import log
from .errors import InputError, InputTypeError, VertexFunctionError
from .frontier import Frontier, Growth
from .graph.build import InputGraph
from .graph.pack import GraphBatch, pack
from .graph.partition import partition
from .graph.prepare import prepare
from .graph.show import SymbolicGraph
from .graph.trace import Trace
from .graph.vertex import Shape, Vertex
from .kernels import autograd
from .kernels.compile import choose_backend, compile_program
from .kernels.edges import Order, order_on
from .kernels.executor import Compiled
from .scheduler import FSM, Policy, Schedule, cached_schedule, edge_lists, schedule


class VertexFunction(nn.Module):
    """The computation of one vertex, run over whole batches of input graphs.

    Subclass it, make parameters in `__init__` as in any `nn.Module`, and write a method `vertex(self, v)`. Tensors inside
    that method have one leading dimension, the vertices that are computed together; rows must not be mixed.

    Args:
        state: name -> size (an int) or shape (a tuple) of one vertex's state, e.g. `{"h": 256, "c": 256}`.
        backend: `"auto"` or `"torch"`; the environment variable `VERTEXFLOW_BACKEND` overrides it.
        policy: how batches are scheduled (`vf.schedule`); a learned one, `vf.FSM`, is saved in the `state_dict`.

    The method is traced once for each configuration (train or eval, dtypes, device type, autocast), at the first call;
    Python attributes that it reads (`self.scale = 2.0`) are then fixed, as are tensors that are no parameters or buffers.

    Example:
        >>> class Sum(vf.VertexFunction):
        ...     def __init__(self, size):
        ...         super().__init__(state={"h": size})
        ...         self.linear = nn.Linear(size, size)
        ...
        ...     def vertex(self, v):
        ...         h = torch.tanh(self.linear(v.pull("x")) + v.gather(0).h + v.gather(1).h)
        ...         v.scatter(h=h)
        ...         v.push(h=h)
        >>> model = Sum(8)
        >>> batch = vf.pack([vf.tree(((0, 1), 2)), vf.chain(5)])
        >>> model(batch, x=torch.randn(batch.num_vertices, 8)).h.shape
        torch.Size([10, 8])
    """

    def __init__(
        self, state: Mapping[str, int | Sequence[int]], backend: str = "auto", policy: str | Policy = "depth"
    ) -> None:
        super().__init__()
        self.state: dict[str, Shape] = {name: _shape(name, size) for name, size in state.items()}
        self.backend = backend
        self.policy = policy
        choose_backend(backend)  # an unknown name is refused here already
        self._traces: dict[Any, Trace] = {}
        self._compiled: dict[Any, Compiled] = {}
        self._last: Any = None

    def vertex(self, v: Vertex) -> None:
        """The computation of one vertex; to be written by the subclass."""
        raise NotImplementedError(f"{type(self).__name__} needs a method `vertex(self, v)`")

    def forward(
        self, graphs: GraphBatch | Sequence[InputGraph], *, reverse: bool = False, **inputs: Tensor
    ) -> SimpleNamespace:
        """Compute every vertex of every graph.

        Args:
            graphs: a `GraphBatch`, or a list of input graphs, which is packed.
            reverse: run against the edges: a vertex's children are the vertices that consume it.
            inputs: one tensor for each name that the vertex function pulls, `[num_vertices, ...]`, rows in the batch's
                own vertex order. They may require grad.

        Returns:
            An object with one attribute for each pushed name, `[num_vertices, ...]`, in the batch's own vertex order.

        Raises:
            InputError, InputTypeError: an input is missing, unknown, or has the wrong number of rows, type or device.
            GraphError: a graph has a cycle, or a vertex more children than the vertex function gathers.
            VertexFunctionError: the vertex function cannot be traced; the message names the line.
        """
        batch = graphs if isinstance(graphs, GraphBatch) else pack(graphs)
        device = self._check_inputs(inputs)
        tensors = dict(_tensors(self))
        found = self._trace(inputs, tensors, device)
        _check_rows(found, inputs, batch.num_vertices, batch.num_edges, "the batch")
        order = self._order(batch.reversed() if reverse else batch, found, device)
        compiled = self._compile(found, inputs, tensors)
        return SimpleNamespace(**autograd.run(compiled, order, tensors, inputs))

    def start(self, graphs: GraphBatch | Sequence[InputGraph] | None = None, **inputs: Tensor) -> Frontier:
        """Begin a run whose structure is found as it goes: compute the vertices that are known, and add others later.

        Args:
            graphs: input graphs whose vertices are computed at once; without, every row of the inputs is a vertex without
                children, and without inputs the run begins empty.
            inputs: one tensor for each name that the vertex function pulls, one row a vertex.

        Returns:
            A `Frontier`: `run.extend(children, ...)` adds vertices, `run[vertices]` reads what they pushed.

        Raises:
            as `forward`.

        Example:
            >>> run = model.start(x=torch.randn(3, 8))                # three leaves
            >>> new = run.extend([[0, 1]])                            # vertex 3, with the children 0 and 1
            >>> new = run.extend([[3, 2]])
            >>> run[new].h.sum().backward()
        """
        device = next(
            (tensor.device for tensor in (*dict(_tensors(self)).values(), *inputs.values())), torch.device("cpu")
        )
        run = Frontier(self._prepare_growth, device)
        if graphs is not None:
            batch = graphs if isinstance(graphs, GraphBatch) else pack(graphs)
            structure = Growth(0, batch.num_vertices, 0, batch.num_slots, batch.child, batch.slot, batch.offset)
            run._add(structure, np.empty(0, np.int64), inputs)
        elif inputs:
            run.extend(np.empty((len(next(iter(inputs.values()))), 0), np.int64), **inputs)
        return run

    def _prepare_growth(
        self, growth: Growth, inputs: Mapping[str, Tensor], through: bool
    ) -> tuple[dict[str, Tensor], Order, Compiled]:
        device = self._check_inputs(inputs)
        tensors = dict(_tensors(self))
        found = self._trace(inputs, tensors, device)
        _check_rows(found, inputs, growth.num_vertices, len(growth.child), "the extension")
        made = schedule(growth, self.policy, found.num_slots, found.reads_edges)
        log.show("schedule", made)
        lists = edge_lists(growth, made) if found.reads_edges else None
        return tensors, order_on(made, device, lists=lists), self._compile(found, inputs, tensors, through)

    @property
    def symbolic_graph(self) -> SymbolicGraph:
        """What the vertex function of the last call became: eager, core and lazy nodes, and their derivative."""
        if self._last is None:
            raise VertexFunctionError("there is no symbolic graph yet: it is traced at the model's first call")
        return SymbolicGraph(self._compiled[self._last].program)

    def _check_inputs(self, inputs: Mapping[str, Tensor]) -> torch.device:
        device = next((tensor.device for _, tensor in _tensors(self)), None)
        for name, value in inputs.items():
            if not isinstance(value, Tensor):
                raise InputTypeError(
                    f"input {name!r} is a {type(value).__name__}; give a torch.Tensor of one row a vertex, or an edge"
                )
            if value.dim() == 0:
                raise InputError(f"input {name!r} has no dimension; give one row a vertex, or an edge")
            if device is not None and value.device != device:
                raise InputError(
                    f"input {name!r} is on {value.device}, but the model (or an earlier input) is on {device}; "
                    "move one with .to(...)"
                )
            device = value.device
        return device if device is not None else torch.device("cpu")

    def _trace(self, inputs: Mapping[str, Tensor], tensors: Mapping[str, Tensor], device: torch.device) -> Trace:
        autocast = torch.is_autocast_enabled(device.type)
        key = (
            tuple(module.training for module in self.modules()),
            tuple((name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()),
            tuple((name, value.dtype, value.shape[1:]) for name, value in sorted(inputs.items())),
            device,
            torch.get_autocast_dtype(device.type) if autocast else None,
        )
        if key not in self._traces:
            floating = [t.dtype for t in (*tensors.values(), *inputs.values()) if t.is_floating_point()]
            dtype = floating[0] if floating else torch.get_default_dtype()
            self._traces[key] = prepare(self, self.vertex, self.state, dtype, inputs, tensors, device)
        return self._traces[key]

    def _compile(
        self, found: Trace, inputs: Mapping[str, Tensor], tensors: Mapping[str, Tensor], through: bool = False
    ) -> Compiled:
        wanted: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        if torch.is_grad_enabled():
            wanted = (
                tuple(name for name, tensor in tensors.items() if tensor.requires_grad),
                tuple(name for name, value in inputs.items() if value.requires_grad),
            )
        backend = choose_backend(self.backend)
        through = through and torch.is_grad_enabled()
        key = (id(found), wanted, backend, through)
        if key not in self._compiled:
            self._compiled[key] = compile_program(partition(found, *wanted, through), backend)
            log.show("trace", SymbolicGraph(self._compiled[key].program))
        self._last = key
        return self._compiled[key]

    def _order(self, batch: GraphBatch, found: Trace, device: torch.device) -> Order:
        ahead = batch.schedule if batch.schedule and batch.schedule.num_slots == found.num_slots else None
        key = ("order" if ahead is None else "ahead", found.num_slots, found.reads_edges, device)
        policy, order = batch.cache.get(key, (None, None))
        if order is None or (ahead is None and policy is not self.policy):
            made = ahead or self._schedule(batch, found)
            arrays = batch.schedule_indices if ahead is not None and batch.device == device else None
            order = order_on(
                made, device, arrays, edge_lists(batch, made, batch.edge_numbers) if found.reads_edges else None
            )
            batch.cache[key] = self.policy, order
        return order  # type: ignore[no-any-return]

    def _schedule(self, batch: GraphBatch, found: Trace) -> Schedule:
        # One method computes vertices of every kind, so that kinds need no steps of their own.
        structure = replace(batch, kinds=None, kind_index=None) if batch.kinds is not None else batch
        made = cached_schedule(structure, self.policy, found.num_slots, found.reads_edges)
        log.show("schedule", made)
        return made

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if isinstance(self.policy, FSM):
            destination[f"{prefix}policy"] = torch.frombuffer(bytearray(self.policy.dump()), dtype=torch.uint8)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        learned = state_dict.pop(f"{prefix}policy", None)
        if learned is not None:
            self.policy = FSM.load(bytes(learned.tolist()))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __getstate__(self) -> dict[str, Any]:
        """Traces stay behind when the module is copied or pickled; they are made again at the next call."""
        return {**self.__dict__, "_traces": {}, "_compiled": {}, "_last": None}


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _check_rows(found: Trace, inputs: Mapping[str, Tensor], vertices: int, edges: int, where: str) -> None:
    for name, value in inputs.items():
        of_edges = found.is_edge_input(name)
        count, what = (edges, "edge") if of_edges else (vertices, "vertex")
        if len(value) != count:
            order = "in the order of batch.child" if of_edges else "in the order of their numbers"
            raise InputError(
                f"input {name!r} has {len(value)} rows, but {where} has {count} {'edges' if of_edges else 'vertices'}: "
                f"give one row {'an' if of_edges else 'a'} {what}, {order}"
            )


def _shape(name: str, size: int | Sequence[int]) -> Shape:
    shape = (size,) if isinstance(size, int) else tuple(size)
    if not name.isidentifier():
        raise InputError(f"state {name!r} is not a Python name")
    if not all(isinstance(extent, int) and extent > 0 for extent in shape):
        raise InputError(f"state {name!r} has size {size!r}; give one vertex's size, or a shape of positive integers")
    return shape
