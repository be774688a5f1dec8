"""The C++ lines of one part for one step, which gather or receive and then run its statements, and the arguments they need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from ...graph.symbolic.nodes import has_rows, on_edges
from ...graph.symbolic.program import CORES, Part, Program
from ...graph.symbolic.roles import (
    ALL_SLOTS,
    Counts,
    Gather,
    Grad,
    Scatter,
    comes_from_caller,
    is_over_edges,
    position_of,
    role_of,
)
from ..arguments import (
    ADDS,
    PACKED,
    Argument,
    By,
    FirstSending,
    Function,
    Gathered,
    GroupArgument,
    Outside,
    ParentOffset,
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
    places_of_parents,
    rows_of_children,
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
from ..lower.views import stride
from ..memory.layout import positions_of, scratch_of
from .barriers import phases_of
from .body import write_statements
from .cpp import TYPES
from .plan import Plan
from .products import FUNCTIONS, dtype_of, function_of, packed_size

COMPANY = Function("company")  # in the library that knows of other processes
INDICES = "const Index* const"


class Blocks:
    """Writes the blocks of one function, and collects the arguments that they need.

    A part is one function, or several where PyTorch is called in between: these share `scratch`, the scratch memory of the part's
    values. The first of them gathers and receives.
    """

    def __init__(self, program: Program, name: str, scratch: dict[fx.Node, Scratch], number: int = 0) -> None:
        self.program, self.name, self.scratch, self.number = program, name, scratch, number
        self.function = f"{name}_{number}" if number else name
        self.arguments: list[Argument] = []
        self.declarations: list[str] = []
        self.declared: dict[Argument, str] = {}
        self.weights: dict[tuple[Any, ...], str] = {}  # the names of matrices that products read
        self.packing: list[str] = []  # the lines that pack these
        self.slots = program.trace.num_slots
        self.taken: set[str] = set()  # the names of values in the current block
        self.dtype = wide(program.trace.widest_dtype)  # the type T of the code
        for function in FUNCTIONS if program.trace.widest_dtype == self.dtype else ():
            self._function(function, self.dtype)
        self.argument(COMPANY, "Company* const", "company")
        self.argument(GroupArgument.NUM_LEAVES, "const Long", "num_leaves")

    def argument(self, argument: Argument, c_type: str, name: str) -> str:
        """The C++ name of an argument, which is declared at its first use."""
        if argument not in self.declared:
            self.declared[argument] = name
            cast = "" if c_type == "Long&" else f"({c_type.removeprefix('const ')})"
            self.declarations.append(f"{c_type} {name} = {cast}a[{len(self.arguments)}];")
            self.arguments.append(argument)
        return self.declared[argument]

    def _function(self, name: str, dtype: torch.dtype) -> str:
        """The C++ name of a function of the library of products of a dtype."""
        function = function_of(name, dtype)
        c_type = name.title() if dtype == self.dtype else f"{name.title()}Of<{TYPES[dtype]}>"
        return self.argument(function, f"const {c_type}", function.name)

    def block(self, plan: Plan, statements: Sequence[Statement], is_leaf: bool, is_cut: bool) -> list[str]:
        """The lines that run some statements of a plan for one step, with `is_leaf` one of vertices without children."""
        part = plan.part
        used = {node for statement in statements for node in reads(statement) | writes(statement)}
        lines: list[str] = []
        names: dict[fx.Node, str] = {}
        self.taken = set()
        placeholders = [
            node for node in part.graph.nodes if node.op == "placeholder" and node.name not in ("rows", "edges")
        ]
        inputs = dict(zip(part.inputs, placeholders, strict=True))
        exchanged = self._exchanged(part, is_leaf) if not self.number else []
        for node in exchanged:  # even if only other parts read it
            inputs.setdefault(node, node)
        for origin, node in inputs.items():
            if not isinstance(role_of(origin), Counts) and (not is_cut or node in used or origin in exchanged):
                names[node] = self._value(node, origin, lines)
        arriving = self._arriving(inputs) if not self.number else {}
        phases = {} if is_cut else phases_of(statements, arriving)
        for node, output in plan.stored.items():
            if is_cut and node not in used:
                continue
            if output is None:
                names[node] = self._scratch(node, lines, phases.get(node))
            else:
                names[node] = self._value(node, output, lines) if has_rows(node) else self._result(output)
        for output in plan.copies:
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
        sent = set() if is_leaf or is_cut else self._sent_alone(plan, statements)
        if any(isinstance(statement, Product) and writes(statement) <= sent for statement in statements):
            self.argument(FirstSending(), "const Long", "first_sending")
        stages = write_statements(statements, names, weights, arriving, sent)
        if any(map(asks_for_owners, statements)):
            owner = self.argument(GroupArgument.EDGE_OWNER, INDICES, "owner_of")
            lines.append(f"const Index* const owner = {owner} + first_of_edges;")
        if any(isinstance(statement, Accumulate) and statement.is_over_edges for statement in statements):
            offset = self.argument(GroupArgument.EDGE_OFFSET, INDICES, "edge_offset")
            lines.append(f"const Index* const first_edge = {offset} + (start - num_leaves);")
            lines.append(
                "const Long without = std::max<Long>(num_leaves - start, 0);  // rows without edges come first"
            )
        if any(map(draws, statements)):
            self.argument(Seed(), "const std::uint64_t", "seed")
            self.argument(GroupArgument.START, "const Long", "group_start")
        return [*lines, *stages]

    def _weight(self, origin: fx.Node, matrix: Matrix) -> str:
        """The name of a matrix that products read; there is memory in which it may be packed."""
        if not self.weights:
            self.argument(GroupArgument.NUM_COMPUTED, "const Long", "num_computed")
            self.argument(PACKED, "Long&", "packed")  # kept between the calls of one batch
            self.declarations.append("const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;")
            self.declarations.append("packed = packs;")
        key = (origin, matrix.first, matrix.n, matrix.k, matrix.transposed)
        if key not in self.weights:
            number, n, k, dtype, c_type = len(self.weights), matrix.n, matrix.k, _dtype(origin), self._type(origin)
            parameter = self.argument(Whole(origin), f"const {c_type}* const", f"p_{origin.name}")
            name, size, pack = f"room_{number}", packed_size(n, k, dtype), self._function("pack", dtype)
            buffer = self.argument(Scratch(self.function, name, size, Over.ELEMENTS, dtype), f"{c_type}* const", name)
            self.weights[key] = f"weight_{number}"
            self.packing.append(f"{pack}({self.weights[key]});")
            first, transposed = f" + {matrix.first}" if matrix.first else "", "true" if matrix.transposed else "false"
            fields = f"{parameter}{first}, packs ? {buffer} : nullptr, {transposed}, {n}, {k}"
            self.declarations.append(f"const {_weight(c_type)} weight_{number} = {{{fields}}};")
        return self.weights[key]

    def _fresh(self, node: fx.Node) -> str:
        """A name that no other value of this block has, be it a value of the part's graph or of the joint graph."""
        name = f"v_{node.name}"
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def _exchanged(self, part: Part, is_leaf: bool) -> list[fx.Node]:
        """The values that are gathered, or received, for the rows of a step."""
        program = self.program
        if self.name not in CORES:
            return []
        if self.name == "core":
            return [] if is_leaf else list(program.gathers.values())
        return [
            node
            for node in program.state_grads.values()
            if not is_leaf or node in program.leaf_rows or node in part.inputs
        ]

    def _sent_alone(self, plan: Plan, statements: Sequence[Statement]) -> set[fx.Node]:
        """The values that are sent to children, and read by nothing else: leaves and other kinds may not read them."""
        program = self.program
        if self.name != "grad_core":
            return set()
        read_elsewhere = {node for part in program.parts.values() for node in part.inputs}
        gradients = [node for node in program.gather_grads.values() if node not in read_elsewhere]
        read = {node for statement in statements for node in reads(statement)}
        return {node for node, output in plan.stored.items() if output in gradients and node not in read}

    def _arriving(self, inputs: dict[fx.Node, fx.Node]) -> dict[fx.Node, str]:
        """The values that are gathered, or received, before the statements run, and what threads divide there."""
        if self.name == "core":
            slots = {node: slot for (_, slot), node in self.program.gathers.items()}
            split = {node: "edges" if is_over_edges(slot) else "gathered" for node, slot in slots.items()}
        else:
            split = dict.fromkeys(self.program.state_grads.values() if self.name == "grad_core" else (), "rows")
        return {node: split[origin] for origin, node in inputs.items() if origin in split}

    def _value(self, node: fx.Node, origin: fx.Node, lines: list[str]) -> str:
        """The name of a pointer to the step's rows of a value; appends the lines that define it."""
        name, program = self._fresh(node), self.program
        c_type = self._type(origin)
        if not has_rows(node):
            return self.argument(Whole(origin), f"const {c_type}* const", f"p_{origin.name}")
        match program.exchanged(self.name, origin):
            case Gather(state, slot):
                self._gathered(name, state, slot, origin, lines)
                return name
            case Grad(Scatter(state)):
                self._received(name, state, origin, lines)
                return name
            case Grad(Gather(state, slot)):
                self._sent(name, state, slot, lines)
                return name
        width = stride(origin, program.trace)
        entry_width = width // origin.meta["rows"].per_vertex
        pointer = self.argument(Value(origin, entry_width), f"{c_type}* const", f"p_{origin.name}")
        declared_stride = f"constexpr Long {name}_ld = {width};"
        has_leaf_rows = program.has_leaf_rows(origin)
        if self.name not in CORES and origin in program.parts[self.name].outputs:
            has_leaf_rows = not self.name.endswith("_inner")
        first = "first_of_edges" if on_edges(node) else self._first(has_leaf_rows)
        if comes_from_caller(role_of(origin)):  # its rows may all be the same memory
            declared_stride = (
                f"const Long {name}_ld = {self.argument(Stride(origin), 'const Long', f'ld_{origin.name}')};"
            )
        lines += [declared_stride, f"{c_type}* const {name} = {pointer} + {first} * {name}_ld;"]
        return name

    @staticmethod
    def _first(has_leaf_rows: bool) -> str:
        """The step's first row in a buffer of all rows, or of those with children only."""
        return "start" if has_leaf_rows else "(start - num_leaves)"

    def _scratch(self, node: fx.Node, lines: list[str], phases: tuple[int, int] | None) -> str:
        name, c_type = self._fresh(node), self._type(node)
        buffer = scratch_of(node, self.scratch, self.name, phases)
        pointer = self.argument(buffer, f"{c_type}* const", buffer.name)
        lines += [f"{c_type}* const {name} = {pointer};", f"constexpr Long {name}_ld = {buffer.width};"]
        return name

    def _result(self, output: fx.Node) -> str:
        """The pointer to an output without rows."""
        return self.argument(Result(output), f"{self._type(output)}* const", f"p_{output.name}")

    def _type(self, node: fx.Node) -> str:
        """The type of a value's elements."""
        dtype = _dtype(node)
        if dtype == torch.bool:
            return "std::uint8_t"  # loops that read bool are not vectorised
        return "T" if dtype == self.dtype else TYPES[dtype]

    def _width(self, state: str) -> int:
        return math.prod(self.program.trace.state[state])

    def _gathered(self, name: str, state: str, slot: int, origin: fx.Node, lines: list[str]) -> None:
        width, c_type = self._width(state), self._type(origin)
        source = self.argument(State(state), f"const {c_type}* const", f"state_{state}")
        if is_over_edges(slot):
            self._gathered_over_edges(name, state, slot, source, c_type, lines)
            return
        all_slots = f"g_{state}"
        if all_slots not in self.taken:
            self.taken.add(all_slots)
            nodes = [
                node
                for (state_name, slot_number), node in self.program.gathers.items()
                if state_name == state and not is_over_edges(slot_number)
            ]
            buffered_nodes = [node for node in nodes if node in self.program.buffered]
            first = self._first(any(self.program.has_leaf_rows(node) for node in buffered_nodes))
            argument, called = rows_of_children(state, By.SLOT, self.program.partial)
            rows = self.argument(argument, INDICES, called)
            buffer = self.argument(Gathered(state, By.SLOT), f"{c_type}* const", f"gathered_{state}")
            address = f"{buffer}{f' + {first} * {self.slots * width}' if buffered_nodes else ''}"
            gather = f"gather({source}, {rows} + (start - num_leaves) * {self.slots}, rows, {self.slots}, {width}, {address});"
            lines.append(
                f"const {c_type}* const {all_slots} = reads_from < 0 ? {address} : {source} + reads_from * {width};"
            )
            if not self.number:
                lines.append(gather if buffered_nodes else f"if (reads_from < 0) {gather}")
        lines.append(f"const {c_type}* const {name} = {all_slots}{f' + {slot * width}' if slot != ALL_SLOTS else ''};")
        lines.append(f"constexpr Long {name}_ld = {self.slots * width};")

    def _gathered_over_edges(
        self, name: str, state: str, slot: int, source: str, c_type: str, lines: list[str]
    ) -> None:
        width, columns = self._width(state), self.program.trace.side_by_side
        all_columns = f"listed_rows_{state}" if columns > 1 else name
        gather = ""
        if columns == 1 or all_columns not in self.taken:
            self.taken.add(all_columns)
            argument, called = rows_of_children(state, By.EDGE, self.program.partial)
            rows = self.argument(argument, INDICES, called)
            buffer = self.argument(Gathered(state, By.EDGE), f"{c_type}* const", f"listed_{state}")
            is_buffered = positions_of(self.program.gathers, state).keys() & set(self.program.buffered)
            first = f" + first_of_edges * {columns * width}" if is_buffered else ""
            lines.append(f"{c_type}* const {all_columns} = {buffer}{first};")
            index = f"{rows} + first_of_edges{f' * {columns}' if columns > 1 else ''}"
            gather = f"gather({source}, {index}, edges, {columns}, {width}, {all_columns});"
        if columns > 1:
            lines.append(f"{c_type}* const {name} = {all_columns} + {position_of(slot) * width};")
        lines.append(f"constexpr Long {name}_ld = {columns * width};")
        if gather and not self.number:
            lines.append(gather)

    def _received(self, name: str, state: str, origin: fx.Node, lines: list[str]) -> None:
        width, is_buffered, c_type = self._width(state), origin in self.program.buffered, self._type(origin)
        buffer = self.argument(Received(state), f"{c_type}* const", f"received_{state}")
        start = self.argument(GroupArgument.START, "const Long", "group_start")
        outside = self.argument(Outside(state), f"const {c_type}* const", f"outside_{state}")
        parents = []
        for prefix, by in (("placed", By.SLOT), ("listed", By.EDGE)):
            # What is sent over edges may lie at rows of its own in memory of a pass.
            own = [state] if by is By.EDGE else self.program.partial
            places, called = places_of_parents(state, by, own)
            fields = [
                self.argument(SentByAll(state, by), f"const {c_type}* const", f"{prefix}_sent_{state}"),
                self.argument(places, INDICES, called),
                self.argument(ParentOffset(by), INDICES, f"{prefix}_offset"),
            ]
            parents.append(f"Parents<{c_type}>{{{', '.join(fields)}}}")
        sent, offset, listed = f"placed_sent_{state}", "placed_offset", f"listed_sent_{state}"
        first = self._first(self.program.has_leaf_rows(origin))
        lines += [
            f"{c_type}* {name} = {buffer}{f' + {first} * {width}' if is_buffered else ''};",
            f"constexpr Long {name}_ld = {width};",
        ]
        call = f"receive({parents[0]}, {parents[1]}, {outside}, {start} + start, rows, {width}, {name});"
        in_place = not is_buffered and state not in self.program.partial
        if in_place:
            lines += [
                f"if ({sent} && !{offset} && !{listed} && !{outside} && read_at >= 0)",
                f"    {name} = const_cast<{c_type}*>({sent}) + read_at * {width};",
            ]
        if not self.number:
            lines.append(f"else {call}" if in_place else call)

    def _sent(self, name: str, state: str, slot: int, lines: list[str]) -> None:
        width, c_type = self._width(state), TYPES[self.program.trace.state_dtypes[state]]
        if is_over_edges(slot):
            buffer = self.argument(Sent(state, By.EDGE), f"{c_type}* const", f"send_edges_{state}")
            row, place = self.program.trace.side_by_side * width, position_of(slot) * width
            lines += [
                f"{c_type}* const {name} = {buffer} + first_of_edges * {row}{f' + {place}' if place else ''};",
                f"constexpr Long {name}_ld = {row};",
            ]
            return
        buffer = self.argument(Sent(state, By.SLOT), f"{c_type}* const", f"send_{state}")
        column = f" + {slot * width}" if slot != ALL_SLOTS else ""
        lines.append(f"{c_type}* const {name} = {buffer} + (start - num_leaves) * {self.slots * width}{column};")
        lines.append(f"constexpr Long {name}_ld = {self.slots * width};")


def _dtype(node: fx.Node) -> torch.dtype:
    dtype: torch.dtype = node.meta["val"].dtype
    return dtype


def _weight(c_type: str) -> str:
    return "Weight" if c_type == "T" else f"WeightOf<{c_type}>"
