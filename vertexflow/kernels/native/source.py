"""The C++ function that runs a part over steps: what it gathers or receives, then the stages of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch
from torch import fx

from ...graph.nodes import on_edges
from ...graph.program import CORES, Part, Program
from ...graph.simplify import ALL_SLOTS
from ...graph.vertex import CHILDREN
from ..operations import Unsupported, has_rows, trailing
from .body import split_of, work_of, write_stages
from .expressions import literal
from .plan import Plan, plan

WIDEST = 32  # columns of a panel of a packed weight, at most
TYPES = {torch.float32: "float", torch.float64: "double"}


@dataclass(frozen=True)
class Source:
    """A part as C++, and what its arguments are, in their order: (role, what of it)."""

    name: str
    text: str
    arguments: list[tuple[str, Any]]


def products_source(dtype: torch.dtype) -> str:
    """The library of matrix products, which all generated code calls."""
    return _join(dtype, "product.hpp", "product.cpp")


def preamble(dtype: torch.dtype) -> str:
    """What stands in front of all functions of one file."""
    return _join(dtype, "product.hpp", "runtime.hpp")


def _join(dtype: torch.dtype, *names: str) -> str:
    parts = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in names)
    return "\n".join([f"using T = {TYPES[dtype]};", *parts])


def write_part(program: Program, name: str) -> Source:
    """A part as a function over steps; of a core, together with its variant for vertices without children.

    Raises:
        Unsupported: it has something that native code has not; the message says what.
    """
    dtype = program.trace.widest_dtype
    if any(other != dtype for other in program.trace.state_dtypes.values()):
        raise Unsupported("states are of several dtypes")
    if dtype not in TYPES:
        raise Unsupported(f"states are of {str(dtype)[6:]}")
    if name not in CORES and set(program.parts[name].outputs).intersection(program.gather_grads.values()):
        raise Unsupported("it sends gradients to children")
    writer = _Part(program, name)
    parts = (name, f"{name}_leaf") if name in CORES else (name,)
    blocks, work = [], 0
    for part in parts:
        made = plan(program.parts.get(part, Part(part, fx.Graph(), [], [])), dtype)
        blocks.append(_indented(writer.block(made, part != name), 8 + 4 * len(parts)))
        work = max(work, work_of(made))
    body = blocks[0]
    if len(parts) == 2:
        body = _indented(["if (start >= num_leaves) {", blocks[0], "} else {", blocks[1], "}"], 12, but=blocks)
    declared = _indented(writer.declarations, 4)
    packed = [f"pack({weight});" for weight in writer.weights.values()]
    first = _indented(["if (must_pack) {", *(f"    {line}" for line in packed), "}"], 8) + "\n" if packed else ""
    text = f"""extern "C" void {name}(Long* a, const Step* steps, Long count) {{
{declared}
    Long computed = 0;
    for (const Step* at = steps; at < steps + count; ++at) computed += at->stop - at->start + at->edge_stop - at->edge_start;
#pragma omp parallel if (computed * {work} > serial * count)
    {{
{first}        for (const Step* at = steps; at < steps + count; ++at) {{
            const Step& step = *at;
            const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
            [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
            [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
{body}
        }}
    }}
}}
"""
    return Source(name, text, writer.arguments)


def _indented(lines: Sequence[str], by: int, but: Sequence[str] = ()) -> str:
    """Lines as text; those in `but` stay where they are."""
    return "\n".join(line if line in but else " " * by + line for line in lines)


class _Part:
    """Writes the blocks of one part, and collects the arguments that they need."""

    def __init__(self, program: Program, name: str) -> None:
        self.program, self.name = program, name
        self.arguments: list[tuple[str, Any]] = []
        self.num_scratch = 0
        self.declarations: list[str] = []
        self.declared: dict[tuple[str, Any], str] = {}
        self.weights: dict[tuple[fx.Node, bool], str] = {}  # what products read, and whether transposed
        self.slots = program.trace.num_slots
        self.taken: set[str] = set()  # names of values in the block that is being written
        self.argument("product", None, "const Product", "product")
        self.argument("outer", None, "const Outer", "outer")
        self.argument("pack", None, "const Pack", "pack")
        self.argument("num_leaves", None, "const Long", "num_leaves")

    def argument(self, role: str, what: Any, sort: str, name: str) -> str:
        """The C++ name of an argument, which is declared at its first use."""
        key = (role, what)
        if key not in self.declared:
            self.declared[key] = name
            cast = "" if sort == "Long&" else f"({sort.removeprefix('const ')})"
            self.declarations.append(f"{sort} {name} = {cast}a[{len(self.arguments)}];")
            self.arguments.append(key)
        return self.declared[key]

    def block(self, made: Plan, leaf: bool) -> list[str]:
        """The lines for one step; `leaf`: of vertices without children."""
        part = made.part
        lines: list[str] = []
        names: dict[fx.Node, str] = {}
        self.taken = set()
        placeholders = [
            node for node in part.graph.nodes if node.op == "placeholder" and node.name not in ("rows", "edges")
        ]
        inputs = dict(zip(part.inputs, placeholders, strict=True))
        for node in self._exchanged(part, leaf):  # also what other parts alone read
            inputs.setdefault(node, node)
        for origin, node in inputs.items():
            if origin.meta.get("role", ("",))[0] != "counts":
                names[node] = self._value(node, origin, lines)
        for node, output in made.stored.items():
            if output is None:
                names[node] = self._scratch(node, lines)
            else:
                names[node] = self._value(node, output, lines) if has_rows(node) else self._result(output)
        names.update((output, self._value(output, output, lines)) for output in made.copies)
        weights = {}
        origins = {node: origin for origin, node in inputs.items()}
        for product in (product for stage in made.stages for product in stage.products):
            weights[product.b, product.transposed] = self._weight(origins[product.b], product.transposed)
        last = ""
        if any(line.endswith(");") for line in lines):  # something is gathered, or received
            of_edges = any("first_of_edges, edges," in line for line in lines)
            last = "edges" if of_edges else "rows" if self.name == "grad_core" else "gathered"
        stages = write_stages(made, names, weights, last)
        text = "\n".join(stages)
        if "owner[" in text:
            owner = self.argument("owner", None, "const Index* const", "owner_of")
            lines.append(f"const Index* const owner = {owner} + first_of_edges;")
        if "first_edge[" in text:
            offset = self.argument("edge_offset", None, "const Index* const", "edge_offset")
            lines.append(f"const Index* const first_edge = {offset} + (start - num_leaves);")
            lines.append(
                "const Long without = std::max<Long>(num_leaves - start, 0);  // rows without edges come first"
            )
        return [*lines, *stages]

    def _weight(self, origin: fx.Node, transposed: bool) -> str:
        """The name of a parameter that products read, with room to pack it in."""
        if not self.weights:
            self.argument("num_computed", None, "const Long", "num_computed")
            self.argument("packed_yet", None, "Long&", "packed")  # kept between the calls of one batch
            self.declarations.append("const bool packs = num_computed >= pays_packing, must_pack = packs && !packed;")
            self.declarations.append("packed = packs;")
        if (origin, transposed) not in self.weights:
            number = len(self.weights)
            n, k = (int(extent) for extent in origin.meta["val"].shape[:: 1 if transposed else -1])
            plain = self.argument("param", origin, "const T* const", f"p_{origin.name}")
            room = self.argument("packed", (self.name, number, (n + -n % WIDEST) * k), "T* const", f"room_{number}")
            self.weights[origin, transposed] = f"weight_{number}"
            self.declarations.append(
                f"const Weight weight_{number} = {{{plain}, packs ? {room} : nullptr, {literal(transposed)}, {n}, {k}}};"
            )
        return self.weights[origin, transposed]

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

    def _value(self, node: fx.Node, origin: fx.Node, lines: list[str]) -> str:
        """The pointer to the first of a step's rows of a value."""
        name, program = self._fresh(node), self.program
        sort = "bool" if origin.meta["val"].dtype == torch.bool else "T"
        if not has_rows(node):
            return self.argument("param", origin, f"const {sort}* const", f"p_{origin.name}")
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
        pointer = self.argument("value", (origin, width), f"{sort}* const", f"p_{origin.name}")
        ld = f"constexpr Long {name}_ld = {width};"
        whole = program.is_whole(origin)
        if self.name not in CORES and origin in program.parts[self.name].outputs:
            whole = not self.name.endswith("_inner")
        first = "first_of_edges" if on_edges(node) else self._first(whole)
        if origin.meta.get("role", ())[:2] == ("grad", "push"):  # all rows may be one, of zeros
            ld = f"const Long {name}_ld = {self.argument('stride', origin, 'const Long', f'ld_{origin.name}')};"
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
        return beside * math.prod(trailing(origin))

    def _scratch(self, node: fx.Node, lines: list[str]) -> str:
        width, name = math.prod(trailing(node)), self._fresh(node)
        number = self.num_scratch = self.num_scratch + 1
        pointer = self.argument("scratch", (self.name, number, width, split_of(node)), "T* const", f"scratch_{number}")
        lines += [f"T* const {name} = {pointer};", f"constexpr Long {name}_ld = {width};"]
        return name

    def _result(self, output: fx.Node) -> str:
        """The pointer to an output without rows."""
        return self.argument("result", output, "T* const", f"p_{output.name}")

    def _width(self, state: str) -> int:
        return math.prod(self.program.trace.state[state])

    def _gathered(self, name: str, state: str, slot: int, origin: fx.Node, lines: list[str]) -> None:
        width, kept = self._width(state), origin in self.program.kept
        source = self.argument("state", state, "const T* const", f"state_{state}")
        if slot == CHILDREN:
            rows = self.argument("edge_rows", None, "const Index* const", "edge_rows")
            to = self.argument("listed", state, "T* const", f"listed_{state}")
            lines += [
                f"T* const {name} = {to}{f' + first_of_edges * {width}' if kept else ''};",
                f"constexpr Long {name}_ld = {width};",
                f"gather({source}, {rows} + first_of_edges, edges, 1, {width}, {name});",
            ]
            return
        every = f"g_{state}"
        if not any(line.startswith(f"const T* const {every} ") for line in lines):
            nodes = [node for (of, at), node in self.program.gathers.items() if of == state and at != CHILDREN]
            kept_nodes = [node for node in nodes if node in self.program.kept]
            first = self._first(any(self.program.is_whole(node) for node in kept_nodes))
            rows = self.argument("child_rows", None, "const Index* const", "child_rows")
            to = self.argument("gathered", state, "T* const", f"gathered_{state}")
            place = f"{to}{f' + {first} * {self.slots * width}' if kept_nodes else ''}"
            gather = (
                f"gather({source}, {rows} + (start - num_leaves) * {self.slots}, rows, {self.slots}, {width}, {place});"
            )
            lines += [
                f"const T* const {every} = reads_from < 0 ? {place} : {source} + reads_from * {width};",
                gather if kept_nodes else f"if (reads_from < 0) {gather}",
            ]
        lines.append(f"const T* const {name} = {every}{f' + {slot * width}' if slot != ALL_SLOTS else ''};")
        lines.append(f"constexpr Long {name}_ld = {self.slots * width};")

    def _received(self, name: str, state: str, origin: fx.Node, lines: list[str]) -> None:
        width, kept = self._width(state), origin in self.program.kept
        to = self.argument("received", state, "T* const", f"received_{state}")
        start = self.argument("group_start", None, "const Long", "group_start")
        outside = self.argument("outside", state, "const T* const", f"outside_{state}")
        parents = []
        for what in ("placed", "listed"):
            fields = [
                self.argument(
                    f"{what}_{field}",
                    state if field == "sent" else None,
                    sort,
                    f"{what}_{field}_{state}" if field == "sent" else f"{what}_{field}",
                )
                for field, sort in (
                    ("sent", "const T* const"),
                    ("places", "const Index* const"),
                    ("offset", "const Index* const"),
                )
            ]
            parents.append(f"{{{', '.join(fields)}}}")
        sent, offset, listed = f"placed_sent_{state}", "placed_offset", f"listed_sent_{state}"
        lines += [
            f"T* {name} = {to}{f' + {self._first(self.program.is_whole(origin))} * {width}' if kept else ''};",
            f"constexpr Long {name}_ld = {width};",
        ]
        call = f"receive({parents[0]}, {parents[1]}, {outside}, {start} + start, rows, {width}, {name});"
        if kept:
            lines.append(call)
        else:
            lines += [
                f"if ({sent} && !{offset} && !{listed} && !{outside} && read_at >= 0)",
                f"    {name} = const_cast<T*>({sent}) + read_at * {width};",
                f"else {call}",
            ]

    def _sent(self, name: str, state: str, slot: int, lines: list[str]) -> None:
        width = self._width(state)
        if slot == CHILDREN:
            to = self.argument("send_edges", state, "T* const", f"send_edges_{state}")
            lines += [f"T* const {name} = {to} + first_of_edges * {width};", f"constexpr Long {name}_ld = {width};"]
            return
        to = self.argument("send", state, "T* const", f"send_{state}")
        column = f" + {slot * width}" if slot != ALL_SLOTS else ""
        lines.append(f"T* const {name} = {to} + (start - num_leaves) * {self.slots * width}{column};")
        lines.append(f"constexpr Long {name}_ld = {self.slots * width};")
