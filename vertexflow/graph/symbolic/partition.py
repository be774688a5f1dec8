"""Cut a joint graph into the parts that an executor runs: eager, core and lazy, of the values and of the gradients.

Forward, a node is *core* if it depends on a gather and a scatter depends on it, *eager* if it depends on no gather, and
*lazy* otherwise (Cavs, section 3.5). Backward the same rule holds with the gradients of the state for the gathers and
the gradients of the gathers for the scatters: weight gradients are then lazy, one product over all vertices.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping

from torch import Tensor, fx

from ...errors import VertexFunctionError
from .. import segments
from .nodes import ancestors, descendants, has_rows, is_free, reads, sources
from .passes.choices import choices_of_leaves, choices_with_children, forget_unread
from .passes.extract import NOTHING, extract, extract_leaf_core
from .passes.leaves import fold_zeros
from .passes.needed import Images, needed_at_leaves
from .program import BACKWARD, CORES, FORWARD, Program
from .roles import Gather, Param, Pull, role_of
from .trace import Trace


def partition(
    trace: Trace,
    wanted_params: Iterable[str],
    wanted_pulls: Iterable[str],
    through: bool,
    states: Collection[str],
    partial: frozenset[str] = frozenset(),
    sums_last: bool = False,
    constants: Mapping[str, float] | None = None,
) -> Program:
    """Cut `trace` for the gradients of these parameters and inputs (none: forward only).

    `states` are the states whose gradients are sent to children. With `through` they are sent even if no parameter or input
    here depends on them: somebody outside this method wants them. `partial` are the states that need no row for vertices of
    kinds that leave them out; other states that are left out are zeros. With `sums_last` all sums over rows are lazy, also of
    gradients that are known before the core. With `constants`, states that are the same number in every vertex, every row of a
    core has children, and reads of a choice between vertices with and without children what the former take.
    """
    program = Program(trace, partial=partial)
    program.scatters = {name: node for name, node in trace.scatters.items() if name not in partial & trace.left_out}
    program.param_grads = {name: trace.param_grads[name] for name in wanted_params if name in trace.param_grads}
    program.pull_grads = {name: trace.pull_grads[name] for name in wanted_pulls if name in trace.pull_grads}
    roots = [*program.param_grads.values(), *program.pull_grads.values()]
    if through or ancestors(roots) & set(trace.state_grads.values()):
        program.gather_grads = {key: node for key, node in trace.gather_grads.items() if key[0] in states}
    roots += program.gather_grads.values()
    forward = ancestors([*program.scatters.values(), *trace.pushes.values()])
    forward |= {node for node in ancestors(roots) if node.meta.get("copies")}
    backward = ancestors(roots) - forward
    _stages(program, forward, backward, sums_last)
    program.gathers = {key: node for key, node in trace.gathers.items() if node in forward or node in ancestors(roots)}
    program.state_grads = {name: node for name, node in trace.state_grads.items() if node in backward}
    of_leaves = choices_of_leaves(trace)
    zeros = fold_zeros(trace, of_leaves)
    folded = {
        core: fold_zeros(trace, of_leaves, [n for n, s in program.stage_of.items() if s == core], zeros)
        for core in CORES
    }
    needed_at_leaves(program, zeros, folded)
    if constants is not None:
        forget_unread(program, choices_with_children(trace, constants))
    _made_once(program)
    _refuse_interleaved(program)
    _build_parts(program, folded)
    _refuse_without_rows(program)
    return program


def _stages(program: Program, forward: set[fx.Node], backward: set[fx.Node], sums_last: bool) -> None:
    trace = program.trace
    summed: set[fx.Node] = set()  # over rows, and what is made of that
    after_gather = descendants(trace.graph, trace.gathers.values())
    after_state_grad = descendants(trace.graph, trace.state_grads.values())
    before_scatter = ancestors(list(program.scatters.values()))
    before_gather_grad = ancestors(list(program.gather_grads.values()))
    read_late = _read_late(trace.graph, after_state_grad, forward)
    for node in trace.graph.nodes:
        if node.op != "call_function" or is_free(node) or node not in forward | backward:
            continue
        if node.target is operator.getitem:  # an item of an operation with several results stays with it
            program.stage_of[node] = program.stage_of[node.all_input_nodes[0]]
            continue
        if node.meta.get("copies"):
            (source,) = sources(node.all_input_nodes[0])
            program.stage_of[node] = program.stage_of[source]
            continue
        is_sum = not has_rows(node) and any(has_rows(source) or source in summed for source in reads(node))
        if sums_last and is_sum and node not in forward:
            summed.add(node)
            program.stage_of[node] = BACKWARD[2]
            continue
        names, depends, needed = FORWARD, after_gather, before_scatter
        if node not in forward:
            names, depends, needed = BACKWARD, after_state_grad, before_gather_grad
        if node in read_late or (node.target is segments.EXPAND and depends.issuperset(node.users)):
            depends = {node}
        program.stage_of[node] = names[0] if node not in depends else names[1] if node in needed else names[2]


def _read_late(graph: fx.Graph, after_state_grad: set[fx.Node], forward: set[fx.Node]) -> set[fx.Node]:
    """Values that are computed again, and views of them, which only what depends on a state's gradient reads."""
    late: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        is_repeated = node.meta.get("again") or is_free(node)
        if is_repeated and node not in forward and all(user in after_state_grad or user in late for user in node.users):
            late.add(node)
    return late


def _made_once(program: Program) -> None:
    """Find `program.without_rows`, in the order of the graph: the operands of a node are decided before it."""
    for node in program.trace.graph.nodes:
        if node in program.stage_of and not has_rows(node):
            read = reads(node)
            if not any(has_rows(source) or _part_of(program, source).endswith("_inner") for source in read):
                program.without_rows.add(node)


def _build_parts(program: Program, folded: dict[str, Images]) -> None:
    trace = program.trace
    finals = {
        "lazy": list(trace.pushes.values()),
        "grad_lazy": [*program.pull_grads.values(), *program.param_grads.values()],
    }
    members: dict[str, list[fx.Node]] = {}
    for node in program.stage_of:
        if node not in program.unread:
            members.setdefault(_part_of(program, node), []).append(node)
    extra: dict[str, list[fx.Node]] = {}  # views that only the caller reads, which the last stage makes
    for stage, nodes in finals.items():
        for node in dict.fromkeys(node for node in nodes if is_free(node)):
            inner = any(_part_of(program, source).endswith("_inner") for source in sources(node))
            extra.setdefault(f"{stage}_inner" if inner else stage, []).append(node)
    readers: dict[fx.Node, set[str]] = {}
    for part in {**members, **extra}:
        for node in [*members.get(part, []), *extra.get(part, [])]:
            for source in sources(node) if is_free(node) else _reads(program, node):
                readers.setdefault(_known_in(program, part).get(source, source), set()).add(part)
    for core, values in program.leaf_reads.items():
        for value in values:
            readers.setdefault(value, set()).add(core)
    exchanged = [*program.scatters.values(), *program.gather_grads.values()]
    for node in [*finals["lazy"], *finals["grad_lazy"], *exchanged]:
        if not is_free(node):
            readers.setdefault(node, set()).add("caller")
    for stage in (*FORWARD, *BACKWARD):
        for part in (stage, f"{stage}_inner"):
            nodes = members.get(part, [])
            outputs = [n for n in nodes if readers.get(n, set()) - {part} and isinstance(n.meta["val"], Tensor)]
            outputs += extra.get(part, [])
            if outputs:
                known_as = _known_in(program, part)
                program.parts[part] = extract(part, outputs, set(nodes), trace, taken=program.taken, known_as=known_as)
        leaf = extract_leaf_core(program, stage, folded[stage]) if stage in CORES and stage in program.parts else None
        if leaf is not None:
            program.parts[leaf.name] = leaf
    program.buffered = _buffered(program, readers)
    in_backward = {p for stage in BACKWARD for p in (stage, f"{stage}_inner", f"{stage}_leaf")}
    read_back = dict.fromkeys(
        node for name, part in program.parts.items() if name in in_backward for node in part.inputs
    )
    program.saved = [node for node in read_back if _is_forward_value(program, node)]
    program.read_constants = [node for node in read_back if node.op == "get_attr" or isinstance(role_of(node), Param)]


def _refuse_interleaved(program: Program) -> None:
    """Refuse values that another part would have to cut into rows although the entries of a vertex do not lie side by side.

    Inside a step, and for its own gradient, they may be kept whole.
    """
    trace = program.trace
    pairs = [(_part_of(program, node), source) for node in program.stage_of for source in _reads(program, node)]
    # Views that only the caller reads are made after all steps.
    seen = [*trace.pushes.values(), *program.pull_grads.values(), *program.param_grads.values()]
    pairs += [("caller", source) for node in seen if is_free(node) for source in sources(node)]
    for part, source in pairs:
        parts = {part, _part_of(program, source)}
        if (
            source.meta.get("places")
            and len(parts) > 1
            and any(name in CORES or name.endswith("_inner") for name in parts)
        ):
            raise VertexFunctionError(
                "the vertex function keeps the places of rows for its derivative, and steps have others (an EmbeddingBag of "
                f"what depends on children); use an embedding and a sum\n  in the vertex function, {trace.where(source)}"
            )
        if source.meta.get("interleaved") and len(parts) > 1 and not parts <= set(CORES):
            raise VertexFunctionError(
                f"the vertices of a value of shape {trace.shape(source)} lie interleaved (a transpose was "
                "flattened), and it is needed for all vertices at once; keep the vertices in front: reshape with "
                f"(rows, ...) first\n  in the vertex function, {trace.where(source)}"
            )


def _refuse_without_rows(program: Program) -> None:
    """Refuse values without rows that every step computes anew and another part reads: buffers of all rows cannot hold them."""
    for core in CORES:
        for node in program.parts[core].outputs if core in program.parts else ():
            if node.meta.get("rows") is None:
                source = node.all_input_nodes[0] if node.target is operator.getitem else node
                raise VertexFunctionError(
                    f"`{source.target}` gives, beside rows, a value of shape {program.trace.shape(node)} without a row for each "
                    "vertex, which is needed after the steps that make it; compute that without what children send"
                    f"\n  in the vertex function, {program.trace.where(node)}"
                )


def _reads(program: Program, node: fx.Node) -> list[fx.Node]:
    """The computed nodes and placeholders that a node reads in the rows for which it is computed."""
    return sources(program.taken[node]) if node in program.taken else reads(node)


def _known_in(program: Program, part: str) -> Mapping[fx.Node, fx.Node]:
    """The values that a part reads as others: where it runs over vertices with children alone, after the core."""
    return program.known_as if part == "grad_core" or part.endswith("_inner") else NOTHING


def _part_of(program: Program, node: fx.Node) -> str:
    stage = program.stage_of.get(node, "")
    over_all_rows = not stage or stage in CORES or node in program.leaf_rows or node in program.without_rows
    return stage if over_all_rows else f"{stage}_inner"


def _buffered(program: Program, readers: dict[fx.Node, set[str]]) -> list[fx.Node]:
    """The values that need a buffer over all steps: those that a core computes, gathers or receives and another stage reads."""
    placeholders = {**dict.fromkeys(program.gathers.values(), "core"),
                    **dict.fromkeys(program.state_grads.values(), "grad_core")}  # fmt: skip
    nodes = [node for node, core in placeholders.items() if readers.get(node, set()) - {core}]
    for core in CORES:
        if core in program.parts:
            nodes += program.parts[core].outputs
    return nodes


def _is_forward_value(program: Program, node: fx.Node) -> bool:
    return isinstance(role_of(node), Pull | Gather) or program.stage_of.get(node, "grad") in FORWARD
