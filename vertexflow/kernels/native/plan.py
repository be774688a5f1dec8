"""Cut a part into stages that native code runs one after the other: loops over elements, products, segment reductions.

A value is *stored* if it is an output, if a product reads it, or if it is computed before a product or a segment sum and read
after it. Every other value is computed where it is needed, inside a loop.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx

from ...graph import segments
from ...graph.symbolic.nodes import has_rows, is_view, on_edges, operands
from ...graph.symbolic.passes.row_layout import RowLayout
from ...graph.symbolic.program import Part
from ...graph.symbolic.roles import Counts, Gather, role_of
from ..lower.calls import Called, calls_of, leave_to_pytorch
from ..lower.elements import check_known, check_rows, is_reduction, load
from ..lower.index import ZERO, Var, index_at, index_of
from ..lower.loops import Columns
from ..lower.views import Coords, extents, put_back, through_view, width
from ..operations import CONSTANT, PRODUCTS, SEGMENTS, VIEWS, Unsupported, is_empty, line_of

aten = torch.ops.aten

BMM = aten.bmm.default
MATRICES = PRODUCTS | {BMM}
_SLOW = ("exp exp2 expm1 log log1p log2 log10 sin cos tan sinh cosh tanh asinh acosh atanh erf erfc sigmoid silu gelu lgamma "
         "silu_backward gelu_backward")  # fmt: skip
SLOW = {getattr(aten, name).default for name in _SLOW.split()} | {aten.pow.Tensor_Tensor, aten.pow.Tensor_Scalar}
CHEAP = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.neg.default, segments.EXPAND}
ROW = Var("i")


@dataclass
class Stage:
    """What can run after all earlier stages: first the loops that store values, then the other statements, then `call`."""

    stores: list[fx.Node] = field(default_factory=list)  # values that loops over elements store
    copies: list[tuple[fx.Node, fx.Node]] = field(default_factory=list)  # a value, and the output that it is copied to
    products: list[fx.Node] = field(default_factory=list)  # of rows with parameters
    outers: list[fx.Node] = field(default_factory=list)  # products that sum over rows
    segments: list[fx.Node] = field(default_factory=list)  # reductions over the edges of each row
    reductions: list[fx.Node] = field(default_factory=list)  # over elements of each row
    sums: list[fx.Node] = field(default_factory=list)  # over rows
    call: Part | None = None  # what PyTorch computes at the end


@dataclass
class Plan:
    """The stages of a part, and the values that lie in memory while they run."""

    part: Part
    stages: list[Stage]
    stored: dict[fx.Node, fx.Node | None]  # a computed value -> the output of the part that it is, or None: scratch
    copies: list[fx.Node]  # further outputs, to which values are copied
    reasons: list[str] = field(default_factory=list)  # why PyTorch is called


def plan_part(part: Part, may_call: bool = False, product_dtype: torch.dtype | None = None) -> Plan:
    """The stages of a part; with `may_call`, operations that native code does not have are left to PyTorch in between. Products
    with parameters, and those over rows, are of `product_dtype` or of bfloat16.

    Raises:
        Unsupported: an operation, a dtype or a layout that native code does not have; the message says which.
    """

    def check(node: fx.Node) -> None:
        _check(node, part.name)
        _check_product(node, product_dtype)

    part, called = leave_to_pytorch(part, check, may_call)
    nodes = [node for node in part.graph.nodes if node.op in ("placeholder", "call_function")]
    outputs: dict[fx.Node, fx.Node] = {}
    copies: list[tuple[fx.Node, fx.Node]] = []  # values, and outputs that are copies of them
    for output, result in zip(part.outputs, part.results, strict=True):
        _check_output(output, result)
        if not has_rows(result):
            result = in_order(result)
        is_elsewhere = result.op == "placeholder" or is_view(result) or result in called.nodes
        if result in outputs or is_elsewhere or result.target is CONSTANT:
            copies.append((result, output))
        else:
            outputs[result] = output
    level = _levels(nodes, called)
    calls = calls_of(part, called, level)
    stored: dict[fx.Node, fx.Node | None] = {**outputs}
    for node in nodes:
        for source in _needs(node, level) if node not in called.nodes else ():
            if source.op == "call_function" and source not in called.nodes:
                stored.setdefault(source, None)
    stored.update(dict.fromkeys([*called.copies, *(node for call in calls.values() for node in call.outputs)]))
    stages = _stages([node for node in nodes if node not in called.nodes], level, stored)
    for stage, call in calls.items():
        stages[stage - 1].call = call
    if copies:
        stages.append(Stage(copies=copies))
    return Plan(part, stages, stored, [output for _, output in copies], [*called.reasons])


def base(node: fx.Node) -> fx.Node:
    """The value that a view, or a view of a view, is of; another node itself."""
    while node.target in VIEWS:
        node = node.all_input_nodes[0]
    return node


def columns(node: fx.Node, *front: int, through_views: bool = True) -> Columns | None:
    """The contiguous columns in which the last dimension of `node` lies in each row; None if it does not lie so.

    `front` are the places in the dimensions before that of the rows. The entries of a row that has several must fill the row in
    memory, one after the other.
    """
    *_, extent = extents(node)
    count, inner = node.meta["rows"].per_vertex, Var("k", extent)
    entries = [_columns(node, (*map(index_at, front), *entry), inner, through_views) for entry in _entries(count)]
    first = entries[0]
    if first is None or count == 1:
        return first
    is_contiguous = all(
        entry_columns == Columns(first.array, number * extent) for number, entry_columns in enumerate(entries)
    )
    is_alone = width(first.array) == count * extent and not isinstance(role_of(first.array), Gather)
    return first if is_contiguous and is_alone else None


def _entries(count: int) -> list[Coords]:
    return [(index_at(number),) for number in range(count)] if count > 1 else [()]


def _columns(node: fx.Node, entry: Coords, inner: Var, through_views: bool) -> Columns | None:
    last = index_of(inner) if inner.bound > 1 else ZERO
    coords = put_back(node, index_of(ROW), (*entry, last))
    while through_views and (view := through_view(node, coords)) is not None:
        node, coords = view
    if not has_rows(node):
        return None
    place = load(node, coords)
    first = place.column.constant
    return Columns(node, first) if place.row == index_of(ROW) and place.column == last + first else None


def holder(node: fx.Node) -> fx.Node:
    """The value in memory from which a product reads the rows of `node`: the one whose columns it is, else itself."""
    place = columns(node, *[0] * (node.meta["val"].dim() - 2))
    return place.array if place is not None else node


def is_outer(node: fx.Node) -> bool:
    """Whether a product sums over rows."""
    if node.target not in MATRICES or has_rows(node) or node.target is aten.addmm.default:
        return False
    a, b = factors(node)
    return has_rows(a) and has_rows(b) and a.meta["rows"].dim == a.meta["val"].dim() - 1


def is_product(node: fx.Node) -> bool:
    """Whether rows are multiplied by a parameter, or by one of its matrices for each entry in front of the rows."""
    if node.target not in MATRICES or not has_rows(node):
        return False
    a, b = factors(node)
    is_parameter = not has_rows(b) and base(b).op == "placeholder"
    return is_parameter and has_rows(a) and a.meta["rows"].dim == a.meta["val"].dim() - 2


def factors(node: fx.Node) -> tuple[fx.Node, fx.Node]:
    """The two matrices that a product multiplies."""
    return cast("tuple[fx.Node, fx.Node]", node.args[-2:])


def flipped(node: fx.Node) -> fx.Node:
    """The matrix of rows whose transpose an outer product reads."""
    order = list(range(node.meta["val"].dim()))
    order[-2:] = order[:-3:-1]
    if node.target is aten.permute.default and node.args[1] == order:
        return node.all_input_nodes[0]
    raise Unsupported(f"{node.name} has its rows in another place than products read them")


def is_sum_of_rows(node: fx.Node) -> bool:
    """Whether a reduction sums over rows, and perhaps over further dimensions."""
    source = node.all_input_nodes[0]
    if node.target is not aten.sum.dim_IntList or has_rows(node) or not has_rows(source):
        return False
    return source.meta["rows"].dim in cast("list[int]", node.args[1])


def is_inline(node: fx.Node) -> bool:
    """Whether a reduction is over the last dimensions of a row, so that it is computed in front of a loop over these."""
    if not is_reduction(node) or node.target in MATRICES or not has_rows(node):
        return False
    source, dim_argument = node.all_input_nodes[0], cast(Any, node.args[1])
    dims, layout = ([dim_argument] if isinstance(dim_argument, int) else dim_argument), node.meta["rows"]
    other_dims = [dim for dim, extent in enumerate(extents(source)) if dim not in dims and extent != 1]
    return not dims or all(dim < min(dims) for dim in other_dims if dim != layout.dim or layout.per_vertex > 1)


def _check(node: fx.Node, part: str) -> None:
    value = node.meta.get("val")
    if node.name in ("rows", "edges") or isinstance(value, (int, torch.SymInt)) or node.target is operator.mul:
        return
    is_counts = isinstance(role_of(node), Counts)
    readers = (segments.EXPAND, *SEGMENTS, "output")
    if is_counts and all(user.target in readers and user.args[0] is not node for user in node.users):
        return  # loops over edges know where these begin and end
    if is_counts:
        raise Unsupported(f"{node.name} is read as numbers")
    if node.meta.get("interleaved"):
        raise Unsupported(f"{node.name} does not have its vertices one beside the other")
    check_known(node, part)
    if node.target in MATRICES and any(map(is_empty, (node, *node.all_input_nodes))):
        raise Unsupported(f"{node.name} is a product without elements{line_of(node)}")
    if node.target in MATRICES and not (is_outer(node) or is_product(node)) and not _is_of_rows(node):
        raise Unsupported(f"{node.name} is no product with a parameter{line_of(node)}")
    if node.target in MATRICES and not value.dtype.is_floating_point:  # type: ignore[union-attr]
        raise Unsupported(f"{node.name} is a product of integers{line_of(node)}")
    is_without_rows = isinstance(value, Tensor) and not has_rows(node)
    if is_without_rows and is_reduction(node) and not (is_outer(node) or is_sum_of_rows(node)):
        if any(has_rows(source) for source in node.all_input_nodes):
            raise Unsupported(f"{node.name} sums over rows and more")
        raise Unsupported(f"{node.name} is made of parameters only{line_of(node)}")


def _check_product(node: fx.Node, dtype: torch.dtype | None) -> None:
    if node.target in MATRICES and dtype is not None and not _is_of_rows(node):
        dtypes = {factor.meta["val"].dtype for factor in (node, *node.all_input_nodes)}
        if dtypes not in ({dtype}, {torch.bfloat16}):
            names = ", ".join(sorted(str(found_dtype)[6:] for found_dtype in dtypes))
            raise Unsupported(f"{node.name} is a product of {names} beside {str(dtype)[6:]}")


def _is_of_rows(node: fx.Node) -> bool:
    """Whether two matrices of the same vertex are multiplied, for every vertex."""
    matrices = (*factors(node), node)
    return node.target is BMM and all(has_rows(matrix) and matrix.meta["rows"].dim == 0 for matrix in matrices)


def _check_output(output: fx.Node, result: fx.Node) -> None:
    if isinstance(result.meta.get("val"), Tensor):
        check_rows(output, result)


def _levels(nodes: list[fx.Node], called: Called) -> dict[fx.Node, int]:
    """The level of each value: how many products, segment sums and calls, each depending on the one before, it comes after."""
    level: dict[fx.Node, int] = {}
    slow: set[fx.Node] = set()  # values too expensive to be computed inside several loops
    for node in nodes:
        level_before = max((level.get(source, 0) for source in node.all_input_nodes), default=0)
        if node in called.nodes:
            level[node] = max([1, level_before, *(level[x] + 1 for x in node.all_input_nodes if x in called.copies)])
            continue
        crosses = is_between_loops(node)
        if node.target is segments.EXPAND:
            crosses = base(node.all_input_nodes[0]).op == "call_function"
        is_made_of_slow = any(source in slow for source in node.all_input_nodes)
        if is_reduction(node):
            crosses |= is_inline(node) and is_made_of_slow
        elif node.target in SLOW or is_made_of_slow:
            slow.add(node)
        level[node] = level_before + crosses
    return level


def is_between_loops(node: fx.Node) -> bool:
    """Whether an operation is no part of a loop over the elements of its result."""
    return node.target in SEGMENTS or (is_reduction(node) and not is_inline(node))


def _needs(node: fx.Node, level: dict[fx.Node, int]) -> list[fx.Node]:
    """The values that must lie in memory for `node` to be computed."""
    if node.op == "placeholder" or node.target in VIEWS:
        return []
    if is_outer(node):
        a, b = factors(node)
        return [node, holder(flipped(a)), holder(b)]
    if is_product(node):
        bias = [cast(fx.Node, node.args[0])] if node.target is aten.addmm.default else []
        return [node, holder(factors(node)[0]), *map(base, bias)]
    needs: list[fx.Node] = []
    if node.target is aten.cat.default or is_between_loops(node):
        needs.append(node)
    run_at = level[node] - is_between_loops(node)
    is_expand = node.target is segments.EXPAND
    needs += [
        source
        for source in map(base, node.all_input_nodes)
        if is_expand or (level.get(source, 0) < run_at and not _is_made_where_read(source))
    ]
    return [source for source in needs if isinstance(source.meta.get("val"), Tensor) and source.target is not CONSTANT]


def _is_made_where_read(node: fx.Node) -> bool:
    """Whether a value takes no longer to be computed than to be read: from values that lie in memory as long as the part runs."""
    read = [base(source) for source in node.all_input_nodes]
    return node.target in CHEAP and all(source.op == "placeholder" or source.target is CONSTANT for source in read)


def _stages(nodes: list[fx.Node], level: dict[fx.Node, int], stored: dict[fx.Node, fx.Node | None]) -> list[Stage]:
    stages = [Stage() for _ in range(max(level.values(), default=0) + 1)]
    for node in nodes:
        stage_before = stages[level[node] - 1]
        if is_outer(node):
            stage_before.outers.append(node)
        elif is_product(node):
            stage_before.products.append(node)
        elif node.target in SEGMENTS:
            stage_before.segments.append(node)
        elif is_between_loops(node):
            (stage_before.reductions if has_rows(node) else stage_before.sums).append(node)
        elif node in stored:
            stages[level[node]].stores.append(node)
    return stages


def work_of(plan: Plan) -> int:
    """The work of a row in elements, to judge whether threads pay: elements stored, and a sixteenth of those multiplied."""
    stages = plan.stages
    stored = sum(width(placement.value) for stage in stages for store in stage.stores for placement in stored_as(store))
    stored += sum(width(value) for stage in stages for value, _ in stage.copies)
    products = sum(factors(node)[1].meta["val"].numel() for stage in stages for node in stage.products)
    products += sum(node.meta["val"].numel() for stage in stages for node in stage.outers)
    return stored + int(products) // 16


@dataclass(frozen=True)
class Placement:
    """Where a value is written: to `target`, beginning at place `start` of dimension `dim`."""

    value: fx.Node
    target: fx.Node
    dim: int = 0
    start: int = 0


def stored_as(node: fx.Node) -> list[Placement]:
    """What is written to store a value: of a concatenation, each operand for itself."""
    if not is_join(node):
        return [Placement(node, node)]
    start, dim, placements = 0, cast(int, node.args[1]), []
    for operand in operands(node):
        if operand.target is not aten.empty.memory_format:  # nobody reads it
            placements.append(Placement(operand, node, dim, start))
        start += extents(operand)[dim]
    return placements


def is_join(node: fx.Node) -> bool:
    """Whether a node joins values with rows side by side, in another dimension than that of the rows."""
    if node.target is not aten.cat.default or not has_rows(node):
        return False
    return all(has_rows(operand) and node.args[1] != operand.meta["rows"].dim for operand in operands(node))


def in_order(node: fx.Node) -> fx.Node:
    """The value of which a node is a copy or reshape with the same order of elements in memory; else the node itself."""
    while node.target in (aten.clone.default, aten.reshape.default, aten.squeeze.dims, aten.unsqueeze.default):
        source = node.all_input_nodes[0]
        is_plain = all(value.meta["rows"] == RowLayout(0, 1, on_edges(node)) for value in (node, source))
        if has_rows(node) and not is_plain:
            break
        node = source
    return node
