"""Runs over a structure whose loops are all native code: written down once, as lists of calls; then a pass is one call.

`autograd` and `executor`, which serve all other runs, define what is computed, and in which order. The values of a run lie in
two memory regions: one is kept for the backward pass, the other is needed during a pass only. The tensors that users get have
memory of their own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from ..graph.symbolic.program import BACKWARD, FORWARD
from . import rehearsal
from .arguments import By, State
from .bound import Bound
from .calls import Location, Region, Unprepared, Writer
from .compiled import Compiled, NoSteps, results_of
from .group_memory import GroupMemory, memory_of
from .grown_rows import GrownRows
from .memory import Along, gathered_again
from .order import Order, OutputRows
from .passes import Backward, Forward, Fresh, rows_or_one
from .ranges import is_profiling
from .transfers import (
    TensorSpec,
    Transfer,
    allocate_sent,
    along_of,
    gather,
    inputs,
    joined,
    locate_sent,
    put,
    receive,
    size_of_row,
    take,
    zero_leaves,
)
from .windows import Windows, one_window_each, visits, visits_back, windows_of

_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Prepared:
    """Both passes; the backward pass is written once it is known to which outputs gradients come."""

    forward: Forward
    read: list[int]  # the positions of what the backward pass reads, among parameters, inputs and constants
    zeros: list[Tensor]  # a row for each output
    without_gradient: list[int]  # the positions of outputs that have none
    grows: bool = False  # whether it reads earlier vertices of a run that grows
    backwards: dict[tuple[bool, ...], Backward] = field(default_factory=dict)

    def read_back(self, flat: Sequence[Tensor]) -> list[Tensor]:
        """The parameters, inputs and constants that the backward pass reads."""
        tensors = [*flat, *self.forward.constants]
        return [tensors[at] for at in self.read]

    def backward(
        self, bound: Bound, order: Order, kept: Tensor, read: Sequence[Tensor], grads: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """The gradients of parameters, then inputs."""
        plain = [zero if grad is None else rows_or_one(grad) for grad, zero in zip(grads, self.zeros, strict=True)]
        have_rows = tuple([grad.dim() > zero.dim() for grad, zero in zip(plain, self.zeros, strict=True)])
        return self.backward_for(bound, order, have_rows).run(kept, read, plain)

    def backward_for(self, bound: Bound, order: Order, have_rows: tuple[bool, ...]) -> Backward:
        """The pass where gradients have rows for some outputs, and only one row for others."""
        backward = self.backwards.get(have_rows)
        if backward is None:
            with rehearsal.interrupted():
                backward = _backward(self.forward.memory, self.read, bound, order, have_rows, self.grows)
            self.backwards[have_rows] = backward
        return backward


def prepared_for(bound: Bound, order: Order) -> Prepared | None:
    """The passes over a structure; None where some loop is not native code."""
    kept = bound.prepared_in_ranges if is_profiling() else bound.prepared
    prepared, is_native = kept.get(order), bound.is_native  # which other threads may set meanwhile
    if prepared is None and is_native is not False and not order.num_external and order.vertex.device == _CPU:
        try:
            with rehearsal.interrupted():
                prepared = prepare(bound, order)
                # What can be prepared for one structure, can be for others.
                if is_native is None and bound.wants_gradients:
                    prepared.backward_for(bound, order, (True,) * len(prepared.zeros))
            bound.is_native, kept[order] = True, prepared
        except Unprepared:
            bound.is_native, prepared = False, None
    return prepared


def prepare(bound: Bound, order: Order, grows: bool = False) -> Prepared:
    """Write down the passes over a structure, or over what is added to a run; raises `Unprepared` if a loop is not native."""
    windows = one_window_each(order) if grows else windows_of(bound.compiled, order)
    read_back = {node for compiled in bound.compiled for node in nodes_read_back(compiled)}
    traces = [compiled.program.trace for compiled in bound.compiled]
    nodes = [[traces[group].params[name] for group in groups] for name, groups in bound.params.items()]
    for name, groups in bound.pulls.items():  # where there are several windows, inputs are taken again
        nodes.append([traces[group].pulls[name] for group in groups if windows[group].are_several])
    nodes += [[node] for node in bound.constants]
    read = [at for at, nodes_of_tensor in enumerate(nodes) if read_back.intersection(nodes_of_tensor)]
    likes = (traces[groups[0]].output(name) for name, groups in bound.pushes.items())
    zeros = [torch.zeros(tuple(map(int, like.shape[1:])), dtype=like.dtype) for like in likes]
    without_gradient = [at for at, name in enumerate(bound.pushes) if name not in bound.differentiable]
    return Prepared(_forward(bound, order, windows, grows), read, zeros, without_gradient, grows)


def _forward(bound: Bound, order: Order, windows: list[Windows], grows: bool) -> Forward:
    writer, programs = Writer(bound, order), [compiled.program for compiled in bound.compiled]
    # The addresses are numbered as `Forward.run` passes them.
    temporary, kept = Region(writer.address("temporary")), Region(writer.address("kept"))
    for key in (*_flat(bound), *bound.constants):
        writer.address(key)
    outputs = [writer.address(("output", name)) for name in bound.pushes]
    grown = GrownRows.of(writer, bound.states) if grows else None
    memory_of_groups = memory_of(writer, windows)
    state_at: dict[str, Location] = {}
    groups = list(zip(bound.compiled, memory_of_groups, strict=True))
    read_back = [nodes_read_back(compiled) for compiled in bound.compiled]
    for name, node in programs[0].trace.scatters.items():
        is_kept = any(program.trace.scatters[name] in read_back[group] for group, program in enumerate(programs))
        is_kept |= any(
            name in dict(gathered_again(compiled.program)) for compiled, memory in groups if memory.windows.are_several
        )
        rows = order.num_rows + order.num_external
        state = (kept if is_kept else temporary).allocate(rows + 1, size_of_row(node))
        writer.zero(state.part(rows, 1))  # what a missing child reads
        if grown is not None:
            grown.read(writer, name, state)
            state_at[name] = state
        for compiled, memory in groups:
            group = memory.windows.group
            memory.set(State(name), state)
            memory.set(compiled.program.trace.scatters[name], state.part(group.start, group.num_rows))
    for number, (compiled, memory) in enumerate(groups):
        for name, node in compiled.program.trace.pulls.items():
            is_kept = node in read_back[number] and not memory.windows.are_several
            memory.allocate(
                kept if is_kept else temporary, node, along_of(bound, name), size_of_row(node), all_rows=is_kept
            )
        kept_layout, temporary_layout = compiled.forward_layouts(memory.windows.group, memory.windows.extent)
        memory.add(kept, kept_layout, all_rows=True)
        memory.add(temporary, temporary_layout)
        for node, (shape, dtype) in results_of(compiled, FORWARD):
            size = math.prod(shape) * dtype.itemsize
            memory.set(node, (kept if node in read_back[number] else temporary).allocate(1, size))
    specs, puts = [], defaultdict(list)
    for address, (name, pushing) in zip(outputs, bound.pushes.items(), strict=True):
        nodes = {number: programs[number].trace.pushes[name] for number in pushing}
        along = Along.EDGES if bound.is_edge_output(name) else Along.ROWS
        rows_of_groups = order.output_rows(pushing, along is Along.EDGES, grows)
        spec, transfers = joined(writer, address, pushing, rows_of_groups, nodes, along)
        specs.append(spec)
        for number, transfer in transfers.items():
            puts[number].append(transfer)
    takes = [inputs(writer, number) for number in range(len(groups))]
    for number, window, steps, is_first, is_last in visits(order, windows):
        compiled, memory = groups[number]
        if is_first:
            take(writer, memory, window, takes[number])
            _run_once(writer, number, "eager", memory, window)
            zero_leaves(writer, compiled.program, memory, window)
        if len(steps):
            writer.run(number, "core", memory.in_window[window], steps, window)
        if is_last:
            if isinstance(compiled.loops["core"], NoSteps):
                states = [(name, by) for name in compiled.program.trace.state for by in By]
                gather(writer, compiled.program, memory, window, states)
            _run_once(writer, number, "lazy", memory, window)
            put(writer, memory, window, puts[number])
    if grown is not None:
        grown.write(writer, state_at)
    return Forward(
        writer.calls(),
        writer.alive,
        Fresh.of((kept.size,), torch.uint8),
        temporary.size,
        list(bound.constants.values()),
        [Fresh.of(*spec) for spec in specs],
        writer.num_seeds,
        memory_of_groups,
    )


def _backward(
    forward_memory: Sequence[GroupMemory],
    read: Sequence[int],
    bound: Bound,
    order: Order,
    have_rows: Sequence[bool],
    grows: bool,
) -> Backward:
    writer, programs = Writer(bound, order), [compiled.program for compiled in bound.compiled]
    windows = [memory.windows for memory in forward_memory]
    # The addresses are numbered as `Backward.run` passes them; those of terms follow.
    temporary, kept = Region(writer.address("temporary")), writer.address("kept")
    keys: list[Hashable] = [*_flat(bound), *bound.constants]
    for at in read:
        writer.address(keys[at])
    pushed = {name: writer.address(("gradient", name)) for name in bound.pushes}
    grown = GrownRows.of(writer, bound.state_gradients) if grows else None
    memory_of_groups = memory_of(writer, windows)
    for memory, of_forward in zip(memory_of_groups, forward_memory, strict=True):
        for locations, in_forward in zip(memory.in_window, of_forward.in_window, strict=True):
            locations.update((key, location) for key, location in in_forward.items() if location.address == kept)
    takes: list[list[Transfer]] = [[] for _ in windows]
    for (name, pushing), has_rows in zip(bound.pushes.items(), have_rows, strict=True):
        along = Along.EDGES if bound.is_edge_output(name) else Along.ROWS
        rows_of_groups = order.output_rows(pushing, along is Along.EDGES, grows)
        for number, rows in zip(pushing, rows_of_groups, strict=True):
            node = programs[number].trace.push_grads.get(name)
            if node is not None and (has_rows or rows.rows is not None):
                size = size_of_row(node)
                memory_of_groups[number].allocate(temporary, node, along, size)
                gradient = Location(pushed[name], 0, size if has_rows else 0, 0)
                takes[number].append(Transfer(node, gradient, rows, along))
            elif node is not None:
                memory_of_groups[number].set(node, Location(pushed[name], 0, 0, len(rows.batch_rows)))
    sent = allocate_sent(writer, temporary, programs, order)
    if grown is not None:
        grown.take_gradients(writer, temporary, memory_of_groups)
    terms: dict[Hashable, TensorSpec] = {}
    for number, (compiled, group, memory) in enumerate(
        zip(bound.compiled, order.groups, memory_of_groups, strict=True)
    ):
        memory.add(temporary, compiled.backward_layout(group, memory.windows.extent))
        param_grads = set(compiled.program.param_grads.values())
        for node, (shape, dtype) in results_of(compiled, BACKWARD):
            if node in param_grads:
                terms[number, node] = shape, dtype
                memory.set(node, Location(writer.address((number, node)), 0, 0, 1))
            else:
                memory.set(node, temporary.allocate(1, math.prod(shape) * dtype.itemsize))
        locate_sent(writer, compiled.program, group, sent, memory)
        if memory.windows.are_several:
            read_back = nodes_read_back(compiled)
            taken_again = [transfer for transfer in inputs(writer, number) if transfer.node in read_back]
            for transfer in taken_again:
                memory.allocate(temporary, transfer.node, transfer.along, transfer.tensor.stride)
            takes[number] += taken_again
    sums: list[list[Hashable]] = []
    for name, groups in bound.params.items():
        nodes = {number: programs[number].param_grads.get(name) for number in groups}
        sums.append([(number, node) for number, node in nodes.items() if node is not None])
    puts: dict[int, list[Transfer]] = defaultdict(list)
    for name, groups in bound.pulls.items():
        nodes = {number: programs[number].pull_grads.get(name) for number in groups}
        sums.append([])
        if any(nodes.values()):
            sums[-1].append(name)
            address = writer.address(("input gradient", name))
            rows_of_groups = [OutputRows(None, index) for index in order.batch_rows(groups, bound.is_edge_input(name))]
            terms[name], transfers = joined(writer, address, groups, rows_of_groups, nodes, along_of(bound, name))
            for number, transfer in transfers.items():
                puts[number].append(transfer)
    for number, window, steps, is_first, is_last in visits_back(order, windows):
        compiled, memory = bound.compiled[number], memory_of_groups[number]
        if is_first:
            take(writer, memory, window, takes[number])
            if memory.windows.are_several:
                zero_leaves(writer, compiled.program, memory, window)
                gather(writer, compiled.program, memory, window, gathered_again(compiled.program))
            _run_once(writer, number, "grad_eager", memory, window)
        if len(steps):
            writer.run(number, "grad_core", memory.in_window[window], steps, window)
        if is_last:
            if isinstance(compiled.loops["grad_core"], NoSteps):
                receive(writer, compiled.program, memory, window, sent)
            _run_once(writer, number, "grad_lazy", memory, window)
            put(writer, memory, window, puts[number])
    if grown is not None:
        grown.add_gradients(writer, sent)
    number_of = {key: at for at, key in enumerate(terms)}
    if writer.num_seeds or not number_of.keys() >= {key for keys in sums for key in keys}:
        raise Unprepared("gradients that no loop makes")
    fresh = [Fresh.of(*spec) for spec in terms.values()]
    indices = [[number_of[key] for key in keys] for keys in sums]
    return Backward(writer.calls(), writer.alive, temporary.size, fresh, indices)


def _flat(bound: Bound) -> list[tuple[str, str]]:
    """The keys of parameters, then inputs."""
    return [*(("parameter", name) for name in bound.params), *(("input", name) for name in bound.pulls)]


def nodes_read_back(compiled: Compiled) -> set[fx.Node]:
    """The values of the forward pass that the backward pass reads."""
    return {*compiled.program.saved, *compiled.program.read_constants}


def _run_once(writer: Writer, group: int, stage: str, memory: GroupMemory, window: int) -> None:
    """Run the parts of a stage once: over all rows of a window, and over those with children."""
    locations, windows = memory.in_window[window], memory.windows
    writer.run(group, stage, locations, windows.all_rows(window), window)
    writer.run(group, f"{stage}_inner", locations, windows.inner_rows(window), window)
