"""Which values are read of vertices without children: others are not computed for them."""

from __future__ import annotations

import operator
from typing import cast

import torch
from torch import fx

from ..nodes import has_rows, is_free, operands, reads
from ..program import CORES, Program
from .leaves import ZERO, Image

aten = torch.ops.aten
Images = dict[fx.Node, Image]


def needed_at_leaves(program: Program, zeros: Images, folded: dict[str, Images]) -> None:
    """Find `program.leaf_rows`: the values that are read of vertices without children.

    For a concatenation, `program.leaf_operands` gets those of its operands that are read. `program.leaf_reads` gets what each
    core reads for such vertices.
    """
    trace, stage, leaf_rows = program.trace, program.stage_of, program.leaf_rows
    stack = [
        *program.scatters.values(),
        *trace.pushes.values(),
        *program.pull_grads.values(),
        *program.param_grads.values(),
    ]
    rowless: set[fx.Node] = set()
    while stack:
        for node, parts in _operand_sources(stack.pop(), stage):
            seen = program.leaf_operands.get(node, set())
            if node in rowless or (node in leaf_rows and parts <= seen):
                continue
            if node in stage and not has_rows(node) and not any(has_rows(source) for source in reads(node)):
                rowless.add(node)  # computed from parameters, or from sums over rows
                stack += node.all_input_nodes
                continue
            if node.op == "call_function" and not has_rows(node) and zeros[node] is ZERO:
                continue  # a sum over rows to which leaves add nothing
            leaf_rows.add(node)
            if parts:
                program.leaf_operands[node] = seen | parts
            if stage.get(node) not in CORES:
                stack += node.all_input_nodes if node in stage else []
                continue
            read = [operands(node)[index] for index in parts - seen] if parts else [node]
            of_core = program.leaf_reads.setdefault(stage[node], set())
            for wanted in read:
                values = _leaf_reads(folded[stage[node]][wanted], stage, stage[node])
                of_core.update(values)
                stack += values
    results = [node for node in stage if node.target is operator.getitem]  # the results of one operation stay together
    leaf_rows.update(node.all_input_nodes[0] for node in results if node in leaf_rows)
    leaf_rows.update(node for node in results if node.all_input_nodes[0] in leaf_rows)


def _operand_sources(node: fx.Node, stage: dict[fx.Node, str]) -> list[tuple[fx.Node, set[int]]]:
    """As `sources`; for each concatenation in a core with the operands of it that are read, for other nodes with none."""
    if not is_free(node):
        indices = set(range(len(operands(node)))) if _core_cat(node, stage) else set()
        return [(node, indices)]
    cat = node.all_input_nodes[0] if node.all_input_nodes else None
    if cat is not None and node.target is aten.slice.Tensor and _core_cat(cat, stage) and node.args[1] == 1:
        start, stop = cast("tuple[int, int]", node.args[2:4])
        column, read = 0, set()
        for index, operand in enumerate(operands(cat)):
            width = operand.meta["val"].shape[1]
            if column < stop and column + width > start:
                read.add(index)
            column += width
        return [(cat, read)]
    return [pair for argument in node.all_input_nodes for pair in _operand_sources(argument, stage)]


def _core_cat(node: fx.Node, stage: dict[fx.Node, str]) -> bool:
    joins_columns = node.target is aten.cat.default and node.args[1] == 1 and node.meta["val"].dim() == 2
    return bool(joins_columns and stage.get(node) in CORES)


def _leaf_reads(image: Image, stage: dict[fx.Node, str], core: str) -> list[fx.Node]:
    """The values of other stages that the folded core reads to compute `image`."""
    values: list[fx.Node] = []
    stack, seen = [image] if isinstance(image, fx.Node) else [], set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        origin = node.meta.get("origin")
        if origin is not None and (origin.op != "call_function" or not (is_free(origin) or stage.get(origin) == core)):
            values.append(origin)
        else:
            stack += node.all_input_nodes
    return values
