"""The C++ of one part over the rows of one step: its stages, as loops over elements and calls of products."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import fx

from ...graph import segments
from ...graph.nodes import on_edges, operands
from ..operations import CONSTANT, PADS, PRODUCTS, Unsupported, has_rows, integer, integers, trailing
from .expressions import CONDITIONS, EXPRESSIONS, literal
from .plan import Outer, Plan, Product, Stage, Store, columns
from .views import broadcast, linear, moved

aten = torch.ops.aten


BARRIER = "#pragma omp barrier"
SPLIT = "#pragma omp for schedule(static) nowait"


def write_stages(
    plan: Plan, names: dict[fx.Node, str], weights: dict[tuple[fx.Node, bool], str], last: str
) -> list[str]:
    """The lines that compute one step, for every thread of a team, up to a barrier.

    `names` are the C++ names of the values that lie in memory: the element in column j of row i of the value `x` is
    `x[i * x_ld + j]`; parameters have no `_ld`. `weights` are the names of what products read, and whether transposed.
    `last` is what the lines before are split by over threads (as `_Writer.split`).
    """
    writer = _Writer(plan, names, weights, last)
    lines = [line for stage in plan.stages for line in writer.stage(stage)]
    return lines if lines[-1:] == [BARRIER] else [*lines, BARRIER]


def _is_bool(node: fx.Node) -> bool:
    return bool(node.meta["val"].dtype == torch.bool)


def split_of(node: fx.Node) -> str:
    """What threads share out where a value is computed."""
    return "edges" if on_edges(node) else "rows" if has_rows(node) else "elements"


def work_of(plan: Plan) -> int:
    """How many elements a row is worth, to judge whether threads pay: those that are stored, and some for each product."""
    stages = plan.stages
    stored = sum(math.prod(trailing(store.value)) for stage in stages for store in stage.stores)
    products = sum(math.prod(product.b.meta["val"].shape) for stage in stages for product in stage.products)
    products += sum(math.prod(outer.out.meta["val"].shape) for stage in stages for outer in stage.outers)
    return stored + int(products) // 16


class _Writer:
    def __init__(
        self, plan: Plan, names: dict[fx.Node, str], weights: dict[tuple[fx.Node, bool], str], last: str
    ) -> None:
        self.plan, self.names, self.weights = plan, names, weights
        self.split = last  # of the lines before: what threads share out: "elements", "rows", "edges" or "columns"; or
        # "gathered": rows that nobody waits for if they are read where they were
        self.there = {node for node in plan.part.graph.nodes if node.op == "placeholder"}  # in memory by now
        self.lines: list[str] = []
        self.known: dict[tuple[fx.Node, tuple[str, ...]], str] = {}  # variables of the loop that is being written

    def stage(self, stage: Stage) -> list[str]:
        lines: list[str] = []
        for split in ("elements", "edges", "rows"):
            stores = [store for store in stage.stores if split_of(store.value) == split]
            if stores:
                lines += [*self._share(split), *self._loops(stores, split)]
        self.there.update(store.target for store in stage.stores)
        for product in stage.products:
            lines += [*self._share("columns"), self._product(product)]
        for outer in stage.outers:
            lines += [*self._share("columns"), self._outer(outer)]
        for node in stage.sums:
            lines += [*self._share("columns"), *self._sum(node)]
        self.there.update(product.out for product in stage.products)
        self.there.update(outer.out for outer in stage.outers)
        for node in stage.segments:
            lines += [*self._share("rows"), *self._segment(node)]
        for node in stage.reductions:
            lines += [*self._share(split_of(node)), *self._reduction(node)]
        self.there.update([*stage.segments, *stage.reductions, *stage.sums])
        if self.split == "columns":  # the next stage may begin with a product, too
            lines += self._share("")
        return lines

    def _share(self, split: str) -> list[str]:
        """A barrier, unless each thread goes on with what it has computed itself."""
        last, self.split = self.split, split
        if not last or last == split or (last, split) == ("gathered", "rows"):
            return []
        return [f"if (reads_from < 0) {{", BARRIER, "}"] if last == "gathered" else [BARRIER]  # noqa: F541

    def _loops(self, stores: list[Store], count: str) -> list[str]:
        """One pass over rows or edges; in it, a loop over elements for all values of one shape."""
        if count == "elements":
            loops = [self._over(trailing(store.value), [store]) for store in stores]
            return [line for lines in loops for line in ("#pragma omp single nowait", "{", *lines, "}")]
        inner: list[str] = []
        for shape in dict.fromkeys(tuple(trailing(store.value)) for store in stores):
            inner += self._over(shape, [store for store in stores if tuple(trailing(store.value)) == shape])
        return [
            SPLIT,
            f"for (Long i = 0; i < {count}; ++i) {{",
            *(f"    {line}" for line in inner),
            "}",
        ]

    def _over(self, shape: Sequence[int], stores: list[Store]) -> list[str]:
        """Loops over the elements of a row, the last of which is vectorised."""
        self.known, self.lines = {}, []
        first = ("i",) if has_rows(stores[0].value) else ()
        coords = (*first, *(f"j{dim}" for dim in range(len(shape))))
        written = [self._store(store, coords) for store in stores]
        lines = [*self.lines, *written]
        for dim in reversed(range(len(shape))):
            lines = [f"for (Long j{dim} = 0; j{dim} < {shape[dim]}; ++j{dim}) {{", *(f"    {x}" for x in lines), "}"]
            if dim == len(shape) - 1:
                lines.insert(0, "#pragma omp simd")
        return lines

    def _store(self, store: Store, coords: tuple[str, ...]) -> str:
        value = self._load(store.value, coords)
        name = self.names[store.target]
        if not has_rows(store.value):
            return f"{name}[{linear(coords, trailing(store.value))}] = {value};"
        column = linear(coords[1:], trailing(store.value))
        return f"{name}[i * {name}_ld + {column}{f' + {store.offset}' if store.offset else ''}] = {value};"

    def _product(self, product: Product) -> str:
        left, start = self._rows_of(product.a)
        out, count = self.names[product.out], "edges" if on_edges(product.out) else "rows"
        bias = "nullptr" if product.bias is None else self.names[product.bias]
        weight = self.weights[product.b, product.transposed]
        return f"product({count}, {left}{start}, {left}_ld, {weight}, {bias}, {out}, {out}_ld);"

    def _outer(self, outer: Outer) -> str:
        (a, start), (b, offset) = self._rows_of(outer.a), self._rows_of(outer.b)
        count, out = "edges" if on_edges(outer.a) else "rows", self.names[outer.out]
        n, k = trailing(outer.out)
        return f"outer({count}, {a}{start}, {a}_ld, {n}, {b}{offset}, {b}_ld, {k}, {out});"

    def _rows_of(self, node: fx.Node) -> tuple[str, str]:
        """The name of the value in memory that `node` is columns of, and the first of these."""
        found = columns(node)
        value, start = found if found is not None and found[0] in self.there else (node, 0)
        if value not in self.there:
            raise Unsupported(f"a product reads {node.name}, which does not lie row by row")
        return self.names[value], f" + {start}" if start else ""

    def _sum(self, node: fx.Node) -> list[str]:
        """A sum over rows, some neighbouring columns at a time."""
        source, out = node.all_input_nodes[0], self.names[node]
        (n,) = trailing(source)
        self.known, self.lines = {}, []
        value = self._load(source, ("i", "j"))
        return [
            SPLIT,
            f"for (Long first = 0; first < {n}; first += 64) {{",
            f"    const Long last = std::min<Long>(first + 64, {n});",
            "    T sum[64] = {};",
            f"    for (Long i = 0; i < {split_of(source)}; ++i) {{",
            "        #pragma omp simd",
            "        for (Long j = first; j < last; ++j) {",
            *(f"            {line}" for line in self.lines),
            f"            sum[j - first] += {value};",
            "        }",
            "    }",
            f"    std::copy(sum, sum + last - first, {out} + first);",
            "}",
        ]

    def _segment(self, node: fx.Node) -> list[str]:
        """A sum, or maximum, over the edges of each row; zeros where there are none."""
        source = node.all_input_nodes[0]
        out, shape = self.names[node], trailing(node)
        self.known, self.lines = {}, []
        coords = ("e", *(f"j{dim}" for dim in range(len(shape))))
        value = self._load(source, coords)
        place = f"{out}[i * {out}_ld + {linear(coords[1:], shape)}]"
        add = (
            f"{place} + {value}"
            if node.target is segments.SEGMENT_SUM
            else f"e == from ? {value} : larger({place}, {value})"
        )
        lines = [*self.lines, f"{place} = {add};"]
        for dim in reversed(range(len(shape))):
            lines = [f"for (Long j{dim} = 0; j{dim} < {shape[dim]}; ++j{dim}) {{", *(f"    {x}" for x in lines), "}"]
            if dim == len(shape) - 1:
                lines.insert(0, "#pragma omp simd")
        return [
            SPLIT,
            "for (Long i = 0; i < rows; ++i) {",
            "    const Long from = i < without ? 0 : first_edge[i] - first_edge[without];",
            "    const Long to = i < without ? 0 : first_edge[i + 1] - first_edge[without];",
            f"    std::fill({out} + i * {out}_ld, {out} + i * {out}_ld + {math.prod(shape)}, T(0));",
            "    for (Long e = from; e < to; ++e) {",
            *(f"        {line}" for line in lines),
            "    }",
            "}",
        ]

    def _reduction(self, node: fx.Node) -> list[str]:
        """A sum, or mean, over some elements of each row."""
        source, dims = node.all_input_nodes[0], integers(node, 1)
        extents = [1, *trailing(source)]
        coords = ["i", *(f"j{dim}" for dim in range(1, len(extents)))]
        count = "edges" if on_edges(node) else "rows"
        kept = [dim for dim in range(1, len(extents)) if dim not in dims]
        place = linear([coords[dim] for dim in kept], [extents[dim] for dim in kept])
        assert node.args[2] or len(kept) == len(trailing(node))
        self.known, self.lines = {}, []
        value = self._load(source, tuple(coords))
        lines = [*self.lines, f"sum += {value};"]
        for dim in reversed(dims):
            lines = [f"for (Long j{dim} = 0; j{dim} < {extents[dim]}; ++j{dim}) {{", *(f"    {x}" for x in lines), "}"]
        total = "sum" if node.target is aten.sum.dim_IntList else f"sum / {math.prod(extents[dim] for dim in dims)}"
        out = self.names[node]
        lines = ["T sum = 0;", *lines, f"{out}[i * {out}_ld + {place}] = {total};"]
        for dim in reversed(kept):
            lines = [f"for (Long j{dim} = 0; j{dim} < {extents[dim]}; ++j{dim}) {{", *(f"    {x}" for x in lines), "}"]
        return [
            SPLIT,
            f"for (Long i = 0; i < {count}; ++i) {{",
            *(f"    {line}" for line in lines),
            "}",
        ]

    def _load(self, node: fx.Node, coords: tuple[str, ...]) -> str:
        """An expression for one element; what it needs is computed in lines before it."""
        key = (node, coords)
        if key in self.known:
            return self.known[key]
        if node in self.there:
            return self._element(node, coords)
        if node.target is CONSTANT:
            return literal(bool(node.args[1]) if _is_bool(node) else node.args[1])
        place = moved(node, coords)
        if place is not None:
            return self._load(*place)
        if node.target is aten.cat.default:
            return self._choice(node, coords)
        if node.target in PADS:
            return self._padded(node, coords)
        expression = self._expression(node, coords)
        name = f"t{len(self.known)}"
        sort = "bool" if _is_bool(node) else "T"
        self.lines.append(f"const {sort} {name} = {expression};")
        self.known[key] = name
        return name

    def _element(self, node: fx.Node, coords: tuple[str, ...]) -> str:
        name = self.names[node]
        at = f"{coords[0]} * {name}_ld + {linear(coords[1:], trailing(node))}" if has_rows(node) else None
        element = f"{name}[{at or linear(coords, trailing(node))}]"
        return f"({element} != 0)" if _is_bool(node) else element  # it may lie among numbers

    def _expression(self, node: fx.Node, coords: tuple[str, ...]) -> str:
        write = EXPRESSIONS.get(node.target)
        if write is None or node.target in PRODUCTS:
            raise Unsupported(f"{node.name} is made by {node.target}")
        shape = node.meta["val"].shape

        def operand(argument: object, is_condition: bool = False) -> str:
            if isinstance(argument, fx.Node):
                text = self._load(argument, broadcast(argument, coords, len(shape)))
                is_number = _is_bool(argument) and not _is_bool(node) and not is_condition
                return f"T({text})" if is_number else text
            if argument is None:
                return ""
            if not isinstance(argument, (int, float)):
                raise Unsupported(f"{node.name} has an operand {argument!r}")
            return literal(argument)

        given = {} if node.target is aten._to_copy.default else node.kwargs
        extra = {name: operand(value) for name, value in given.items() if not (name == "alpha" and value == 1)}
        condition = CONDITIONS.get(node.target)
        return write(*(operand(argument, at == condition) for at, argument in enumerate(node.args)), **extra)

    def _choice(self, node: fx.Node, coords: tuple[str, ...]) -> str:
        """An element of a concatenation that is not in memory."""
        start, text = 0, ""
        *most, last = operands(node)
        for operand in most:
            stop = start + trailing(operand)[0]
            value = self._load(operand, (coords[0], f"std::min<Long>({coords[1]} - {start}, {stop - start - 1})"))
            text += f"{coords[1]} < {stop} ? {value} : "
            start = stop
        value = self._load(last, (coords[0], f"std::max<Long>({coords[1]} - {start}, 0)"))
        return f"({text}{value})"

    def _padded(self, node: fx.Node, coords: tuple[str, ...]) -> str:
        """An element of a value that is zero but for a slice."""
        dim, start = integer(node, 2), integer(node, 3)
        at = coords[dim]
        if node.target is aten.select_backward.default:
            value = self._load(node.all_input_nodes[0], (*coords[:dim], *coords[dim + 1 :]))
            return f"({at} == {start} ? {value} : T(0))"
        stop = integer(node, 4)
        inside = f"std::min<Long>(std::max<Long>({at} - {start}, 0), {max(stop - start - 1, 0)})"
        value = self._load(node.all_input_nodes[0], (*coords[:dim], inside, *coords[dim + 1 :]))
        return f"({at} >= {start} && {at} < {stop} ? {value} : T(0))"
