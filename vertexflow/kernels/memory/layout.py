"""Where the values of a group of rows lie: laid out once for a structure; a run then allocates its memory in one piece."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor, fx

from ...graph.symbolic.program import BACKWARD, CORES, FORWARD, Program
from ...graph.symbolic.roles import ALL_SLOTS, is_over_edges, position_of
from ..arguments import Buffer, By, Gathered, Received, Scratch
from ..lower.loops import Over, over_of
from ..lower.views import width
from ..order import Extent, RowGroup
from .lives import Life, Lives
from .pool import empty

ALIGNED = 64  # bytes: a line of the cache

Key = fx.Node | Buffer  # a value of the joint graph, or a buffer
Buffers = Mapping[Buffer, tuple[torch.dtype, int]]  # their dtypes and numbers of elements


class Along(Enum):
    """What a value has rows for, by the name of the field of `Extent` that counts these."""

    ROWS = "rows"
    INNER = "inner"
    EDGES = "edges"
    LEAVES = "leaves"

    def count(self, extent: Extent) -> int:
        """How many rows, rows with children, edges, or rows without children an extent has."""
        count: int = getattr(extent, self.value)
        return count


class Taken(NamedTuple):
    """A value whose rows are taken from the order of the batch."""

    node: fx.Node
    along: Along
    is_state: bool = False  # of leaves: whoever reads that, reads it


class Place(NamedTuple):
    """A strided tensor inside the memory of its dtype; offsets and strides count elements."""

    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    along: Along | None = None  # None: it has no rows, or those of one step at a time
    row_stride: int = 0  # from the entries of one row, or edge, to those of the next


@dataclass
class Layout:
    """The places of values and buffers in the memory of a run; those of which no stage needs both may share it."""

    device: torch.device
    places: dict[Key, Place] = field(default_factory=dict)
    sizes: dict[torch.dtype, int] = field(default_factory=dict)
    # Offset, end and life of each of those that may share it.
    _living: dict[torch.dtype, list[tuple[int, int, Life]]] = field(default_factory=dict)

    def add(
        self,
        key: Key,
        dtype: torch.dtype,
        shape: Sequence[int],
        rows: int = 0,
        along: Along | None = None,
        per_row: int = 1,
        life: Life | None = None,
    ) -> Place:
        """Place a tensor: dimension `rows` is the outermost in memory, the others follow in order.

        Along that dimension, the tensor has `per_row` entries for each row, or edge. One without a `life` shares its memory with
        no other.
        """
        aligned = ALIGNED // dtype.itemsize
        order = [rows, *(dim for dim in range(len(shape)) if dim != rows)] if shape else []
        strides, size = [0] * len(shape), 1
        for dim in reversed(order):
            strides[dim] = size
            size *= shape[dim]
        size = -(-size // aligned) * aligned
        offset = self.sizes.get(dtype, 0) if life is None else self._offset(dtype, size, life)
        row_stride = strides[rows] * per_row if along is not None else 0
        self.places[key] = Place(dtype, offset, tuple(shape), tuple(strides), along, row_stride)
        self.sizes[dtype] = max(self.sizes.get(dtype, 0), offset + size)
        return self.places[key]

    def _offset(self, dtype: torch.dtype, size: int, life: Life) -> int:
        """The first offset at which nothing lies that is needed at the same time."""
        living, offset = self._living.setdefault(dtype, []), 0
        for start, end, other in sorted(living, key=operator.itemgetter(0)):
            if life.meets(other):
                if start - offset >= size:
                    break
                offset = max(offset, end)
        living.append((offset, offset + size, life))
        return offset

    def allocate(self) -> Arena:
        """Allocate the memory of one run."""
        flats = {dtype: empty((size,), dtype, self.device) for dtype, size in self.sizes.items()}
        return Arena(self, flats)


@dataclass(frozen=True)
class Arena:
    """The memory of a layout in one run: a flat tensor for each dtype."""

    layout: Layout
    flats: dict[torch.dtype, Tensor]

    def __getitem__(self, key: Key) -> Tensor:
        place = self.layout.places[key]
        return self.flats[place.dtype].as_strided(place.shape, place.strides, place.offset)


class Values(dict[fx.Node, Tensor]):
    """Values of nodes of the joint graph, over all rows or over inner rows; those in arenas become tensors when they are read."""

    def __init__(self, values: Mapping[fx.Node, Tensor] | Iterable[tuple[fx.Node, Tensor]], *arenas: Arena) -> None:
        super().__init__(values)
        self.arenas = list(arenas)

    def __missing__(self, node: fx.Node) -> Tensor:
        for arena in self.arenas:
            if node in arena.layout.places:
                value = self[node] = arena[node]
                return value
        raise KeyError(node)

    def in_arena(self, key: Key) -> Tensor | None:
        """The tensor of a value or buffer, if an arena has a place for it."""
        return next((arena[key] for arena in self.arenas if key in arena.layout.places), None)

    def buffer(self, key: Buffer) -> Tensor:
        """The tensor of a buffer, for which an arena has a place."""
        buffer = self.in_arena(key)
        assert buffer is not None, key
        return buffer

    def find(self, node: fx.Node) -> Tensor | None:
        """The value, if there is one."""
        try:
            return self[node]
        except KeyError:
            return None


def forward_layouts(
    program: Program,
    group: RowGroup,
    parts: Iterable[str],
    scratch: Buffers,
    window: Extent | None = None,
    taken: Sequence[Taken] = (),
) -> tuple[Layout, Layout]:
    """Places for the values that these parts of the forward pass compute, for gathered states, and for `scratch` buffers.

    The first layout is kept for the backward pass, which reads it, the second is temporary. With a `window`, temporary values
    have places for so many rows at a time, which they share with those of other stages; so have gathered states, all of which
    are then temporary and gathered again for the backward pass, and inputs that are `taken`.
    """
    kept, temporary = (Layout(group.child_rows.device) for _ in range(2))
    saved, states = set(program.saved), set(program.scatters.values())
    lives = Lives(program, FORWARD, window is not None)
    _place_scratch(temporary, scratch, lives, lasting=True)
    for node, along in _outputs(program, parts).items():
        if node in saved and node not in states:
            _add_rows(kept, node, along, group.extent, None)
        elif node not in states:
            _add_rows(temporary, node, along, window or group.extent, lives.of(node))
    for name in program.trace.state:
        for by in By:
            nodes = gathered_by(program, name, by)
            is_kept = window is None and bool(saved.intersection(nodes))
            life = lives.of_gathered(nodes, 0 if first_gathered(program, group, nodes) == 0 else 1)
            place_gathered(kept if is_kept else temporary, program, group, window or group.extent, name, by, life)
    _place_taken(temporary, taken, window or group.extent, lives)
    _place_scratch(temporary, scratch, lives, lasting=False)
    return kept, temporary


def backward_layout(
    program: Program,
    group: RowGroup,
    parts: Iterable[str],
    scratch: Buffers,
    window: Extent | None = None,
    taken: Sequence[Taken] = (),
) -> Layout:
    """Places for the values that these parts of the backward pass compute, for received gradients, and for `scratch` buffers;
    with a `window`, for so many rows at a time, as in `forward_layouts`, for states that are gathered again, and for what else
    is `taken`."""
    layout, extent = Layout(group.child_rows.device), window or group.extent
    sent = set(program.gather_grads.values())
    lives = Lives(program, BACKWARD, window is not None)
    _place_scratch(layout, scratch, lives, lasting=True)
    for node, along in _outputs(program, parts).items():
        if node not in sent:
            _add_rows(layout, node, along, extent, lives.of(node))
    steps = group.steps if "grad_core" in program.parts else []
    widest = min(max((step.stop - step.start for step in steps), default=0 if steps else group.num_rows), extent.rows)
    for name, node in program.state_grads.items():
        value = node.meta["val"]
        if node in program.buffered:
            along = Along.ROWS if program.has_leaf_rows(node) else Along.INNER
            shape = (along.count(extent), *value.shape[1:])
            layout.places[node] = layout.add(Received(name), value.dtype, shape, along=along, life=lives.of(node, 1))
        else:
            layout.add(Received(name), value.dtype, (widest, *value.shape[1:]), life=lives.of_part("grad_core"))
    for name, by in gathered_again(program) if window else ():
        life = lives.of_gathered(
            gathered_by(program, name, by), 0 if is_gathered_first(program, group, name, by) else 2
        )
        place_gathered(layout, program, group, extent, name, by, life)
    _place_taken(layout, taken, extent, lives)
    _place_scratch(layout, scratch, lives, lasting=False)
    return layout


def is_gathered_first(program: Program, group: RowGroup, name: str, by: By) -> bool:
    """Whether the backward pass gathers a state again before it begins with a window, not before its lazy part."""
    nodes = gathered_by(program, name, by)
    has_leaf_rows = first_gathered(program, group, nodes) == 0  # which are zeroed first
    return has_leaf_rows or any(map(Lives(program, BACKWARD).is_read_early, nodes))


def _place_scratch(layout: Layout, scratch: Buffers, lives: Lives, lasting: bool) -> None:
    """Places for scratch memory, first for what is `lasting`, so that it lies at the same place in layouts of all windows."""
    for key, (dtype, size) in scratch.items():
        assert isinstance(key, Scratch)
        if (key.over is Over.ELEMENTS) == lasting:  # such as weights in panels
            layout.add(key, dtype, (size,), life=lives.of_part(None if lasting else key.part, key.phases))


def _place_taken(layout: Layout, taken: Sequence[Taken], extent: Extent, lives: Lives) -> None:
    """Places for rows that are taken from the order of the batch."""
    for node, along, is_state in taken:
        value, life = node.meta["val"], lives.of_part(None) if is_state else lives.of_taken(node)
        shape = (along.count(extent), *map(int, value.shape[1:]))
        layout.add(node, value.dtype, shape, along=along, life=life)


def gathered_again(program: Program) -> list[tuple[str, By]]:
    """The states that the backward pass reads as gathered, and how they are gathered."""
    saved = set(program.saved)
    return [
        (name, by) for name in program.trace.state for by in By if saved.intersection(gathered_by(program, name, by))
    ]


def gathered_by(program: Program, name: str, by: By) -> list[fx.Node]:
    """The values that are a state gathered by slots, or by edges."""
    return [
        node
        for (state, slot), node in program.gathers.items()
        if state == name and is_over_edges(slot) == (by is By.EDGE)
    ]


def slots_of(nodes: Mapping[tuple[str, int], fx.Node], name: str) -> dict[fx.Node, int]:
    """The values of the slots of one state, each with its slot."""
    return {node: slot for (state, slot), node in nodes.items() if state == name and not is_over_edges(slot)}


def positions_of(nodes: Mapping[tuple[str, int], fx.Node], name: str) -> dict[fx.Node, int]:
    """The values of one state over edges, each with its position in arcs."""
    return {node: position_of(slot) for (state, slot), node in nodes.items() if state == name and is_over_edges(slot)}


def first_row(program: Program, group: RowGroup, node: fx.Node) -> int:
    """The row of its group that a buffered value begins with."""
    return 0 if program.has_leaf_rows(node) else group.num_leaves


def cut(program: Program, node: fx.Node, group: RowGroup, start: int) -> tuple[int, int, int] | None:
    """Dimension, start and length with which `narrow` cuts rows [start, ...) out of a value; None: the value is these rows."""
    layout, base = node.meta.get("rows"), first_row(program, group, node)
    if layout is None or layout.edges or start == base:
        return None
    return layout.dim, (start - base) * layout.per_vertex, (group.num_rows - start) * layout.per_vertex


def scratch_of(
    node: fx.Node, known: dict[fx.Node, Scratch], part: str, phases: tuple[int, int] | None = None
) -> Scratch:
    """The scratch memory of a value of a part, `known` or new."""
    if node not in known:
        name, dtype = f"scratch_{len(known) + 1}", node.meta["val"].dtype
        known[node] = Scratch(part, name, width(node), over_of(node), dtype, phases)
    return known[node]


def size_in_a_step(scratch: Scratch, group: RowGroup, extent: Extent) -> tuple[torch.dtype, int]:
    """The dtype of scratch memory, and how many elements the largest step needs, of which `extent` is computed at a time."""
    match scratch.over:
        case Over.ELEMENTS:
            count = 1
        case Over.EDGES:
            count = min(max((step.edge_stop - step.edge_start for step in group.steps), default=0), extent.edges)
        case Over.ROWS:
            count = min(max((step.stop - step.start for step in group.steps), default=0), extent.rows)
    return scratch.dtype, scratch.width * count


def empty_for(node: fx.Node, shape: Sequence[int]) -> Tensor:
    """Memory for a value like that of `node`."""
    value = node.meta["val"]
    return empty(shape, value.dtype, value.device)


def first_gathered(program: Program, group: RowGroup, nodes: Iterable[fx.Node]) -> int:
    """The row that the buffer of these gathered values begins with; -1 if it holds the rows of one step at a time."""
    buffered = [node for node in nodes if node in program.buffered]
    return min((first_row(program, group, node) for node in buffered), default=-1)


def place_gathered(
    layout: Layout, program: Program, group: RowGroup, extent: Extent, name: str, by: By, life: Life | None
) -> None:
    """A place for the gathered rows of a state: of an extent if some of their values are buffered, else of one step.

    Rows gathered by slots, and the children of arcs, stand side by side, so that each value is a column.
    """
    nodes, shape = gathered_by(program, name, by), program.trace.state[name]
    if not nodes:
        return
    key, dtype = Gathered(name, by), nodes[0].meta["val"].dtype
    buffered = [node for node in nodes if node in program.buffered]
    if by is By.EDGE:
        widest = min(max((step.edge_stop - step.edge_start for step in group.steps), default=0), extent.edges)
        count, along = (extent.edges, Along.EDGES) if buffered else (widest, None)
        columns = program.trace.side_by_side
        buffer = layout.add(key, dtype, (count * columns, *shape), along=along, per_row=columns, life=life)
        for node, position in positions_of(program.gathers, name).items():
            if node in program.buffered:
                offset, strides = buffer.offset + position * math.prod(shape), (buffer.row_stride, *buffer.strides[1:])
                layout.places[node] = Place(dtype, offset, (count, *shape), strides, along, buffer.row_stride)
        return

    slots = group.num_slots
    if not buffered:
        inner = [step for step in group.steps if step.start >= group.num_leaves]
        widest = max((step.stop - step.start for step in inner if step.reads_from < 0), default=0)
        layout.add(key, dtype, (min(widest, extent.rows) * slots, *shape), life=life)
        return
    along = Along.ROWS if any(map(program.has_leaf_rows, buffered)) else Along.INNER
    buffer = layout.add(key, dtype, (along.count(extent) * slots, *shape), along=along, per_row=slots, life=life)
    for node, slot in slots_of(program.gathers, name).items():
        if node in program.buffered:
            has_leaf_rows = program.has_leaf_rows(node)
            first = group.num_leaves if along is Along.ROWS and not has_leaf_rows else 0  # row of the buffer
            column, row_shape = (0, (slots * shape[0],)) if slot == ALL_SLOTS else (slot * math.prod(shape), shape)
            count = extent.rows if has_leaf_rows else extent.inner
            strides = (buffer.row_stride, *((1,) if slot == ALL_SLOTS else buffer.strides[1:]))
            offset = buffer.offset + first * buffer.row_stride + column
            layout.places[node] = Place(dtype, offset, (count, *row_shape), strides, along, buffer.row_stride)


def _add_rows(layout: Layout, node: fx.Node, along: Along, extent: Extent, life: Life | None) -> None:
    """A place for an output, with so many rows."""
    value, rows = node.meta["val"], node.meta["rows"]
    shape = [0 if dim == rows.dim else int(size) for dim, size in enumerate(value.shape)]
    shape[rows.dim] = along.count(extent) * rows.per_vertex
    layout.add(node, value.dtype, shape, rows.dim, along, rows.per_vertex, life)


def _outputs(program: Program, parts: Iterable[str]) -> dict[fx.Node, Along]:
    """The outputs of parts that have rows, and what they have rows for."""
    outputs: dict[fx.Node, Along] = {}
    for name in parts:
        for node in program.parts[name].outputs if name in program.parts else ():
            layout = node.meta.get("rows")
            if layout is not None:
                # Elsewhere by the part's name: outputs may be views there, which `has_leaf_rows` does not know.
                is_inner = not program.has_leaf_rows(node) if name in CORES else name.endswith("_inner")
                outputs[node] = Along.EDGES if layout.edges else Along.INNER if is_inner else Along.ROWS
    return outputs
