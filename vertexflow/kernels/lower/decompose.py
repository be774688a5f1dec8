"""Graph in, graph out: operations of a part that have no loops are decomposed into operations that have (`decompositions`).

An operation without a decomposition stays as it is.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from ...graph.symbolic.nodes import has_rows, same_shape
from ...graph.symbolic.passes.canonical import canonical
from ...graph.symbolic.passes.row_layout import layout_of
from ...graph.symbolic.program import Part
from ...graph.symbolic.record import record
from ...graph.symbolic.trace import Trace
from . import positions
from .decompositions import CUMULATIVE, NOT_OF_HALVES, OF_SIZES, ON_DEMAND, table
from .elements import is_known
from .scalar import HALVES, wide

aten = torch.ops.aten


def decomposed(part: Part, trace: Trace, widest: int = 64) -> Part:
    """The part with its operations decomposed, where they can be; the same part if there is nothing to do.

    Operations that loops compute in a time quadratic in some extent are decomposed up to the extent `widest`. (The default of
    64, for GPUs, was not measured.)
    """
    joint = part.placeholders
    targets = {node for node in part.graph.nodes if _is_asked(node, joint) and _quadratic_in(node) <= widest}
    if not targets:
        return part
    graph = fx.Graph()
    copies: dict[fx.Node, Any] = {}
    for node in part.graph.nodes:
        pieces = _pieces(node, trace) if node in targets else None
        if pieces is not None:
            sources = [copies[x] for x in _tensors_of(node)] or [_empty(graph.node_copy(node, copies.__getitem__))]
            copies[node] = _inlined(pieces, sources, graph, node)
        elif node.target is operator.getitem and isinstance(copies[node.args[0]], tuple):
            copies[node] = copies[node.args[0]][node.args[1]]
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return Part(part.name, graph, part.inputs, part.outputs)


def _is_asked(node: fx.Node, joint: Mapping[fx.Node, fx.Node]) -> bool:
    if node.kwargs.get("generator") is not None:  # the user wants that generator's numbers
        return False
    if node.target in NOT_OF_HALVES and node.meta["val"].dtype in HALVES:
        return False
    if node.target is aten.addmm.default:
        return not adds_bias(node)
    if node.target in positions.LOOKING_UP:
        return positions.is_in_range(node, joint)
    return isinstance(node.target, OpOverload) and not is_known(node) and node.target in table()


def _quadratic_in(node: fx.Node) -> int:
    """The extent in which the time of a decomposed operation is quadratic; 0 if there is none."""
    position = 2 if node.target in positions.LOOKING_UP else 0
    if node.target not in CUMULATIVE and not position:
        return 0
    shape = cast(fx.Node, node.args[position]).meta["val"].shape
    extent = shape[cast(int, node.args[1])] if shape else 1
    return extent if isinstance(extent, int) else 0


def _tensors_of(node: fx.Node) -> list[fx.Node]:
    return [source for source in node.all_input_nodes if isinstance(source.meta.get("val"), Tensor)]


def _empty(drawn: fx.Node) -> fx.Node:
    """Replace an operation that reads only sizes by an empty tensor of these sizes, which its decomposition can read."""
    sizes = next(argument for argument in drawn.args if isinstance(argument, Sequence))
    drawn.target, drawn.args, drawn.kwargs = aten.empty.memory_format, (sizes,), {}
    return drawn


def adds_bias(addmm: fx.Node) -> bool:
    """Whether an `addmm` adds a bias that is the same for all rows, without factors."""
    bias, value = cast(fx.Node, addmm.args[0]), addmm.meta["val"]
    return not addmm.kwargs and not has_rows(bias) and bias.meta["val"].shape == value.shape[1:]


def _pieces(node: fx.Node, trace: Trace) -> fx.Graph | None:
    """The decomposition of `node`, computed once for all nodes with the same operation, operand layouts and arguments."""
    sources = _tensors_of(node)

    def described(source: fx.Node) -> str:
        if source not in sources:
            return str(_size(source, trace))
        return f"{sources.index(source)}: {_layout(source.meta['val'])}"

    arguments = fx.node.map_arg((node.args, node.kwargs), described)
    key = f"{node.target} {arguments} -> {fx.node.map_aggregate(node.meta['val'], _layout)}"
    if key not in trace.pieces:
        trace.pieces[key] = _taken_apart(node, trace)
    return trace.pieces[key]


def _layout(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)} {value.stride()}" if isinstance(value, Tensor) else str(value)


def _taken_apart(node: fx.Node, trace: Trace) -> fx.Graph | None:
    """A graph of known operations that computes what `node` does; None if there is no decomposition."""
    sources = _tensors_of(node)
    sizes = [source for source in node.all_input_nodes if source not in sources]

    def run(*tensors: Tensor) -> Any:
        if not sources:
            return _rounded(OF_SIZES[node.target](*map(_widened, tensors), *node.args), node)
        operands: dict[fx.Node, Any] = {
            **dict(zip(sources, map(_widened, tensors), strict=True)),
            **{size: _extent(_size(size, trace), tensors) for size in sizes},
        }
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), operands.__getitem__)
        return _rounded(cast(OpOverload, node.target)(*args, **kwargs), node)

    values = [source.meta["val"] for source in sources or [node]]
    try:
        with values[0].fake_mode:
            decompositions = table(node.target if node.target in ON_DEMAND else None)
            graph = record(run, *values, decompositions=decompositions).graph
        canonical(Trace(graph, trace.rows, trace.edges, {}, trace.state_dtypes, 0, trace.filename))
        graph.eliminate_dead_code()
        return graph if _is_understood(graph, trace) and _gives_the_same(graph, node) else None
    except Exception:  # whatever a decomposition fails on, the operation stays whole
        return None


def _widened(tensor: Tensor) -> Tensor:
    """A value of half precision in float32: like PyTorch's own kernels, decompositions round once, in the end."""
    return tensor.to(wide(tensor.dtype))


def _rounded(results: Any, node: fx.Node) -> Any:
    if isinstance(results, (list, tuple)):
        pairs = zip(results, node.meta["val"], strict=True)
        return tuple(x if x is None or value is None else x.to(value.dtype) for x, value in pairs)
    return results.to(node.meta["val"].dtype)


def _gives_the_same(graph: fx.Graph, node: fx.Node) -> bool:
    """Whether the results have the shapes and dtypes of the operation's own, which is not so for some decompositions."""
    results, values = next(iter(reversed(graph.nodes))).args[0], node.meta["val"]
    results = results if isinstance(results, (list, tuple)) else [results]
    values = values if isinstance(values, (list, tuple)) else [values]
    pairs = [
        (result.meta["val"], value)
        for result, value in zip(results, values, strict=True)
        if isinstance(result, fx.Node)
    ]
    return all(result_value.dtype == value.dtype and same_shape(result_value, value) for result_value, value in pairs)


def _size(node: fx.Node, trace: Trace) -> Any:
    """A size in a part's graph as an expression in the trace's symbols."""
    if node.target is operator.mul:
        return _size(cast(fx.Node, node.args[0]), trace) * node.args[1]
    return {"rows": trace.rows, "edges": trace.edges}[node.name]


def _extent(size: Any, tensors: Iterable[Tensor]) -> Any:
    """The symbolic size of one of these tensors that has this expression."""
    extents: list[Any] = [extent for x in tensors for extent in x.shape if isinstance(extent, torch.SymInt)]
    return next(extent for extent in extents if extent.node.expr == size)


def _is_understood(graph: fx.Graph, trace: Trace) -> bool:
    """Whether all operations are known and interleave no rows; notes the layout of rows."""
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op == "get_attr" or (isinstance(value, (list, tuple)) and not is_known(node) and node.op != "output"):
            return False
        if isinstance(value, Tensor):
            node.meta["rows"] = layout_of(value, trace.rows, trace.edges)
        if node.op != "call_function" or isinstance(value, (int, torch.SymInt)):
            continue
        if not is_known(node) or (node.target is aten.reshape.default and _interleaves(node)):
            return False
    return True


def _interleaves(reshape: fx.Node) -> bool:
    """Whether a reshape moves elements across the dimension of rows, which would interleave the rows in memory."""

    def in_front(node: fx.Node) -> int:
        layout, shape = node.meta["rows"], node.meta["val"].shape
        return -1 if layout is None else math.prod(int(extent) for extent in shape[: layout.dim])

    return in_front(reshape) != in_front(reshape.all_input_nodes[0])


def _inlined(pieces: fx.Graph, sources: Sequence[fx.Node], graph: fx.Graph, node: fx.Node) -> Any:
    """Copy the decomposition of `node` into a graph; returns the node that has its value there, or a tuple of nodes."""
    remaining_sources, copies = iter(sources), {}
    for piece in pieces.nodes:
        if piece.op == "placeholder":
            copies[piece] = next(remaining_sources)
        elif piece.op == "output":
            return fx.node.map_arg(piece.args[0], copies.__getitem__)
        else:
            copies[piece] = graph.node_copy(piece, copies.__getitem__)
            copies[piece].meta.setdefault("line", node.meta.get("line"))
    raise AssertionError("a graph without an output")
