"""The lines of one part for one step in C++: what it gathers or receives, then its statements; and the arguments they need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from ...graph.symbolic.nodes import has_rows, on_edges
from ...graph.symbolic.program import CORES, Part, Program
from ...graph.symbolic.roles import ALL_SLOTS, CHILDREN, Counts, comes_from_caller, role_of
from ..arguments import (
    Argument,
    By,
    Function,
    Gathered,
    Memory,
    OfGroup,
    Outside,
    ParentOffset,
    ParentPlaces,
    Received,
    Result,
    Scratch,
    Seed,
    Sent,
    SentByAll,
    State,
    Stride,
    Value,
    Whole,
)
from ..lower.loops import (
    Accumulate,
    Matrix,
    Outer,
    Over,
    Product,
    Statement,
    SumOfRows,
    asks_for_owners,
    draws,
    reads,
    writes,
)
from ..lower.scalar import wide
from ..lower.views import vertex_shape
from ..memory import room_of
from .body import write_statements
from .cpp import TYPES
from .plan import Plan
from .products import FUNCTIONS, dtype_of, function_of, packed_size

COMPANY = Function("company")  # of the library that knows of other processes
PACKED = Memory("packed")  # whether weights were packed
ADDS = Memory("adds")  # whether sums over rows are added to what is there
INDICES = "const Index* const"


class Blocks:
    """Writes the blocks of one function, and collects the arguments that they need.

    A part is one function, or, where PyTorch is called in between, several: they share `rooms`, which is the scratch memory of
    the part's values. What is gathered or received is so by the first.
    """

    def __init__(self, program: Program, name: str, rooms: dict[fx.Node, Scratch], number: int = 0) -> None:
        self.program, self.name, self.rooms, self.number = program, name, rooms, number
        self.function = f"{name}_{number}" if number else name
        self.arguments: list[Argument] = []
        self.declarations: list[str] = []
        self.declared: dict[Argument, str] = {}
        self.weights: dict[tuple[Any, ...], str] = {}  # what products read
        self.packing: list[str] = []  # and the lines that pack it
        self.slots = program.trace.num_slots
        self.taken: set[str] = set()  # names of values in the block that is being written
        self.dtype = wide(program.trace.widest_dtype)  # which the code calls T
        for function in FUNCTIONS if program.trace.widest_dtype == self.dtype else ():
            self._function(function, self.dtype)
        self.argument(COMPANY, "Company* const", "company")
        self.argument(OfGroup.NUM_LEAVES, "const Long", "num_leaves")

    def argument(self, what: Argument, sort: str, name: str) -> str:
        """The C++ name of an argument, which is declared at its first use."""
        if what not in self.declared:
            self.declared[what] = name
            cast = "" if sort == "Long&" else f"({sort.removeprefix('const ')})"
            self.declarations.append(f"{sort} {name} = {cast}a[{len(self.arguments)}];")
            self.arguments.append(what)
        return self.declared[what]

    def _function(self, name: str, dtype: torch.dtype) -> str:
        """The C++ name of a function of the library of products of a dtype."""
        function = function_of(name, dtype)
        sort = name.title() if dtype == self.dtype else f"{name.title()}Of<{TYPES[dtype]}>"
        return self.argument(function, f"const {sort}", function.name)

    def block(self, made: Plan, statements: Sequence[Statement], leaf: bool, is_cut: bool) -> list[str]:
        """The lines that run these statements of a plan for one step; `leaf`: of vertices without children."""
        part = made.part
        used = {node for statement in statements for node in reads(statement) | writes(statement)}
        lines: list[str] = []
        names: dict[fx.Node, str] = {}
        self.taken = set()
        placeholders = [
            node for node in part.graph.nodes if node.op == "placeholder" and node.name not in ("rows", "edges")
        ]
        inputs = dict(zip(part.inputs, placeholders, strict=True))
        exchanged = self._exchanged(part, leaf) if not self.number else []
        for node in exchanged:  # also what other parts alone read
            inputs.setdefault(node, node)
        for origin, node in inputs.items():
            if not isinstance(role_of(origin), Counts) and (not is_cut or node in used or origin in exchanged):
                names[node] = self._value(node, origin, lines)
        for node, output in made.stored.items():
            if is_cut and node not in used:
                continue
            if output is None:
                names[node] = self._scratch(node, lines)
            else:
                names[node] = self._value(node, output, lines) if has_rows(node) else self._result(output)
        for output in made.copies:
            if not is_cut or output in used:
                names[output] = self._value(output, output, lines) if has_rows(output) else self._result(output)
        origins = {node: origin for origin, node in inputs.items()}
        for statement in statements:
            if isinstance(statement, Product | Outer):
                self._function("product" if isinstance(statement, Product) else "outer", dtype_of(statement))
        if any(isinstance(statement, Outer | SumOfRows) for statement in statements):
            self.argument(ADDS, "const bool", "adds")
        matrices = [statement.b for statement in statements if isinstance(statement, Product)]
        weights = {matrix: self._weight(origins[matrix.array], matrix) for matrix in matrices}
        stages = write_statements(statements, names, weights, self._arriving(inputs) if not self.number else {})
        if any(map(asks_for_owners, statements)):
            owner = self.argument(OfGroup.EDGE_OWNER, INDICES, "owner_of")
            lines.append(f"const Index* const owner = {owner} + first_of_edges;")
        if any(isinstance(statement, Accumulate) and statement.is_over_edges for statement in statements):
            offset = self.argument(OfGroup.EDGE_OFFSET, INDICES, "edge_offset")
            lines.append(f"const Index* const first_edge = {offset} + (start - num_leaves);")
            lines.append(
                "const Long without = std::max<Long>(num_leaves - start, 0);  // rows without edges come first"
            )
        if any(map(draws, statements)):
            self.argument(Seed(), "const std::uint64_t", "seed")
            self.argument(OfGroup.START, "const Long", "group_start")
        return [*lines, *stages]

    def _weight(self, origin: fx.Node, matrix: Matrix) -> str:
        """The name of a parameter that products read, with room to pack it in."""
        if not self.weights:
            self.argument(OfGroup.NUM_COMPUTED, "const Long", "num_computed")
            self.argument(PACKED, "Long&", "packed")  # kept between the calls of one batch
            self.declarations.append("const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;")
            self.declarations.append("packed = packs;")
        key = (origin, matrix.first, matrix.n, matrix.k, matrix.transposed)
        if key not in self.weights:
            number, n, k, dtype, sort = len(self.weights), matrix.n, matrix.k, _dtype(origin), self._type(origin)
            plain = self.argument(Whole(origin), f"const {sort}* const", f"p_{origin.name}")
            name, size, pack = f"room_{number}", packed_size(n, k, dtype), self._function("pack", dtype)
            room = self.argument(Scratch(self.function, name, size, Over.ELEMENTS, dtype), f"{sort}* const", name)
            self.weights[key] = f"weight_{number}"
            self.packing.append(f"{pack}({self.weights[key]});")
            first, transposed = f" + {matrix.first}" if matrix.first else "", "true" if matrix.transposed else "false"
            self.declarations.append(
                f"const {_weight(sort)} weight_{number} = {{{plain}{first}, packs ? {room} : nullptr, {transposed}, {n}, {k}}};"
            )
        return self.weights[key]

    def _fresh(self, node: fx.Node) -> str:
        """A name that no other value of this block has: some are of the part's graph, some of the joint graph."""
        name = f"v_{node.name}"
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def _exchanged(self, part: Part, leaf: bool) -> list[fx.Node]:
        """What is gathered, or received, for the rows of a step."""
        program = self.program
        if self.name not in CORES:
            return []
        if self.name == "core":
            return [] if leaf else list(program.gathers.values())
        return [
            node for node in program.state_grads.values() if not leaf or node in program.whole or node in part.inputs
        ]

    def _arriving(self, inputs: dict[fx.Node, fx.Node]) -> dict[fx.Node, str]:
        """What is gathered, or received, in front of the statements, and what threads share out there."""
        if self.name == "core":
            slots = {node: slot for (_, slot), node in self.program.gathers.items()}
            split = {node: "edges" if slot == CHILDREN else "gathered" for node, slot in slots.items()}
        else:
            split = dict.fromkeys(self.program.state_grads.values() if self.name == "grad_core" else (), "rows")
        return {node: split[origin] for origin, node in inputs.items() if origin in split}

    def _value(self, node: fx.Node, origin: fx.Node, lines: list[str]) -> str:
        """The pointer to the first of a step's rows of a value."""
        name, program = self._fresh(node), self.program
        sort = self._type(origin)
        if not has_rows(node):
            return self.argument(Whole(origin), f"const {sort}* const", f"p_{origin.name}")
        if self.name == "core":
            for (state, slot), gathered in program.gathers.items():
                if gathered is origin:
                    self._gathered(name, state, slot, origin, lines)
                    return name
        elif self.name == "grad_core":
            for state, received in program.state_grads.items():
                if received is origin:
                    self._received(name, state, origin, lines)
                    return name
            for (state, slot), sent in program.gather_grads.items():
                if sent is origin:
                    self._sent(name, state, slot, lines)
                    return name
        width = self.width_of(origin)
        each = width // origin.meta["rows"].per_vertex
        pointer = self.argument(Value(origin, each), f"{sort}* const", f"p_{origin.name}")
        ld = f"constexpr Long {name}_ld = {width};"
        whole = program.is_whole(origin)
        if self.name not in CORES and origin in program.parts[self.name].outputs:
            whole = not self.name.endswith("_inner")
        first = "first_of_edges" if on_edges(node) else self._first(whole)
        if comes_from_caller(role_of(origin)):  # all rows may be one, of zeros
            ld = f"const Long {name}_ld = {self.argument(Stride(origin), 'const Long', f'ld_{origin.name}')};"
        lines += [ld, f"{sort}* const {name} = {pointer} + {first} * {name}_ld;"]
        return name

    @staticmethod
    def _first(whole: bool) -> str:
        """The first of a step's rows in a buffer: of all rows, or of those with children."""
        return "start" if whole else "(start - num_leaves)"

    def width_of(self, origin: fx.Node) -> int:
        """From one row of a value to the next: gathered ones are columns of a buffer of all slots."""
        slots = {node: slot for (_, slot), node in self.program.gathers.items()}
        beside = self.slots if slots.get(origin, CHILDREN) >= 0 else 1
        return beside * math.prod(vertex_shape(origin))

    def _scratch(self, node: fx.Node, lines: list[str]) -> str:
        name, sort = self._fresh(node), self._type(node)
        room = room_of(node, self.rooms, self.name)
        pointer = self.argument(room, f"{sort}* const", room.name)
        lines += [f"{sort}* const {name} = {pointer};", f"constexpr Long {name}_ld = {room.width};"]
        return name

    def _result(self, output: fx.Node) -> str:
        """The pointer to an output without rows."""
        return self.argument(Result(output), f"{self._type(output)}* const", f"p_{output.name}")

    def _type(self, node: fx.Node) -> str:
        """The type of a value's elements."""
        dtype = _dtype(node)
        if dtype == torch.bool:
            return "std::uint8_t"  # what is read as bool is not vectorised
        return "T" if dtype == self.dtype else TYPES[dtype]

    def _width(self, state: str) -> int:
        return math.prod(self.program.trace.state[state])

    def _gathered(self, name: str, state: str, slot: int, origin: fx.Node, lines: list[str]) -> None:
        width, kept, sort = self._width(state), origin in self.program.kept, self._type(origin)
        source = self.argument(State(state), f"const {sort}* const", f"state_{state}")
        if slot == CHILDREN:
            rows = self.argument(OfGroup.EDGE_ROWS, INDICES, "edge_rows")
            to = self.argument(Gathered(state, By.EDGE), f"{sort}* const", f"listed_{state}")
            lines += [
                f"{sort}* const {name} = {to}{f' + first_of_edges * {width}' if kept else ''};",
                f"constexpr Long {name}_ld = {width};",
            ]
            if not self.number:
                lines.append(f"gather({source}, {rows} + first_of_edges, edges, 1, {width}, {name});")
            return
        every = f"g_{state}"
        if every not in self.taken:
            self.taken.add(every)
            nodes = [node for (of, at), node in self.program.gathers.items() if of == state and at != CHILDREN]
            kept_nodes = [node for node in nodes if node in self.program.kept]
            first = self._first(any(self.program.is_whole(node) for node in kept_nodes))
            rows = self.argument(OfGroup.CHILD_ROWS, INDICES, "child_rows")
            to = self.argument(Gathered(state, By.SLOT), f"{sort}* const", f"gathered_{state}")
            place = f"{to}{f' + {first} * {self.slots * width}' if kept_nodes else ''}"
            gather = (
                f"gather({source}, {rows} + (start - num_leaves) * {self.slots}, rows, {self.slots}, {width}, {place});"
            )
            lines.append(f"const {sort}* const {every} = reads_from < 0 ? {place} : {source} + reads_from * {width};")
            if not self.number:
                lines.append(gather if kept_nodes else f"if (reads_from < 0) {gather}")
        lines.append(f"const {sort}* const {name} = {every}{f' + {slot * width}' if slot != ALL_SLOTS else ''};")
        lines.append(f"constexpr Long {name}_ld = {self.slots * width};")

    def _received(self, name: str, state: str, origin: fx.Node, lines: list[str]) -> None:
        width, kept, sort = self._width(state), origin in self.program.kept, self._type(origin)
        to = self.argument(Received(state), f"{sort}* const", f"received_{state}")
        start = self.argument(OfGroup.START, "const Long", "group_start")
        outside = self.argument(Outside(state), f"const {sort}* const", f"outside_{state}")
        parents = []
        for what, by in (("placed", By.SLOT), ("listed", By.EDGE)):
            fields = [
                self.argument(SentByAll(state, by), f"const {sort}* const", f"{what}_sent_{state}"),
                self.argument(ParentPlaces(by), INDICES, f"{what}_places"),
                self.argument(ParentOffset(by), INDICES, f"{what}_offset"),
            ]
            parents.append(f"Parents<{sort}>{{{', '.join(fields)}}}")
        sent, offset, listed = f"placed_sent_{state}", "placed_offset", f"listed_sent_{state}"
        lines += [
            f"{sort}* {name} = {to}{f' + {self._first(self.program.is_whole(origin))} * {width}' if kept else ''};",
            f"constexpr Long {name}_ld = {width};",
        ]
        call = f"receive({parents[0]}, {parents[1]}, {outside}, {start} + start, rows, {width}, {name});"
        if not kept:
            lines += [
                f"if ({sent} && !{offset} && !{listed} && !{outside} && read_at >= 0)",
                f"    {name} = const_cast<{sort}*>({sent}) + read_at * {width};",
            ]
        if not self.number:
            lines.append(call if kept else f"else {call}")

    def _sent(self, name: str, state: str, slot: int, lines: list[str]) -> None:
        width, sort = self._width(state), TYPES[self.program.trace.state_dtypes[state]]
        if slot == CHILDREN:
            to = self.argument(Sent(state, By.EDGE), f"{sort}* const", f"send_edges_{state}")
            lines += [
                f"{sort}* const {name} = {to} + first_of_edges * {width};",
                f"constexpr Long {name}_ld = {width};",
            ]
            return
        to = self.argument(Sent(state, By.SLOT), f"{sort}* const", f"send_{state}")
        column = f" + {slot * width}" if slot != ALL_SLOTS else ""
        lines.append(f"{sort}* const {name} = {to} + (start - num_leaves) * {self.slots * width}{column};")
        lines.append(f"constexpr Long {name}_ld = {self.slots * width};")


def _dtype(node: fx.Node) -> torch.dtype:
    dtype: torch.dtype = node.meta["val"].dtype
    return dtype


def _weight(sort: str) -> str:
    return "Weight" if sort == "T" else f"WeightOf<{sort}>"
