"""What a vertex function chooses by whether a vertex has children, and what it need not compute for that.

In `torch.where(v.num_children[:, None] > 0, composed, x)` a vertex with children takes `composed`, whatever they are. Cores run
over such vertices alone, and read neither the condition nor `x` there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from ..nodes import is_free, same_shape
from ..program import CORES, Program
from ..roles import ALL_SLOTS, Counts, Gather, NumChildren, is_over_edges, role_of
from ..sizes import is_size
from .extract import extract

if TYPE_CHECKING:
    from ..trace import Trace

aten = torch.ops.aten

Way = tuple[tuple[bool, ...], int]  # to have children: in which slots there is one, and how many there are

MOST_SLOTS = 8  # of which all ways to have children in them are tried
MOST_CHILDREN = 64  # with which a number of children is compared

_COMPARISONS = {
    aten.gt.Scalar, aten.ge.Scalar, aten.lt.Scalar, aten.le.Scalar, aten.eq.Scalar, aten.ne.Scalar,
}  # fmt: skip
_OPERATIONS = _COMPARISONS | {
    aten.cat.default, aten.stack.default, aten.sum.dim_IntList, aten.amax.default, aten.amin.default, aten.any.dim,
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.maximum.default, aten.minimum.default,
    aten.logical_and.default, aten.logical_or.default, aten.logical_not.default,
    aten.bitwise_and.Tensor, aten.bitwise_or.Tensor, aten.bitwise_not.default,
    aten._to_copy.default, aten.clone.default, aten.full.default,
}  # fmt: skip
# Copies and views that show the numbers of their operand; others show its bits, or their negatives.
_SAME_NUMBERS = {
    aten.clone.default, aten.expand.default, aten.reshape.default, aten.view.default, aten.permute.default,
    aten.unsqueeze.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.slice.Tensor,
    aten.select.int,
}  # fmt: skip


def constant_states(traces: Collection[Trace]) -> dict[str, float]:
    """The states that are the same number in every vertex, whatever its kind, and that number."""
    numbers: dict[str, set[float | None]] = {}
    for trace in traces:
        for name, node in trace.scatters.items():
            while node.target in _SAME_NUMBERS:
                node = node.all_input_nodes[0]
            is_number = node.target is aten.full.default and isinstance(node.args[1], (bool, int, float))
            numbers.setdefault(name, set()).add(float(node.args[1]) if is_number else None)  # type: ignore[arg-type]
    constant = {name: next(iter(each)) for name, each in numbers.items() if len(each) == 1}
    return {name: number for name, number in constant.items() if number is not None}


def choices_with_children(trace: Trace, constants: Mapping[str, float]) -> dict[fx.Node, fx.Node]:
    """Of each `where` whose condition is the same in all vertices with children: the operand that these take.

    `constants` are the `constant_states`: what is read of such a state says whether there is a child in a slot.
    """
    taken = _choices(trace, lambda condition: _known_with_children(trace, condition, constants))
    return {
        node: operand for node, operand in taken.items() if isinstance(operand, fx.Node) and _is_alike(node, operand)
    }


def choices_of_leaves(trace: Trace) -> dict[fx.Node, Any]:
    """Of each `where` whose condition depends on nothing but children: the operand that vertices without any take."""
    states = dict.fromkeys(trace.state, 0.0)
    none = [((False,) * trace.num_slots, 0)]
    return _choices(trace, lambda condition: _value(trace, condition, none, states))


def _choices(trace: Trace, known: Callable[[fx.Node], bool | None]) -> dict[fx.Node, Any]:
    """The operand that is taken in each `where` whose condition is known."""
    conditions: dict[fx.Node, bool | None] = {}
    taken: dict[fx.Node, Any] = {}
    for node in trace.graph.nodes:
        if node.target is aten.where.self:
            condition, *operands = node.args
            if condition not in conditions:
                conditions[condition] = known(condition)
            if (holds := conditions[condition]) is not None:
                taken[node] = operands[not holds]
    return taken


def _is_alike(node: fx.Node, operand: fx.Node) -> bool:
    """Whether an operand has the shape, dtype and rows of the result."""
    value, chosen = node.meta["val"], operand.meta["val"]
    is_alike = same_shape(value, chosen) and value.dtype == chosen.dtype
    return is_alike and all(node.meta.get(key) == operand.meta.get(key) for key in ("rows", "interleaved"))


def _known_with_children(trace: Trace, condition: fx.Node, constants: Mapping[str, float]) -> bool | None:
    """What a condition is in all vertices with children; None if it is not the same, or depends on more than these."""
    nodes = _read_from([condition], {})
    numbers = [node for node in nodes if isinstance(role_of(node), Counts | NumChildren)]
    bounds = [bound for node in numbers for bound in _bounds(node, nodes)]
    if trace.num_slots > MOST_SLOTS or any(bound >= MOST_CHILDREN for bound in bounds):
        return None
    ways = list(_ways(trace, int(max(bounds, default=0))))
    return _value(trace, condition, ways, constants) if ways else None


def _value(trace: Trace, condition: fx.Node, ways: list[Way], constants: Mapping[str, float]) -> bool | None:
    """What a condition is in all these ways to have children; None if it is not the same, or depends on more."""
    nodes = _read_from([condition], {})
    computed = {node for node in nodes if node.op == "call_function"}
    read = nodes - computed
    if not read or not all(node.target in _OPERATIONS or is_free(node) for node in computed):
        return None
    if not all(_is_readable(trace, node, constants) for node in read):
        return None
    part = extract("condition", [condition], computed, trace)
    given = [_rows_of(trace, node, ways, constants) for node in part.inputs]
    with torch.no_grad():
        (value,) = fx.Interpreter(nn.Module(), graph=part.graph).run(len(ways), 0, *given)
    holds = bool(value.all())
    return holds if holds or not bool(value.any()) else None


def _is_readable(trace: Trace, node: fx.Node, constants: Mapping[str, float]) -> bool:
    """Whether a placeholder tells nothing but which children there are."""
    match role_of(node):
        case Gather(state, slot):
            return state in constants and not is_over_edges(slot)
        case Counts():
            return not trace.first_slot and trace.arc_size is None
    return isinstance(role_of(node), NumChildren)


def _bounds(number: fx.Node, nodes: set[fx.Node]) -> Iterator[float]:
    """What a number of children is compared with, among these nodes; infinity where it is read otherwise."""
    for user in number.users:
        if user not in nodes:
            continue
        is_wide = user.meta["val"].dtype.is_floating_point or user.meta["val"].dtype in (torch.int32, torch.int64)
        if user.target in _SAME_NUMBERS or (is_wide and user.target is aten._to_copy.default):
            yield from _bounds(user, nodes)  # no number of children is too large for such a dtype
        else:
            bound = user.args[1] if user.target in _COMPARISONS else None
            yield float(bound) if isinstance(bound, (int, float)) and math.isfinite(bound) else math.inf


def _ways(trace: Trace, bound: int) -> Iterator[Way]:
    """The ways to have children, one at least.

    If numbers of children are compared with none above the `bound`, all that exceed it are alike. Methods that read edges may
    have children in other slots than those that they read; others refuse vertices with more children than slots.
    """
    for slots in itertools.product((False, True), repeat=trace.num_slots):
        count = sum(slots)
        if trace.reads_edges:
            yield from ((slots, number) for number in range(max(1, count), max(1, count, bound) + 2))
        elif count:
            yield slots, count


def _rows_of(trace: Trace, node: fx.Node, ways: list[Way], constants: Mapping[str, float]) -> Tensor:
    """What a placeholder is in a row for each way."""
    value, role = node.meta["val"], role_of(node)
    if not isinstance(role, Gather):
        return torch.tensor([count for _, count in ways], dtype=value.dtype, device=value.device)
    slots = range(trace.num_slots) if role.slot == ALL_SLOTS else [role.slot]
    numbers = [[constants[role.state] if has_child[slot] else 0 for slot in slots] for has_child, _ in ways]
    rows = torch.tensor(numbers, dtype=value.dtype, device=value.device)
    width = value.shape[1:].numel() // len(slots)
    return rows.repeat_interleave(width, 1).reshape(len(ways), *value.shape[1:])


def forget_unread(program: Program, taken: Mapping[fx.Node, fx.Node]) -> None:
    """Leave out of a program what nobody reads once vertices with children take these operands."""
    wanted = [
        *program.scatters.values(), *program.trace.pushes.values(), *program.pull_grads.values(),
        *program.param_grads.values(), *program.gather_grads.values(),
    ]  # fmt: skip
    program.taken = {
        node: operand
        for node, operand in taken.items()
        if program.stage_of.get(node) in CORES or (node in program.stage_of and node not in program.leaf_rows)
    }
    for state in program.scatters.values():
        if state in program.taken and program.stage_of.get(program.taken[state]) == "core":
            program.known_as[program.taken[state]] = state
    of_leaves = [*program.leaf_rows, *itertools.chain.from_iterable(program.leaf_reads.values())]
    alive = _read_from([*wanted, *of_leaves], program.taken)
    program.unread = program.stage_of.keys() - alive
    program.gathers = {key: node for key, node in program.gathers.items() if node in alive}
    program.state_grads = {name: node for name, node in program.state_grads.items() if node in alive}


def _read_from(nodes: Iterable[fx.Node], taken: Mapping[fx.Node, fx.Node]) -> set[fx.Node]:
    """All that these nodes are computed from, themselves included; no sizes."""
    seen: set[fx.Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in seen and not is_size(node):
            seen.add(node)
            stack += [taken[node]] if node in taken else node.all_input_nodes
    return seen
