"""Cut a part into stages that native code can run one after the other: loops over elements, products, segment reductions.

A value is *stored* if it is an output, if a product reads it, or if it is made before a product or a segment sum and read
after it; every other value is computed where it is needed, inside a loop.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from ...graph import segments
from ...graph.nodes import is_view, on_edges, operands
from ...graph.program import Part
from ..operations import (
    CONSTANT,
    PADS,
    PRODUCTS,
    SEGMENTS,
    VIEWS,
    Unsupported,
    first_of_piece,
    has_rows,
    integer,
    integers,
    is_empty,
    is_transpose,
    puts_between,
    trailing,
)  # fmt: skip
from .expressions import EXPRESSIONS

aten = torch.ops.aten

REDUCTIONS = {aten.sum.dim_IntList, aten.mean.dim}
BETWEEN_LOOPS = PRODUCTS | SEGMENTS | REDUCTIONS  # what is no loop over the elements of its result


@dataclass
class Product:
    """`out = a @ b`, plus a bias if there is one; `b` is a parameter, seen from the other side if `transposed`."""

    out: fx.Node
    a: fx.Node
    b: fx.Node
    transposed: bool
    bias: fx.Node | None


@dataclass
class Outer:
    """`out = a.t() @ b`, a sum over rows: the gradient of a weight."""

    out: fx.Node
    a: fx.Node
    b: fx.Node


@dataclass
class Store:
    """The elements of a value, written to `target` from column `offset` on."""

    value: fx.Node
    target: fx.Node
    offset: int


@dataclass
class Stage:
    """What can run once all stages before it have: first the loops, then the others."""

    stores: list[Store] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    outers: list[Outer] = field(default_factory=list)
    segments: list[fx.Node] = field(default_factory=list)  # reductions over the edges of each row
    reductions: list[fx.Node] = field(default_factory=list)  # over elements of each row
    sums: list[fx.Node] = field(default_factory=list)  # over rows


@dataclass
class Plan:
    """The stages of a part, and the values that lie in memory while they run."""

    part: Part
    stages: list[Stage]
    stored: dict[fx.Node, fx.Node | None]  # a computed value -> the output of the part that it is, or None: scratch
    copies: list[fx.Node]  # further outputs, which some values are copied to


def plan(part: Part, dtype: torch.dtype) -> Plan:
    """The stages of a part whose values are of `dtype`.

    Raises:
        Unsupported: an operation, a dtype or a layout that native code does not have; the message says which.
    """
    nodes = [node for node in part.graph.nodes if node.op in ("placeholder", "call_function")]
    for node in nodes:
        _check(node, dtype)
    outputs: dict[fx.Node, fx.Node] = {}
    copies = []  # outputs that are another name of a value
    for output, result in zip(part.outputs, _results(part), strict=True):
        if not has_rows(result):
            result = same_memory(result)
        if result in outputs or result.op == "placeholder" or is_view(result) or result.target is CONSTANT:
            if not has_rows(result):
                raise Unsupported(f"{output.name} is another name of {result.name}")
            copies.append(Store(result, output, 0))
        else:
            outputs[result] = output
    level = _levels(nodes)
    stored: dict[fx.Node, fx.Node | None] = {**outputs}
    for node in nodes:
        for source, at in _needs(node, level):
            if source.op == "call_function":
                stored.setdefault(source, None)
            elif at == "product" and not _lies_flat(source):
                raise Unsupported(f"a product reads {source.name}, which does not lie row by row")
    stages = _stages(nodes, level, stored)
    return Plan(part, [*stages, Stage(copies)] if copies else stages, stored, [copy.target for copy in copies])


def base(node: fx.Node) -> fx.Node:
    """The value that a view is of."""
    while node.target in VIEWS:
        node = node.all_input_nodes[0]
    return node


def same_memory(node: fx.Node) -> fx.Node:
    """The value whose elements are those of `node`, in the same order; of values without rows."""
    while node.target in (aten.clone.default, aten.reshape.default):
        node = node.all_input_nodes[0]
    return node


def columns(node: fx.Node) -> tuple[fx.Node, int] | None:
    """The value that holds `node` as neighbouring columns of its rows, and the first of these; None for other views."""
    start = 0
    while node.target in VIEWS:
        source = node.all_input_nodes[0]
        width = None if node.target is operator.getitem else trailing(source)
        if node.target is operator.getitem:
            source = source.all_input_nodes[0]
            if trailing(source) != [source.meta["val"].shape[-1]] or not has_rows(source):
                return None
            start += first_of_piece(node)
        elif node.target is aten.slice.Tensor and len(width or []) == 1 and integer(node, 1) == 1:
            start += integer(node, 2)
            if integer(node, 4) != 1:
                return None
        elif node.target is not aten.clone.default and not _is_reshape_of_rows(node):
            return None
        node = source
    return node, start


def _results(part: Part) -> tuple[fx.Node, ...]:
    results: Any = next(reversed(part.graph.nodes)).args[0] if part.outputs else ()
    return tuple(results)


def _is_reshape_of_rows(node: fx.Node) -> bool:
    return node.target is aten.reshape.default and has_rows(node) and has_rows(node.all_input_nodes[0])


def _check(node: fx.Node, dtype: torch.dtype) -> None:
    value = node.meta.get("val")
    if node.name in ("rows", "edges") or isinstance(value, (int, torch.SymInt)) or node.target is operator.mul:
        return
    is_counts = node.op == "placeholder" and node.meta.get("role", ("",))[0] == "counts"
    if is_counts and all(user.target in (segments.EXPAND, *SEGMENTS, "output") for user in node.users):
        return  # loops over edges know it; as numbers they do not
    if isinstance(value, Tensor):
        if is_empty(node):
            raise Unsupported(f"{node.name} has no elements")
        if value.dtype not in (dtype, torch.bool):
            raise Unsupported(f"{node.name} is of {str(value.dtype)[6:]}")
        layout = node.meta.get("rows")
        if layout is not None and (layout.dim != 0 or layout.per_vertex != 1) and not _is_left_of_outer(node):
            raise Unsupported(
                f"{node.name} has its rows in dimension {layout.dim}, {layout.per_vertex} for each vertex"
            )
    if node.op == "placeholder":
        return
    target = node.target
    known = target in EXPRESSIONS or target in VIEWS or target in BETWEEN_LOOPS or target is CONSTANT
    if not known and target not in PADS and target not in (aten.cat.default, aten.empty.memory_format, segments.EXPAND):
        raise Unsupported(f"{node.name} is made by {target}")
    if target in PRODUCTS and not is_outer(node):
        _product(node)
    if target in REDUCTIONS and "dtype" in node.kwargs:
        raise Unsupported(f"{node.name} sums in another dtype")
    if target in REDUCTIONS and not has_rows(node) and not is_sum_over_rows(node):
        raise Unsupported(f"{node.name} sums over rows and more")
    if target in PADS and (not has_rows(node) or integer(node, 2) == 0 or puts_between(node)):
        raise Unsupported(f"{node.name} is made by {target}")
    if target is aten.cat.default and (not has_rows(node) or integer(node, 1) != 1 or len(trailing(node)) != 1):
        raise Unsupported(f"{node.name} joins other dimensions than columns")


def is_sum_over_rows(node: fx.Node) -> bool:
    """Whether a reduction sums rows of one dimension."""
    source = node.all_input_nodes[0]
    sums = node.target is aten.sum.dim_IntList and integers(node, 1) == [0]
    return sums and has_rows(source) and len(trailing(source)) == 1


def is_outer(node: fx.Node) -> bool:
    """Whether a product sums over rows."""
    return node.target is aten.mm.default and _is_left_of_outer(node.all_input_nodes[0]) and has_rows(node.args[1])  # type: ignore[arg-type]


def _is_left_of_outer(node: fx.Node) -> bool:
    if not is_transpose(node) or not has_rows(node.all_input_nodes[0]):
        return False
    return all(user.target is aten.mm.default and user.args[0] is node for user in node.users)


def _product(node: fx.Node) -> Product:
    bias, (a, b) = None, node.args[-2:]
    if node.target is aten.addmm.default:
        bias = node.args[0]
        if node.kwargs or len(node.all_input_nodes) != 3 or has_rows(bias) or trailing(bias) != trailing(node):  # type: ignore[arg-type]
            raise Unsupported(f"{node.name} adds more than a bias")
    assert isinstance(a, fx.Node)
    assert isinstance(b, fx.Node)
    transposed = is_transpose(b)
    weight = b.all_input_nodes[0] if transposed else b
    if not has_rows(a) or weight.op != "placeholder" or has_rows(weight):
        raise Unsupported(f"{node.name} is no product with a parameter")
    return Product(node, a, weight, transposed, bias)  # type: ignore[arg-type]


def _levels(nodes: list[fx.Node]) -> dict[fx.Node, int]:
    """After how many products and segment sums, one depending on the other, a value is there."""
    level: dict[fx.Node, int] = {}
    for node in nodes:
        before = max((level.get(source, 0) for source in node.all_input_nodes), default=0)
        crosses = node.target in BETWEEN_LOOPS
        if node.target is segments.EXPAND:
            crosses = base(node.all_input_nodes[0]).op == "call_function"
        level[node] = before + crosses
    return level


def _needs(node: fx.Node, level: dict[fx.Node, int]) -> list[tuple[fx.Node, str]]:
    """The values that must lie in memory for `node` to be computed."""
    if node.op == "placeholder" or node.target in VIEWS:
        return []
    if node.target in PRODUCTS:
        if is_outer(node):
            return [(node, "out"), *((in_memory(side), "product") for side in outer_of(node)[1:])]
        product = _product(node)
        bias = [(product.bias, "bias")] if product.bias is not None else []
        return [(node, "out"), (in_memory(product.a), "product"), *bias]
    needs: list[tuple[fx.Node, str]] = []
    if node.target is aten.cat.default or node.target in BETWEEN_LOOPS:
        needs.append((node, "out"))
    run_at = level[node] - (node.target in BETWEEN_LOOPS)
    sources = map(base, node.all_input_nodes)
    needs += [
        (source, "later") for source in sources if node.target is segments.EXPAND or level.get(source, 0) < run_at
    ]
    return [
        (source, why)
        for source, why in needs
        if isinstance(source.meta.get("val"), Tensor) and source.target is not CONSTANT
    ]


def outer_of(node: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node]:
    """The result, the left operand before it is transposed, and the right operand of a product over rows."""
    left, right = node.args[:2]
    return node, left.all_input_nodes[0], right  # type: ignore[union-attr, return-value]


def in_memory(node: fx.Node) -> fx.Node:
    """The value that holds the rows of `node`, itself if it is no columns of another."""
    found = columns(node)
    return found[0] if found is not None else node


def _lies_flat(node: fx.Node) -> bool:
    return node.op == "placeholder" and has_rows(node)


def _stages(nodes: list[fx.Node], level: dict[fx.Node, int], stored: dict[fx.Node, fx.Node | None]) -> list[Stage]:
    stages = [Stage() for _ in range(max(level.values(), default=0) + 1)]
    for node in nodes:
        if node.target in PRODUCTS and is_outer(node):
            stages[level[node] - 1].outers.append(Outer(*outer_of(node)))
        elif node.target in PRODUCTS:
            stages[level[node] - 1].products.append(_product(node))
        elif node.target in SEGMENTS:
            stages[level[node] - 1].segments.append(node)
        elif node.target in REDUCTIONS:
            stage = stages[level[node] - 1]
            (stage.reductions if has_rows(node) else stage.sums).append(node)
        elif node in stored and node.target is aten.cat.default:
            start = 0
            for operand in operands(node):
                if operand.target is not aten.empty.memory_format:  # nobody reads it
                    stages[level[node]].stores.append(Store(operand, node, start))
                start += trailing(operand)[0]
        elif node in stored:
            stages[level[node]].stores.append(Store(node, node, 0))
    for stage in stages:
        stage.stores.sort(key=lambda store: (on_edges(store.value), str(trailing(store.value))))
    return stages
