"""The Triton source of a core: its kernels, what each is called with, and where that belongs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import fx

from ...graph.symbolic.nodes import has_rows, on_edges, title
from ...graph.symbolic.program import Part, Program
from ...graph.symbolic.roles import ALL_SLOTS, CHILDREN, comes_from_caller, role_of
from ..arguments import (
    By,
    Given,
    OfGroup,
    Outside,
    ParentOffset,
    ParentPlaces,
    Scratch,
    Seed,
    Sent,
    SentByAll,
    State,
    Stride,
    Value,
    Whole,
)
from ..lower.calls import Called, reasons_of, with_copies
from ..lower.decompose import decomposed
from ..memory import room_of
from ..operations import Unsupported
from ..torch.between import Between
from . import tiles
from .body import KernelWriter
from .lines import identifier
from .places import Gathered, Place, Received, Rows, Shared
from .plan import Apart, Kernel, Plan, Store, is_fused, plan, space_of, unknown
from .spellings import TYPES
from .tiles import Tile

INTEGERS = ("start", "inner", "absolute", "edge_start", "rows")
MOST_ACCUMULATORS = 8

HEAD = '''"""Generated from a vertex function.

A step computes rows [start, start + rows) of a group: rows from `inner` on of those with children, from `absolute` on of a
state; or edges from `edge_start` on, and then `rows` is how many."""

import triton
import triton.language as tl

from vertexflow.kernels.triton.runtime import *  # noqa: F403
'''


@dataclass(frozen=True)
class Launch:
    """One kernel of a step: its name, what it is called with, its tile, and whether its rows are edges."""

    name: str
    pointers: list[Given]
    tile: Tile
    on_edges: bool
    products: set[fx.Node]


@dataclass(frozen=True)
class Source:
    """Triton source, and what is launched for each step: of vertices with children, and of others."""

    name: str
    text: str
    inner: list[Launch]
    leaf: list[Launch]


@dataclass(frozen=True)
class Sources:
    """A core as sources that run one after the other in each step; between two of them stands what PyTorch computes, for
    vertices with children and for others."""

    pieces: list[Source]
    inner: list[Between]
    leaf: list[Between]
    reasons: list[str]  # for that


def write_core(program: Program, name: str) -> Sources:
    """The kernels of a core, together with those of its variant for vertices without children.

    Raises:
        Unsupported: it has something that there are no kernels for, and that PyTorch cannot be called for in between; the
            message says what.
    """
    for dtype in program.trace.state_dtypes.values():
        if dtype not in TYPES:
            raise Unsupported(f"states are of {str(dtype)[6:]}")
    written = []
    for part in (name, f"{name}_leaf"):
        made = decomposed(program.parts.get(part, Part(part, fx.Graph(), [], [])), program.trace)
        written.append(_write_part(program, name, made))
    pieces = []
    for number in range(max(len(one.kernels) for one in written)):
        both = [one.kernels[number] if number < len(one.kernels) else [] for one in written]
        texts = [text for kernels in both for text, _ in kernels]
        inner, leaf = ([launch for _, launch in kernels] for kernels in both)
        pieces.append(Source(name, "\n\n".join([HEAD, *texts]), inner, leaf))
    of_inner, of_leaf = (one.calls for one in written)
    return Sources(pieces, of_inner, of_leaf, [reason for one in written for reason in one.reasons])


@dataclass(frozen=True)
class _Written:
    """A part: its kernels up to the first call of PyTorch, up to the next one, and so on."""

    kernels: list[list[tuple[str, Launch]]]
    calls: list[Between]
    reasons: list[str]


def _write_part(program: Program, core: str, part: Part) -> _Written:
    reasons = unknown(part)
    part, called = with_copies(part, reasons) if reasons else (part, Called())
    apart: set[fx.Node] = set()
    while True:
        values = _Values(program, core, part)
        made = plan(part, called, values.received(), apart)
        values.made = made
        try:
            written = [_write_kernel(values, made, kernel, number) for number, kernel in enumerate(made.kernels)]
            if _store_by_chunks(made, [launch.products for _, launch in written]):
                written = [_write_kernel(values, made, kernel, number) for number, kernel in enumerate(made.kernels)]
            break
        except Apart as found:
            if found.product in apart:
                raise Unsupported(f"{found.product.name} is read in too many ways") from None
            apart.add(found.product)
    groups: list[list[tuple[str, Launch]]] = [[] for _ in range(len(made.calls) + 1)]
    for kernel, piece in zip(made.kernels, written, strict=True):
        groups[sum(level <= kernel.level for level in made.calls)].append(piece)
    calls = [Between.of(program, call, values.places(call)) for call in made.calls.values()]
    return _Written(groups, calls, reasons_of(reasons))


def _store_by_chunks(made: Plan, products: list[set[fx.Node]]) -> bool:
    """Let kernels that have the result of a product in their accumulators store it, instead of kernels that would compute it
    once more; `products` are those of each kernel."""
    found = False
    for kernel in list(made.kernels):
        product = kernel.stores[0].value
        if len(kernel.stores) > 1 or not is_fused(product) or kernel.stores[0].target is not product:
            continue
        for other, of_other in zip(made.kernels, products, strict=True):
            width, columns = math.prod(kernel.space[1]), math.prod(other.space[1])
            same = other is not kernel and other.level == kernel.level and other.space[0] == kernel.space[0]
            if same and product in of_other and width % columns == 0:
                other.stores += [Store(product, product, start, start) for start in range(0, width, columns)]
                del products[made.kernels.index(kernel)]
                made.kernels.remove(kernel)
                found = True
                break
    return found


def _write_kernel(values: _Values, made: Plan, kernel: Kernel, number: int) -> tuple[str, Launch]:
    columns = math.prod(kernel.space[1])
    tile = tiles.choose(columns, 0, 1)
    for _ in range(2):  # how large it may be is known when it is written
        arguments = _Arguments(values)
        writer = KernelWriter(made, kernel, tile, arguments)
        lines = writer.write()
        if len(writer.accumulators) > MOST_ACCUMULATORS:
            of_products = [product for product, _ in writer.accumulators]
            raise Apart(max(of_products, key=of_products.count))
        tile = tiles.choose(columns, len(writer.accumulators), writer.widest)
    name = f"{values.part.name}_{number}"
    what = ", ".join(dict.fromkeys(store.target.name for store in kernel.stores))
    typed = {"seed": "seed: tl.int64"}  # however small it is
    signature = [*(typed.get(name, name) for name in arguments.names.values()), *INTEGERS]
    signature += [f"{block}: tl.constexpr" for block in ("BLOCK_M", "BLOCK_N", "BLOCK_K", "PRECISION")]
    text = [
        f"@triton.jit(do_not_specialize={[*INTEGERS, *(name for name in typed if name in arguments.names.values())]!r})",
        f"def {name}(",
        *(f"    {line}," for line in _wrapped(signature)),
        "):",
        f'    """Of {"edges" if kernel.space[0] else "rows"} of {columns} elements: {what}."""',
        *(f"    {line}" for line in lines),
    ]
    products = {product for product, _ in writer.accumulators}
    return "\n".join(text) + "\n", Launch(name, list(arguments.names), tile, kernel.space[0], products)


def _wrapped(words: list[str]) -> list[str]:
    lines = [""]
    for word in words:
        joined = f"{lines[-1]}, {word}" if lines[-1] else word
        if len(joined) > 110:
            lines.append(word)
        else:
            lines[-1] = joined
    return lines


class _Values:
    """Where the values of a part lie, for all of its kernels."""

    def __init__(self, program: Program, core: str, part: Part) -> None:
        self.program, self.core, self.part = program, core, part
        self.slots = program.trace.num_slots
        self.is_leaf = part.name != core
        self.made: Plan | None = None
        given = [node for node in part.graph.nodes if node.op == "placeholder" and node.name not in ("rows", "edges")]
        self.origins = dict(zip(given, part.inputs, strict=True))
        self.rooms: dict[fx.Node, Scratch] = {}

    def received(self) -> dict[fx.Node, bool]:
        """The gradients of states that come to the rows of a step, and whether somebody else reads them, too."""
        if self.core != "grad_core":
            return {}
        program, nodes = self.program, {origin: node for node, origin in self.origins.items()}
        return {
            nodes.get(origin, origin): origin in program.kept and (not self.is_leaf or origin in program.whole)
            for origin in program.state_grads.values()
            if origin in nodes or (origin in program.kept and (not self.is_leaf or origin in program.whole))
        }

    def origin(self, node: fx.Node) -> fx.Node:
        """The node of the joint graph that a value in memory is."""
        output = self.made.stored.get(node) if self.made is not None else None
        return output or self.origins.get(node, node)

    def room(self, node: fx.Node) -> Scratch:
        """The memory of a value that lies there during one step."""
        space_of(node)  # which has rows
        return room_of(node, self.rooms, self.part.name)

    def places(self, call: Part) -> dict[fx.Node, fx.Node | Scratch]:
        """Where what PyTorch reads and makes lies."""
        return {node: self.origins.get(node) or self.room(node) for node in (*call.inputs, *call.outputs)}

    def state_of(self, origin: fx.Node, table: dict[Any, fx.Node]) -> Any:
        """The key of a node in a table of the program."""
        return next((key for key, node in table.items() if node is origin), None)


class _Arguments:
    """What one kernel is called with, by what it reads and writes."""

    def __init__(self, values: _Values) -> None:
        self.values = values
        self.names: dict[Given, str] = {}

    def pointer(self, argument: Given, name: str) -> str:
        """The name of an argument, like this one, which others may have, too."""
        return self._named(argument, name, "ptr")

    def _named(self, argument: Given, name: str, kind: str) -> str:
        name = identifier(name)
        number, found = 1, f"{name}_{kind}"
        while argument not in self.names and found in self.names.values():
            number += 1
            found = f"{name}_{number}_{kind}"
        return self.names.setdefault(argument, found)

    def seed(self) -> str:
        """The name of the seed of random numbers."""
        return self.names.setdefault(Seed(), "seed")

    def place(self, node: fx.Node) -> Place:
        """The place of a value, or of an output of the part."""
        values, program = self.values, self.values.program
        assert values.made is not None
        is_scratch = node in values.made.stored and values.made.stored[node] is None and node.op != "placeholder"
        if is_scratch:
            return self._scratch(node)
        origin = values.origin(node)
        if not has_rows(origin):
            return Shared(self.pointer(Whole(origin), title(origin)))
        if values.core == "core":
            found = values.state_of(origin, program.gathers)
            if found is not None:
                return self._gathered(*found)
        else:
            state = values.state_of(origin, program.state_grads)
            if state is not None:
                return self._received(state)
            found = values.state_of(origin, program.gather_grads)
            if found is not None:
                return self._sent(*found)
        return self._value(origin)

    def kept(self, node: fx.Node) -> Rows:
        """The place of a gradient that is received, once it is stored."""
        origin = self.values.origin(node)
        return self._value(origin) if origin in self.values.program.kept else self._scratch(node)

    def _value(self, origin: fx.Node) -> Rows:
        program = self.values.program
        slots = {node: slot for (_, slot), node in program.gathers.items()}
        beside = self.values.slots if slots.get(origin, CHILDREN) >= 0 else 1
        width = beside * math.prod(space_of(origin)[1])
        first = "edge_start" if on_edges(origin) else "start" if program.is_whole(origin) else "inner"
        layout = origin.meta["rows"]
        argument = Value(origin, width // layout.per_vertex)
        pointer = self.pointer(argument, title(origin))
        stride = ""
        if comes_from_caller(role_of(origin)):  # all rows may be one, of zeros
            stride = self._named(Stride(origin), title(origin), "stride")
        return Rows(pointer, width, first, stride=stride)

    def _scratch(self, node: fx.Node) -> Rows:
        room = self.values.room(node)
        return Rows(self.pointer(room, room.name), room.width, "")

    def _width(self, state: str) -> int:
        return math.prod(self.values.program.trace.state[state])

    def _gathered(self, state: str, slot: int) -> Gathered:
        pointer, width = self.pointer(State(state), f"state_{state}"), self._width(state)
        if slot == CHILDREN:
            return Gathered(pointer, width, self.pointer(OfGroup.EDGE_ROWS, "edge_rows"), "edge_start")
        index, slots = self.pointer(OfGroup.CHILD_ROWS, "child_rows"), self.values.slots
        every = slot == ALL_SLOTS
        return Gathered(pointer, width, index, "inner", slots, 0 if every else slot, slots if every else 1)

    def _received(self, state: str) -> Received:
        names = []
        for what, by in (("placed", By.SLOT), ("listed", By.EDGE)):
            names.append(self.pointer(SentByAll(state, by), f"{what}_sent_{state}"))
            names.append(self.pointer(ParentPlaces(by), f"{what}_places"))
            names.append(self.pointer(ParentOffset(by), f"{what}_offset"))
        names.append(self.pointer(Outside(state), f"outside_{state}"))
        return Received(", ".join(names), self._width(state))

    def _sent(self, state: str, slot: int) -> Rows:
        width = self._width(state)
        if slot == CHILDREN:
            return Rows(self.pointer(Sent(state, By.EDGE), f"send_edges_{state}"), width, "edge_start")
        slots, column = self.values.slots, 0 if slot == ALL_SLOTS else slot * width
        return Rows(self.pointer(Sent(state, By.SLOT), f"send_{state}"), slots * width, "inner", column)
