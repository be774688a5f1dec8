"""The Triton source of a core: its kernels, and the arguments of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import fx

from ...graph.symbolic.nodes import has_rows, on_edges, title
from ...graph.symbolic.program import Part, Program
from ...graph.symbolic.roles import (
    ALL_SLOTS,
    Gather,
    Grad,
    Scatter,
    comes_from_caller,
    is_over_edges,
    position_of,
    role_of,
)
from ..arguments import (
    By,
    Outside,
    ParentOffset,
    RunArgument,
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
from ..lower.calls import leave_to_pytorch
from ..lower.decompose import decomposed
from ..lower.views import stride
from ..memory.layout import scratch_of
from ..operations import Unsupported
from ..torch.between import Between
from . import tiles
from .body import KernelWriter
from .kept import Kept, written_kept
from .lines import identifier
from .places import GatheredRows, ReceivedGradient, Rows, Shared, ValuePlace
from .plan import ColumnStore, Kernel, MustBeStored, Plan, check, is_fused, plan_part, space_of
from .spellings import TYPES
from .tiles import Tile

INTEGERS = ("start", "inner", "absolute", "edge_start", "rows")
TYPED = {"seed": "seed: tl.int64"}  # however small it is
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
    """One kernel of a step.

    Attributes:
        name: of the kernel.
        pointers: its arguments; and `names`, what they are called in it.
        tile: how large its tiles may be.
        on_edges: whether its rows are edges.
        products: those that it computes.
        level: kernels of a step that have the same level do not depend on each other.
        lines: the body, which computes one tile, `tile_row` down and `tile_column` across.
        kept: the same for a program that keeps its weights; None if there are no products.
    """

    name: str
    pointers: list[RunArgument]
    names: list[str]
    tile: Tile
    on_edges: bool
    products: set[fx.Node]
    level: int
    lines: list[str]
    kept: Kept | None = None


@dataclass(frozen=True)
class Source:
    """Triton source, and the kernels to launch for a step of vertices with children (`inner`) or without (`leaf`)."""

    name: str
    text: str
    inner: list[Launch]
    leaf: list[Launch]


@dataclass(frozen=True)
class Sources:
    """A core as sources that run one after the other in each step. Between two of them is a call of PyTorch: one of `inner` for
    vertices with children, one of `leaf` for others."""

    pieces: list[Source]
    inner: list[Between]
    leaf: list[Between]
    reasons: list[str]  # why PyTorch is called


def write_core(program: Program, name: str) -> Sources:
    """The kernels of a core, together with those of its variant for vertices without children.

    Raises:
        Unsupported: there are no kernels for something in the core, and PyTorch cannot be called for it in between; the message
            says what.
    """
    for dtype in program.trace.state_dtypes.values():
        if dtype not in TYPES:
            raise Unsupported(f"states are of {str(dtype)[6:]}")
    parts = []
    for part_name in (name, f"{name}_leaf"):
        part = program.parts.get(part_name, Part(part_name, fx.Graph(), [], []))
        parts.append(_write_part(program, name, decomposed(part, program.trace)))
    pieces = []
    for number in range(max(len(part.kernels) for part in parts)):
        kernels_of_both = [part.kernels[number] if number < len(part.kernels) else [] for part in parts]
        texts = [text for kernels in kernels_of_both for text, _ in kernels]
        inner, leaf = ([launch for _, launch in kernels] for kernels in kernels_of_both)
        pieces.append(Source(name, "\n\n".join([HEAD, *texts]), inner, leaf))
    inner_calls, leaf_calls = (part.calls for part in parts)
    return Sources(pieces, inner_calls, leaf_calls, [reason for part in parts for reason in part.reasons])


@dataclass(frozen=True)
class _Written:
    """A part: its kernels up to the first call of PyTorch, up to the next one, and so on."""

    kernels: list[list[tuple[str, Launch]]]
    calls: list[Between]
    reasons: tuple[str, ...]


def _write_part(program: Program, core: str, part: Part) -> _Written:
    name = part.name
    part, called = leave_to_pytorch(part, lambda node: check(node, name))
    stored_first: set[fx.Node] = set()
    while True:
        values = _Values(program, core, part)
        plan = plan_part(part, called, values.received(), stored_first)
        values.plan = plan
        try:
            written = [_write_kernel(values, plan, kernel, number) for number, kernel in enumerate(plan.kernels)]
            if _store_by_chunks(plan, [launch.products for _, launch in written]):
                written = [_write_kernel(values, plan, kernel, number) for number, kernel in enumerate(plan.kernels)]
            break
        except MustBeStored as error:
            if error.product in stored_first:
                raise Unsupported(f"{error.product.name} is read in too many ways") from None
            stored_first.add(error.product)
    groups: list[list[tuple[str, Launch]]] = [[] for _ in range(len(plan.calls) + 1)]
    for kernel, kernel_written in zip(plan.kernels, written, strict=True):
        groups[sum(level <= kernel.level for level in plan.calls)].append(kernel_written)
    calls = [Between.of(program, call, values.places(call)) for call in plan.calls.values()]
    return _Written(groups, calls, called.reasons)


def _store_by_chunks(plan: Plan, products: list[set[fx.Node]]) -> bool:
    """Let kernels that have the result of a product in their accumulators store it, and drop kernels that would compute it only
    for that. `products` has the products of each kernel; returns whether anything changed."""
    is_changed = False
    for kernel in list(plan.kernels):
        product = kernel.stores[0].value
        if len(kernel.stores) > 1 or not is_fused(product) or kernel.stores[0].target is not product:
            continue
        for other_kernel, other_products in zip(plan.kernels, products, strict=True):
            width, columns = math.prod(kernel.space[1]), math.prod(other_kernel.space[1])
            is_beside = (other_kernel.level, other_kernel.space[0]) == (kernel.level, kernel.space[0])
            if other_kernel is not kernel and is_beside and product in other_products and width % columns == 0:
                chunks = [ColumnStore(product, product, start, start) for start in range(0, width, columns)]
                other_kernel.stores += chunks
                del products[plan.kernels.index(kernel)]
                plan.kernels.remove(kernel)
                is_changed = True
                break
    return is_changed


def _write_kernel(values: _Values, plan: Plan, kernel: Kernel, number: int) -> tuple[str, Launch]:
    columns = math.prod(kernel.space[1])
    tile = tiles.choose(columns, 0, 1)
    for _ in range(2):  # how large a tile may be is known once the kernel is written
        arguments = _Arguments(values)
        writer = KernelWriter(plan, kernel, tile, arguments)
        lines = writer.write()
        if len(writer.accumulators) > MOST_ACCUMULATORS:
            products_of_accumulators = [product for product, _ in writer.accumulators]
            raise MustBeStored(max(products_of_accumulators, key=products_of_accumulators.count))
        tile = tiles.choose(columns, len(writer.accumulators), writer.widest)
    name = f"{values.part.name}_{number}"
    targets = ", ".join(dict.fromkeys(store.target.name for store in kernel.stores))
    names = list(arguments.names.values())
    text = [
        f"@triton.jit(do_not_specialize={[*INTEGERS, *(name for name in TYPED if name in names)]!r})",
        f"def {name}(",
        *(f"    {line}," for line in wrapped([*typed(names), *INTEGERS, *constants()])),
        "):",
        f'    """Of {"edges" if kernel.space[0] else "rows"} of {columns} elements: {targets}."""',
        "    tile_row, tile_column = tl.program_id(0), tl.program_id(1)",
        *(f"    {line}" for line in lines),
    ]
    products = {product for product, _ in writer.accumulators}
    kept = written_kept(lambda: KernelWriter(plan, kernel, tile, arguments)) if products else None
    launch = Launch(name, list(arguments.names), names, tile, kernel.space[0], products, kernel.level, lines, kept)
    return "\n".join(text) + "\n", launch


def typed(names: list[str]) -> list[str]:
    """Arguments as they are declared."""
    return [TYPED.get(name, name) for name in names]


def constants() -> list[str]:
    """The constants of a kernel, as they are declared."""
    return [f"{name}: tl.constexpr" for name in ("BLOCK_M", "BLOCK_N", "BLOCK_K", "PRECISION")]


def wrapped(words: list[str]) -> list[str]:
    """Words with commas between them, in lines."""
    lines = [""]
    for word in words:
        joined = f"{lines[-1]}, {word}" if lines[-1] else word
        if len(joined) > 110:
            lines.append(word)
        else:
            lines[-1] = joined
    return lines


class _Values:
    """Where the values of a part lie; shared by all of its kernels."""

    def __init__(self, program: Program, core: str, part: Part) -> None:
        self.program, self.core, self.part = program, core, part
        self.slots = program.trace.num_slots
        self.is_leaf = part.name != core
        self.plan: Plan | None = None
        self.origins = part.placeholders
        self.scratch: dict[fx.Node, Scratch] = {}

    def received(self) -> dict[fx.Node, bool]:
        """The gradients of states that the rows of a step receive, and whether another part reads them as well."""
        if self.core != "grad_core":
            return {}
        program, nodes = self.program, {origin: node for node, origin in self.origins.items()}
        return {
            nodes.get(origin, origin): origin in program.buffered and (not self.is_leaf or origin in program.leaf_rows)
            for origin in program.state_grads.values()
            if origin in nodes or (origin in program.buffered and (not self.is_leaf or origin in program.leaf_rows))
        }

    def origin(self, node: fx.Node) -> fx.Node:
        """The node of the joint graph whose value a node in memory has."""
        output = self.plan.stored.get(node) if self.plan is not None else None
        return output or self.origins.get(node, node)

    def scratch_memory(self, node: fx.Node) -> Scratch:
        """The memory of a value that lies there during one step."""
        space_of(node)  # refuses a value without rows
        return scratch_of(node, self.scratch, self.part.name)

    def places(self, call: Part) -> dict[fx.Node, fx.Node | Scratch]:
        """Where the inputs and outputs of a call of PyTorch lie."""
        return {node: self.origins.get(node) or self.scratch_memory(node) for node in (*call.inputs, *call.outputs)}


class _Arguments:
    """The arguments of one kernel, collected while it is written."""

    def __init__(self, values: _Values) -> None:
        self.values = values
        self.names: dict[RunArgument, str] = {}

    def pointer(self, argument: RunArgument, name: str) -> str:
        """The name of an argument: `name`, made unique."""
        return self._named(argument, name, "ptr")

    def _named(self, argument: RunArgument, name: str, kind: str) -> str:
        name = identifier(name)
        number, unique = 1, f"{name}_{kind}"
        while argument not in self.names and unique in self.names.values():
            number += 1
            unique = f"{name}_{number}_{kind}"
        return self.names.setdefault(argument, unique)

    def seed(self) -> str:
        """The name of the seed of random numbers."""
        return self.names.setdefault(Seed(), "seed")

    def place(self, node: fx.Node) -> ValuePlace:
        """The place of a value, or of an output of the part."""
        values, program = self.values, self.values.program
        assert values.plan is not None
        is_scratch = node in values.plan.stored and values.plan.stored[node] is None and node.op != "placeholder"
        if is_scratch:
            return self._scratch(node)
        origin = values.origin(node)
        if not has_rows(origin):
            return Shared(self.pointer(Whole(origin), title(origin)))
        match program.exchanged(values.core, origin):
            case Gather(state, slot):
                return self._gathered(state, slot)
            case Grad(Scatter(state)):
                return self._received(state)
            case Grad(Gather(state, slot)):
                return self._sent(state, slot)
        return self._value(origin)

    def buffered_place(self, node: fx.Node) -> Rows:
        """The place of a received gradient after it was stored."""
        origin = self.values.origin(node)
        return self._value(origin) if origin in self.values.program.buffered else self._scratch(node)

    def _value(self, origin: fx.Node) -> Rows:
        program = self.values.program
        space_of(origin)  # refuses a value whose vertices lie interleaved
        width = stride(origin, program.trace)
        first = "edge_start" if on_edges(origin) else "start" if program.has_leaf_rows(origin) else "inner"
        layout = origin.meta["rows"]
        argument = Value(origin, width // layout.per_vertex)
        pointer = self.pointer(argument, title(origin))
        stride_name = ""
        if comes_from_caller(role_of(origin)):  # its rows may all be the same memory
            stride_name = self._named(Stride(origin), title(origin), "stride")
        return Rows(pointer, width, first, stride=stride_name)

    def _scratch(self, node: fx.Node) -> Rows:
        buffer = self.values.scratch_memory(node)
        return Rows(self.pointer(buffer, buffer.name), buffer.width, "")

    def _width(self, state: str) -> int:
        return math.prod(self.values.program.trace.state[state])

    def _gathered(self, state: str, slot: int) -> GatheredRows:
        pointer, width = self.pointer(State(state), f"state_{state}"), self._width(state)
        if is_over_edges(slot):
            rows, columns = self._rows_of_children(state, By.EDGE), self.values.program.trace.side_by_side
            return GatheredRows(pointer, width, rows, "edge_start", columns, position_of(slot))
        index, slots = self._rows_of_children(state, By.SLOT), self.values.slots
        is_all_slots = slot == ALL_SLOTS
        return GatheredRows(
            pointer, width, index, "inner", slots, 0 if is_all_slots else slot, slots if is_all_slots else 1
        )

    def _rows_of_children(self, state: str, by: By) -> str:
        return self.pointer(*rows_of_children(state, by, self.values.program.partial))

    def _received(self, state: str) -> ReceivedGradient:
        names = []
        for prefix, by in (("placed", By.SLOT), ("listed", By.EDGE)):
            names.append(self.pointer(SentByAll(state, by), f"{prefix}_sent_{state}"))
            names.append(self.pointer(*places_of_parents(state, by, self.values.program.partial)))
            names.append(self.pointer(ParentOffset(by), f"{prefix}_offset"))
        names.append(self.pointer(Outside(state), f"outside_{state}"))
        return ReceivedGradient(", ".join(names), self._width(state))

    def _sent(self, state: str, slot: int) -> Rows:
        width = self._width(state)
        if is_over_edges(slot):
            stride, column = self.values.program.trace.side_by_side * width, position_of(slot) * width
            return Rows(self.pointer(Sent(state, By.EDGE), f"send_edges_{state}"), stride, "edge_start", column)
        slots, column = self.values.slots, 0 if slot == ALL_SLOTS else slot * width
        return Rows(self.pointer(Sent(state, By.SLOT), f"send_{state}"), slots * width, "inner", column)
