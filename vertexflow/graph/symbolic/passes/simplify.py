"""Graph in, graph out: rewrites that keep the values of a trace and save work when it runs."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from ..nodes import is_free, is_view, operands
from ..roles import ALL_SLOTS, Gather, role_of
from .rewrite import replace

if TYPE_CHECKING:
    from ..trace import Trace

aten = torch.ops.aten


def simplify(trace: Trace) -> None:
    """Rewrite `trace.graph` in place; the tables of `trace` follow."""
    _drop_dead(trace)
    _split_mixed_results(trace)
    _gather_all_slots_at_once(trace)
    _share_concatenations(trace)
    _name_states(trace)
    _drop_dead(trace)
    _own_what_is_exchanged(trace)


def _gather_all_slots_at_once(trace: Trace) -> None:
    """Turn `cat([v.gather(0).h, v.gather(1).h], -1)`, with every slot in order, into one gather of all slots side by side.

    The gathers of such a state become one placeholder, `[rows, slots * size]`, and nothing is concatenated.
    """
    for name, shape in trace.state.items():
        slots = [trace.gathers.get((name, slot)) for slot in range(trace.num_slots)]
        if len(shape) != 1 or len(slots) < 2 or None in slots:
            continue
        first = slots[0]
        assert first is not None
        cats = [user for user in first.users if user.target is aten.cat.default]
        all_slots = [cat for cat in cats if operands(cat) == slots and cat.args[1] == 1]
        uses = {user for slot in slots for user in slot.users}  # type: ignore[union-attr]
        published = {*trace.scatters.values(), *trace.pushes.values()}
        if not all_slots or uses != set(all_slots) or published & set(slots):
            continue
        with trace.graph.inserting_before(next(iter(trace.graph.nodes))):
            joined = trace.graph.placeholder(f"gather_{name}")
        joined.meta = {"role": Gather(name, ALL_SLOTS), "val": all_slots[0].meta["val"], "name": f"children_{name}"}
        for cat in all_slots:
            replace(trace, cat, joined)
        grads = [trace.gather_grads.pop((name, slot), None) for slot in range(trace.num_slots)]
        for slot in range(trace.num_slots):
            del trace.gathers[(name, slot)]
        trace.gathers[(name, ALL_SLOTS)] = joined
        present = [grad for grad in grads if grad is not None]
        if len(present) == len(grads):
            trace.gather_grads[(name, ALL_SLOTS)] = _join(trace, present)


def _join(trace: Trace, pieces: list[fx.Node]) -> fx.Node:
    """The concatenation of `pieces` along dimension 1: if they are all the slices of one value, in order, that value."""
    source: Any = pieces[0].args[0] if pieces[0].target is aten.slice.Tensor else None
    start = 0
    for piece in pieces:
        stop = start + piece.meta["val"].shape[1]
        if piece.target is not aten.slice.Tensor or piece.args != (source, 1, start, stop, 1):
            source = None
            break
        start = stop
    if source is not None and source.meta["val"].shape[1] == start:
        return source  # type: ignore[no-any-return]
    last = max(pieces, key=list(trace.graph.nodes).index)
    with trace.graph.inserting_after(last):
        joined = trace.graph.call_function(aten.cat.default, (pieces, 1))
    joined.meta["val"] = torch.cat([piece.meta["val"] for piece in pieces], 1)
    return joined


def _share_concatenations(trace: Trace) -> None:
    """Turn a concatenation whose operands are successive operands of a longer one into a slice of that."""
    cats = [node for node in trace.graph.nodes if node.target is aten.cat.default and _along_features(node)]
    cats.sort(key=lambda node: -len(operands(node)))
    for index, short in enumerate(cats):
        for long in cats[:index]:
            longer, wanted = operands(long), operands(short)
            starts = range(len(longer) - len(wanted) + 1)
            start = next((at for at in starts if longer[at : at + len(wanted)] == wanted), None)
            if start is None or long.op != "call_function":
                continue
            offset = sum(node.meta["val"].shape[1] for node in longer[:start])
            width = sum(node.meta["val"].shape[1] for node in wanted)
            # The slice goes behind the later of the two, and nobody may read it before.
            order = {node: position for position, node in enumerate(trace.graph.nodes)}
            if order[long] > order[short] and any(order[user] < order[long] for user in short.users):
                continue
            with trace.graph.inserting_after(max(long, short, key=order.__getitem__)):
                piece = trace.graph.call_function(aten.slice.Tensor, (long, 1, offset, offset + width, 1))
            piece.meta = {key: value for key, value in short.meta.items() if key != "name"}
            replace(trace, short, piece)
            trace.graph.erase_node(short)
            break


def _along_features(cat: fx.Node) -> bool:
    static = all(isinstance(node.meta["val"].shape[1], int) for node in operands(cat)) if cat.args[1] == 1 else False
    return static and cat.meta["val"].dim() == 2


def _split_mixed_results(trace: Trace) -> None:
    """Split an operation that computes both rows and sums over rows (the gradient of a LayerNorm) in two.

    The rows can then be computed step by step, and the sums once over all vertices.
    """
    for node in list(trace.graph.nodes):
        items = [user for user in node.users if user.target is operator.getitem]
        sums = [item for item in items if not _symbolic(item)]
        if is_view(node) or not sums or len(sums) == len(items):
            continue
        with trace.graph.inserting_after(node):
            twin = trace.graph.node_copy(node)
        for item in sums:
            item.args = (twin, item.args[1])
        if isinstance(node.args[-1], (list, tuple)) and node.target._schema.arguments[-1].name == "output_mask":
            mask, numbers = node.args[-1], {item.args[1] for item in sums}
            node.args = (*node.args[:-1], [on and i not in numbers for i, on in enumerate(mask)])
            twin.args = (*twin.args[:-1], [on and i in numbers for i, on in enumerate(mask)])


def _symbolic(node: fx.Node) -> bool:
    return any(isinstance(size, torch.SymInt) for size in node.meta["val"].shape)


def _own_what_is_exchanged(trace: Trace) -> None:
    """Give every state, and every gradient sent to a child, a node of its own, which can write it where it belongs."""
    taken: set[fx.Node] = set()
    tables: list[dict[Any, fx.Node]] = [trace.scatters, trace.gather_grads]
    other_results = {*trace.pull_grads.values(), *trace.param_grads.values(), *trace.pushes.values()}
    for table in tables:
        for key, node in list(table.items()):
            # A gradient to a child is written in the order of edges, where no other node can read it.
            shared = node in taken or (table is trace.gather_grads and (bool(node.users) or node in other_results))
            if node.op != "call_function" or is_free(node) or shared:
                original = node
                with trace.graph.inserting_after(node):
                    node = trace.graph.call_function(aten.clone.default, (original,))
                node.meta = {"val": original.meta["val"], "line": original.meta.get("line")}
                table[key] = node
            taken.add(node)


def _name_states(trace: Trace) -> None:
    for table in (trace.scatters, trace.pushes):
        for name, node in table.items():
            node.meta.setdefault("name", name)


def _drop_dead(trace: Trace) -> None:
    """Erase all nodes but placeholders and the ancestors of outputs."""
    keep: set[fx.Node] = set()
    stack: list[fx.Node] = [
        node
        for table in (trace.scatters, trace.pushes, trace.param_grads, trace.pull_grads, trace.gather_grads)
        for node in table.values()
    ]
    while stack:
        node = stack.pop()
        if node not in keep:
            keep.add(node)
            stack += node.all_input_nodes
    gathered = set(trace.gathers.values())
    for node in reversed(list(trace.graph.nodes)):
        replaced = isinstance(role_of(node), Gather) and node not in gathered
        if node.op == "output" or replaced or (node not in keep and node.op != "placeholder"):
            trace.graph.erase_node(node)
