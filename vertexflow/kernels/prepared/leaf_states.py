"""States that leaves have as they pull them: a word vector, say, which a vertex with children is of as well."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from ...graph.symbolic.program import Program

LeafStates = Mapping[str, fx.Node]  # such states by name, with the inputs that they are
NOTHING_IDLE: tuple[set[str], set[fx.Node]] = set(), set()


def leaf_states_of(program: Program) -> LeafStates:
    """The states that leaves have as they pull them, and the inputs; none where some kinds lack a state."""
    pulled = set(program.trace.pulls.values())
    states: dict[str, fx.Node] = {}
    for name, node in () if program.partial else program.trace.scatters.items():
        for part in filter(None, map(program.parts.get, ("core_leaf", "eager"))):
            if node in part.outputs:
                result = part.results[part.outputs.index(node)]
                while result.target is torch.ops.aten.clone.default:
                    (result,) = result.all_input_nodes
                source = part.placeholders.get(result)
                if source in pulled and _lies_alike(node, source):
                    states[name] = source
    return states


def _lies_alike(state: fx.Node, source: fx.Node) -> bool:
    """Whether rows of an input are, byte for byte, those of a state."""
    of_state, of_source, rows = state.meta["val"], source.meta["val"], source.meta["rows"]
    is_plain = rows.dim == 0 and rows.per_vertex == 1 and not rows.edges
    return is_plain and of_state.dtype == of_source.dtype and of_state.shape[1:] == of_source.shape[1:]


def reads_leaf_rows(program: Program, state: fx.Node) -> bool:
    """Whether the backward pass reads the state of leaves themselves."""
    parts = filter(None, map(program.parts.get, ("grad_eager", "grad_core_leaf", "grad_lazy")))
    return any(state in part.inputs for part in parts)


def inputs_read_at_leaves(program: Program) -> set[fx.Node]:
    """The inputs that are states of leaves which the backward pass reads of leaves themselves."""
    scatters = program.trace.scatters
    return {source for name, source in leaf_states_of(program).items() if reads_leaf_rows(program, scatters[name])}


def idle_at_leaves(program: Program, leaf_states: LeafStates, are_put: bool) -> tuple[set[str], set[fx.Node]]:
    """The parts of the forward pass that find nothing for leaves but these states, and the inputs that no other part reads.

    `are_put`: outputs of the leaves are asked for.
    """
    states, inputs = {program.trace.scatters[name] for name in leaf_states}, {*leaf_states.values()}
    parts = {name: part for name, part in program.parts.items() if name in ("eager", "core_leaf", "lazy")}
    idle = {name for name, part in parts.items() if states.issuperset(part.outputs)}
    read = {node for name, part in parts.items() if name not in idle for node in part.inputs}
    is_read = are_put or not read.isdisjoint(states)
    return idle, set() if is_read else inputs - read
