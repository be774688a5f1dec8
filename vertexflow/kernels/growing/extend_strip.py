"""Runs that grow by vertices of one kind, whose children all came earlier: in strips; and by others like those just computed."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import _core
from ..bound import Bound
from ..plain import are_rows_in_memory
from ..prepared.passes import is_plain
from ..ranges import is_profiling
from ..second_order import gradients as second
from .entered import Added, Entered, State
from .grown import Grown
from .run import Trail
from .strips import OrderOfRows, Strip, is_small, size_of_first, size_of_next

_NO_ROWS = torch.empty(0, dtype=torch.int32)


class InStrip(NamedTuple):
    """What an extension in a strip was computed with, and further ones are, as long as it lies there."""

    bound: Bound
    strip: Strip
    entered: Entered | None  # None: it is not kept for a backward pass
    state: State | None  # of parameters


def extend_strip(
    grown: Grown,
    trail: Trail,
    bound: Bound,
    table: Any,
    order_of_rows: OrderOfRows,
    flat: Sequence[Tensor],
    state: State | None,
) -> InStrip | None:
    """`extend` by vertices of one kind, for which `table` int64 [n, slots] has the vertices whose states they read, all of them
    earlier ones, or -1. Returns what it was done with; None where the extension needs an order, and memory, of its own."""
    count, num_params = len(table), len(bound.params)
    if bound.extends_in_strips is False or not is_small(count) or is_profiling():
        return None
    params, inputs = flat[:num_params], flat[num_params:]
    if not bound.wants_gradients:
        passing = _passing(trail, bound, count, order_of_rows, params, state)
        if passing is None:
            return None
        extended = InStrip(bound, passing, None, state)
    else:
        if state is None or second.are_saved_by_hooks():
            return None
        entered = trail.entered.get(id(bound))
        strips = [] if entered is None or not entered.holds(params, state) else entered.strips
        if entered is None or not strips or strips[-1].num_free < count:
            before = sum(each.count for each in strips)
            size = size_of_next(count, before) if strips else size_of_first(bound, count)
            bound.rows_of_runs = max(bound.rows_of_runs, before + count)
            strip = Strip.of(bound, params, size, order_of_rows)
            if strip is None:
                return None
            entered = trail.enter(grown, bound, strip.extension.prepared.read, params, state)
            entered.strips.append(strip)
        extended = InStrip(bound, entered.strips[-1], entered, state)
    grown.reserve(bound, count, trail.token.device)
    row = extended.strip.run(grown, table, inputs, bound.wants_gradients)
    _note(grown, trail, extended, row, count)
    return extended


def extend_strip_alike(
    grown: Grown,
    trail: Trail,
    before: InStrip,
    table: object,
    inputs: Mapping[str, Tensor],
    unchanged: tuple[Any, ...],
) -> int:
    """`extend_strip` by vertices with these children and inputs, if all that decided an extension before is what it was;
    returns how many they are, 0 where they must be added as those before were.

    Compared, computed and noted in as little Python as can be: see `call.unchanged`, which compares what has been written down.
    """
    bound, strip, entered, state = before
    if strip.calls is None or strip.generation != grown.generation or is_profiling():
        return 0
    if entered is None:
        if trail.passing.get(id(bound)) != (bound, strip, state):
            return 0
    elif trail.entered.get(id(bound)) is not entered or entered.strips[-1] is not strip or second.are_saved_by_hooks():
        return 0
    given = list(inputs.values())
    row = strip.count if entered is not None else 0
    count = _core.take_rows(table, strip.children, row, grown.count, unchanged, given)
    if not count or not grown.has_room(bound, count):
        return 0
    if not are_rows_in_memory(given, count):
        return 0
    strip.run_rows(grown, row, count, [inputs[name] for name in bound.pulls] if given else given)
    _note(grown, trail, before, row, count)
    return count


def _note(grown: Grown, trail: Trail, extended: InStrip, row: int, count: int) -> None:
    """Count vertices that were computed in so many rows of a strip, from `row` on; they wait for their node, if they have one."""
    bound, strip, entered, _ = extended
    if entered is not None:
        trail.waiting.append(
            Added(
                bound, strip.order, strip.extension, _NO_ROWS, grown.count, entered, strip.kept, strip, row, row + count
            )
        )
    grown.add(bound, count)


def _passing(
    trail: Trail,
    bound: Bound,
    count: int,
    order_of_rows: OrderOfRows,
    params: Sequence[Tensor],
    state: State | None,
) -> Strip | None:
    """The strip for extensions that are not kept for a backward pass."""
    _, strip, before = trail.passing.get(id(bound), (bound, None, None))
    if strip is None or len(strip.children) < count:
        strip = Strip.of(bound, params, size_of_next(count, 0), order_of_rows)
        if strip is None:
            return None
    elif state is None or state != before or any(map(operator.is_not, params, strip.params)):
        if not all(map(is_plain, params)):
            return None
        strip.read_anew(params)
    trail.passing[id(bound)] = bound, strip, state
    return strip
