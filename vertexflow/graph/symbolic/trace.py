"""Trace a vertex function once, with the number of rows symbolic, into one joint graph of values and gradients.

The user's method runs a single time, over fake tensors and under autograd, and every aten operation of the forward and
of the derivative is recorded in one `torch.fx.Graph` (Cavs calls it F and its derivative; section 3.1 of the paper).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import sympy
import torch
from torch import Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

from ...errors import VertexFunctionError
from . import draws, switches, unseen
from . import meta as meta
from .derivatives import DerivativeError
from .fakes import fake_mode
from .isolation import forget_source, without_autocast
from .method import code_of
from .passes.functional import remove_mutations
from .record import record
from .roles import (  # fmt: skip
    Counts,
    Gather,
    Grad,
    NumChildren,
    Param,
    Pull,
    Push,
    Role,
    Scatter,
    Slots,
    is_over_edges,
    is_per_edge,
    name_of,
    role_of,
    shared_key,
)
from .sizes import StepSizes
from .source_lines import SourceLines, located, refuse_caught, where
from .stand_in import stand_in, unchanged
from .states import Shape, StateDtypes, widest
from .vertex import Vertex, same_size

# The sizes that stand for "any number" of rows and of edges while tracing: primes that few models use as a width.
_ROWS_HINT = 13
_EDGES_HINT = 29


@dataclass
class Trace:
    """One vertex function as a joint graph. Every value is an `fx.Node` with its fake tensor in `meta["val"]`.

    `meta["line"]` is the line of the vertex function that made the node; `meta["name"]` the user's name for it.
    """

    graph: fx.Graph
    rows: sympy.Symbol  # the symbolic number of vertices
    edges: sympy.Symbol  # the symbolic number of edges to their children
    state: dict[str, Shape]
    state_dtypes: StateDtypes
    num_slots: int
    filename: str
    left_out: frozenset[str] = frozenset()  # states that are zero here, and scattered by other kinds
    params: dict[str, fx.Node] = field(default_factory=dict)  # parameters and buffers, by qualified name
    shared: frozenset[str] = frozenset()  # the names of the shared tensors that are read
    pulls: dict[str, fx.Node] = field(default_factory=dict)  # of vertices and of edges
    first_slot: int = 0  # of the children that are read over edges
    arc_size: int | None = None  # how many children of each arc are read; None: no arcs are
    counts: fx.Node | None = None  # how many edges each vertex has, of those that are read
    num_children: fx.Node | None = None  # how many children each vertex has, where not all are read over edges
    slots: fx.Node | None = None  # the slot of each edge
    gathers: dict[tuple[str, int], fx.Node] = field(default_factory=dict)  # (state, slot)
    state_grads: dict[str, fx.Node] = field(default_factory=dict)  # what the parents send back
    push_grads: dict[str, fx.Node] = field(default_factory=dict)  # what the caller sends back
    scatters: dict[str, fx.Node] = field(default_factory=dict)
    pushes: dict[str, fx.Node] = field(default_factory=dict)
    param_grads: dict[str, fx.Node] = field(default_factory=dict)
    pull_grads: dict[str, fx.Node] = field(default_factory=dict)
    gather_grads: dict[tuple[str, int], fx.Node] = field(default_factory=dict)
    # What the graph does not say of the derivative, so that gradients of gradients cannot be made from it; None: it says all.
    hidden: str | None = None
    # The same graph with what the user detached marked as such, if there is any: what gradients of gradients are made from.
    with_stops: Trace | None = None
    # The decompositions of operations, by operation and operands: the parts of a program have many operations in common.
    pieces: dict[str, fx.Graph | None] = field(default_factory=dict)

    @property
    def widest_dtype(self) -> torch.dtype:
        """A dtype that holds the numbers of all states; without any, that of the parameters."""
        dtypes = (node.meta["val"].dtype for node in (*self.params.values(), *self.pulls.values()))
        return widest(self.state_dtypes, next((d for d in dtypes if d.is_floating_point), torch.get_default_dtype()))

    @property
    def reads_edges(self) -> bool:
        """Whether the vertex function reads all children of a vertex, not only those in numbered slots."""
        if any(node is not None for node in (self.counts, self.num_children, self.slots)):
            return True
        if self.arc_size is not None or any(is_over_edges(slot) for _, slot in self.gathers):
            return True
        return any(map(self.is_edge_input, self.pulls)) or any(map(self.is_edge_output, self.pushes))

    @property
    def side_by_side(self) -> int:
        """How many rows each edge gathers, side by side: one, or those of the children of an arc."""
        return max(1, self.arc_size or 0)

    def is_edge_input(self, name: str) -> bool:
        """Whether an input has a row for each edge instead of each vertex."""
        return is_per_edge(role_of(self.pulls[name]))

    def is_edge_output(self, name: str) -> bool:
        """Whether an output has a row for each edge instead of each vertex."""
        return same_size(self.output(name).shape[0], self.edges)

    def output(self, name: str) -> Tensor:
        """A fake tensor like the pushed output of this name."""
        value: Tensor = self.pushes[name].meta["val"]
        return value

    @cached_property
    def constants(self) -> dict[fx.Node, Tensor]:
        """Tensors made or read in the vertex function that are neither parameters nor inputs."""
        return {node: node.meta["constant"] for node in self.graph.nodes if node.op == "get_attr"}

    def shape(self, node: fx.Node) -> str:
        """`[2*n, 4] (n vertices)`, the shape of a node's value to be read."""
        letters = {self.rows: sympy.Symbol("n"), self.edges: sympy.Symbol("e")}
        sizes = [size.node.expr if isinstance(size, torch.SymInt) else size for size in node.meta["val"].shape]
        symbols = {symbol for size in sizes if not isinstance(size, int) for symbol in size.free_symbols}
        legend = [words for symbol, words in ((self.rows, "n vertices"), (self.edges, "e edges")) if symbol in symbols]
        shown = ", ".join(str(size if isinstance(size, int) else size.subs(letters)) for size in sizes)
        return f"[{shown}]" + (f" ({', '.join(legend)})" if legend else "")

    def where(self, node: fx.Node) -> str:
        """`model.py:17: h = x.mean(0)`, the line of the vertex function that made `node`."""
        return where(self.filename, node.meta.get("line"), node.meta.get("inner_line"))


def trace(
    module: nn.Module,
    method: str,
    state: Mapping[str, Shape],
    state_dtypes: StateDtypes,
    inputs: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    shared: Collection[str],
    device: torch.device,
) -> Trace:
    """Run the method of this name once, on a stand-in of `module`, and return its `Trace`.

    `inputs` are the tensors of the first call; only their trailing shapes and dtypes are used. `tensors` are the parameters
    and buffers by qualified name, the module's own or others, and by their keys the tensors of the names `shared`.

    Raises:
        VertexFunctionError: the method cannot be traced; the message names its line.
    """

    def traced() -> Trace:
        try:
            return _trace(module, method, state, state_dtypes, inputs, tensors, shared, device, False)
        except DerivativeError:
            return _trace(module, method, state, state_dtypes, inputs, tensors, shared, device, True)

    code = code_of(getattr(module, method), method)
    return draws.refused(traced, where(code.co_filename, code.co_firstlineno))


def _trace(
    module: nn.Module,
    method: str,
    state: Mapping[str, Shape],
    state_dtypes: StateDtypes,
    inputs: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    shared: Collection[str],
    device: torch.device,
    without_derivative: bool,
) -> Trace:
    """`trace`; with `without_derivative`, for a vertex function that has operations without derivative."""
    env = StepSizes()
    mode = fake_mode(env)
    mode.cache_enabled = False  # few operations come twice, and keeping them takes longer than asking PyTorch again
    rows_context: Any = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC])
    probe = mode.from_tensor(torch.empty(_ROWS_HINT), symbolic_context=rows_context)
    edge_probe = mode.from_tensor(torch.empty(_EDGES_HINT), symbolic_context=rows_context)
    plain = {name: tensor.clone() if tensor.is_inference() else tensor.detach() for name, tensor in tensors.items()}
    fakes = {name: mode.from_tensor(tensor, static_shapes=True) for name, tensor in plain.items()}
    for name in (*dict(module.named_parameters()), *map(shared_key, shared)):
        if fakes[name].is_floating_point() or fakes[name].is_complex():
            fakes[name].requires_grad_()  # frozen ones too: which gradients are wanted is chosen later

    code = code_of(getattr(module, method), method)
    lines = SourceLines(code, without_derivative)
    written: list[str] = []
    read: set[str] = set()
    ways: list[tuple[int, int | None]] = []
    left_out: list[str] = []
    hidden: list[str | None] = []
    leaves: dict[Role, Tensor] = {}
    results: dict[Role, Tensor] = {}

    def joint(params: dict[str, Tensor], probe: Tensor, edge_probe: Tensor) -> list[Tensor]:
        rows, edges = probe.shape[0], edge_probe.shape[0]

        def make(role: Role, tensor: Tensor) -> None:
            _node_of(tensor).meta["role"] = role  # now: once a tensor was changed in place, its node is another one
            leaves[role] = tensor

        def leaf(role: Role, shape: Shape, dtype: torch.dtype) -> Tensor:
            with torch.inference_mode(False), torch.enable_grad():  # the user may read it first inside `no_grad`
                tensor = torch.empty((edges if is_per_edge(role) else rows, *shape), dtype=dtype, device=device)
                make(role, tensor.requires_grad_() if tensor.is_floating_point() or tensor.is_complex() else tensor)
                return tensor.clone()  # the user may change it in place

        for name, value in params.items():
            make(Param(name), value)
        v = Vertex(
            state,
            state_dtypes,
            inputs,
            leaf,
            rows,
            lambda _: edges,
            {name: params[shared_key(name)] for name in shared},
        )
        places = {id(place): params[name] for name, place in (*module.named_parameters(), *module.named_buffers())}
        copy = stand_in(module, places)
        with lines, switches.unread() as refusals, unchanged(copy, params) as changes:
            v.finish(getattr(copy, method)(v))
        refuse_caught(lines.failed or env.refused or next(iter(refusals), None))
        written.extend(changes)
        read.update(v.shared_names)
        ways[:] = [(v.first_slot or 0, v.arc_size)]
        left_out[:] = v.left_out
        values: dict[Scatter | Push, Tensor] = {
            Scatter(name): v.scattered[name]
            if name in v.scattered
            else torch.zeros((rows, *shape), dtype=state_dtypes[name], device=device)
            for name, shape in state.items()
        }
        values.update({Push(name): value for name, value in v.pushed.items()})
        results.update(values.items())
        hidden.append(unseen.custom_function(list(values.values())) or lines.hidden)
        differentiable = [role for role, value in values.items() if value.requires_grad]
        if differentiable:
            for role in differentiable:
                make(Grad(role), torch.empty_like(values[role]))
            sources = [(role, value) for role, value in leaves.items() if isinstance(role, Param | Pull | Gather)]
            wanted = [role for role, value in sources if value.requires_grad]
            try:
                with without_autocast(device.type):  # as `backward` is called, so that derivatives keep their dtypes
                    grads = torch.autograd.grad(
                        [values[role] for role in differentiable],
                        [leaves[role] for role in wanted],
                        [leaves[Grad(role)] for role in differentiable],
                        allow_unused=True,
                    )
            except Exception as error:
                raise DerivativeError(f"the vertex function failed: {type(error).__name__}: {error}") from error
            results.update({Grad(role): grad for role, grad in zip(wanted, grads, strict=True) if grad is not None})
        return list(results.values())

    filename = code.co_filename
    with mode, enable_python_dispatcher(), located(code, probe, edge_probe):
        traced = record(joint, fakes, probe, edge_probe)
        forget_source(traced)
        graph = traced.graph
        env.check_guards()
    rows, edges = (cast(torch.SymInt, tensor.shape[0]).node.expr for tensor in (probe, edge_probe))
    trace = Trace(
        graph, rows, edges, dict(state), state_dtypes, 0, filename, frozenset(left_out), shared=frozenset(read),
        hidden=hidden[0],
    )  # fmt: skip
    trace.first_slot, trace.arc_size = ways[0]
    _placeholders(graph, has_other_edges=bool(trace.first_slot) or trace.arc_size is not None)
    _check_constants(trace, module)
    with without_autocast(device.type):
        remove_mutations(trace, mode)
    if written:
        raise VertexFunctionError(
            f"the vertex function writes to {', '.join(map(repr, written))} while it runs; a vertex may only read parameters, "
            f"buffers and what it shares\n  in the vertex function, {where(filename, code.co_firstlineno)}"
        )
    _bind(trace, list(results))
    trace.num_slots = 1 + max((slot for _, slot in trace.gathers if slot >= 0), default=-1)
    return trace


def _node_of(tensor: Tensor) -> fx.Node:
    tracer = get_proxy_mode().tracer  # type: ignore[union-attr]
    node = get_proxy_slot(tensor, tracer, None, lambda slot: slot.proxy.node)
    assert isinstance(node, fx.Node)
    return node


def _placeholders(graph: fx.Graph, has_other_edges: bool) -> None:
    """Turn the empty tensors that stand for gathers, pulls and incoming gradients into placeholders of the graph.

    The number of children is that of the edges, unless `has_other_edges`.
    """
    first, counts = next(iter(graph.nodes)), None
    for node in list(graph.nodes):
        role = role_of(node)
        if isinstance(role, NumChildren) and not has_other_edges:
            role = node.meta["role"] = Counts()
        if isinstance(role, Counts) and counts is not None:
            node.replace_all_uses_with(counts)
            graph.erase_node(node)
        elif node.op == "call_function" and role is not None:
            with graph.inserting_before(first):
                placeholder = graph.placeholder(name_of(role))
            placeholder.meta = dict(node.meta)
            node.replace_all_uses_with(placeholder)
            graph.erase_node(node)
            counts = placeholder if isinstance(role, Counts) else counts


def _check_constants(trace: Trace, module: nn.Module) -> None:
    """Keep tensors that the method reads from outside as constants; refuse those that require grad, a forgotten parameter, and
    those whose memory was freed."""
    for node in trace.graph.nodes:
        if node.op != "get_attr":
            continue
        value: Any = trace.graph.owning_module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if isinstance(value, Tensor) and value.requires_grad:
            raise VertexFunctionError(
                "the vertex function uses a tensor that requires grad but is no parameter of the module; register it "
                f"(self.name = nn.Parameter(...)) or pass it as an input\n  in the vertex function, {trace.where(node)}"
            )
        if isinstance(value, Tensor) and value.layout == torch.strided and _is_freed(value):
            raise VertexFunctionError(
                f"the memory of a tensor {list(value.shape)} that the vertex function reads was freed (by "
                f"untyped_storage().resize_(0))\n  in the vertex function, {trace.where(node)}"
            )
        node.meta["constant"] = value


def _is_freed(tensor: Tensor) -> bool:
    return tensor.device.type != "meta" and bool(tensor.numel()) and not tensor.untyped_storage().nbytes()


def _bind(trace: Trace, roles: list[Role]) -> None:
    """Fill the tables of `trace` from the placeholders' roles and the order of the outputs."""
    for node in trace.graph.nodes:
        match role_of(node):
            case Param(name):
                trace.params[name] = node
            case Pull(name):
                trace.pulls[name] = node
            case Counts():
                trace.counts = node
            case NumChildren():
                trace.num_children = node
            case Slots():
                trace.slots = node
            case Gather(state, slot):
                trace.gathers[state, slot] = node
            case Grad(Scatter(state)):
                trace.state_grads[state] = node
            case Grad(Push(name)):
                trace.push_grads[name] = node
    output = next(iter(reversed(trace.graph.nodes)))
    for role, node in zip(roles, output.args[0], strict=True):
        match role:
            case Scatter(state):
                trace.scatters[state] = node
            case Push(name):
                trace.pushes[name] = node
            case Grad(Param(name)):
                trace.param_grads[name] = node
            case Grad(Pull(name)):
                trace.pull_grads[name] = node
            case Grad(Gather(state, slot)):
                trace.gather_grads[state, slot] = node
