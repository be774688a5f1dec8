"""Reading the states of children: where these lie, or where the inputs lie that leaves have as states."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...graph.symbolic.program import Program
from ..arguments import By, Gathered, State
from ..memory.layout import Along, first_gathered, gathered_by
from ..order import Ints, RowGroup
from .calls import Location, Locations, Region, Writer
from .group_memory import GroupMemory
from .leaf_states import reads_leaf_rows
from .sent_rows import Key
from .state_rows import Flags, StateRows
from .transfers import Transfer, inputs, size_of_row


class OfLeaves(NamedTuple):
    """Where a state of leaves lies that have no rows in it: row i of them at `rows[i]`, or, without `rows`, at i."""

    first: int  # rows [first, stop) of a state in the order of the schedule
    stop: int
    tensor: Location
    rows: Ints | None


class ChildStates(NamedTuple):
    """Where the states of children are."""

    rows: StateRows | None  # None: they lie in the order of the schedule
    of_leaves: dict[str, list[OfLeaves]]

    def add(self, name: str, group: RowGroup, tensor: Location, rows: Tensor | None) -> None:
        """Leaves of a group have a state there."""
        leaves = OfLeaves(group.start, group.start + group.num_leaves, tensor, None if rows is None else rows.numpy())
        self.of_leaves.setdefault(name, []).append(leaves)

    def copy(self, writer: Writer, to: Location, name: str, state: Location, children: Ints) -> None:
        """Copy rows of a state, by their numbers as `of` gives them, to the rows of `to`."""
        if self.rows is None:
            writer.copy(to, state, None, _index(children))
            return
        here = self.rows.rows_of(name)[children]
        _copy_some(writer, to, state, here, here >= 0)
        for of_leaves in self.of_leaves[name] if (here < 0).any() else ():
            are_there = (children >= of_leaves.first) & (children < of_leaves.stop)
            leaves = np.where(are_there, children - of_leaves.first, 0)
            rows = leaves if of_leaves.rows is None else of_leaves.rows[leaves]
            _copy_some(writer, to, of_leaves.tensor, rows, are_there)

    def of(self, group: RowGroup, name: str, by: By) -> Tensor:
        """The children of a group: rows of a state, or rows of the order, where states have rows of their own."""
        if self.rows is None:
            return group.child_rows_in(name) if by is By.SLOT else group.edge_rows_in(name)
        assert by is By.SLOT or group.edges is not None
        return group.child_rows if by is By.SLOT or group.edges is None else group.edges.child_rows

    def run(self, name: str, children: Ints) -> int | None:
        """The first of these rows of a state, if they are consecutive."""
        rows = children if self.rows is None else self.rows.rows_of(name)[children]
        return int(rows[0]) if len(rows) and rows[0] >= 0 and bool((np.diff(rows) == 1).all()) else None

    def stage(self, writer: Writer, program: Program, locations: Locations, visit: int) -> None:
        """Copy the children of a visit that are leaves without rows to rows that its core reads."""
        for staged in () if self.rows is None else self.rows.staged[visit]:
            assert self.rows is not None
            for name in program.trace.state:
                if not gathered_by(program, name, staged.by):
                    continue
                state = locations[State(name)]
                to = state.part(self.rows.shared.start + staged.first, len(staged.rows))
                self.copy(writer, to, name, state, staged.rows)


def gather(
    writer: Writer,
    program: Program,
    memory: GroupMemory,
    number: int,
    states: Sequence[tuple[str, By]],
    of_children: ChildStates,
) -> None:
    """Gather states for the rows of a window, where parts other than a core read them.

    Where the children are consecutive rows of a state, as in sequences of one length, they are read where they are.
    """
    group, window, locations = memory.windows.group, memory.windows.all[number], memory.in_window[number]
    for name, by in states:
        base = first_gathered(program, group, gathered_by(program, name, by))
        if base >= 0 and by is By.SLOT:
            first, end = (row * group.num_slots for row in (window.inner, window.inner_stop))
            position = (group.num_leaves - base) * group.num_slots + first  # in what is gathered
            gathered, state = locations[Gathered(name, by)], locations[State(name)]
            children = of_children.of(group, name, by)[first:end].numpy()
            run, has_leaves = of_children.run(name, children), base == 0 and window.start < group.num_leaves
            if not has_leaves and gathered.stride == state.stride and run is not None:
                skipped = state.offset + (run - position) * state.stride - gathered.offset
                for key in (Gathered(name, by), *filter(locations.__contains__, gathered_by(program, name, by))):
                    location = locations[key]
                    locations[key] = location._replace(address=state.address, offset=location.offset + skipped)
            else:
                of_children.copy(writer, gathered.part(position, end - first), name, state, children)
        elif base >= 0:
            assert group.edges is not None
            first, count = window.range(Along.EDGES)
            first, count = first * group.edges.side_by_side, count * group.edges.side_by_side
            children = of_children.of(group, name, by)[first : first + count].numpy()
            to = locations[Gathered(name, by)].part(first, count)
            of_children.copy(writer, to, name, locations[State(name)], children)


def in_forward(
    writer: Writer,
    state_rows: StateRows | None,
    memory_of_groups: Sequence[GroupMemory],
    region_of: Callable[[str], Region],
) -> ChildStates:
    """Where the forward pass reads states of children; leaves without rows are located, in a region where they are computed."""
    children = ChildStates(state_rows, {})
    for number, leaf_states in () if state_rows is None else state_rows.leaf_states.items():
        assert state_rows is not None
        memory, group = memory_of_groups[number], state_rows.order.groups[number]
        pulled = {transfer.node: transfer for transfer in inputs(writer, number)}
        for name, node in writer.bound.compiled[number].program.trace.scatters.items():
            source = leaf_states.get(name)
            if source is not None:
                children.add(name, group, pulled[source].tensor, pulled[source].rows.batch_rows)
                for at in state_rows.leaf_windows(number):
                    memory.in_window[at][node] = memory.in_window[at][source]._replace(num_rows=group.num_rows)
            else:
                leaves = region_of(name).allocate(group.num_leaves, size_of_row(node))
                children.add(name, group, leaves, None)
                for at in state_rows.leaf_windows(number):
                    memory.in_window[at][node] = leaves._replace(num_rows=group.num_rows)
    return children


def in_backward(
    writer: Writer, state_rows: StateRows | None, memory_of_groups: Sequence[GroupMemory], temporary: Region
) -> tuple[ChildStates, dict[Key, list[Transfer]]]:
    """Where the backward pass reads states of children, and what it takes for windows of leaves without rows, of which it reads
    states that are inputs."""
    children, takes = ChildStates(state_rows, {}), defaultdict[Key, list[Transfer]](list)
    for number, leaf_states in () if state_rows is None else state_rows.leaf_states.items():
        assert state_rows is not None
        memory, group = memory_of_groups[number], state_rows.order.groups[number]
        program, leaf_windows = writer.bound.compiled[number].program, state_rows.leaf_windows(number)
        pulled = {transfer.node: transfer for transfer in inputs(writer, number)}
        for name, node in program.trace.scatters.items():
            source, is_read = leaf_states.get(name), reads_leaf_rows(program, node)
            located = memory.in_window[0].get(node)  # of leaves that the forward pass has computed
            if source is None and located is not None:
                children.add(name, group, located, None)
            if source is None:
                continue
            if source in pulled:
                children.add(name, group, pulled[source].tensor, pulled[source].rows.batch_rows)
            if is_read and source not in memory.in_window[0]:
                memory.allocate(temporary, source, pulled[source].along, size_of_row(source))
                for at in leaf_windows:
                    takes[number, at].append(pulled[source])
            for at in leaf_windows:
                locations = memory.in_window[at]
                unread = Location(temporary.address, 0, size_of_row(node), group.num_rows)
                locations[node] = locations[source]._replace(num_rows=group.num_rows) if is_read else unread
    return children, takes


def _copy_some(writer: Writer, to: Location, source: Location, rows: Ints, which: Flags) -> None:
    """Copy `rows` of the source to the rows of `to`, where `which` is true."""
    if which.all():
        writer.copy(to, source, None, _index(rows))
    elif which.any():
        writer.copy(to, source, _index(np.flatnonzero(which).astype(np.int32)), _index(rows[which]))


def _index(rows: Ints) -> Tensor:
    """An index that stays, as int32."""
    with torch.inference_mode(False):
        return torch.from_numpy(np.ascontiguousarray(rows, np.int32))
