"""Runs over a structure whose loops are all native code: written down once, as lists of calls; then a pass is one call.

What is computed, and in which order, is what `autograd` and `executor` say, which serve all other runs. It lies in one piece of
memory that the backward pass reads, and one for the rest of each pass; what users get are tensors of their own.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import torch
from torch import Tensor, fx

from .. import _core
from ..graph.symbolic.program import BACKWARD, FORWARD, Program
from ..graph.symbolic.roles import ALL_SLOTS, CHILDREN
from .arguments import By, Gathered, Received, Sent, SentByAll, State
from .binding import Addressed
from .bound import Bound
from .calls import At, Piece, Places, Unprepared, Writer
from .compiled import Compiled, NoSteps
from .memory import first_gathered, first_row, slots_of
from .order import Order, RowGroup
from .pool import LARGE, empty

_CPU = torch.device("cpu")
_NOTHING = torch.empty(0)  # at address 0
_SMALL = LARGE // 16  # elements, whatever they are
_address = Tensor.data_ptr

New = tuple[tuple[int, ...], torch.dtype]  # a tensor that a run makes for whoever called it


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
    places: list[Places]  # of each group

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
            found = self.backwards[have_rows] = _backward(self.forward.places, self.read, bound, order, have_rows)
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
    later = {node for one in bound.compiled for node in _read_later(one)}
    read = [
        at
        for at, (name, groups) in enumerate(bound.params.items())
        if any(bound.compiled[group].program.trace.params[name] in later for group in groups)
    ]
    read += [len(_flat(bound)) + at for at, node in enumerate(bound.constants) if node in later]
    likes = (bound.compiled[groups[0]].program.trace.output(name) for name, groups in bound.pushes.items())
    zeros = [torch.zeros(tuple(map(int, like.shape[1:])), dtype=like.dtype) for like in likes]
    return Prepared(_forward(bound, order), read, zeros)


def _forward(bound: Bound, order: Order) -> Forward:
    writer, programs = Writer(bound, order), [one.program for one in bound.compiled]
    rest, kept = Piece(writer.address("rest")), Piece(writer.address("kept"))
    flat = {each: writer.address(each) for each in _flat(bound)}
    constants = _constants(writer, bound)
    outputs = [writer.address(("output", name)) for name in bound.pushes]
    places = [_given(writer, one) for one in bound.compiled]
    later = [_read_later(one) for one in bound.compiled]
    each = list(zip(bound.compiled, order.groups, places, strict=True))

    def room(group: int, node: fx.Node, rows: int, bytes: int) -> At:
        return (kept if node in later[group] else rest).room(rows, bytes)

    for name, node in programs[0].trace.scatters.items():
        is_read = any(program.trace.scatters[name] in some for program, some in zip(programs, later, strict=True))
        state = (kept if is_read else rest).room(order.num_rows + 1, _size_of_row(node))
        writer.zero(state.part(order.num_rows, 1))  # what a missing child reads
        for one, group, where in each:
            where[State(name)] = state
            where[one.program.trace.scatters[name]] = state.part(group.start, group.num_rows)
    for name, groups in bound.pulls.items():
        for number, index in zip(groups, _among(bound, order, name), strict=True):
            node = programs[number].trace.pulls[name]
            place = places[number][node] = room(number, node, len(index), _size_of_row(node))
            writer.take(place, At(flat["input", name], 0, place.stride, 0), index)
    for number, (one, group, where) in enumerate(each):
        for piece, layout in zip((kept, rest), one.forward_layouts(group), strict=True):
            piece.add(layout, where)
        for node, (shape, dtype) in _results(one, FORWARD):
            where[node] = room(number, node, 1, math.prod(shape) * dtype.itemsize)
        _once(writer, number, "eager", where)
        for name in one.program.trace.state:
            if first_gathered(one.program, group, slots_of(one.program.gathers, name)) == 0:  # leaves have rows, too
                writer.zero(where[Gathered(name, By.SLOT)].part(0, group.num_leaves * group.num_slots))
    for number, first, end in order.runs:
        writer.run(number, "core", places[number], order.table[first:end])
    for number, (one, group, where) in enumerate(each):
        if isinstance(one.loops["core"], NoSteps):
            _gather(writer, one.program, group, where)
        _once(writer, number, "lazy", where)
    made = []
    for address, (name, groups) in zip(outputs, bound.pushes.items(), strict=True):
        nodes = {number: programs[number].trace.pushes[name] for number in groups}
        made.append(_in_batch_order(writer, address, order.vertices_among(groups), nodes, places))
    return Forward(writer.calls(), writer.alive, kept.size, rest.size, constants, made, writer.num_seeds, places)


def _backward(
    before: Sequence[Places], read: Sequence[int], bound: Bound, order: Order, have_rows: Sequence[bool]
) -> Backward:
    writer, programs = Writer(bound, order), [one.program for one in bound.compiled]
    rest, kept = Piece(writer.address("rest")), writer.address("kept")
    every: list[Hashable] = [*_flat(bound), *bound.constants]
    for at in read:
        writer.address(every[at])
    pushed = {name: writer.address(("gradient", name)) for name in bound.pushes}
    places = [_given(writer, one) for one in bound.compiled]
    for where, saved in zip(places, before, strict=True):
        where.update((key, at) for key, at in saved.items() if at.address == kept)
    for (name, groups), has_rows in zip(bound.pushes.items(), have_rows, strict=True):
        for number, index in zip(groups, order.vertices_among(groups), strict=True):
            node = programs[number].trace.push_grads.get(name)
            if node is not None and has_rows:
                place = places[number][node] = rest.room(len(index), _size_of_row(node))
                writer.take(place, At(pushed[name], 0, place.stride, 0), index)
            elif node is not None:
                places[number][node] = At(pushed[name], 0, 0, len(index))
    sent = _room_for_sent(writer, rest, programs, order)
    made: dict[Hashable, New] = {}
    for number, (one, group, where) in enumerate(zip(bound.compiled, order.groups, places, strict=True)):
        rest.add(one.backward_layout(group), where)
        of_params = set(one.program.param_grads.values())
        for node, (shape, dtype) in _results(one, BACKWARD):
            if node in of_params:
                made[number, node] = shape, dtype
                where[node] = At(writer.address((number, node)), 0, 0, 1)
            else:
                where[node] = rest.room(1, math.prod(shape) * dtype.itemsize)
        _once(writer, number, "grad_eager", where)
        _give_sent(writer, one.program, group, sent, where)
    last = len(order.steps)
    for number, first, end in reversed(order.runs):
        writer.run(number, "grad_core", places[number], order.backwards[last - end : last - first])
    for number, (one, group, where) in enumerate(zip(bound.compiled, order.groups, places, strict=True)):
        if isinstance(one.loops["grad_core"], NoSteps):
            _receive(writer, one.program, group, sent, where)
        _once(writer, number, "grad_lazy", where)
    sums: list[list[Hashable]] = []
    for name, groups in bound.params.items():
        nodes = {number: programs[number].param_grads.get(name) for number in groups}
        sums.append([(number, node) for number, node in nodes.items() if node is not None])
    for name, groups in bound.pulls.items():
        nodes = {number: programs[number].pull_grads.get(name) for number in groups}
        sums.append([])
        if any(nodes.values()):
            sums[-1].append(name)
            made[name] = _in_batch_order(
                writer, writer.address(("made", name)), _among(bound, order, name), nodes, places
            )
    number_of = {key: at for at, key in enumerate(made)}
    if writer.num_seeds or not number_of.keys() >= {key for some in sums for key in some}:
        raise Unprepared("gradients that no loop makes")
    terms = [[number_of[key] for key in some] for some in sums]
    return Backward(writer.calls(), writer.alive, rest.size, list(made.values()), terms)


def _gather(writer: Writer, program: Program, group: RowGroup, places: Places) -> None:
    """Gather what others than a core read, where no core does."""
    for name in program.trace.state:
        nodes, every = slots_of(program.gathers, name), program.gathers.get((name, CHILDREN))
        base = first_gathered(program, group, nodes)
        if base >= 0:
            inner = (group.num_leaves - base) * group.num_slots
            writer.take(
                places[Gathered(name, By.SLOT)].part(inner, len(group.child_rows)),
                places[State(name)],
                group.child_rows,
            )
        if every is not None and every in program.kept:
            assert group.edges is not None
            writer.take(places[Gathered(name, By.EDGE)], places[State(name)], group.edges.child_rows)


def _receive(writer: Writer, program: Program, group: RowGroup, sent: Mapping[SentByAll, At], places: Places) -> None:
    """Receive what others than a core read, where no core does."""
    for name, node in program.state_grads.items():
        if node in program.kept:
            base = first_row(program, group, node)
            mine = {each.by: at for each, at in sent.items() if each.state == name}
            writer.receive(places[Received(name)], node.meta["val"].dtype, group.start + base, mine)


def _in_batch_order(
    writer: Writer, address: int, among: Sequence[Tensor], nodes: Mapping[int, fx.Node | None], places: Sequence[Places]
) -> New:
    """Bring what groups have for each of their rows into the order of the batch: zeros, where a group has nothing."""
    like = next(filter(None, nodes.values()))
    to = At(address, 0, _size_of_row(like), sum(map(len, among)))
    for (number, node), index in zip(nodes.items(), among, strict=True):
        if node is None:
            writer.zero(to, index)
            continue
        layout, source = node.meta["rows"], places[number].get(node)
        if source is None or layout.dim or layout.per_vertex != 1:
            raise Unprepared(f"{node.name} does not lie in rows")
        assert source.rows == len(index), f"{node.name} has not as many rows as vertices"
        writer.put(to, source, index)
    value = like.meta["val"]
    return (to.rows, *map(int, value.shape[1:])), value.dtype


def _room_for_sent(writer: Writer, rest: Piece, programs: Sequence[Program], order: Order) -> dict[SentByAll, At]:
    """Room for the gradients that all groups send to their children."""
    sent: dict[SentByAll, At] = {}
    for program in programs:
        for (name, slot), node in program.gather_grads.items():
            argument = SentByAll(name, By.EDGE if slot == CHILDREN else By.SLOT)
            if argument not in sent:
                size = math.prod(program.trace.state[name]) * node.meta["val"].dtype.itemsize
                rows = order.num_edges if slot == CHILDREN else order.num_positions + 1
                sent[argument] = rest.room(rows, size)
                if slot != CHILDREN:
                    writer.zero(sent[argument].part(rows - 1, 1))  # what comes to those that nobody reads
    return sent


def _give_sent(writer: Writer, program: Program, group: RowGroup, sent: Mapping[SentByAll, At], places: Places) -> None:
    """The places of a group among all that is sent; zeros where it sends nothing."""
    for each, at in sent.items():
        places[each] = at
        if each.by is By.SLOT:
            nodes = slots_of(program.gather_grads, each.state)
            mine, slots = at.part(group.position, group.num_inner * group.num_slots), set(nodes.values())
            if slots != {ALL_SLOTS} and len(slots) < group.num_slots:
                writer.zero(mine)
        else:
            assert group.edges is not None
            every = program.gather_grads.get((each.state, CHILDREN))
            mine, nodes = at.part(group.edges.start, group.edges.num_edges), {} if every is None else {every: CHILDREN}
            if every is None:
                writer.zero(mine)
        places[Sent(each.state, each.by)] = mine
        if any(program.made_by[node] == "grad_eager" for node in nodes):
            raise Unprepared("gradients that are sent before the steps")


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


def _read_later(one: Compiled) -> set[fx.Node]:
    """What the backward pass reads."""
    return {*one.program.saved, *one.program.read_constants}


def _results(one: Compiled, stages: Sequence[str]) -> Iterator[tuple[fx.Node, New]]:
    """What loops of these stages make that has no rows."""
    for stage in stages:
        for part in (stage, f"{stage}_inner"):
            loop = one.loops.get(part)
            if isinstance(loop, Addressed):
                yield from ((node, (shape, node.meta["val"].dtype)) for node, shape in loop.results)


def _once(writer: Writer, group: int, stage: str, places: Places) -> None:
    """Run what is computed once, over all rows, and over those with children."""
    rows = writer.order.groups[group]
    writer.run(group, stage, places, rows.all_rows)
    writer.run(group, f"{stage}_inner", places, rows.inner_rows)


def _among(bound: Bound, order: Order, name: str) -> list[Tensor]:
    """Of an input, the rows of each group that pulls it."""
    groups = bound.pulls[name]
    return order.edges_among(groups) if bound.is_edge_input(name) else order.vertices_among(groups)


def _size_of_row(node: fx.Node) -> int:
    """Bytes."""
    value = node.meta["val"]
    return math.prod(map(int, value.shape[1:])) * int(value.dtype.itemsize)


def _new(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if math.prod(shape) < _SMALL:
        return torch.empty(shape, dtype=dtype, device=_CPU)
    return empty(shape, dtype, _CPU)


def _rest(size: int) -> Tensor:
    """Memory for the time of a run, which native code finds itself if it is small."""
    return _NOTHING if size < LARGE else empty((size,), torch.uint8, _CPU)


def _plain(tensor: Tensor) -> Tensor:
    """As it lies in memory, in one piece."""
    return tensor if tensor.is_contiguous() and not tensor.is_neg() else tensor.resolve_neg().contiguous()


def _rows(grad: Tensor) -> Tensor:
    """A gradient, or its first row where all rows are the same memory."""
    return _plain(grad[0] if grad.stride(0) == 0 and len(grad) else grad)
