"""Cut a vertex function in two where outputs of some vertices are wanted: a *trunk*, whose values states need, and a *readout*,
which nothing but outputs needs, and which is computed for these vertices only.

The readout is a vertex function of its own, without states. It pulls what it reads of the trunk, which pushes that in the place
of the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from .nodes import ancestors, has_rows, is_free, on_edges, random_without_rows, sources
from .passes.checks import CHECK
from .prepare import prepare
from .retrace import choose_edges, evaluate, leaf, needed_for
from .roles import Param, Pull, role_of, shared_key
from .sizes import is_size
from .states import StateDtypes
from .trace import Trace
from .vertex import Vertex

aten = torch.ops.aten

_PRODUCTS = {aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default}
_PASSES = 3  # a product has two in its derivative


@dataclass(frozen=True)
class Readout:
    """What of a method is left to the readout.

    Attributes:
        trace: the method; with what was detached marked as such.
        outputs: the names of the outputs that the readout makes.
        read: the values of the trunk that it reads, by the names under which the trunk pushes them.
        work: how many floating point operations its products take for a vertex, with their derivatives.
    """

    trace: Trace
    outputs: frozenset[str]
    read: Mapping[str, fx.Node]
    work: int

    @property
    def num_read(self) -> int:
        """How many numbers it reads for a vertex."""
        return sum(map(_row_size, self.read.values()))


@dataclass(frozen=True)
class Divided:
    """The two vertex functions of each method, by name; a readout only of those that leave it anything."""

    trunk: Mapping[str, Trace]
    readout: Mapping[str, Trace]


def readouts(traces: Mapping[str, Trace]) -> dict[str, Readout]:
    """What of each method only outputs need; nothing without products, or if a trace does not say all of its derivative."""
    if any(trace.hidden is not None for trace in traces.values()):
        return {}
    whole = {method: trace.with_stops or trace for method, trace in traces.items()}
    inside = {method: _inside(trace) for method, trace in whole.items()}
    names = {name for method, trace in whole.items() for name, node in trace.pushes.items() if node in inside[method]}
    taken = {name for trace in traces.values() for name in (*trace.pushes, *trace.pulls)}
    of_methods = {method: _readout(method, trace, names, inside[method], taken) for method, trace in whole.items()}
    return of_methods if any(each.work for each in of_methods.values()) else {}


def _inside(trace: Trace) -> set[fx.Node]:
    """The operations whose results only outputs of vertices need, and that can be computed of values with a row a vertex."""
    of_vertices = [node for name, node in trace.pushes.items() if not trace.is_edge_output(name)]
    needed = ancestors([*trace.scatters.values(), *(node for node in trace.pushes.values() if node not in of_vertices)])
    inside = {node for node in ancestors(of_vertices) - needed if node.op == "call_function" and not is_size(node)}
    random = random_without_rows(trace.graph)
    changed = True
    while changed:
        changed = False
        for node in trace.graph.nodes:
            if node in inside and _must_stay(node, inside, random):
                inside -= ancestors([node])
                changed = True
    return inside


def _must_stay(node: fx.Node, inside: set[fx.Node], random: set[fx.Node]) -> bool:
    """Whether an operation belongs to the trunk, although only outputs need it."""
    outside = [source for source in node.all_input_nodes if source not in inside]
    with_rows = [source for source in outside if has_rows(source) and sources(source)]
    if on_edges(node) or any(map(on_edges, outside)) or not all(map(_can_be_pushed, with_rows)):
        return True
    if (node.target is CHECK and not node.args[2]) or not random.isdisjoint(outside):
        return True  # an assertion is one of all vertices, and noise that all share is drawn once
    is_view = len(with_rows) == 1 and is_free(node) and _can_be_pushed(node)
    return is_view and _row_size(node) <= _row_size(with_rows[0])  # pushed is what is read, not what it is a view of


def _can_be_pushed(node: fx.Node) -> bool:
    value, layout = node.meta.get("val"), node.meta.get("rows")
    if not isinstance(value, Tensor) or layout is None or node.meta.get("interleaved") or node.meta.get("places"):
        return False
    return bool(layout.dim == 0 and layout.per_vertex == 1 and not layout.edges)


def _row_size(node: fx.Node) -> int:
    return math.prod(map(int, node.meta["val"].shape[1:]))


def _readout(
    method: str, trace: Trace, names: Collection[str], inside: set[fx.Node], taken: Collection[str]
) -> Readout:
    outputs = frozenset(name for name in names if name in trace.pushes)
    read = [source for node in inside for source in node.all_input_nodes]
    read += [trace.pushes[name] for name in outputs]
    wanted = {node for node in read if node not in inside and has_rows(node) and sources(node)}
    by_name: dict[str, fx.Node] = {}
    for node in trace.graph.nodes:
        if node in wanted:
            name = f"{method}_{len(by_name)}"  # which PyTorch writes in code
            while name in taken:
                name += "_"
            by_name[name] = node
    return Readout(trace, outputs, by_name, _PASSES * sum(map(_operations, inside)))


def _operations(node: fx.Node) -> int:
    """The floating point operations of a product for a vertex."""
    layout, is_convolution = node.meta.get("rows"), node.target is aten.convolution.default
    if layout is None or not (is_convolution or node.target in _PRODUCTS):
        return 0
    operand: Any = node.args[1] if is_convolution else node.args[-2]
    shape = operand.meta["val"].shape
    summed = math.prod(shape[1:]) if is_convolution else shape[-1]
    results = math.prod(size for size in node.meta["val"].shape if isinstance(size, int)) * layout.per_vertex
    return 2 * results * summed if isinstance(summed, int) else 0


def divide(
    readouts: Mapping[str, Readout],
    inputs: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    device: torch.device,
) -> Divided:
    """Trace trunk and readout of each method; `inputs` and `tensors` as of `prepare`.

    Raises:
        VertexFunctionError: the readout refuses the numbers that it is checked with.
    """
    trunk, readout_traces = {}, {}
    for method, readout in readouts.items():
        trace = readout.trace
        trunk[method] = _traced(readout, _trunk, trace.state, trace.state_dtypes, inputs, tensors, device)
        if not readout.outputs:
            continue
        samples = {name: _sample(node, inputs, device) for name, node in readout.read.items()}
        readout_traces[method] = _traced(readout, _end, {}, StateDtypes({}), samples, tensors, device)
    return Divided(trunk, readout_traces)


def _trunk(readout: Readout, v: Vertex, param: Callable[[str], Tensor]) -> None:
    trace = readout.trace
    choose_edges(trace, v)
    for node in trace.pulls.values():  # all of them: an input has rows for the vertices of all kinds that pull it
        leaf(trace, node, v, param)
    scatters = {name: node for name, node in trace.scatters.items() if name not in trace.left_out}
    pushes = {name: node for name, node in trace.pushes.items() if name not in readout.outputs}
    pushes |= readout.read
    values = evaluate(trace, [*scatters.values(), *pushes.values()], {}, v, param)
    v.scatter(**{name: values[node] for name, node in scatters.items()})
    v.push(**{name: values[node] for name, node in pushes.items()})


def _end(readout: Readout, v: Vertex, param: Callable[[str], Tensor]) -> None:
    known = {node: v.pull(name) for name, node in readout.read.items()}
    pushes = {name: readout.trace.pushes[name] for name in sorted(readout.outputs)}
    values = evaluate(readout.trace, pushes.values(), known, v, param)
    v.push(**{name: values[node] for name, node in pushes.items()})


Run = Callable[[Readout, Vertex, Callable[[str], Tensor]], None]


class _Piece(nn.Module):
    """A module whose method runs one of the two, with all parameters as shared tensors."""

    def __init__(self, readout: Readout, run: Run) -> None:
        super().__init__()
        self.readout, self.run = readout, run

    def vertex(self, v: Vertex) -> None:
        self.run(self.readout, v, v.shared)


def _traced(
    readout: Readout,
    run: Run,
    state: Mapping[str, Any],
    state_dtypes: StateDtypes,
    inputs: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    device: torch.device,
) -> Trace:
    source = readout.trace
    read = _params_for(readout, run)
    shared = {shared_key(name): tensors[name] for name in read}
    trace = prepare(_Piece(readout, run), "vertex", state, state_dtypes, inputs, shared, read, device)
    for each in (trace, *(() if trace.with_stops is None else (trace.with_stops,))):
        _rename(each, read, source)
    return trace


def _rename(trace: Trace, params: Iterable[str], source: Trace) -> None:
    """Give parameters that were traced as shared tensors their names, and gradients only to those that have any in `source`."""
    trace.filename, trace.shared = source.filename, frozenset()
    nodes, grads = dict(trace.params), dict(trace.param_grads)
    trace.params.clear()
    trace.param_grads.clear()
    for name in params:
        node = trace.params[name] = nodes[shared_key(name)]
        node.meta["role"] = Param(name)
        if name in source.param_grads and shared_key(name) in grads:
            trace.param_grads[name] = grads[shared_key(name)]


def _params_for(readout: Readout, run: Run) -> list[str]:
    """The parameters that one of the two reads."""
    trace = readout.trace
    wanted: Iterable[fx.Node] = [trace.pushes[name] for name in readout.outputs]
    known: Iterable[fx.Node] = readout.read.values()
    if run is _trunk:
        pushes = [node for name, node in trace.pushes.items() if name not in readout.outputs]
        wanted, known = [*trace.scatters.values(), *pushes, *readout.read.values()], ()
    needed = needed_for(wanted, known)
    return [name for name, node in trace.params.items() if node in needed]


def _sample(node: fx.Node, inputs: Mapping[str, Tensor], device: torch.device) -> Tensor:
    """Rows like those of a value, which no operation should refuse: of an input its own, of others numbers between 0 and 1, and
    indices right for any table."""
    if isinstance(role := role_of(node), Pull):
        return inputs[role.name]
    value: Tensor = node.meta["val"]
    shape = (4, *map(int, value.shape[1:]))
    if value.dtype.is_floating_point or value.dtype.is_complex:
        generator = torch.Generator().manual_seed(0)  # the user's is left as it is
        return torch.rand(shape, dtype=torch.float64, generator=generator).to(device, value.dtype)
    return torch.zeros(shape, dtype=value.dtype, device=device)
