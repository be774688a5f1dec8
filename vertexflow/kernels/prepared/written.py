"""Passes over a structure whose loops are all native code, written down as lists of calls.

`autograd` and `executor`, which serve all other runs, define what is computed, and in which order. The values of a run lie in
two memory regions: one is kept for the backward pass, the other is needed during a pass only. The tensors that users get have
memory of their own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from functools import partial

import torch
from torch import fx

from ...graph.symbolic.program import BACKWARD, FORWARD, Program
from ..arguments import PACKED, By, State
from ..bound import Bound
from ..compiled import Compiled, NoSteps, results_of
from ..memory.layout import Along, Layout, Taken, gathered_again, is_gathered_first
from ..memory.lives import Lives
from ..order import Extent, Order, OutputRows, RowGroup
from .calls import Location, Region, Unprepared, Writer
from .child_states import gather, in_backward, in_forward
from .group_memory import GroupMemory, memory_of
from .grown_rows import GrownRows, are_alike, leaves_out_gaps
from .leaf_states import NOTHING_IDLE, idle_at_leaves, inputs_read_at_leaves, leaf_states_of
from .passes import Backward, Forward, Fresh
from .rooms import rooms_of
from .state_rows import StateRows
from .state_rows import state_rows as find_state_rows
from .transfers import (
    Sending,
    TensorSpec,
    Transfer,
    allocate_sent,
    along_of,
    inputs,
    joined,
    locate_sent,
    put,
    receive,
    size_of_row,
    take,
    zero_gaps,
    zero_leaves,
    zero_unread,
)
from .windows import Windows, visits, visits_back


def forward(bound: Bound, order: Order, windows: list[Windows], grows: bool) -> Forward:
    """The forward pass."""
    programs = [compiled.program for compiled in bound.compiled]
    state_rows = find_state_rows(programs, order, windows, passes=not bound.wants_gradients)
    if state_rows is not None:
        order, windows = state_rows.order, state_rows.windows
    writer = Writer(bound, order)
    # The addresses are numbered as `Forward.run` passes them.
    temporary, kept = Region(writer.address("temporary")), Region(writer.address("kept"))
    for key in (*_flat(bound), *bound.constants):
        writer.address(key)
    outputs = [writer.address(("output", name)) for name in bound.pushes]
    grown = GrownRows.of(writer, bound.states) if grows else None
    if grows:
        writer.address(PACKED)
    memory_of_groups = memory_of(writer, windows)
    state_at: dict[str, Location] = {}
    groups = list(zip(bound.compiled, memory_of_groups, strict=True))
    read_back = [nodes_read_back(compiled) for compiled in bound.compiled]
    states_read = _states_read(bound.compiled, windows)
    rooms, sending = rooms_of(bound.compiled, order, windows, states_read, state_rows), None
    room_at = [kept.allocate(1, room.size) for room in ([] if rooms is None else rooms.all)]
    in_rooms = {} if rooms is None else rooms.locate_states(room_at)
    if rooms is not None:
        sending = Sending(rooms.sent, rooms.locate_sent(room_at))
    for name, node in programs[0].trace.scatters.items():
        rows = order.num_rows_in(name) if state_rows is None else state_rows.num_rows_in(name)
        if name in in_rooms:
            state = in_rooms[name]._replace(stride=size_of_row(node), num_rows=rows + 1)
        else:
            state = (kept if name in states_read else temporary).allocate(rows + 1, size_of_row(node))
        writer.zero(state.part(rows, 1))  # what a missing child reads
        if grown is not None:
            grown.read(writer, name, state)
            state_at[name] = state
        for compiled, memory in groups:
            group, start = memory.windows.group, memory.windows.group.start_in(name)
            memory.set(State(name), state)
            if start is not None:
                memory.set(compiled.program.scatters[name], state.part(start, group.num_rows))
        for (number, at), start in () if state_rows is None else state_rows.blocks_of(name).first.items():
            rows_before = windows[number].all[at].start
            locations = memory_of_groups[number].in_window[at]
            locations[programs[number].scatters[name]] = state.part(start - rows_before, order.groups[number].num_rows)
    for number, (compiled, memory) in enumerate(groups):
        are_several, group = memory.windows.are_several, memory.windows.group
        states = set(leaf_states_of(compiled.program).values())
        pulls = compiled.program.trace.pulls.items()
        taken = [Taken(node, along_of(compiled.program, name), node in states) for name, node in pulls]
        for node, along, _ in () if are_several else taken:
            memory.allocate(kept if node in read_back[number] else temporary, node, along, size_of_row(node))
        if rooms is None or not are_several:
            memory.add(kept, compiled.forward_layouts(group, memory.windows.extent)[0])
        memory.add_by_window(temporary, partial(_forward_layout, compiled, group, taken))
        for node, (shape, dtype) in results_of(compiled, FORWARD):
            size = math.prod(shape) * dtype.itemsize
            memory.set(node, (kept if node in read_back[number] else temporary).allocate(1, size))
    children = in_forward(writer, state_rows, memory_of_groups, lambda name: kept if name in states_read else temporary)
    for room, location in zip([] if rooms is None else rooms.all, room_at, strict=True):
        for number, node, place, offsets in room.values:
            memory_of_groups[number].place(node, place, location, offsets)
    specs, puts = [], defaultdict(list)
    for address, (name, pushing) in zip(outputs, bound.pushes.items(), strict=True):
        nodes = {number: programs[number].trace.pushes[name] for number in pushing}
        along = Along.EDGES if bound.is_edge_output(name) else Along.ROWS
        rows_of_groups = order.output_rows(name, pushing, along is Along.EDGES, grows)
        spec, transfers = joined(writer, address, pushing, rows_of_groups, nodes, along)
        specs.append(spec)
        for number, transfer in transfers.items():
            puts[number].append(transfer)
    early, late = _by_need(programs, FORWARD, [inputs(writer, number) for number in range(len(groups))])
    for at, (number, window, steps, is_first, is_last) in enumerate(visits(order, windows)):
        compiled, memory = groups[number]
        idle, unread = NOTHING_IDLE
        if state_rows is not None and window in state_rows.leaf_windows(number):
            has_puts = any(
                len(put.part(*memory.windows.all[window].range(put.along)).batch_rows) for put in puts[number]
            )
            idle, unread = idle_at_leaves(compiled.program, state_rows.leaf_states[number], has_puts)
        if is_first:
            take(writer, memory, window, [transfer for transfer in early[number] if transfer.node not in unread])
            if "eager" not in idle:
                _run_once(writer, number, "eager", memory, window)
            zero_leaves(writer, compiled.program, memory, window)
        if len(steps) and "core_leaf" not in idle:
            steps = steps if state_rows is None else state_rows.steps(steps)
            if not isinstance(compiled.loops["core"], NoSteps):
                children.stage(writer, compiled.program, memory.in_window[window], at)
            writer.run(number, "core", memory.in_window[window], steps, window)
        if is_last:
            if isinstance(compiled.loops["core"], NoSteps):
                everything = [(name, by) for name in compiled.program.trace.state for by in By]
                gather(writer, compiled.program, memory, window, everything, children)
            take(writer, memory, window, late[number])
            _run_once(writer, number, "lazy", memory, window)
            put(writer, memory, window, puts[number])
    if grown is not None:
        grown.write(writer, state_at)
    by_rows = writer.calls_by_part(()) if grows and state_rows is None and are_alike(order) else None
    return Forward(
        writer.calls(),
        writer.alive,
        Fresh.of((kept.size,), torch.uint8),
        temporary.size,
        list(bound.constants.values()),
        [Fresh.of(*spec) for spec in specs],
        writer.num_seeds,
        memory_of_groups,
        sending,
        state_rows,
        writer.bytes_of_calls,
        by_rows and by_rows[0],
    )


def backward(
    forward: Forward,
    read: Sequence[int],
    bound: Bound,
    order: Order,
    have_rows: Sequence[bool],
    overwrites: bool,
    grows: bool,
) -> Backward:
    """The backward pass; if it `overwrites` what is kept, it sends to where that lies."""
    sending = forward.sending if overwrites else None
    writer = Writer(bound, order, sending and sending.rows)
    programs = [compiled.program for compiled in bound.compiled]
    windows = [memory.windows for memory in forward.memory]
    # The addresses are numbered as `Backward.run` passes them; those of terms follow.
    temporary, kept = Region(writer.address("temporary")), writer.address("kept")
    keys: list[Hashable] = [*_flat(bound), *bound.constants]
    for at in read:
        writer.address(keys[at])
    pushed = {name: writer.address(("gradient", name)) for name in bound.pushes}
    grown = GrownRows.of(writer, bound.state_gradients) if grows else None
    if grows:
        writer.address(PACKED)
    memory_of_groups = memory_of(writer, windows)
    for memory, of_forward in zip(memory_of_groups, forward.memory, strict=True):
        for locations, before in zip(memory.in_window, of_forward.in_window, strict=True):
            locations.update((key, location) for key, location in before.items() if location.address == kept)
    takes: list[list[Transfer]] = [[] for _ in windows]
    for (name, pushing), has_rows in zip(bound.pushes.items(), have_rows, strict=True):
        along = Along.EDGES if bound.is_edge_output(name) else Along.ROWS
        rows_of_groups = order.output_rows(name, pushing, along is Along.EDGES, grows)
        for number, rows in zip(pushing, rows_of_groups, strict=True):
            node = programs[number].trace.push_grads.get(name)
            if node is not None and (has_rows or rows.rows is not None):
                gradient = Location(pushed[name], 0, size_of_row(node) if has_rows else 0, 0)
                takes[number].append(Transfer(node, gradient, rows, along))
            elif node is not None:
                memory_of_groups[number].set(node, Location(pushed[name], 0, 0, len(rows.batch_rows)))
    if sending is None:
        sending = allocate_sent(temporary, programs, order)
    zero_unread(writer, sending, order)
    if grown is not None:
        grown.take_gradients(writer, temporary, memory_of_groups)
    terms: dict[Hashable, TensorSpec] = {}
    for number, (compiled, group, memory) in enumerate(
        zip(bound.compiled, order.groups, memory_of_groups, strict=True)
    ):
        if memory.windows.are_several:
            read_back = nodes_read_back(compiled)
            takes[number] += [transfer for transfer in inputs(writer, number) if transfer.node in read_back]
        leaves = inputs_read_at_leaves(compiled.program)
        taken = [Taken(node, along, node in leaves) for node, _, _, along in takes[number] if node is not None]
        for node, along, _ in () if memory.windows.are_several else taken:
            memory.allocate(temporary, node, along, size_of_row(node))
        memory.add_by_window(temporary, partial(_backward_layout, compiled, group, taken))
        param_grads = set(compiled.program.param_grads.values())
        for node, (shape, dtype) in results_of(compiled, BACKWARD):
            if node in param_grads:
                terms[number, node] = shape, dtype
                memory.set(node, Location(writer.address((number, node)), 0, 0, 1))
            else:
                memory.set(node, temporary.allocate(1, math.prod(shape) * dtype.itemsize))
        locate_sent(compiled.program, number, sending, memory)
    children, leaf_takes = in_backward(writer, forward.state_rows, memory_of_groups, temporary)
    sums: list[list[Hashable]] = []
    for name, groups in bound.params.items():
        nodes = {number: programs[number].param_grads.get(name) for number in groups}
        sums.append([(number, node) for number, node in nodes.items() if node is not None])
    num_sums = len(terms)
    puts: dict[int, list[Transfer]] = defaultdict(list)
    for name, groups in bound.pulls.items():
        nodes = {number: programs[number].pull_grads.get(name) for number in groups}
        sums.append([])
        if any(nodes.values()):
            sums[-1].append(name)
            address = writer.address(("input gradient", name))
            along = Along.EDGES if bound.is_edge_input(name) else Along.ROWS
            rows_of_groups = [OutputRows(None, index) for index in order.batch_rows(groups, bound.is_edge_input(name))]
            terms[name], transfers = joined(writer, address, groups, rows_of_groups, nodes, along)
            for number, transfer in transfers.items():
                puts[number].append(transfer)
    early, late = _by_need(programs, BACKWARD, takes)
    gathered = [_gathered(program, memory.windows) for program, memory in zip(programs, memory_of_groups, strict=True)]
    for number, window, steps, is_first, is_last in visits_back(order, windows):
        compiled, memory = bound.compiled[number], memory_of_groups[number]
        if is_first:
            if grown is None or not leaves_out_gaps(order):
                zero_gaps(writer, compiled.program, memory, window, sending)
            take(writer, memory, window, early[number])
            take(writer, memory, window, leaf_takes[number, window])
            if memory.windows.are_several:
                zero_leaves(writer, compiled.program, memory, window)
                gather(writer, compiled.program, memory, window, gathered[number][True], children)
            _run_once(writer, number, "grad_eager", memory, window)
        if len(steps):
            if sending.rows is not None:
                steps = next(iter(sending.rows.values())).steps(steps)  # the same rows of all states, if through slots
            writer.run(number, "grad_core", memory.in_window[window], steps, window)
        if is_last:
            if isinstance(compiled.loops["grad_core"], NoSteps):
                receive(writer, compiled.program, memory, window, sending.locations)
            take(writer, memory, window, late[number])
            gather(writer, compiled.program, memory, window, gathered[number][False], children)
            _run_once(writer, number, "grad_lazy", memory, window)
            put(writer, memory, window, puts[number])
    if grown is not None:
        grown.add_gradients(writer, sending.locations)
    number_of = {key: at for at, key in enumerate(terms)}
    if writer.num_seeds or not number_of.keys() >= {key for keys in sums for key in keys}:
        raise Unprepared("gradients that no loop makes")
    fresh = [Fresh.of(*spec) for spec in terms.values()]
    indices = [[number_of[key] for key in keys] for keys in sums]
    by_rows = None
    if forward.by_rows is not None and len(terms) == num_sums and all(map(_sums_last, programs)):
        by_rows = writer.calls_by_part(("grad_lazy", "grad_lazy_inner"))
    return Backward(
        writer.calls(), writer.alive, temporary.size, fresh, indices, num_sums, writer.bytes_of_calls, by_rows
    )


def _by_need(
    programs: Sequence[Program], stages: Sequence[str], takes: Sequence[Sequence[Transfer]]
) -> tuple[list[list[Transfer]], list[list[Transfer]]]:
    """What each group takes before a window, and what before its lazy part, which alone reads it."""
    early: list[list[Transfer]] = []
    late: list[list[Transfer]] = []
    for program, transfers in zip(programs, takes, strict=True):
        lives, states = Lives(program, stages), set(leaf_states_of(program).values())
        is_early = [node is None or node in states or lives.is_read_early(node) for node, *_ in transfers]
        early.append([transfer for transfer, first in zip(transfers, is_early, strict=True) if first])
        late.append([transfer for transfer, first in zip(transfers, is_early, strict=True) if not first])
    return early, late


def _gathered(program: Program, windows: Windows) -> dict[bool, list[tuple[str, By]]]:
    """The states that a group with several windows gathers again: before a window, and before its lazy part."""
    states: dict[bool, list[tuple[str, By]]] = {True: [], False: []}
    for name, by in gathered_again(program) if windows.are_several else ():
        states[is_gathered_first(program, windows.group, name, by)].append((name, by))
    return states


def _forward_layout(compiled: Compiled, group: RowGroup, taken: Sequence[Taken], extent: Extent | None) -> Layout:
    """Where temporary values of a window lie, or of all rows."""
    return compiled.forward_layouts(group, extent, taken)[1]


def _backward_layout(compiled: Compiled, group: RowGroup, taken: Sequence[Taken], extent: Extent | None) -> Layout:
    return compiled.backward_layout(group, extent, taken)


def _states_read(compiled: Sequence[Compiled], windows: Sequence[Windows]) -> set[str]:
    """The states that the backward pass reads."""
    read: set[str] = set()
    for each, of_group in zip(compiled, windows, strict=True):
        read_back = nodes_read_back(each)
        read.update(name for name, node in each.program.scatters.items() if node in read_back)
        if of_group.are_several:
            read.update(name for name, _ in gathered_again(each.program))
    return read


def inputs_read_as_states(compiled: Sequence[Compiled], state_rows: StateRows | None) -> set[fx.Node]:
    """The inputs that the backward pass reads since leaves have them as states."""
    read: set[fx.Node] = set()
    states = {name for each in compiled for name, _ in gathered_again(each.program)}
    for number, leaf_states in () if state_rows is None else state_rows.leaf_states.items():
        read.update(source for name, source in leaf_states.items() if name in states)
        read.update(inputs_read_at_leaves(compiled[number].program))
    return read


def _flat(bound: Bound) -> list[tuple[str, str]]:
    """The keys of parameters, then inputs."""
    return [*(("parameter", name) for name in bound.params), *(("input", name) for name in bound.pulls)]


def nodes_read_back(compiled: Compiled) -> set[fx.Node]:
    """The values of the forward pass that the backward pass reads."""
    return {*compiled.program.saved, *compiled.program.read_constants}


def _sums_last(program: Program) -> bool:
    """Whether all sums over rows are made by lazy parts."""
    before = [part for name, part in program.parts.items() if name.startswith(("grad_eager", "grad_core"))]
    return all(node.meta.get("rows") is not None for part in before for node in part.outputs)


def _run_once(writer: Writer, group: int, stage: str, memory: GroupMemory, window: int) -> None:
    """Run the parts of a stage once: over all rows of a window, and over those with children."""
    locations, windows = memory.in_window[window], memory.windows
    writer.run(group, stage, locations, windows.all_rows(window), window)
    writer.run(group, f"{stage}_inner", locations, windows.inner_rows(window), window)
