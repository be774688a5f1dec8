"""Where the values of a group of rows lie: found once for a structure; a run then takes its memory in one piece."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor, fx

from ..graph.symbolic.program import CORES, Program
from ..graph.symbolic.roles import ALL_SLOTS, CHILDREN
from .arguments import Buffer, By, Gathered, Received, Scratch
from .lower.loops import Over, over_of
from .lower.views import width
from .order import Extent, RowGroup
from .pool import empty

ALIGNED = 64  # bytes: a line of the cache

Key = fx.Node | Buffer  # a value of the joint graph, or room for something else
Buffers = Mapping[Buffer, tuple[torch.dtype, int]]  # what their elements are and how many


class Along(Enum):
    """What a value has rows for; as the fields of `Extent` are called."""

    ROWS = "rows"
    INNER = "inner"
    EDGES = "edges"

    def of(self, extent: Extent) -> int:
        """How many those are."""
        count: int = getattr(extent, self.value)
        return count


@dataclass(frozen=True)
class Place:
    """A strided tensor inside the memory of its dtype; `offset` and `strides` count elements, and `each` those from what one row
    is of, along something, to the next; None where it has only the rows of one step, or none."""

    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    along: Along | None = None
    each: int = 0


@dataclass
class Layout:
    """Where what is computed lies."""

    device: torch.device
    places: dict[Key, Place] = field(default_factory=dict)
    sizes: dict[torch.dtype, int] = field(default_factory=dict)

    def add(
        self,
        key: Key,
        dtype: torch.dtype,
        shape: Sequence[int],
        rows: int = 0,
        along: Along | None = None,
        beside: int = 1,
    ) -> Place:
        """Room for a tensor whose elements lie in the order of their dimensions, but that the one of its rows comes first;
        so many rows beside each other are of one that it goes along."""
        step, offset = ALIGNED // dtype.itemsize, self.sizes.get(dtype, 0)
        order = [rows, *(dim for dim in range(len(shape)) if dim != rows)] if shape else []
        strides = tuple(math.prod(shape[other] for other in order[order.index(dim) + 1 :]) for dim in range(len(shape)))
        each = strides[rows] * beside if along is not None else 0
        self.places[key] = Place(dtype, offset, tuple(shape), strides, along, each)
        self.sizes[dtype] = offset + -(-math.prod(shape) // step) * step
        return self.places[key]

    def allocate(self) -> Arena:
        """The memory of one run."""
        flats = {dtype: empty((size,), dtype, self.device) for dtype, size in self.sizes.items()}
        return Arena(self, flats)


@dataclass(frozen=True)
class Arena:
    """Memory for all places of a layout, a flat tensor for each dtype."""

    layout: Layout
    flats: dict[torch.dtype, Tensor]

    def __getitem__(self, key: Key) -> Tensor:
        place = self.layout.places[key]
        return self.flats[place.dtype].as_strided(place.shape, place.strides, place.offset)


class Values(dict[fx.Node, Tensor]):
    """Values of nodes of the joint graph, over all rows or over inner rows; tensors of arenas are made when they are read."""

    def __init__(self, given: Mapping[fx.Node, Tensor] | Iterable[tuple[fx.Node, Tensor]], *arenas: Arena) -> None:
        super().__init__(given)
        self.arenas = list(arenas)

    def __missing__(self, node: fx.Node) -> Tensor:
        for arena in self.arenas:
            if node in arena.layout.places:
                value = self[node] = arena[node]
                return value
        raise KeyError(node)

    def in_arena(self, key: Key) -> Tensor | None:
        """What lies in an arena."""
        return next((arena[key] for arena in self.arenas if key in arena.layout.places), None)

    def buffer(self, key: Buffer) -> Tensor:
        """The room that an arena has for this."""
        room = self.in_arena(key)
        assert room is not None, key
        return room

    def find(self, node: fx.Node) -> Tensor | None:
        """The value, if there is one."""
        try:
            return self[node]
        except KeyError:
            return None


def forward_layouts(
    program: Program, group: RowGroup, parts: Iterable[str], scratch: Buffers, window: Extent | None = None
) -> tuple[Layout, Layout]:
    """Places for what these parts of the forward pass compute, and what is gathered: what the backward reads, and the rest.

    `scratch` are further buffers. With a `window`, the rest has room for so many rows at a time, and what is gathered, too,
    which is gathered again for the backward pass.
    """
    kept, rest = (Layout(group.child_rows.device) for _ in range(2))
    saved = set(program.saved)
    for stays, layout, extent in ((True, kept, group.extent), (False, rest, window or group.extent)):
        for node, (shape, along) in _outputs(program, parts, extent).items():
            if node not in program.trace.scatters.values() and (node in saved) == stays:
                _add_rows(layout, node, shape, along)
    for name in program.trace.state:
        for by in By:
            nodes = gathered_by(program, name, by)
            is_kept = window is None and bool(saved.intersection(nodes))
            place_gathered(kept if is_kept else rest, program, group, window or group.extent, name, by)
    for key, (dtype, size) in scratch.items():
        rest.add(key, dtype, (size,))
    return kept, rest


def backward_layout(
    program: Program, group: RowGroup, parts: Iterable[str], scratch: Buffers, window: Extent | None = None
) -> Layout:
    """Places for what these parts of the backward pass compute, and what is received; with a `window`, for so many rows at a
    time, and for what is gathered again."""
    layout, extent = Layout(group.child_rows.device), window or group.extent
    sent = set(program.gather_grads.values())
    for node, (shape, along) in _outputs(program, parts, extent).items():
        if node not in sent:
            _add_rows(layout, node, shape, along)
    steps = group.steps if "grad_core" in program.parts else []
    widest = min(max((step.stop - step.start for step in steps), default=0 if steps else group.num_rows), extent.rows)
    for name, node in program.state_grads.items():
        value = node.meta["val"]
        if node in program.kept:
            along = Along.ROWS if program.is_whole(node) else Along.INNER
            of_all = (along.of(extent), *value.shape[1:])
            layout.places[node] = layout.add(Received(name), value.dtype, of_all, along=along)
        else:
            layout.add(Received(name), value.dtype, (widest, *value.shape[1:]))
    for name, by in gathered_again(program) if window else ():
        place_gathered(layout, program, group, extent, name, by)
    for key, (dtype, size) in scratch.items():
        layout.add(key, dtype, (size,))
    return layout


def gathered_again(program: Program) -> list[tuple[str, By]]:
    """The states that the backward pass reads gathered, and how they are."""
    saved = set(program.saved)
    return [
        (name, by) for name in program.trace.state for by in By if saved.intersection(gathered_by(program, name, by))
    ]


def gathered_by(program: Program, name: str, by: By) -> list[fx.Node]:
    """The values that are a state gathered by slots, or by edges."""
    return [
        node
        for (state, slot), node in program.gathers.items()
        if state == name and (slot == CHILDREN) == (by is By.EDGE)
    ]


def slots_of(nodes: Mapping[tuple[str, int], fx.Node], name: str) -> dict[fx.Node, int]:
    """The values that one state's slots are, and their slots."""
    return {node: slot for (state, slot), node in nodes.items() if state == name and slot != CHILDREN}


def first_row(program: Program, group: RowGroup, node: fx.Node) -> int:
    """The row of its group that a value that is kept begins with."""
    return 0 if program.is_whole(node) else group.num_leaves


def cut(program: Program, node: fx.Node, group: RowGroup, start: int) -> tuple[int, int, int] | None:
    """What of a value is rows [start, ...): dimension, start and length for `narrow`; None for all of it."""
    layout, base = node.meta.get("rows"), first_row(program, group, node)
    if layout is None or layout.edges or start == base:
        return None
    return layout.dim, (start - base) * layout.per_vertex, (group.num_rows - start) * layout.per_vertex


def room_of(node: fx.Node, rooms: dict[fx.Node, Scratch], part: str) -> Scratch:
    """The scratch memory of a value, one of the `rooms` of a part, which may be new."""
    if node not in rooms:
        rooms[node] = Scratch(part, f"scratch_{len(rooms) + 1}", width(node), over_of(node), node.meta["val"].dtype)
    return rooms[node]


def room_of_a_step(scratch: Scratch, group: RowGroup, extent: Extent) -> tuple[torch.dtype, int]:
    """What the elements of a room are, and how many the largest step needs, of which no more than an extent is computed at a
    time."""
    match scratch.over:
        case Over.ELEMENTS:
            most = 1
        case Over.EDGES:
            most = min(max((step.edge_stop - step.edge_start for step in group.steps), default=0), extent.edges)
        case Over.ROWS:
            most = min(max((step.stop - step.start for step in group.steps), default=0), extent.rows)
    return scratch.dtype, scratch.width * most


def room_for(node: fx.Node, shape: Sequence[int]) -> Tensor:
    """Memory for a value like that of `node`."""
    value = node.meta["val"]
    return empty(shape, value.dtype, value.device)


def first_gathered(program: Program, group: RowGroup, nodes: Iterable[fx.Node]) -> int:
    """The row that a buffer of gathered values begins with; -1 if it holds the rows of one step at a time."""
    kept = [node for node in nodes if node in program.kept]
    return min((first_row(program, group, node) for node in kept), default=-1)


def place_gathered(layout: Layout, program: Program, group: RowGroup, extent: Extent, name: str, by: By) -> None:
    """Room for what is gathered of a state, of so many rows or of a step: those of all slots side by side, of which kept values
    are columns, or those of all edges."""
    nodes, shape = gathered_by(program, name, by), program.trace.state[name]
    if not nodes:
        return
    dtype, kept, key = nodes[0].meta["val"].dtype, [node for node in nodes if node in program.kept], Gathered(name, by)
    if by is By.EDGE:
        widest = min(max((step.edge_stop - step.edge_start for step in group.steps), default=0), extent.edges)
        whole = layout.add(key, dtype, (extent.edges if kept else widest, *shape), along=Along.EDGES if kept else None)
        layout.places.update(dict.fromkeys(kept, whole))
        return
    slots = group.num_slots
    if not kept:
        inner = [step for step in group.steps if step.start >= group.num_leaves]
        widest = max((step.stop - step.start for step in inner if step.reads_from < 0), default=0)
        layout.add(key, dtype, (min(widest, extent.rows) * slots, *shape))
        return
    along = Along.ROWS if any(map(program.is_whole, kept)) else Along.INNER
    whole = layout.add(key, dtype, (along.of(extent) * slots, *shape), along=along, beside=slots)
    for node, slot in slots_of(program.gathers, name).items():
        if node in program.kept:
            is_whole = program.is_whole(node)
            first = group.num_leaves if along is Along.ROWS and not is_whole else 0  # row of the buffer
            column, of_vertex = (0, (slots * shape[0],)) if slot == ALL_SLOTS else (slot * math.prod(shape), shape)
            count = extent.rows if is_whole else extent.inner
            strides = (whole.each, *((1,) if slot == ALL_SLOTS else whole.strides[1:]))
            offset = whole.offset + first * whole.each + column
            layout.places[node] = Place(dtype, offset, (count, *of_vertex), strides, along, whole.each)


def _add_rows(layout: Layout, node: fx.Node, shape: Sequence[int], along: Along) -> None:
    rows = node.meta["rows"]
    layout.add(node, node.meta["val"].dtype, shape, rows.dim, along, rows.per_vertex)


def _outputs(program: Program, parts: Iterable[str], extent: Extent) -> dict[fx.Node, tuple[list[int], Along]]:
    """The shapes of what parts make of so many rows, and what they have rows for; of what has rows."""
    shapes: dict[fx.Node, tuple[list[int], Along]] = {}
    for name in parts:
        for node in program.parts[name].outputs if name in program.parts else ():
            layout = node.meta.get("rows")
            if layout is None:
                continue
            is_inner = name.endswith("_inner")  # also of views, which only the caller sees
            if name in CORES:
                is_inner = not program.is_whole(node)
            along = Along.EDGES if layout.edges else Along.INNER if is_inner else Along.ROWS
            shape = [0 if dim == layout.dim else int(n) for dim, n in enumerate(node.meta["val"].shape)]
            shape[layout.dim] = along.of(extent) * layout.per_vertex
            shapes[node] = shape, along
    return shapes
