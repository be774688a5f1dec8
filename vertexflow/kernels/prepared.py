"""Runs over a structure whose loops are all native code: written down once, as lists of calls; then a pass is one call.

What is computed, and in which order, is what `autograd` and `executor` say, which serve all other runs. It lies in one piece of
memory that the backward pass reads, and one for the rest of each pass; what users get are tensors of their own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import torch
from torch import Tensor, fx

from .. import _core
from ..graph.symbolic.program import BACKWARD, FORWARD
from .arguments import By, State
from .binding import Addressed
from .bound import Bound
from .calls import At, Piece, Places, Unprepared, Writer
from .compiled import Compiled, NoSteps
from .memory import Along, gathered_again
from .moved import (
    InBatch,
    New,
    along_of,
    among,
    gather,
    give_sent,
    inputs,
    made_of,
    put,
    receive,
    room_for_sent,
    size_of_row,
    take,
    zero_leaves,
)
from .order import Order
from .pool import LARGE, empty, empty_for_a_call
from .rooms import Rooms
from .windows import Windows, visits, visits_back, windows_of

_CPU = torch.device("cpu")
_NOTHING = torch.empty(0)  # at address 0
_SMALL = LARGE // 16  # elements, whatever they are
_address = Tensor.data_ptr


@dataclass(frozen=True, eq=False)
class Forward:
    """The forward pass."""

    calls: _core.Calls
    alive: list[Tensor]  # whose addresses are in the calls
    kept: int  # bytes that the backward pass reads
    rest: int  # bytes that nobody reads later
    constants: list[Tensor]
    outputs: list[New]
    num_seeds: int
    rooms: list[Rooms]  # of each group

    def run(self, flat: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Tensor]:
        """The outputs, and what is kept; `flat` are parameters, then inputs."""
        kept, rest = _new((self.kept,), torch.uint8), _rest(self.rest)
        given = [*map(_plain, flat), *map(_plain, self.constants)]
        outputs = tuple([_new(*new) for new in self.outputs])
        seeds = [int(torch.randint(2**62, ())) for _ in range(self.num_seeds)]
        self.calls.run([0, _address(rest), *map(_address, (kept, *given, *outputs)), *seeds], self.rest)
        return outputs, kept


@dataclass(frozen=True, eq=False)
class Backward:
    """The backward pass where gradients come to these outputs."""

    calls: _core.Calls
    alive: list[Tensor]
    rest: int
    made: list[New]
    sums: list[list[int]]  # the gradient of each parameter, and then input, is the sum of these

    def run(self, kept: Tensor, read: Sequence[Tensor], grads: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradients of parameters, then inputs; `grads` are those of all outputs, or the one row of them."""
        rest = _rest(self.rest)
        given = [*map(_plain, read)]
        made = [_new(*new) for new in self.made]
        self.calls.run([0, _address(rest), *map(_address, (kept, *given, *grads, *made))], self.rest)
        return [reduce(add, [made[at] for at in some]) if some else None for some in self.sums]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Both passes; the second is written once it is known to which outputs gradients come."""

    forward: Forward
    read: list[int]  # which of parameters, inputs and constants the backward pass reads
    zeros: list[Tensor]  # a row for each output
    backwards: dict[tuple[bool, ...], Backward] = field(default_factory=dict)

    def read_back(self, flat: Sequence[Tensor]) -> list[Tensor]:
        """What the backward pass reads, beside what the forward pass kept."""
        every = [*flat, *self.forward.constants]
        return [every[at] for at in self.read]

    def backward(
        self, bound: Bound, order: Order, kept: Tensor, read: Sequence[Tensor], grads: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """The gradients of parameters, then inputs."""
        given = [row if grad is None else _rows(grad) for grad, row in zip(grads, self.zeros, strict=True)]
        have_rows = tuple(grad.dim() > row.dim() for grad, row in zip(given, self.zeros, strict=True))
        return self.backward_for(bound, order, have_rows).run(kept, read, given)

    def backward_for(self, bound: Bound, order: Order, have_rows: tuple[bool, ...]) -> Backward:
        """The pass where gradients have rows for some outputs, and only one row for others."""
        found = self.backwards.get(have_rows)
        if found is None:
            found = self.backwards[have_rows] = _backward(self.forward.rooms, self.read, bound, order, have_rows)
        return found


def prepared_for(bound: Bound, order: Order) -> Prepared | None:
    """What runs over a structure are; None where something is not native code."""
    found, is_native = bound.prepared.get(order), bound.is_native  # which other threads find out, too
    if found is None and is_native is not False and not order.num_external and order.vertex.device == _CPU:
        try:
            found = _prepare(bound, order)
            if is_native is None and bound.wants_gradients:  # what can be for one structure, can be for others
                found.backward_for(bound, order, (True,) * len(found.zeros))
            bound.is_native, bound.prepared[order] = True, found
        except Unprepared:
            bound.is_native, found = False, None
    return found


def _prepare(bound: Bound, order: Order) -> Prepared:
    windows = windows_of(bound.compiled, order)
    later = {node for one in bound.compiled for node in read_later(one)}
    traces = [one.program.trace for one in bound.compiled]
    nodes = [[traces[group].params[name] for group in groups] for name, groups in bound.params.items()]
    for name, groups in bound.pulls.items():  # inputs are taken again, if windows are
        nodes.append([traces[group].pulls[name] for group in groups if windows[group].are_several])
    nodes += [[node] for node in bound.constants]
    read = [at for at, some in enumerate(nodes) if later.intersection(some)]
    likes = (bound.compiled[groups[0]].program.trace.output(name) for name, groups in bound.pushes.items())
    zeros = [torch.zeros(tuple(map(int, like.shape[1:])), dtype=like.dtype) for like in likes]
    return Prepared(_forward(bound, order, windows), read, zeros)


def _forward(bound: Bound, order: Order, windows: list[Windows]) -> Forward:
    writer, programs = Writer(bound, order), [one.program for one in bound.compiled]
    rest, kept = Piece(writer.address("rest")), Piece(writer.address("kept"))
    for each in _flat(bound):
        writer.address(each)
    constants = _constants(writer, bound)
    outputs = [writer.address(("output", name)) for name in bound.pushes]
    rooms = [Rooms(some, _given(writer, one)) for some, one in zip(windows, bound.compiled, strict=True)]
    later = [read_later(one) for one in bound.compiled]
    both = list(zip(bound.compiled, rooms, strict=True))
    for name, node in programs[0].trace.scatters.items():
        is_read = any(one.program.trace.scatters[name] in later[number] for number, one in enumerate(bound.compiled))
        is_read |= any(name in dict(gathered_again(one.program)) for one, room in both if room.windows.are_several)
        state = (kept if is_read else rest).room(order.num_rows + 1, size_of_row(node))
        writer.zero(state.part(order.num_rows, 1))  # what a missing child reads
        for one, room in both:
            group = room.windows.group
            room.set(State(name), state)
            room.set(one.program.trace.scatters[name], state.part(group.start, group.num_rows))
    for number, (one, room) in enumerate(both):
        for name, node in one.program.trace.pulls.items():
            stays = node in later[number] and not room.windows.are_several
            room.room(kept if stays else rest, node, along_of(bound, name), size_of_row(node), stays)
        layouts = one.forward_layouts(room.windows.group, room.windows.extent)
        for piece, layout in zip((kept, rest), layouts, strict=True):
            room.add(piece, layout, piece is kept)
        for node, (shape, dtype) in _results(one, FORWARD):
            size = math.prod(shape) * dtype.itemsize
            room.set(node, (kept if node in later[number] else rest).room(1, size))
    made, puts = [], defaultdict(list)
    for address, (name, groups) in zip(outputs, bound.pushes.items(), strict=True):
        nodes = {number: programs[number].trace.pushes[name] for number in groups}
        new, parts = made_of(address, order.vertices_among(groups), nodes, Along.ROWS)
        made.append(new)
        for number, part in parts.items():
            puts[number].append(part)
    takes = [inputs(writer, number) for number in range(len(both))]
    for number, window, steps, is_first, is_last in visits(order, windows):
        one, room = both[number]
        if is_first:
            take(writer, room, window, takes[number])
            _once(writer, number, "eager", room, window)
            zero_leaves(writer, one.program, room, window)
        if len(steps):
            writer.run(number, "core", room.of_window[window], steps, window)
        if is_last:
            if isinstance(one.loops["core"], NoSteps):
                gather(writer, one.program, room, window, [(name, by) for name in one.program.trace.state for by in By])
            _once(writer, number, "lazy", room, window)
            put(writer, room, window, puts[number])
    return Forward(writer.calls(), writer.alive, kept.size, rest.size, constants, made, writer.num_seeds, rooms)


def _backward(
    before: Sequence[Rooms], read: Sequence[int], bound: Bound, order: Order, have_rows: Sequence[bool]
) -> Backward:
    writer, programs = Writer(bound, order), [one.program for one in bound.compiled]
    windows = [each.windows for each in before]
    rest, kept = Piece(writer.address("rest")), writer.address("kept")
    every: list[Hashable] = [*_flat(bound), *bound.constants]
    for at in read:
        writer.address(every[at])
    pushed = {name: writer.address(("gradient", name)) for name in bound.pushes}
    rooms = [Rooms(some, _given(writer, one)) for some, one in zip(windows, bound.compiled, strict=True)]
    takes: list[list[InBatch]] = [[] for _ in rooms]
    for room, saved in zip(rooms, before, strict=True):
        for places, others in zip(room.of_window, saved.of_window, strict=True):
            places.update((key, at) for key, at in others.items() if at.address == kept)
    for (name, groups), has_rows in zip(bound.pushes.items(), have_rows, strict=True):
        for number, index in zip(groups, order.vertices_among(groups), strict=True):
            node = programs[number].trace.push_grads.get(name)
            if node is not None and has_rows:
                size = size_of_row(node)
                rooms[number].room(rest, node, Along.ROWS, size)
                takes[number].append(InBatch(node, At(pushed[name], 0, size, 0), index, Along.ROWS))
            elif node is not None:
                rooms[number].set(node, At(pushed[name], 0, 0, len(index)))
    sent = room_for_sent(writer, rest, programs, order)
    made: dict[Hashable, New] = {}
    for number, (one, group, room) in enumerate(zip(bound.compiled, order.groups, rooms, strict=True)):
        room.add(rest, one.backward_layout(group, room.windows.extent))
        of_params = set(one.program.param_grads.values())
        for node, (shape, dtype) in _results(one, BACKWARD):
            if node in of_params:
                made[number, node] = shape, dtype
                room.set(node, At(writer.address((number, node)), 0, 0, 1))
            else:
                room.set(node, rest.room(1, math.prod(shape) * dtype.itemsize))
        give_sent(writer, one.program, group, sent, room)
        if room.windows.are_several:
            later = read_later(one)
            again = [each for each in inputs(writer, number) if each.node in later]
            for each in again:
                room.room(rest, each.node, each.along, each.there.stride)
            takes[number] += again
    sums: list[list[Hashable]] = []
    for name, groups in bound.params.items():
        nodes = {number: programs[number].param_grads.get(name) for number in groups}
        sums.append([(number, node) for number, node in nodes.items() if node is not None])
    puts: dict[int, list[InBatch]] = defaultdict(list)
    for name, groups in bound.pulls.items():
        nodes = {number: programs[number].pull_grads.get(name) for number in groups}
        sums.append([])
        if any(nodes.values()):
            sums[-1].append(name)
            address = writer.address(("made", name))
            made[name], parts = made_of(address, among(bound, order, name), nodes, along_of(bound, name))
            for number, part in parts.items():
                puts[number].append(part)
    for number, window, steps, is_first, is_last in visits_back(order, windows):
        one, room = bound.compiled[number], rooms[number]
        if is_first:
            take(writer, room, window, takes[number])
            if room.windows.are_several:
                zero_leaves(writer, one.program, room, window)
                gather(writer, one.program, room, window, gathered_again(one.program))
            _once(writer, number, "grad_eager", room, window)
        if len(steps):
            writer.run(number, "grad_core", room.of_window[window], steps, window)
        if is_last:
            if isinstance(one.loops["grad_core"], NoSteps):
                receive(writer, one.program, room, window, sent)
            _once(writer, number, "grad_lazy", room, window)
            put(writer, room, window, puts[number])
    number_of = {key: at for at, key in enumerate(made)}
    if writer.num_seeds or not number_of.keys() >= {key for some in sums for key in some}:
        raise Unprepared("gradients that no loop makes")
    terms = [[number_of[key] for key in some] for some in sums]
    return Backward(writer.calls(), writer.alive, rest.size, list(made.values()), terms)


def _flat(bound: Bound) -> list[tuple[str, str]]:
    """What a run is given, in order."""
    return [*(("parameter", name) for name in bound.params), *(("input", name) for name in bound.pulls)]


def _constants(writer: Writer, bound: Bound) -> list[Tensor]:
    """Tensors that are read as they are; their addresses follow."""
    for node in bound.constants:
        writer.address(node)
    return list(bound.constants.values())


def _given(writer: Writer, one: Compiled) -> Places:
    """Where parameters and constants are, whose addresses a run is given."""
    named = {node: ("parameter", name) for name, node in one.program.trace.params.items()}
    known = {node: writer.known(named.get(node, node)) for node in (*named, *one.program.trace.constants)}
    return {node: At(address, 0, 0, 1) for node, address in known.items() if address is not None}


def read_later(one: Compiled) -> set[fx.Node]:
    """What the backward pass reads."""
    return {*one.program.saved, *one.program.read_constants}


def _results(one: Compiled, stages: Sequence[str]) -> Iterator[tuple[fx.Node, New]]:
    """What loops of these stages make that has no rows."""
    for stage in stages:
        for part in (stage, f"{stage}_inner"):
            loop = one.loops.get(part)
            if isinstance(loop, Addressed):
                yield from ((node, (shape, node.meta["val"].dtype)) for node, shape in loop.results)


def _once(writer: Writer, group: int, stage: str, rooms: Rooms, window: int) -> None:
    """Run what is computed once, over all rows of a window, and over those with children."""
    places, windows = rooms.of_window[window], rooms.windows
    writer.run(group, stage, places, windows.all_rows(window), window)
    writer.run(group, f"{stage}_inner", places, windows.inner_rows(window), window)


def _new(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if math.prod(shape) < _SMALL:
        return torch.empty(shape, dtype=dtype, device=_CPU)
    return empty(shape, dtype, _CPU)


def _rest(size: int) -> Tensor:
    """Memory for the time of a run, which native code finds itself if it is small."""
    return _NOTHING if size < LARGE else empty_for_a_call(size)


def _plain(tensor: Tensor) -> Tensor:
    """As it lies in memory, in one piece."""
    return tensor if tensor.is_contiguous() and not tensor.is_neg() else tensor.resolve_neg().contiguous()


def _rows(grad: Tensor) -> Tensor:
    """A gradient, or its first row where all rows are the same memory."""
    return _plain(grad[0] if grad.stride(0) == 0 and len(grad) else grad)
