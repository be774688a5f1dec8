"""Graph in, graph out: operations of a part that loops do not know are taken apart into those that they do (`decompositions`).

What nothing is known of stays as it is.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx

from ...graph.symbolic.nodes import has_rows, same_shape
from ...graph.symbolic.passes.canonical import canonical
from ...graph.symbolic.passes.row_layout import layout_of
from ...graph.symbolic.program import Part
from ...graph.symbolic.trace import Trace
from . import positions
from .decompositions import CUMULATIVE, NOT_OF_HALVES, OF_SIZES, ON_DEMAND, table
from .elements import is_known
from .scalar import HALVES, wide

aten = torch.ops.aten


def decomposed(part: Part, trace: Trace, widest: int = 64) -> Part:
    """The part with its operations taken apart, where they can be; the same part if there is nothing to do.

    What takes in loops a time that grows with the square of an extent is taken apart up to the extent `widest`
    (64 is not measured: no GPU was there).
    """
    given = [node for node in part.graph.nodes if node.op == "placeholder" and node.name not in ("rows", "edges")]
    joint = dict(zip(given, part.inputs, strict=True))
    asked = {node for node in part.graph.nodes if _is_asked(node, joint) and _quadratic_in(node) <= widest}
    if not asked:
        return part
    graph = fx.Graph()
    copies: dict[fx.Node, Any] = {}
    for node in part.graph.nodes:
        pieces = _pieces(node, trace) if node in asked else None
        if pieces is not None:
            sources = [copies[x] for x in _tensors_of(node)] or [_empty(graph.node_copy(node, copies.__getitem__))]
            copies[node] = _inlined(pieces, sources, graph, node)
        elif node.target is operator.getitem and isinstance(copies[node.args[0]], tuple):
            copies[node] = copies[node.args[0]][node.args[1]]
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return Part(part.name, graph, part.inputs, part.outputs)


def _is_asked(node: fx.Node, joint: Mapping[fx.Node, fx.Node]) -> bool:
    if node.kwargs.get("generator") is not None:  # whose numbers are wanted
        return False
    if node.target in NOT_OF_HALVES and node.meta["val"].dtype in HALVES:
        return False
    if node.target is aten.addmm.default:
        return not adds_bias(node)
    if node.target in positions.LOOKING_UP:
        return positions.is_there(node, joint)
    return isinstance(node.target, OpOverload) and not is_known(node) and node.target in table()


def _quadratic_in(node: fx.Node) -> int:
    """The extent whose square tells how much there is to do, where loops compute each element of many; else nothing."""
    which = 2 if node.target in positions.LOOKING_UP else 0
    if node.target not in CUMULATIVE and not which:
        return 0
    shape = cast(fx.Node, node.args[which]).meta["val"].shape
    extent = shape[cast(int, node.args[1])] if shape else 1
    return extent if isinstance(extent, int) else 0


def _tensors_of(node: fx.Node) -> list[fx.Node]:
    return [source for source in node.all_input_nodes if isinstance(source.meta.get("val"), Tensor)]


def _empty(drawn: fx.Node) -> fx.Node:
    """In the place of an operation that has only sizes a value that tells them."""
    sizes = next(argument for argument in drawn.args if isinstance(argument, Sequence))
    drawn.target, drawn.args, drawn.kwargs = aten.empty.memory_format, (sizes,), {}
    return drawn


def adds_bias(addmm: fx.Node) -> bool:
    """Whether what a product is added to is the same for all rows, and is added as it is."""
    bias, value = cast(fx.Node, addmm.args[0]), addmm.meta["val"]
    return not addmm.kwargs and not has_rows(bias) and bias.meta["val"].shape == value.shape[1:]


def _pieces(node: fx.Node, trace: Trace) -> fx.Graph | None:
    """What `node` is taken apart into, which is found out once for all operations that do the same to the same."""
    sources = _tensors_of(node)

    def described(source: fx.Node) -> str:
        if source not in sources:
            return str(_size(source, trace))
        return f"{sources.index(source)}: {_layout(source.meta['val'])}"

    given = fx.node.map_arg((node.args, node.kwargs), described)
    key = f"{node.target} {given} -> {fx.node.map_aggregate(node.meta['val'], _layout)}"
    if key not in trace.pieces:
        trace.pieces[key] = _taken_apart(node, trace)
    return trace.pieces[key]


def _layout(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)} {value.stride()}" if isinstance(value, Tensor) else str(value)


def _taken_apart(node: fx.Node, trace: Trace) -> fx.Graph | None:
    """A graph of known operations that computes what `node` does; None if there is none."""
    sources = _tensors_of(node)
    sizes = [source for source in node.all_input_nodes if source not in sources]

    def run(*tensors: Tensor) -> Any:
        if not sources:
            return _rounded(OF_SIZES[node.target](*map(_widened, tensors), *node.args), node)
        given: dict[fx.Node, Any] = {
            **dict(zip(sources, map(_widened, tensors), strict=True)),
            **{size: _extent(_size(size, trace), tensors) for size in sizes},
        }
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), given.__getitem__)
        return _rounded(cast(OpOverload, node.target)(*args, **kwargs), node)

    values = [source.meta["val"] for source in sources or [node]]
    try:
        with values[0].fake_mode:
            graph = make_fx(run, decomposition_table=table(node.target if node.target in ON_DEMAND else None))(
                *values
            ).graph
        canonical(Trace(graph, trace.rows, trace.edges, {}, trace.state_dtypes, 0, trace.filename))
        graph.eliminate_dead_code()
        return graph if _is_understood(graph, trace) and _gives_the_same(graph, node) else None
    except Exception:  # whatever a decomposition stumbles over: the operation stays whole
        return None


def _widened(tensor: Tensor) -> Tensor:
    """Half precision is rounded once, as in PyTorch's own kernels, not after each piece."""
    return tensor.to(wide(tensor.dtype))


def _rounded(results: Any, node: fx.Node) -> Any:
    if isinstance(results, (list, tuple)):
        pairs = zip(results, node.meta["val"], strict=True)
        return tuple(x if x is None or value is None else x.to(value.dtype) for x, value in pairs)
    return results.to(node.meta["val"].dtype)


def _gives_the_same(graph: fx.Graph, node: fx.Node) -> bool:
    """Whether all results have the shapes and dtypes that the operation's have: of some decompositions they have not."""
    results, values = next(reversed(graph.nodes)).args[0], node.meta["val"]
    results = results if isinstance(results, (list, tuple)) else [results]
    values = values if isinstance(values, (list, tuple)) else [values]
    pairs = [
        (result.meta["val"], value)
        for result, value in zip(results, values, strict=True)
        if isinstance(result, fx.Node)
    ]
    return all(ours.dtype == value.dtype and same_shape(ours, value) for ours, value in pairs)


def _size(node: fx.Node, trace: Trace) -> Any:
    """The expression that a size of a part's graph is."""
    if node.target is operator.mul:
        return _size(cast(fx.Node, node.args[0]), trace) * node.args[1]
    return {"rows": trace.rows, "edges": trace.edges}[node.name]


def _extent(size: Any, tensors: Iterable[Tensor]) -> Any:
    """The size of a tensor that this expression is of."""
    extents: list[Any] = [extent for x in tensors for extent in x.shape if isinstance(extent, torch.SymInt)]
    return next(extent for extent in extents if extent.node.expr == size)


def _is_understood(graph: fx.Graph, trace: Trace) -> bool:
    """Whether all operations are known and leave the vertices of a value one beside the other; notes where rows are."""
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
    """Whether rows and what is in front of them change places in memory."""

    def in_front(node: fx.Node) -> int:
        layout, shape = node.meta["rows"], node.meta["val"].shape
        return -1 if layout is None else math.prod(int(extent) for extent in shape[: layout.dim])

    return in_front(reshape) != in_front(reshape.all_input_nodes[0])


def _inlined(pieces: fx.Graph, sources: Sequence[fx.Node], graph: fx.Graph, node: fx.Node) -> Any:
    """Copy the pieces of `node` into a graph; what stands for its value there, or a tuple of such."""
    given, copies = iter(sources), {}
    for piece in pieces.nodes:
        if piece.op == "placeholder":
            copies[piece] = next(given)
        elif piece.op == "output":
            return fx.node.map_arg(piece.args[0], copies.__getitem__)
        else:
            copies[piece] = graph.node_copy(piece, copies.__getitem__)
            copies[piece].meta.setdefault("line", node.meta.get("line"))
    raise AssertionError("a graph without an output")
