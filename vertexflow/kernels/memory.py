"""Where the values of a group of rows lie: found once for a structure; a run then takes its memory in one piece."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from ..graph.symbolic.program import CORES, Program
from ..graph.symbolic.roles import ALL_SLOTS, CHILDREN
from .arguments import Buffer, By, Gathered, Received, Scratch
from .lower.loops import Over, over_of
from .lower.views import width
from .order import RowGroup
from .pool import empty

ALIGNED = 64  # bytes: a line of the cache

Key = fx.Node | Buffer  # a value of the joint graph, or room for something else
Buffers = Mapping[Buffer, tuple[torch.dtype, int]]  # what their elements are and how many


@dataclass(frozen=True)
class Place:
    """A strided tensor inside the memory of its dtype; `offset` and `strides` count elements."""

    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class Layout:
    """Where what is computed lies."""

    device: torch.device
    places: dict[Key, Place] = field(default_factory=dict)
    sizes: dict[torch.dtype, int] = field(default_factory=dict)

    def add(self, key: Key, dtype: torch.dtype, shape: Sequence[int], rows: int = 0) -> Place:
        """Room for a tensor whose elements lie in the order of their dimensions, but that the one of its rows comes first."""
        step, offset = ALIGNED // dtype.itemsize, self.sizes.get(dtype, 0)
        order = [rows, *(dim for dim in range(len(shape)) if dim != rows)] if shape else []
        strides = tuple(math.prod(shape[other] for other in order[order.index(dim) + 1 :]) for dim in range(len(shape)))
        self.places[key] = Place(dtype, offset, tuple(shape), strides)
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


def forward_layouts(program: Program, group: RowGroup, parts: Iterable[str], scratch: Buffers) -> tuple[Layout, Layout]:
    """Places for what these parts of the forward pass compute, and what is gathered: what the backward reads, and the rest.

    `scratch` are further buffers.
    """
    kept, rest = (Layout(group.child_rows.device) for _ in range(2))
    saved = set(program.saved)
    for node, extents in _outputs(program, parts, group).items():
        if node not in program.trace.scatters.values():
            (kept if node in saved else rest).add(node, node.meta["val"].dtype, extents, node.meta["rows"].dim)
    for name, shape in program.trace.state.items():
        slots = slots_of(program.gathers, name)
        if slots:
            _place_gathered(program, group, kept if saved.intersection(slots) else rest, name, slots, shape)
        every = program.gathers.get((name, CHILDREN))
        if every is not None:
            assert group.edges is not None
            widest = max((step.edge_stop - step.edge_start for step in group.steps), default=0)
            rows = group.edges.num_edges if every in program.kept else widest
            layout = kept if every in saved else rest
            place = layout.add(Gathered(name, By.EDGE), every.meta["val"].dtype, (rows, *shape))
            if every in program.kept:
                layout.places[every] = place
    for key, (dtype, size) in scratch.items():
        rest.add(key, dtype, (size,))
    return kept, rest


def backward_layout(program: Program, group: RowGroup, parts: Iterable[str], scratch: Buffers) -> Layout:
    """Places for what these parts of the backward pass compute, and what is received."""
    layout = Layout(group.child_rows.device)
    sent = set(program.gather_grads.values())
    for node, shape in _outputs(program, parts, group).items():
        if node not in sent:
            layout.add(node, node.meta["val"].dtype, shape, node.meta["rows"].dim)
    steps = group.steps if "grad_core" in program.parts else []
    widest = max((step.stop - step.start for step in steps), default=0 if steps else group.num_rows)
    for name, node in program.state_grads.items():
        value = node.meta["val"]
        count = group.num_rows - first_row(program, group, node) if node in program.kept else widest
        place = layout.add(Received(name), value.dtype, (count, *value.shape[1:]))
        if node in program.kept:
            layout.places[node] = place
    for key, (dtype, size) in scratch.items():
        layout.add(key, dtype, (size,))
    return layout


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


def room_of_a_step(scratch: Scratch, group: RowGroup) -> tuple[torch.dtype, int]:
    """What the elements of a room are, and how many the largest step needs."""
    match scratch.over:
        case Over.ELEMENTS:
            most = 1
        case Over.EDGES:
            most = max((step.edge_stop - step.edge_start for step in group.steps), default=0)
        case Over.ROWS:
            most = max((step.stop - step.start for step in group.steps), default=0)
    return scratch.dtype, scratch.width * most


def room_for(node: fx.Node, shape: Sequence[int]) -> Tensor:
    """Memory for a value like that of `node`."""
    value = node.meta["val"]
    return empty(shape, value.dtype, value.device)


def first_gathered(program: Program, group: RowGroup, nodes: Iterable[fx.Node]) -> int:
    """The row that a buffer of gathered values begins with; -1 if it holds the rows of one step at a time."""
    kept = [node for node in nodes if node in program.kept]
    return min((first_row(program, group, node) for node in kept), default=-1)


def _place_gathered(
    program: Program, group: RowGroup, layout: Layout, name: str, slots: dict[fx.Node, int], shape: tuple[int, ...]
) -> None:
    """The rows of all slots, side by side; kept values are columns of them."""
    base, dtype, width = first_gathered(program, group, slots), next(iter(slots)).meta["val"].dtype, math.prod(shape)
    count = group.num_rows - base
    if base < 0:
        inner = [step for step in group.steps if step.start >= group.num_leaves]
        count = max((step.stop - step.start for step in inner if step.reads_from < 0), default=0)
    whole = layout.add(Gathered(name, By.SLOT), dtype, (count * group.num_slots, *shape))
    for node, slot in slots.items():
        if node in program.kept:
            start, beside = first_row(program, group, node), group.num_slots * width
            column = 0 if slot == ALL_SLOTS else slot * width
            extent = (group.num_slots * shape[0],) if slot == ALL_SLOTS else shape
            offset = whole.offset + (start - base) * beside + column
            strides = (beside, *((1,) if slot == ALL_SLOTS else whole.strides[1:]))
            layout.places[node] = Place(dtype, offset, (group.num_rows - start, *extent), strides)


def _outputs(program: Program, parts: Iterable[str], group: RowGroup) -> dict[fx.Node, list[int]]:
    """The shapes of what parts make, over all steps; of what has rows."""
    shapes: dict[fx.Node, list[int]] = {}
    for name in parts:
        for node in program.parts[name].outputs if name in program.parts else ():
            layout = node.meta.get("rows")
            if layout is None:
                continue
            first = group.num_leaves if name.endswith("_inner") else 0  # also of views, which only the caller sees
            count = group.num_rows - (first_row(program, group, node) if name in CORES else first)
            if layout.edges:
                assert group.edges is not None
                count = group.edges.num_edges
            shapes[node] = [0 if dim == layout.dim else int(n) for dim, n in enumerate(node.meta["val"].shape)]
            shapes[node][layout.dim] = count * layout.per_vertex
    return shapes
