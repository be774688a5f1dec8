"""The Triton code of one kernel: a program computes BLOCK_M rows by BLOCK_N columns of every value that it stores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import fx

from ...graph import segments
from ..arguments import GroupArgument, RunArgument
from ..lower.elements import Elements
from ..lower.index import ZERO, Atom, Index, Owner, Var, index_at, index_of, substituted, unravel
from ..lower.scalar import (
    HALVES,
    JOINED,
    Apply,
    Cast,
    Choose,
    Constant,
    Draw,
    Expression,
    Load,
    Position,
    Reduce,
    constant,
    in_dtype,
    neutral,
    wide,
)
from ..lower.verify import verify_value
from ..lower.views import Coords, put_back, vertex_shape
from ..operations import SEGMENTS
from . import memory
from .lines import Block, Lines, Scope
from .places import ReceivedGradient, Rows, ValuePlace
from .plan import FEW, ColumnStore, Kernel, Plan, is_fused, source_of, space_of
from .products import accumulator, write_products
from .spellings import EXACT, REDUCTIONS, converted, number, place, register, rounded, spell, takes_bare_numbers
from .tiles import Tile, power_of_two

CHUNK = 256  # elements of a row that are summed in one turn of a loop


class Places(Protocol):
    """Where values in memory lie."""

    def place(self, node: fx.Node) -> ValuePlace:
        """The place of a value, or of an output of the part."""

    def buffered_place(self, node: fx.Node) -> Rows:
        """The place of a received gradient after it was stored."""

    def pointer(self, argument: RunArgument, name: str) -> str:
        """The name of an argument."""

    def seed(self) -> str:
        """The name of the seed of random numbers."""


class KernelWriter(Lines):
    """Writes the body of a kernel: each expression as a line in the outermost scope that has all of its variables."""

    def __init__(self, plan: Plan, kernel: Kernel, tile: Tile, places: Places) -> None:
        super().__init__()
        self.plan, self.kernel, self.tile, self.places = plan, kernel, tile, places
        self.m, self.j = Var("m"), Var("j", tile.columns)
        self.blocks["m"] = Block(0, "in_rows", "BLOCK_M")
        self.blocks["j"] = Block(0, "in_columns" if tile.columns % tile.sizes[0][1] else "", columns="BLOCK_N")
        self.accumulators: dict[tuple[fx.Node, int], str] = {}
        self.owners: dict[str, Var] = {}  # by the variable of an edge, that of the row that it belongs to
        self.bound: dict[Var, Index] = {}  # the places of a reduction's variables while it is written
        self.names: dict[Any, frozenset[str]] = {}  # by expression: the variables that it depends on
        self.widest = 1  # the most elements of a row that are in registers at once, beside the tile
        nodes = [*plan.part.graph.nodes, *plan.ready]
        self.elements = Elements({node for node in nodes if self.in_memory(node) or _has_own_lines(node)})

    def write(self, products: Callable[[KernelWriter], None] = write_products) -> list[str]:
        """The lines of the body: of the tile that is number `tile_row` down and `tile_column` across. `products` writes those of
        the products, whose accumulators are known by then."""
        body = Scope()
        self.scopes.append(body)
        for store in self.kernel.stores:
            self._store(store)
        self.scopes.pop()
        products(self)
        head = [
            "m = tile_row.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]",
            "in_rows = m < rows",
            "j = tile_column * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]",
        ]
        if self.blocks["j"].mask:
            head.append(f"in_columns = j < {self.tile.columns}")
        return [*head, *self.scopes[0].lines, *body.lines]

    def in_memory(self, node: fx.Node) -> bool:
        """Whether a value is in memory before the kernel begins."""
        if node in self.plan.ready and self.plan.ready[node] <= self.kernel.level:
            return True
        return node.op == "placeholder" and node.name not in ("rows", "edges") and not self._is_received(node)

    def _is_received(self, node: fx.Node) -> bool:
        return isinstance(self.places.place(node), ReceivedGradient)

    def place_in_memory(self, node: fx.Node) -> Any:
        """Where a value in memory lies."""
        place_of_value = self.places.place(node)
        return self.places.buffered_place(node) if isinstance(place_of_value, ReceivedGradient) else place_of_value

    def _store(self, store: ColumnStore) -> None:
        shape, row = list(space_of(store.value)[1]), index_of(self.m)
        is_single = math.prod(shape) == 1
        is_once = is_single and self.tile.columns > 1  # in one program of those that share the rows
        column = ZERO if is_single else index_of(self.j)
        element = self.element(store.value, put_back(store.value, row, unravel(column + store.first, shape)))
        value = self.text(in_dtype(element, store.target.meta["val"].dtype))
        mask = self.mask(row, column) + (" & (tile_column == 0)" if is_once else "")
        self.line(memory.write(self, self.place_in_memory(store.target), self.m, column + store.offset, value, mask))

    # Expressions

    def element(self, node: fx.Node, coords: Coords) -> Expression:
        """An element of a value as an expression, verified to read nothing out of bounds."""
        expression = self.elements.element(node, coords)
        verify_value(expression, {variable for place in coords for variable in place.variables()})
        return expression

    def text(self, expression: Expression) -> str:
        """The variable of an expression; it is written, with all that it needs, if it was not yet."""
        key = self._key(expression)
        name = self.find(key)
        if name is None:
            with self._outermost(self.names_of(expression)) as depth:
                name = self._named(expression, depth)
                self.scopes[depth].known[key] = name
        return name

    def place_of(self, index: Index) -> Index:
        """A place in terms of the variables of the kernel."""

        def replacement(atom: Atom) -> Index | None:
            if isinstance(atom, Owner):
                return index_of(self._owner(memory.row_of(self.place_of(atom.edge))))
            return self.bound.get(atom) if isinstance(atom, Var) else None

        return substituted(index, replacement)

    def names_of(self, expression: Expression) -> frozenset[str]:
        """The variables of the kernel that an expression depends on."""
        key = self._key(expression)
        if key not in self.names:
            own_variables = {v.name for v in expression.over} if isinstance(expression, Reduce) else set()
            places = self.names_in(map(self.place_of, expression.places))
            self.names[key] = frozenset(places).union(*map(self.names_of, expression.subexpressions)) - own_variables
        return self.names[key]

    def _key(self, expression: Expression) -> Any:
        return expression, *(self.bound.get(variable) for variable in expression.variables)

    @contextmanager
    def _outermost(self, names: frozenset[str]) -> Iterator[int]:
        """Write into the outermost scope that has these variables; scope 0 comes before the products, for what these need."""
        depth = max((self.blocks[name].depth for name in names), default=0)
        depth = max(depth, min(1, len(self.scopes) - 1))
        inner, self.scopes = self.scopes[depth + 1 :], self.scopes[: depth + 1]
        yield depth
        self.scopes += inner

    def _named(self, expression: Expression, depth: int) -> str:
        dtype = expression.dtype
        match expression:
            case Constant():
                if _is_negative_zero(expression):  # whose sign a literal loses
                    return self.let("number", f"tl.full((1, 1), 0.0, {register(dtype)}) * -1.0", 0)
                return self.let("number", f"tl.full((1, 1), {number(expression.value, dtype)}, {register(dtype)})", 0)
            case Load():
                return self._loaded(expression)
            case Draw():
                return self.let("draw", self._drawn(expression))
            case Position():
                where = self.place_of(expression.at)
                if self.shape(self.names_in([where])) == ("1", "1"):
                    return self.let("place", f"tl.full((1, 1), {place(where)}, {register(dtype)})")
                return self.let("place", f"({place(where)}).to({register(dtype)})")
            case Cast():
                operand = self.text(expression.operand)
                is_exact = dtype in HALVES and _is_exact(expression.operand, dtype)
                text = operand if is_exact else converted(operand, expression.operand.dtype, dtype)
                return self.let(f"as_{str(dtype)[6:]}", text)
            case Choose():
                return self.let("chosen", self._choice(expression))
            case Reduce():
                return self._total(expression)
            case Apply():
                return self.let(expression.operation, self._applied(expression))
        raise TypeError(expression)

    def _applied(self, apply: Apply) -> str:
        operands, dtype = apply.operands, apply.operands[-1].dtype
        numbers = [isinstance(x, Constant) and not _is_negative_zero(x) for x in operands]
        is_plain = takes_bare_numbers(apply.operation, dtype) and not all(numbers)
        texts = [
            number(x.value, x.dtype) if is_plain and isinstance(x, Constant) and bare else self.text(x)
            for x, bare in zip(operands, numbers, strict=True)
        ]
        return spell(apply.operation, dtype, texts)

    def _drawn(self, draw: Draw) -> str:
        row = f"{'edge_start' if draw.per_edge else 'absolute'} + {memory.row_of(self.place_of(draw.row))}"
        column = self.text(Position(draw.column, torch.int64))
        return f"uniform({self.places.seed()}, {draw.stream}, {row}, {column}, {register(draw.dtype)})"

    def _choice(self, choice: Choose) -> str:
        index, zero = self.place_of(choice.at), constant(0, choice.dtype)
        branches = [branch for branch in choice.branches if index.most >= branch.start and index.least < branch.stop]
        stops_and_values: list[tuple[int, Expression]] = []  # below which place it is which value
        reached = index.least
        for branch in branches:
            stops_and_values += [(branch.start, zero)] if branch.start > reached else []
            stops_and_values.append((branch.stop, branch.value))
            reached = branch.stop
        stops_and_values += [(index.most + 1, zero)] if index.most >= reached else []
        *earlier, (_, last) = stops_and_values
        text = self.text(last)
        for stop, value in reversed(earlier):
            text = f"tl.where({place(index)} < {stop}, {self.text(value)}, {text})"
        return text

    def _loaded(self, load: Load) -> str:
        """The elements of a value in memory, or of one that is computed by lines of its own."""
        node, column = load.array, self.place_of(load.column)
        if self.in_memory(node):
            raw = self.raw(load)
            return self.let(node.name, f"{raw}.to(tl.float32)") if wide(load.dtype) != load.dtype else raw
        assert load.row is not None
        row = self.place_of(load.row)
        if node.op == "placeholder":
            received = self.places.place(node)
            assert isinstance(received, ReceivedGradient)
            text = memory.receive(self, received, row, column, register(load.dtype))
            return self.let(node.name, rounded(text, load.dtype))
        if is_fused(node):
            return self.let(node.name, rounded(accumulator(self, node, row, column), load.dtype))
        return self._segment(node, row, column)

    def raw(self, load: Load) -> str:
        """The elements of a value as they lie in memory."""
        row = None if load.row is None else self.place_of(load.row)
        text = memory.read(self, self.place_in_memory(load.array), row, self.place_of(load.column))
        return self.let(load.array.name, text)

    # Sums

    @contextmanager
    def _binding(self, variables: Sequence[Var], places: Sequence[Index]) -> Iterator[None]:
        self.bound.update(zip(variables, places, strict=True))
        yield
        for variable in variables:
            del self.bound[variable]

    def _total(self, reduce: Reduce) -> str:
        """A reduction over elements of a row: unrolled if they are few, else in a loop."""
        sizes = [variable.bound for variable in reduce.over]
        count, dtype = math.prod(sizes), torch.int32 if reduce.dtype == torch.bool else reduce.dtype
        operation, value = reduce.operation, in_dtype(reduce.value, dtype)
        neutral_element = neutral(operation, dtype)

        def combined(total: str, addend: str) -> str:
            return spell(JOINED[operation], dtype, [total, addend])

        def at_place(flat: Index) -> str:
            with self._binding(reduce.over, unravel(flat, sizes)):
                return self.text(value)

        rows, columns = self.shape(self.names_of(reduce))
        if count <= FEW:
            texts = [at_place(index_at(number)) for number in range(count)] or [self.text(neutral_element)]
            for text in texts[1:]:
                texts[0] = combined(texts[0], text)
            name = self.let(operation, texts[0])
        elif columns == "1" and count <= CHUNK:
            name = self.let(operation, self._row_total(at_place, ZERO, count, count, reduce))
        else:
            name = self.fresh(operation)
            self.line(
                f"{name} = tl.full(({rows}, {columns}), {number(neutral_element.value, dtype)}, {register(dtype)})"
            )
            r = Var(self.fresh("r"), count)
            with self.nested(f"for {r} in range(0, {count}{f', {CHUNK}' if columns == '1' else ''}):"):
                self.blocks[r.name] = Block(len(self.scopes) - 1, "")
                addend = (
                    self._row_total(at_place, index_of(r), CHUNK, count, reduce)
                    if columns == "1"
                    else at_place(index_of(r))
                )
                self.line(f"{name} = {combined(name, addend)}")
        return self.let(operation, f"{name} != 0") if reduce.dtype == torch.bool else name

    def _row_total(self, value: Callable[[Index], str], start: Index, size: int, count: int, reduce: Reduce) -> str:
        """The reduction of `value` over `size` of its `count` places, beginning at `start`."""
        key, power = ("range", start, size, count), power_of_two(size)
        name = self.find(key)
        if name is None:
            depth = -1 if start.terms else 0
            numbers = f"{f'{place(start)} + ' if start.terms else ''}tl.arange(0, {power})[None, :]"
            name = self.block("r", numbers, count, ("1", str(power)), masked=True, depth=depth).name
            self.scopes[depth].known[key] = name
        self.widest = max(self.widest, power)
        text, dtype = value(index_of(Var(name, count))), reduce.dtype
        neutral_element = neutral(reduce.operation, torch.int32 if dtype == torch.bool else dtype)
        text = f"tl.where({self.blocks[name].mask}, {text}, {self.text(neutral_element)})"
        return REDUCTIONS[reduce.operation].format(text)

    def _segment(self, node: fx.Node, row: Index, column: Index) -> str:
        """A sum, or maximum, over the edges of each row; zeros where there are none."""
        is_sum, source, dtype = node.target is segments.SEGMENT_SUM, source_of(node), node.meta["val"].dtype
        operation, kind = "sum" if is_sum else "max", torch.int32 if dtype == torch.bool else wide(dtype)
        first, count = self._edges_of(memory.row_of(row))
        rows, columns = self.shape(self.names_in((row, column)))
        name, number_of_edge = self.fresh(node.name), self.fresh("number")
        nothing = number(neutral(operation, kind).value, kind)
        self.line(f"{name} = tl.full(({rows}, {columns}), {nothing}, {register(kind)})")
        self.line(f"{number_of_edge} = 0")
        with self.nested(f"while {number_of_edge} < {count}_most:"):
            inside, edge = self.fresh("in_edge"), Var(self.fresh("edge"))
            self.line(f"{inside} = {number_of_edge} < {count}")
            self.line(f"{edge} = {first} + {number_of_edge}")
            self.blocks[edge.name] = Block(len(self.scopes) - 1, inside, rows)
            self.owners[edge.name] = memory.row_of(row)
            inner = unravel(column, vertex_shape(source))
            value = self.text(in_dtype(self.element(source, put_back(source, index_of(edge), inner)), kind))
            self.line(f"{name} = tl.where({inside}, {spell(JOINED[operation], kind, [name, value])}, {name})")
            self.line(f"{number_of_edge} += 1")
        if not is_sum:
            self.line(f"{name} = tl.where({count} > 0, {name}, {number(0, kind)})")
        return (
            self.let(node.name, converted(name, kind, dtype))
            if kind != dtype and (is_sum or kind == torch.int32)
            else name
        )

    def _edges_of(self, row: Var) -> tuple[str, str]:
        """Variables with the first edge of each row, counted from the step's first edge, and with how many edges it has."""
        key, depth = ("edges", row), self.blocks[row.name].depth
        name = self.find(key)
        if name is None:
            pointer, in_rows = self.places.pointer(GroupArgument.EDGE_OFFSET, "edge_offset"), self.blocks[row.name].mask
            name = self.fresh("first_edge")
            self.line(f"{name} = tl.load({pointer} + inner + {row}, mask={in_rows}, other=0)", depth)
            count = f"tl.load({pointer} + inner + {row} + 1, mask={in_rows}, other=0) - {name}"
            self.line(f"{name}_count = {count}", depth)
            self.line(f"{name}_count_most = tl.max({name}_count)", depth)
            self.line(f"{name} = ({name} - tl.load({pointer} + inner)).to(tl.int64)", depth)
            self.scopes[depth].known[key] = name
        return name, f"{name}_count"

    def _owner(self, edge: Var) -> Var:
        """The variable with the rows that edges belong to."""
        if edge.name in self.owners:
            return self.owners[edge.name]
        depth, in_edges = self.blocks[edge.name].depth, self.blocks[edge.name].mask
        owner = Var(self.fresh("owner"))
        pointer = self.places.pointer(GroupArgument.EDGE_OWNER, "owner")
        load = f"tl.load({pointer} + edge_start + {edge}, mask={in_edges}, other=0)"
        self.line(f"{owner} = ({load} - start).to(tl.int64)", depth)
        self.blocks[owner.name] = Block(depth, in_edges, self.blocks[edge.name].rows)
        self.owners[edge.name] = owner
        return owner


def _is_negative_zero(number: Constant) -> bool:
    return number.value == 0 and math.copysign(1, number.value) < 0


def _has_own_lines(node: fx.Node) -> bool:
    """Whether a value is loaded or computed by lines of its own, not as an expression."""
    return node.op == "placeholder" or node.target in SEGMENTS or is_fused(node)


def _is_exact(expression: Expression, dtype: torch.dtype) -> bool:
    """Whether values in float32 are exact in a narrower dtype: cast from it, or chosen or negated among such values."""
    if expression.dtype != torch.float32:
        return False
    if isinstance(expression, Cast):
        return expression.operand.dtype == dtype
    if isinstance(expression, Constant):
        return constant(expression.value, dtype).value == expression.value
    if isinstance(expression, Choose):
        return all(_is_exact(branch.value, dtype) for branch in expression.branches)
    operands = expression.operands if isinstance(expression, Apply) and expression.operation in EXACT else ()
    return bool(operands) and all(_is_exact(x, dtype) for x in operands if x.dtype == expression.dtype)
