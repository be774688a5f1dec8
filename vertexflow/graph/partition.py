"""Cut a joint graph into the parts that an executor runs: eager, core and lazy, of the values and of the gradients.

Forward, a node is *core* if it depends on a gather and a scatter depends on it, *eager* if it depends on no gather, and
*lazy* otherwise (Cavs, section 3.5). Backward the same rule holds with the gradients of the state for the gathers and
the gradients of the gathers for the scatters: weight gradients are then lazy, one product over all vertices.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ..errors import VertexFunctionError
from .leaves import ZERO, Image, fold_zeros
from .rows import ancestors
from .trace import Trace
from .views import is_free

aten = torch.ops.aten

FORWARD = ("eager", "core", "lazy")
BACKWARD = ("grad_eager", "grad_core", "grad_lazy")
CORES = ("core", "grad_core")


@dataclass
class Part:
    """Nodes that run together over a range of rows. `graph` takes `rows` and then the values of `inputs`.

    `inputs` and `outputs` are nodes of the joint graph; `graph` returns the values of `outputs`.
    """

    name: str
    graph: fx.Graph
    inputs: list[fx.Node]
    outputs: list[fx.Node]


@dataclass
class Program:
    """All parts of a vertex function for one set of wanted gradients, and what is kept between them.

    Parts are named by stage, with `_inner` for what leaves do not need and `_leaf` for the core of vertices without
    children. `whole` are the values that are kept for all rows; other kept values are kept for inner rows only.
    """

    trace: Trace
    parts: dict[str, Part] = field(default_factory=dict)
    made_by: dict[fx.Node, str] = field(default_factory=dict)  # stage of each computed node
    kept: list[fx.Node] = field(default_factory=list)  # values made step by step and read by another stage
    whole: set[fx.Node] = field(default_factory=set)
    leaf_operands: dict[fx.Node, set[int]] = field(default_factory=dict)  # of a cat: what is read of leaves' rows
    gathers: dict[tuple[str, int], fx.Node] = field(default_factory=dict)
    gather_grads: dict[tuple[str, int], fx.Node] = field(default_factory=dict)
    state_grads: dict[str, fx.Node] = field(default_factory=dict)
    param_grads: dict[str, fx.Node] = field(default_factory=dict)
    pull_grads: dict[str, fx.Node] = field(default_factory=dict)
    saved: list[fx.Node] = field(default_factory=list)  # forward values that the backward reads
    read_constants: list[fx.Node] = field(default_factory=list)  # parameters and buffers that the backward reads

    @property
    def wants_gradients(self) -> bool:
        return bool(self.param_grads or self.pull_grads)

    def is_whole(self, node: fx.Node) -> bool:
        """Whether a value has rows for all vertices, not for those with children only."""
        return node in self.whole or (node.op == "placeholder" and node.meta["role"][0] in ("pull", "param")) or (
            node.op == "placeholder" and node.meta["role"][:2] == ("grad", "push")
        )


def partition(found: Trace, wanted_params: Iterable[str] = (), wanted_pulls: Iterable[str] = ()) -> Program:
    """Cut `found` for the gradients of these parameters and inputs (none: forward only)."""
    program = Program(found)
    program.param_grads = {name: found.param_grads[name] for name in wanted_params if name in found.param_grads}
    program.pull_grads = {name: found.pull_grads[name] for name in wanted_pulls if name in found.pull_grads}
    roots = [*program.param_grads.values(), *program.pull_grads.values()]
    if ancestors(roots) & set(found.state_grads.values()):
        program.gather_grads = dict(found.gather_grads)
    roots += program.gather_grads.values()
    forward = ancestors([*found.scatters.values(), *found.pushes.values()])
    backward = ancestors(roots) - forward
    _stages(program, forward, backward)
    program.gathers = {key: node for key, node in found.gathers.items() if node in forward or node in ancestors(roots)}
    program.state_grads = {name: node for name, node in found.state_grads.items() if node in backward}
    zeros = fold_zeros(found)
    folded = {core: fold_zeros(found, [n for n, s in program.made_by.items() if s == core], zeros) for core in CORES}
    _needed_at_leaves(program, zeros, folded)
    _refuse_interleaved(program)
    _build_parts(program, folded)
    return program


def _stages(program: Program, forward: set[fx.Node], backward: set[fx.Node]) -> None:
    found = program.trace
    after_gather = _descendants(found.graph, found.gathers.values())
    after_state_grad = _descendants(found.graph, found.state_grads.values())
    before_scatter = ancestors(list(found.scatters.values()))
    before_gather_grad = ancestors(list(program.gather_grads.values()))
    for node in found.graph.nodes:
        if node.op != "call_function" or is_free(node) or node not in forward | backward:
            continue
        if node.target is operator.getitem:  # an item of an operation with several results stays with it
            program.made_by[node] = program.made_by[node.args[0]]
            continue
        names, depends, needed = FORWARD, after_gather, before_scatter
        if node not in forward:
            names, depends, needed = BACKWARD, after_state_grad, before_gather_grad
        program.made_by[node] = names[0] if node not in depends else names[1] if node in needed else names[2]


def _descendants(graph: fx.Graph, sources: Iterable[fx.Node]) -> set[fx.Node]:
    found = set(sources)
    for node in graph.nodes:
        if any(argument in found for argument in node.all_input_nodes):
            found.add(node)
    return found


def sources(node: fx.Node) -> list[fx.Node]:
    """The computed nodes and placeholders that `node` is made of, looking through views and sizes."""
    if not is_free(node):
        return [node]
    return list(dict.fromkeys(source for argument in node.all_input_nodes for source in sources(argument)))


def _reads(node: fx.Node) -> list[fx.Node]:
    return list(dict.fromkeys(source for argument in node.all_input_nodes for source in sources(argument)))


def has_rows(node: fx.Node) -> bool:
    """Whether the value has a row for each vertex (an operation with several results: whether any has)."""
    if isinstance(node.meta.get("val"), torch.Tensor):
        return node.meta.get("rows") is not None
    return any(has_rows(user) for user in node.users if user.target is operator.getitem)


Images = dict[fx.Node, Image]


def _needed_at_leaves(program: Program, zeros: Images, folded: dict[str, Images]) -> None:
    """Find `program.whole`: the values whose rows of vertices without children somebody reads.

    Where only some operands of a concatenation are read, they are noted in `program.leaf_operands`.
    """
    found, stage, whole = program.trace, program.made_by, program.whole
    stack = [*found.scatters.values(), *found.pushes.values(), *program.pull_grads.values(), *program.param_grads.values()]
    rowless: set[fx.Node] = set()
    while stack:
        for node, operands in _operand_sources(stack.pop(), stage):
            seen = program.leaf_operands.get(node, set())
            if node in rowless or (node in whole and operands <= seen):
                continue
            if node in stage and not has_rows(node) and not any(has_rows(source) for source in _reads(node)):
                rowless.add(node)  # what is computed of parameters, or of sums over rows
                stack += node.all_input_nodes
                continue
            if node.op == "call_function" and not has_rows(node) and zeros[node] is ZERO:
                continue  # a sum over rows to which leaves add nothing
            whole.add(node)
            if operands:
                program.leaf_operands[node] = seen | operands
            if stage.get(node) not in CORES:
                stack += node.all_input_nodes if node in stage else []
                continue
            read = [node.args[0][index] for index in operands - seen] if operands else [node]  # type: ignore[index]
            for wanted in read:
                stack += _leaf_reads(folded[stage[node]][wanted], stage, stage[node])
    for node in list(stage):  # the results of one operation stay together
        if node.target is operator.getitem and node in whole:
            whole.add(node.args[0])  # type: ignore[arg-type]


def _operand_sources(node: fx.Node, stage: dict[fx.Node, str]) -> list[tuple[fx.Node, set[int]]]:
    """As `sources`, with the operands that are read of each concatenation that a core makes (of others: none)."""
    if not is_free(node):
        every = set(range(len(node.args[0]))) if _core_cat(node, stage) else set()  # type: ignore[arg-type]
        return [(node, every)]
    cat = node.args[0] if node.args else None
    if node.target is aten.slice.Tensor and isinstance(cat, fx.Node) and _core_cat(cat, stage) and node.args[1] == 1:
        start, stop, at, read = node.args[2], node.args[3], 0, set()
        for index, operand in enumerate(cat.args[0]):  # type: ignore[arg-type]
            width = operand.meta["val"].shape[1]  # type: ignore[union-attr]
            if at < stop and at + width > start:  # type: ignore[operator]
                read.add(index)
            at += width
        return [(cat, read)]
    return [pair for argument in node.all_input_nodes for pair in _operand_sources(argument, stage)]


def _core_cat(node: fx.Node, stage: dict[fx.Node, str]) -> bool:
    flat = node.target is aten.cat.default and node.meta["val"].dim() == 2 and node.args[1:] in ((1,), (-1,))
    return flat and stage.get(node) in CORES


def _leaf_reads(image: Image, stage: dict[fx.Node, str], core: str) -> list[fx.Node]:
    """The values of other stages that the folded core reads to make `image`."""
    reads: list[fx.Node] = []
    stack, seen = [image] if isinstance(image, fx.Node) else [], set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        origin = node.meta.get("origin")
        if origin is not None and origin.op == "call_function" and (is_free(origin) or stage.get(origin) == core):
            stack += node.all_input_nodes
        elif origin is None:
            stack += node.all_input_nodes
        else:
            reads.append(origin)
    return reads


def _build_parts(program: Program, folded: dict[str, Images]) -> None:
    found, whole = program.trace, program.whole
    finals = {"lazy": list(found.pushes.values()), "grad_lazy": [*program.pull_grads.values(), *program.param_grads.values()]}
    members: dict[str, list[fx.Node]] = {}
    for node, stage in program.made_by.items():
        members.setdefault(stage if stage in CORES or _runs_whole(node, program) else f"{stage}_inner", []).append(node)
    extra: dict[str, list[fx.Node]] = {}  # views that only the caller sees are made by the last stage
    for stage, nodes in finals.items():
        for node in dict.fromkeys(node for node in nodes if is_free(node)):
            inner = any(_part_of(program, source).endswith("_inner") for source in sources(node))
            extra.setdefault(f"{stage}_inner" if inner else stage, []).append(node)
    readers: dict[fx.Node, set[str]] = {}
    for part in {**members, **extra}:
        for node in [*members.get(part, []), *extra.get(part, [])]:
            for source in sources(node) if is_free(node) else _reads(node):
                readers.setdefault(source, set()).add(part)
    for node in [node for nodes in finals.values() for node in nodes] + [
        *found.scatters.values(), *program.gather_grads.values(),
    ]:  # fmt: skip
        if not is_free(node):
            readers.setdefault(node, set()).add("caller")
    for stage in (*FORWARD, *BACKWARD):
        for part in (stage, f"{stage}_inner"):
            nodes = members.get(part, [])
            outputs = [n for n in nodes if readers.get(n, set()) - {part} and isinstance(n.meta["val"], torch.Tensor)]
            outputs += extra.get(part, [])
            if outputs:
                program.parts[part] = _extract(part, outputs, set(nodes), found)
        if stage in CORES:
            _add_leaf_core(program, stage, folded[stage])
    program.kept = _kept(program, readers)
    in_backward = {p for stage in BACKWARD for p in (stage, f"{stage}_inner", f"{stage}_leaf")}
    read_back = dict.fromkeys(node for name, part in program.parts.items() if name in in_backward for node in part.inputs)
    program.saved = [node for node in read_back if _is_forward_value(program, node)]
    program.read_constants = [node for node in read_back if node.meta.get("role", ("",))[0] == "param"]


def _refuse_interleaved(program: Program) -> None:
    """Values whose vertices do not lie side by side can be kept by a step for its own gradient, but not be cut."""
    for node in program.made_by:
        for source in _reads(node):
            parts = {_part_of(program, node), _part_of(program, source)}
            if source.meta.get("interleaved") and len(parts) > 1 and not parts <= set(CORES):
                raise VertexFunctionError(
                    f"the vertices of a value of shape {tuple(source.meta['val'].shape)} lie interleaved (a transpose was "
                    "flattened), and it is needed for all vertices at once; keep the vertices in front: reshape with "
                    f"(rows, ...) first\n  in the vertex function, {program.trace.where(source)}"
                )


def _runs_whole(node: fx.Node, program: Program) -> bool:
    if node in program.whole:
        return True
    if not has_rows(node) and not any(has_rows(source) for source in _reads(node)):
        return not any(_part_of(program, source).endswith("_inner") for source in _reads(node))
    return False


def _part_of(program: Program, node: fx.Node) -> str:
    stage = program.made_by.get(node, "")
    return stage if not stage or stage in CORES or _runs_whole(node, program) else f"{stage}_inner"


def _kept(program: Program, readers: dict[fx.Node, set[str]]) -> list[fx.Node]:
    """What must be held in a buffer of all steps: values that a core makes, gathers or receives for another stage."""
    placeholders = {**{node: "core" for node in program.gathers.values()},
                    **{node: "grad_core" for node in program.state_grads.values()}}  # fmt: skip
    kept = [node for node, core in placeholders.items() if readers.get(node, set()) - {core}]
    for core in CORES:
        if core in program.parts:
            kept += program.parts[core].outputs
    return kept


def _is_forward_value(program: Program, node: fx.Node) -> bool:
    return node.meta.get("role", ("",))[0] in ("pull", "gather") or program.made_by.get(node, "grad") in FORWARD


def _add_leaf_core(program: Program, core: str, images: Images) -> None:
    """The core specialised to vertices without children: only what is needed of them, with zeros folded away."""
    if core not in program.parts:
        return
    outputs = [node for node in program.parts[core].outputs if node in program.whole]
    if not outputs:
        return
    graph, env = fx.Graph(), {}
    rows = graph.placeholder("rows")
    inputs: list[fx.Node] = []
    titles = {images[node]: _title(node) for node in outputs}

    def value(node: fx.Node) -> fx.Node:
        if node in env:
            return env[node]
        origin = node.meta.get("origin")
        computed = node.meta.get("synthetic") or (
            origin is not None and origin.op == "call_function" and (is_free(origin) or program.made_by.get(origin) == core)
        )
        if computed:
            env[node] = _copy(graph, node, value, rows, program.trace, titles.get(node))
        else:
            assert origin is not None
            inputs.append(origin)
            env[node] = _input(graph, origin)
        return env[node]

    def fresh(create: Any, node: fx.Node) -> fx.Node:
        size = _sizes(list(node.meta["val"].shape), graph, rows, program.trace)
        options = {"dtype": node.meta["val"].dtype, "device": node.meta["val"].device}
        made = graph.call_function(create, (size,), options)
        made.meta = dict(node.meta)
        return made

    def result(node: fx.Node) -> fx.Node:
        image = images[node]
        if image is ZERO:
            return fresh(aten.zeros.default, node)
        assert isinstance(image, fx.Node)
        read = program.leaf_operands.get(node)
        if read is None or len(read) == len(node.args[0]) or image.meta["origin"] is not node:  # type: ignore[arg-type]
            return value(image)
        pieces = []
        for index, operand in enumerate(node.args[0]):  # type: ignore[arg-type]
            pieces.append(value(image.args[0][index]) if index in read else fresh(aten.empty.memory_format, operand))  # type: ignore
        joined = graph.create_node("call_function", aten.cat.default, (pieces, *node.args[1:]), name=_title(node))
        joined.meta = dict(node.meta)
        return joined

    graph.output(tuple(result(node) for node in outputs))
    _placeholders_first(graph)
    program.parts[f"{core}_leaf"] = Part(f"{core}_leaf", graph, inputs, outputs)


def _extract(name: str, outputs: list[fx.Node], members: set[fx.Node], found: Trace) -> Part:
    """A graph of its own that makes `outputs` from the values of other parts, repeating views and sizes."""
    graph = fx.Graph()
    rows = graph.placeholder("rows")
    env: dict[fx.Node, fx.Node] = {}
    inputs: list[fx.Node] = []
    wanted = ancestors(outputs)
    for node in found.graph.nodes:
        if node in members and node in wanted:
            _emit(node, graph, env, inputs, members, rows, found)
    results = tuple(_emit(node, graph, env, inputs, members, rows, found) for node in outputs)
    graph.output(results)
    _placeholders_first(graph)
    return Part(name, graph, inputs, outputs)


def _emit(
    node: fx.Node, graph: fx.Graph, env: dict[fx.Node, fx.Node], inputs: list[fx.Node],
    members: set[fx.Node], rows: fx.Node, found: Trace,
) -> fx.Node:  # fmt: skip
    if node not in env:
        if node in members or is_free(node):
            operands = lambda n: _emit(n, graph, env, inputs, members, rows, found)  # noqa: E731
            env[node] = _copy(graph, node, operands, rows, found)
        else:
            inputs.append(node)
            env[node] = _input(graph, node)
    return env[node]


def _input(graph: fx.Graph, node: fx.Node) -> fx.Node:
    placeholder = graph.create_node("placeholder", _title(node), name=_title(node))
    placeholder.meta = dict(node.meta)
    return placeholder


def _copy(
    graph: fx.Graph, node: fx.Node, operand: Any, rows: fx.Node, found: Trace, title: str | None = None
) -> fx.Node:
    if isinstance(node.meta.get("val"), (torch.SymInt, int)):
        return _sizes(node.meta["val"], graph, rows, found)  # type: ignore[no-any-return]
    args = fx.node.map_arg(node.args, operand)
    if node.meta.get("synthetic"):  # zeros, or a bias for every row: its last argument is the shape of its value
        args = (*args[:-1], list(node.meta["val"].shape))
    kwargs = fx.node.map_arg(node.kwargs, operand)
    args, kwargs = _sizes(args, graph, rows, found), _sizes(kwargs, graph, rows, found)
    copy = graph.create_node("call_function", node.target, args, kwargs, name=title or _title(node))
    copy.meta = dict(node.meta)
    return copy


def _title(node: fx.Node) -> str:
    """The user's name for the value where there is one."""
    if "name" in node.meta:
        return str(node.meta["name"])
    role = node.meta.get("role")
    return "_".join(str(part).replace(".", "_") for part in role[role[0] == "param" :]) if role else node.name


def _sizes(value: Any, graph: fx.Graph, rows: fx.Node, found: Trace) -> Any:
    """Symbolic sizes, wherever they stand in an argument, as multiples of `rows`."""
    if isinstance(value, torch.SymInt):
        factor = value.node.expr / found.rows
        if value.node.expr.is_Integer:
            return int(value.node.expr)
        assert factor.is_Integer, f"size {value} is no multiple of the number of rows"
        return rows if factor == 1 else graph.call_function(operator.mul, (rows, int(factor)))
    if isinstance(value, (list, tuple)):
        return type(value)(_sizes(item, graph, rows, found) for item in value)
    if isinstance(value, dict):
        return {key: _sizes(item, graph, rows, found) for key, item in value.items()}
    return value


def _placeholders_first(graph: fx.Graph) -> None:
    first = next(iter(graph.nodes))
    anchor = first
    for node in list(graph.nodes):
        if node.op == "placeholder" and node is not first:
            anchor.append(node)
            anchor = node
