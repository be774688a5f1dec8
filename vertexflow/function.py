"""`VertexFunction`: the nn.Module that a user subclasses; it binds tracing, scheduling and execution."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from . import report
from .call import kinds, programs, recall
from .call.arguments import Arguments
from .call.bind import bind_call
from .call.estimate import EstimatesMemory
from .call.inputs import check_arguments, check_shared
from .call.observer import observer_of_thread
from .call.on_ranks import OnRanks
from .call.outputs import Outputs
from .call.programs import Configuration, Programs, Request, Version
from .call.transformed import run_transformed
from .described import Described
from .eager.run import EagerFrontier, run_eager
from .errors import InputError, VertexFunctionError
from .graph import transforms
from .graph.inputs.build import InputGraph
from .graph.inputs.pack import GraphBatch, pack
from .graph.symbolic.isolation import without_autocast
from .graph.symbolic.prepare import prepare
from .graph.symbolic.reserved import check_attribute
from .graph.symbolic.show import SymbolicGraph
from .graph.symbolic.states import Dtypes, dtypes_of, shapes_of, usual_dtype
from .graph.symbolic.trace import Trace
from .graph.symbolic.vertex import Vertex
from .graph.uncompiled import uncompiled
from .growing.frontier import Frontier
from .growing.grower import Grower
from .growing.growth import Addition
from .kernels.bound import Bound
from .kernels.compile import choose_backend, named_backend
from .kernels.plain import check_plain
from .saved_policy import SavesPolicy
from .scheduler import Policy


class VertexFunction(Described, SavesPolicy, EstimatesMemory):
    """The computation of one vertex, run over whole batches of input graphs.

    Subclass it, make parameters in `__init__` as in any `nn.Module`, and write a method `vertex(self, v)`, or one for each
    kind of vertices (`vf.vertex`). Tensors inside that method have one leading dimension, the vertices that are computed
    together; rows must not be mixed.

    Args:
        state: name -> size (an int) or shape (a tuple) of one vertex's state, e.g. `{"h": 256, "c": 256}`.
        state_dtype: the dtype of the states; a mapping from names, for those that shall have another than the parameters, e.g.
            `{"c": torch.float32}` for a cell state that adds up over many steps in a model of half precision. By default that
            of the first parameter (without any, the first input) of real numbers. Integers and booleans are exact
            (`{"n": torch.int64}`) and have no gradient. What a state does not hold exactly is refused where it is scattered,
            unless it is of real numbers under autocast, or its dtype was asked for here. It may also be set on the model
            before its first call.
        backend: how steps run. `"auto"`: `"native"` on a CPU with a C++ compiler, `"triton"` on a GPU that Triton serves,
            else `"torch"`. `"native"`: generated C++ (compiled at the first call, in a second or two; kept on disk).
            `"triton"`: generated kernels. `"torch"`: the traced program by calls of PyTorch, anywhere; the reference.
            `"eager"`: the method itself, step after step on real tensors, without a trace: any Python, for `print`,
            breakpoints, and the question whether the compiler is at fault. Rows that it mixes are not noticed there. The
            environment variable `VERTEXFLOW_BACKEND` overrides this.
        policy: how batches are scheduled (`vf.schedule`); a learned one, `vf.FSM`, is saved in the `state_dict`.
        max_vertices: the most vertices to compute at once; None: all. A larger batch is computed in parts of whole graphs
            (`vf.split`), and in the backward pass each part once more: the same outputs and gradients, and the memory of the
            largest part, for one more forward pass. A graph that has more vertices is a part by itself. It may be set and
            changed on the model: `model.max_vertices = 10_000`. Runs that grow and `backend="eager"` leave it aside.

    The method is traced at the first call, and again when something that it may read has changed: attributes, submodules and
    their attributes, hooks, train or eval, dtypes, autocast, and what functions in all these read: closures, defaults, partials,
    objects whose methods they are, globals. (Not watched: what installed packages read, what functions write to themselves, and
    more than 1,000 entries; see the guarantees.) Its Python, with prints and hooks of submodules, runs when it is traced, not at
    every call (`backend="eager"` runs it at every step); it may read what is around it, not write.

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

    _runs_in_two = True  # whether what only outputs need may be computed for the vertices that were asked for alone
    # Not copied, pickled or watched.
    __slots__ = ("_column_group", "_divided", "_kept_on_ranks", "_kept_programs", "_part_group")

    def __init__(
        self,
        state: Mapping[str, int | Sequence[int]],
        backend: str = "auto",
        policy: str | Policy = "depth",
        state_dtype: torch.dtype | Dtypes | None = None,
        max_vertices: int | None = None,
    ) -> None:
        super().__init__()
        self.state: dict[str, tuple[int, ...]]
        self.__dict__["state"] = shapes_of(state)  # past `__setattr__`, which refuses to set it
        self.state_dtype = state_dtype
        dtypes_of(self.state, state_dtype, torch.float32)  # an impossible dtype is refused here already
        self.backend = backend
        self.policy = policy
        self.max_vertices = max_vertices
        choose_backend(backend)  # an unknown name is refused here already
        self._methods = kinds.methods_of(type(self), VertexFunction)

    def __setattr__(self, name: str, value: Any) -> None:
        check_attribute(self, name, value)
        super().__setattr__(name, value)

    def vertex(self, v: Vertex) -> None:
        """The computation of one vertex; to be written by the subclass."""
        raise VertexFunctionError("vf.VertexFunction has no `vertex` of its own that super().vertex(v) could call")

    @uncompiled
    def forward(
        self,
        graphs: GraphBatch | Sequence[InputGraph],
        *unnamed: Any,
        reverse: bool = False,
        initial: Mapping[str, Tensor] | None = None,
        shared: Mapping[str, Tensor] | None = None,
        outputs: Tensor | Mapping[str, Tensor] | None = None,
        **inputs: Tensor,
    ) -> Outputs:
        """Compute every vertex of every graph.

        Args:
            graphs: a `GraphBatch`, or a list of input graphs, which is packed.
            reverse: run against the edges: a vertex's children are the vertices that consume it.
            initial: what vertices without children read in slot 0, as if a child were there: by name of the state,
                `[number of such vertices, *shape]`, in their order (`batch.leaves`; with `reverse`, `batch.roots`). For a
                batch of sequences that is one row a sequence. States that are left out are zero.
            shared: tensors that all vertices share, by the names that the vertex function reads (`v.shared`), of any shape: they
                have no rows, are used as parameters are, and may have been computed and require grad.
            outputs: the vertices whose outputs are wanted, such as `batch.roots`, `[count]`, in any order, or booleans
                `[num_vertices]`; None: all. A mapping has them for each output by its name, `{"c": batch.roots}`; those that
                it leaves out have rows for all vertices. Products that only outputs need, such as those of classes, are
                computed for these vertices alone, if that saves much; native code writes no other rows and reads no gradients
                of others. (On a GPU, others than `batch.roots` and `batch.leaves` are copied to the host, which waits.)
            inputs: one tensor for each name that the vertex function pulls, `[num_vertices, ...]`, rows in the batch's
                own vertex order, or, if it is pulled for edges, `[num_edges, ...]`, rows in the order of `batch.edge_index`, in
                which edges were given; of vertices of the kinds that pull it only, or of the edges that these read, where
                there are kinds. They may require grad.

        Returns:
            `Outputs`, a mapping whose entries are attributes too: one for each pushed name, `[num_vertices, ...]`, in the
            batch's own vertex order, or, if a row for each edge to a child was pushed, `[num_edges, ...]`, in the order of
            `batch.edge_index`; of vertices of the kinds that push it only, or of the edges to their children, where there are
            kinds. With `outputs`, outputs of vertices have a row for each of these, in their order.

        Raises:
            InputError, InputTypeError: an input is missing, unknown, or has the wrong number of rows, type or device.
            GraphError: a graph has a cycle, a vertex more children than the vertex function gathers, or a kind that it has
                no method for.
            VertexFunctionError: the vertex function cannot be traced; the message names the line.
        """
        check_arguments(unnamed, reverse)
        outputs = dict(outputs) if isinstance(outputs, Mapping) else outputs  # as it is now
        return self._run(Arguments(None, graphs, bool(reverse), initial, inputs, shared, outputs))

    def _run(self, call: Arguments) -> Outputs:
        """A call, perhaps with other tensors in the place of the module's own parameters and buffers."""
        kinds.check_written(self, VertexFunction)
        if (observer := observer_of_thread()) is not None:
            return observer.see(self, call)
        if (divided := getattr(self, "_divided", None)) is not None:  # its columns are on several ranks
            return cast(Outputs, divided.run(self, call))
        if isinstance(call.graphs, OnRanks):
            return call.graphs.run(self, call)
        unchanged = recall.run_unchanged(self, call)
        if unchanged is not None:
            return unchanged
        if (backend := named_backend(self.backend)) == "eager":
            return Outputs(run_eager(self, call))
        version, own_tensors = programs.see(self._programs, self)
        tensors = own_tensors if call.tensors is None else call.tensors
        if transforms.are_active():
            return Outputs(run_transformed(self, version, tensors, call))
        result = recall.run_again(self, version, tensors, backend, call)
        if result is None:
            bound, traces = bind_call(self, version, tensors, call, in_two=True)
            result = bound.results(call.inputs, traces.values())
            recall.keep(self, version, bound, backend, call, result)
        return result

    def _see(self) -> tuple[Version, dict[str, Tensor]]:
        kinds.check_written(self, VertexFunction)
        self._refuse_divided()
        return programs.see(self._programs, self)

    def _refuse_divided(self) -> None:
        if getattr(self, "_divided", None) is not None:
            raise InputError(
                f"{type(self).__name__} has its columns on several ranks, and can only be called; plan it, estimate its memory "
                "and grow runs before plan.apply"
            )

    @uncompiled
    def start(
        self,
        graphs: GraphBatch | Sequence[InputGraph] | None = None,
        *,
        shared: Mapping[str, Tensor] | None = None,
        kind: Any = None,
        **inputs: Tensor,
    ) -> Frontier:
        """Begin a run whose structure is found as it goes: compute the vertices that are known, and add others later.

        Args:
            graphs: input graphs whose vertices are computed at once; without, every row of the inputs is a vertex without
                children, and without inputs the run begins empty.
            shared: tensors that all vertices of the run share, as in a call of the model.
            kind: without graphs, the kind of the vertices, as in `Frontier.extend`.
            inputs: one tensor for each name that the vertex function pulls, one row a vertex, or a row an edge of the graphs in
                the order in which these were given.

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
        kinds.check_written(self, VertexFunction)
        self._refuse_divided()
        if kind is not None and None in self._methods:
            inputs, kind = {**inputs, "kind": kind}, None  # an input that has this name
        shared = check_shared(dict(self.named_parameters()), inputs, shared)
        tensors = (*self.parameters(), *self.buffers(), *inputs.values(), *shared.values())
        device = next((tensor.device for tensor in tensors), torch.device("cpu"))
        run: Frontier = Frontier(Grower(self, shared), self._methods, device)
        if named_backend(self.backend) == "eager":
            run = EagerFrontier(self, device, shared)
        if graphs is not None:
            batch = graphs if isinstance(graphs, GraphBatch) else pack(graphs)
            run._add(Addition.of_graphs(batch, self._methods), inputs)
        elif inputs:
            run.extend(np.empty((len(next(iter(inputs.values()))), 0), np.int64), kind=kind, **inputs)
        return run

    @property
    def symbolic_graph(self) -> SymbolicGraph:
        """What the vertex function of the last call became: eager, core and lazy nodes, and their derivative."""
        return report.symbolic_graph(self._programs, self.backend)

    def __getattr__(self, name: str) -> Any:
        if name == "symbolic_graph":  # the property raised: `hasattr` says no, and anyone else is told why
            return report.symbolic_graph(self._programs, self.backend)
        return super().__getattr__(name)

    def explain(self) -> str:
        """How each part of the last call's program runs: as generated code, or as calls of PyTorch, and why."""
        return report.explain(self._programs, self.backend, self._methods.values())

    @property
    def _programs(self) -> Programs:
        """The versions of this model; a copy of the model begins without any."""
        if getattr(self, "_kept_programs", None) is None:  # setting it takes longer than the rest of a look-up
            self._kept_programs = Programs()
        return self._kept_programs

    def _trace(
        self,
        version: Version,
        inputs: Mapping[str, Tensor],
        tensors: Mapping[str, Tensor],
        shared: Collection[str],
        device: torch.device,
        methods: tuple[str, ...] = (),
    ) -> dict[str, Trace]:
        """The trace of each method, or of these alone, with which a run grows."""

        def make() -> dict[str, Trace]:
            check_plain("parameter or buffer", tensors, closely=True)
            dtypes = dtypes_of(self.state, self.state_dtype, usual_dtype(tensors, inputs))
            traces = {
                name: prepare(self, name, self.state, dtypes, inputs, tensors, shared, device)
                for name in methods or dict.fromkeys(self._methods.values())
            }
            are_all = not methods or len(methods) == len(set(self._methods.values()))
            kinds.check_together(traces, inputs, shared, are_all)
            return traces

        configuration = Configuration.of(tensors, inputs, device, self.state_dtype, methods)
        return programs.traces(self._programs, self, version, configuration, make)

    def _bind(
        self,
        version: Version,
        traces: Mapping[str, Trace],
        inputs: Mapping[str, Tensor],
        tensors: Mapping[str, Tensor],
        device: torch.device,
        through: bool,
        group_methods: tuple[str, ...],
        backend: str | None = None,
        grows: bool = False,
        is_whole: bool = False,
    ) -> Bound:
        """The programs of a batch, or of vertices that are added to a run that `grows`, compiled for the gradients that are
        wanted; with `through`, children get theirs anyway. The batch `is_whole` if all children are vertices of it."""
        backend = backend or named_backend(self.backend)
        request = Request.of(tensors, inputs, through, backend, device, grows, is_whole)
        with without_autocast(device.type):
            return programs.bound(self._programs, version, traces, request, group_methods)

    def _replicate_for_data_parallel(self) -> VertexFunction:
        replica: VertexFunction = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        replica._kept_programs = self._programs
        return replica
