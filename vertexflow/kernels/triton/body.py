"""The Triton code of one kernel: a program computes BLOCK_M rows by BLOCK_N columns of all values that it stores."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, fx

from ...graph import segments
from ...graph.nodes import operands
from ..arguments import Given, OfGroup
from ..lower.index import ZERO, Index, Var, of, unravel
from ..lower.views import Coords, broadcast, moved, put_back
from ..operations import CONSTANT, PADS, PRODUCTS, SEGMENTS, Unsupported, integer, trailing
from . import memory
from .dtypes import EXACT, HALF, compared_in, converted, dtype_of, in_registers, is_bool, rounded
from .expressions import COMPARISONS, CONDITIONS, EXPRESSIONS, LOGICAL, literal
from .lines import Block, Lines, Scope
from .places import Place, Received, Rows
from .plan import FEW, Kernel, Plan, Store, factors, is_fused, maker, source_of, space_of
from .products import accumulator, write_products
from .reductions import REDUCTIONS, product
from .tiles import Tile, power_of_two

aten = torch.ops.aten

CHUNK = 256  # elements of a row that are summed at once


class Places(Protocol):
    """Where values lie that are in memory."""

    def place(self, node: fx.Node) -> Place:
        """The place of a value, or of an output of the part."""

    def kept(self, node: fx.Node) -> Rows:
        """The place of a value that is received, once it is stored."""

    def pointer(self, argument: Given, name: str) -> str:
        """The name of an argument."""


class KernelWriter(Lines):
    """Writes the body of a kernel."""

    def __init__(self, made: Plan, kernel: Kernel, tile: Tile, places: Places) -> None:
        super().__init__()
        self.made, self.kernel, self.tile, self.places = made, kernel, tile, places
        self.m, self.j = Var("m"), Var("j", tile.columns)
        self.blocks["m"] = Block(0, "in_rows", "BLOCK_M")
        self.blocks["j"] = Block(0, "in_columns" if tile.columns % tile.sizes[0][1] else "", columns="BLOCK_N")
        self.accumulators: dict[tuple[fx.Node, int], str] = {}
        self.raw = False  # whether half precision is read as it is
        self.owners: dict[str, Var] = {}  # the row that an edge belongs to
        dtypes = {dtype_of(node) for node in made.part.graph.nodes if isinstance(node.meta.get("val"), Tensor)}
        self.wide = "tl.float64" if torch.float64 in dtypes else "tl.float32"
        self.has_both = torch.float64 in dtypes and not dtypes.isdisjoint({*HALF, torch.float32})
        self.widest = 1  # elements of a row that are in registers at once, besides the tile

    def write(self) -> list[str]:
        """The lines of the body."""
        body = Scope()
        self.scopes.append(body)
        for store in self.kernel.stores:
            self._store(store)
        self.scopes.pop()
        write_products(self)
        head = [
            "m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]",
            "in_rows = m < rows",
            "j = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]",
        ]
        if self.blocks["j"].mask:
            head.append(f"in_columns = j < {self.tile.columns}")
        return [*head, *self.scopes[0].lines, *body.lines]

    def load(self, node: fx.Node, coords: Coords) -> str:
        """An expression, mostly a name, for elements of a value; what it needs is computed in lines before it."""
        key = (node, coords, self.raw)
        known = self.find(key)
        if known is not None:
            return known
        if self.in_memory(node):
            return self.let(node.name, self._element(node, coords), key)
        if node.target is CONSTANT:
            value = torch.tensor(node.args[1], dtype=dtype_of(node)).item()
            kind = "tl.int1" if is_bool(node) else in_registers(dtype_of(node))
            return self.let(node.name, f"tl.full((1, 1), {literal(value)}, {kind})", key, 0)
        if node.target is aten._to_copy.default:
            return self._converted(node, coords, key)
        view = moved(node, coords)
        if view is not None:
            return self.load(*view)
        if node.op == "placeholder":
            place = self.places.place(node)
            assert isinstance(place, Received)
            text = memory.receive(self, place, coords, trailing(node), in_registers(dtype_of(node)))
            return self.let(node.name, rounded(text, dtype_of(node)), key)
        if node.target is segments.EXPAND:
            return self.load(source_of(node), (of(self._owner(memory.row_of(coords[0]))), *coords[1:]))
        if node.target in SEGMENTS:
            return self._segment(node, coords, key)
        return self.let(node.name, self._finished(node, self._computed(node, coords)), key)

    def _finished(self, node: fx.Node, text: str) -> str:
        """The result of an operation, in the type that it has in registers."""
        if is_bool(node):
            return text
        if self.has_both and node.target not in EXPRESSIONS:  # whose operands are of one type
            text = f"({text}).to({in_registers(dtype_of(node))})"
        return text if node.target in EXACT else rounded(text, dtype_of(node))

    def _computed(self, node: fx.Node, coords: Coords) -> str:
        if node.target in (aten.cat.default, aten.stack.default):
            return self._choice(node, coords)
        if node.target in PADS:
            return self._padded(node, coords)
        if is_fused(node):
            return accumulator(self, node, coords)
        if node.target in PRODUCTS:
            a, b, bias = factors(node)
            total = product(self, node, coords, a, b)
            return total if bias is None else f"{total} + {self.load(bias, (coords[1],))}"
        if maker(node).target in REDUCTIONS:
            return REDUCTIONS[maker(node).target](self, node, coords)
        return self._expression(node, coords)

    def in_memory(self, node: fx.Node) -> bool:
        if node in self.made.ready and self.made.ready[node] <= self.kernel.level:
            return True
        return node.op == "placeholder" and not isinstance(self.places.place(node), Received)

    def _element(self, node: fx.Node, coords: Coords) -> str:
        place = self.made_place(node)
        text = memory.read(self, node, place, coords)
        if self.raw or dtype_of(node) not in HALF:
            return text
        return f"{text}.to(tl.float32)"

    def made_place(self, node: fx.Node) -> Any:
        """Where a value lies that is in memory."""
        place = self.places.place(node)
        return self.places.kept(node) if isinstance(place, Received) else place

    def _store(self, store: Store) -> None:
        shape, row = list(space_of(store.value)[1]), of(self.m)
        is_one = math.prod(shape) == 1
        once = is_one and self.tile.columns > 1  # in one program of those that share the rows
        column = Index() if is_one else of(self.j)
        value = self.load(store.value, put_back(store.value, row, unravel(column + store.first, shape)))
        mask = self.mask(row, column) + (" & (tl.program_id(1) == 0)" if once else "")
        self.line(memory.write(self, self.made_place(store.target), self.m, column + store.offset, value, mask))

    def _expression(self, node: fx.Node, coords: Coords) -> str:
        write = EXPRESSIONS.get(node.target)
        if write is None:
            raise Unsupported(f"{node.name} is made by {node.target}")
        dtype = compared_in(node)

        def operand(argument: object, is_condition: bool = False) -> str:
            if isinstance(argument, fx.Node):
                text = self.load(argument, broadcast(argument, coords))
                if node.target in LOGICAL:
                    return text if is_bool(argument) else f"is_true({text})"
                return text if is_condition else converted(text, dtype_of(argument), dtype)
            if argument is None or isinstance(argument, str):
                return argument or ""
            if not isinstance(argument, (int, float)):
                raise Unsupported(f"{node.name} has an operand {argument!r}")
            return literal(argument)

        extra = {name: operand(value) for name, value in node.kwargs.items() if not (name == "alpha" and value == 1)}
        condition = CONDITIONS.get(node.target)
        text = write(*(operand(argument, at == condition) for at, argument in enumerate(node.args)), **extra)
        return f"(({text}) != 0)" if is_bool(node) and node.target not in LOGICAL | COMPARISONS else text

    def _converted(self, node: fx.Node, coords: Coords, key: Any) -> str:
        """A copy in another dtype."""
        source = source_of(node)
        text = self.load(source, coords)
        if is_bool(node):
            return text if is_bool(source) else self.let(node.name, f"({text} != 0)", key)
        return self.let(node.name, converted(text, dtype_of(source), dtype_of(node)), key)

    def _choice(self, node: fx.Node, coords: Coords) -> str:
        """Elements of a concatenation, or of a stack, that is not in memory."""
        dim, is_stack = integer(node, 1), node.target is aten.stack.default
        at, start, pieces = coords[dim], 0, []
        for operand in operands(node):
            stop = start + (1 if is_stack else int(operand.meta["val"].shape[dim]))
            if at.most >= start and at.least < stop:
                pieces.append((operand, start, stop))
            start = stop
        text = ""
        for number, (operand, start, stop) in enumerate(pieces):
            bounds = [f"({at} >= {start})"] if number else []
            bounds += [f"({at} < {stop})"] if number < len(pieces) - 1 else []
            with self.only_if(" & ".join(bounds), at):
                inner = () if is_stack else (self._within(at + -start, stop - start),)
                value = self.load(operand, (*coords[:dim], *inner, *coords[dim + 1 :]))
                value = value if is_bool(node) else converted(value, dtype_of(operand), dtype_of(node))
            text += f"tl.where({at} < {stop}, {value}, " if number < len(pieces) - 1 else value
        return text + ")" * (len(pieces) - 1)

    def _padded(self, node: fx.Node, coords: Coords) -> str:
        """Elements of a value that is zero but for a slice."""
        dim, source = integer(node, 2), source_of(node)
        at, start = coords[dim], integer(node, 3)
        stop = start + 1 if node.target is aten.select_backward.default else integer(node, 4)
        if at.most < start or at.least >= stop:
            return f"tl.full((1, 1), 0.0, {in_registers(dtype_of(node))})"
        is_inside = at.least >= start and at.most < stop
        inside = "" if is_inside else f"({at} >= {start}) & ({at} < {stop})"
        with self.only_if(inside, at):
            is_select = node.target is aten.select_backward.default
            inner = () if is_select else (self._within(at + -start, stop - start),)
            value = self.load(source, (*coords[:dim], *inner, *coords[dim + 1 :]))
        if is_inside:
            return value
        return f"tl.where({inside}, {value}, 0.0)"

    def _within(self, at: Index, extent: int) -> Index:
        """The same place where it is below `extent`: others are not read."""
        if at.least >= 0 and at.most < extent:
            return at
        key = ("within", at, extent)
        known = self.find(key)
        if known is None:
            known = self.fresh("within")
            self.line(f"{known} = {at}")
            self.scopes[-1].known[key] = known
            self.blocks[known] = Block(len(self.scopes) - 1, self.mask(at), *self.shape(at))
        return of(Var(known, extent))

    # Sums

    def total(self, key: Any, sizes: list[int], coords: Coords, value: Callable[[Coords], str], op: str = "sum") -> str:
        """The sum, or maximum, of `value` over all places in `sizes`, at `coords`; kept by `key` for who asks again."""
        key = (key, coords, op)
        known = self.find(key)
        if known is not None:
            return known
        count, nothing = math.prod(sizes), "0.0" if op == "sum" else 'float("-inf")'
        if not count:
            return f"tl.full((1, 1), {nothing}, {self.wide})"
        if count <= FEW:
            found = [value(unravel(Index(constant=number), sizes)) for number in range(count)]
            text = found[0]
            for more in found[1:]:
                text = f"{text} + {more}" if op == "sum" else f"larger({text}, {more})"
            return self.let(op, text, key)
        rows, columns = self.shape(*coords)
        if columns == "1" and count <= CHUNK:
            return self.let(op, self._row_total(value, sizes, count, ZERO, count, op), key)
        name = self.let(op, f"tl.full(({rows}, {columns}), {nothing}, {self.wide})", key)
        r = Var(self.fresh("r"), count)
        if columns == "1":
            with self.nested(f"for {r} in range(0, {count}, {CHUNK}):"):
                self._add(name, self._row_total(value, sizes, CHUNK, of(r), count, op), op)
        else:
            with self.nested(f"for {r} in range(0, {count}):"):
                self._add(name, value(unravel(of(r), sizes)), op)
        return name

    def _add(self, name: str, value: str, op: str) -> None:
        self.line(f"{name} = {name} + {value}" if op == "sum" else f"{name} = larger({name}, {value})")

    def _row_total(
        self, value: Callable[[Coords], str], sizes: list[int], size: int, start: Index, count: int, op: str
    ) -> str:
        """The sum, or maximum, of `value` over `size` places of `count`, from `start` on."""
        key = ("range", start, size, count)
        known, power = self.find(key), power_of_two(size)
        if known is None:
            depth = -1 if start.terms else 0
            numbers = f"{f'{start} + ' if start.terms else ''}tl.arange(0, {power})[None, :]"
            known = self.block("r", numbers, count, ("1", str(power)), masked=True, depth=depth).name
            self.scopes[depth].known[key] = known
        self.widest = max(self.widest, power)
        found = value(unravel(of(Var(known, count)), sizes))
        inside, nothing = f"in_rows & {self.blocks[known].mask}", "0.0" if op == "sum" else 'float("-inf")'
        return f"tl.{op}(tl.where({inside}, {found}, {nothing}), 1, keep_dims=True)"

    def _segment(self, node: fx.Node, coords: Coords, key: Any) -> str:
        """A sum, or maximum, over the edges of each row; zeros where there are none."""
        row, is_sum = memory.row_of(coords[0]), node.target is segments.SEGMENT_SUM
        first, count = self._edges_of(row)
        rows, columns = self.shape(*coords)
        nothing = "0.0" if is_sum else 'float("-inf")'
        kind = in_registers(dtype_of(node))
        name = self.let(node.name, f"tl.full(({rows}, {columns}), {nothing}, {kind})", key)
        number = self.fresh("number")
        self.line(f"{number} = 0")
        with self.nested(f"while {number} < {count}_most:"):
            inside, edge = self.fresh("in_edge"), Var(self.fresh("edge"))
            self.line(f"{inside} = {number} < {count}")
            self.line(f"{edge} = {first} + {number}")
            self.blocks[edge.name] = Block(len(self.scopes) - 1, inside, rows)
            self.owners[edge.name] = row
            value = self.load(source_of(node), (of(edge), *coords[1:]))
            more = f"{name} + {value}" if is_sum else f"larger({name}, {value})"
            self.line(f"{name} = tl.where({inside}, {more}, {name})")
            self.line(f"{number} += 1")
        if not is_sum:
            self.line(f"{name} = tl.where({count} > 0, {name}, 0.0)")
        elif dtype_of(node) in HALF:
            self.line(f"{name} = {rounded(name, dtype_of(node))}")
        return name

    def _edges_of(self, row: Var) -> tuple[str, str]:
        """Variables for the first edge of rows, counted from the step's first, and for how many there are."""
        key, depth = ("edges", row), self.blocks[row.name].depth
        known = self.find(key)
        if known is None:
            pointer, in_rows = self.places.pointer(OfGroup.EDGE_OFFSET, "edge_offset"), self.blocks[row.name].mask
            known = self.fresh("first_edge")
            self.line(f"{known} = tl.load({pointer} + inner + {row}, mask={in_rows}, other=0)", depth)
            count = f"tl.load({pointer} + inner + {row} + 1, mask={in_rows}, other=0) - {known}"
            self.line(f"{known}_count = {count}", depth)
            self.line(f"{known}_count_most = tl.max({known}_count)", depth)
            self.line(f"{known} = ({known} - tl.load({pointer} + inner)).to(tl.int64)", depth)
            self.scopes[depth].known[key] = known
        return known, f"{known}_count"

    def _owner(self, edge: Var) -> Var:
        """The variable for the row that an edge belongs to."""
        if edge.name in self.owners:
            return self.owners[edge.name]
        depth, in_edges = self.blocks[edge.name].depth, self.blocks[edge.name].mask
        owner = Var(self.fresh("owner"))
        pointer = self.places.pointer(OfGroup.EDGE_OWNER, "owner")
        load = f"tl.load({pointer} + edge_start + {edge}, mask={in_edges}, other=0)"
        self.line(f"{owner} = ({load} - start).to(tl.int64)", depth)
        self.blocks[owner.name] = Block(depth, in_edges, self.blocks[edge.name].rows)
        self.owners[edge.name] = owner
        return owner
