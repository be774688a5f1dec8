"""States that some kinds of vertices lack: they have rows for the others only, and no memory for what would be zeros.

The rows of a group stay side by side in such a state, and those of the groups that have it follow each other. A child that lacks
it reads the row of zeros, as a missing child does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..arguments import By
from ..bound import Bound
from ..order import LackedState, Order, Parents, PartialSent, RowGroup, RowsInState, Step
from . import rehearsal
from .layout import positions_of, slots_of


def with_partial_states(order: Order, bound: Bound) -> Order:
    """The order with the rows of the states that some of its groups lack; it is kept with the order.

    Steps that gather such a state by slots gather all states: children that are consecutive rows of one are not in another.
    """
    key = tuple(_lacked(bound))
    if not key:
        return order
    if key not in order._partial:
        with torch.inference_mode(False), rehearsal.interrupted():  # it is kept, and used where gradients are wanted
            order._partial[key] = _made(order, key)
    return order._partial[key]


def _lacked(bound: Bound) -> Iterator[LackedState]:
    programs = list(enumerate(function.program for function in bound.compiled))
    for name in sorted(programs[0][1].partial):
        lacking = tuple(number for number, program in programs if name not in program.scatters)
        if lacking:
            gathering = tuple(number for number, program in programs if slots_of(program.gathers, name))
            sending = {
                By.SLOT: tuple(number for number, program in programs if slots_of(program.gather_grads, name)),
                By.EDGE: tuple(number for number, program in programs if positions_of(program.gather_grads, name)),
            }
            yield LackedState(name, lacking, gathering, tuple((by, groups) for by, groups in sending.items() if groups))


def _made(order: Order, key: tuple[LackedState, ...]) -> Order:
    partial: list[dict[str, RowsInState]] = [{} for _ in order.groups]
    num_rows, partial_sent = {}, {}
    for name, lacking, _, sending in key:
        starts, end = {}, 0
        for number, group in enumerate(order.groups):
            if number not in lacking:
                starts[number], end = end, end + group.num_rows
        row = np.full(order.num_rows + order.num_external + 1, end + order.num_external, np.int32)
        for number, start in starts.items():
            order.groups[number].of(row)[:] = np.arange(start, start + order.groups[number].num_rows)
        row[order.num_rows : -1] = np.arange(end, end + order.num_external)
        num_rows[name] = end + order.num_external
        on_device = torch.from_numpy(row).to(order.vertex.device, non_blocking=True)
        for number, group in enumerate(order.groups):
            partial[number][name] = rows_in_state(group, starts.get(number), on_device)
        for by, groups_sending in sending:
            partial_sent[name, by], places = _sent(order, by, groups_sending)
            for number, place in places.items():
                rows = partial[number][name]
                partial[number][name] = replace(rows, sent_at={**rows.sent_at, by: place})
    table = order.table.copy()
    table[np.isin(table[:, 4], [number for state in key for number in state.gathering]), 2] = -1
    steps = [Step._make(line) for line in table.tolist()]
    groups = [
        replace(group, partial=rows, steps=[step for step in steps if step.group == number])
        for number, (group, rows) in enumerate(zip(order.groups, partial, strict=True))
    ]
    return replace(
        order, groups=groups, table=table, steps=steps, num_partial_rows=num_rows, partial_sent=partial_sent,
        _selecting={}, _selected_index={},
    )  # fmt: skip


def _sent(order: Order, by: By, groups: Sequence[int]) -> tuple[PartialSent, dict[int, int]]:
    """What these groups send, side by side, and where the rows of each begin; what others would send is the row of zeros."""
    parents = order.parents if by is By.SLOT else order.edge_parents
    assert parents is not None
    places, end = {}, 0
    position = np.full((order.num_positions if by is By.SLOT else order.num_edge_positions) + 1, -1, np.int32)
    for number in groups:
        group = order.groups[number]
        first, count = group.position, group.num_inner * group.num_slots
        if by is By.EDGE:
            assert group.edges is not None
            first, count = group.edges.position, group.edges.num_edges * group.edges.side_by_side
        position[first : first + count] = np.arange(end, end + count)
        places[number], end = end, end + count
    position[position < 0] = end
    on_device = torch.from_numpy(position).to(parents.places.device, non_blocking=True)
    used = parents.places if parents.bounds is None else parents.places[: int(parents.bounds[-1])]
    return PartialSent(end, Parents(on_device.index_select(0, used), parents.offset, parents.bounds)), places


def rows_in_state(group: RowGroup, start: int | None, row: Tensor) -> RowsInState:
    """Where the rows of a group and of its children lie in a state in which a row of others is row `row[r]`, int32."""
    edge_rows = None if group.edges is None else row.index_select(0, group.edges.child_rows)
    return RowsInState(start, row.index_select(0, group.child_rows), edge_rows)
