"""The parts of a symbolic graph as boxes of a picture: views that no one named are left out, what they are made of is read."""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from ...pictures.parts import COMPUTED, GIVEN, RETURNED, Box, Panel, draw
from ...pictures.svg import Picture
from .program import Part, Program
from .roles import (
    ALL_SLOTS,
    CHILDREN,
    Counts,
    Gather,
    Grad,
    NumChildren,
    Param,
    Pull,
    Push,
    Role,
    Scatter,
    Slots,
    position_of,
    role_of,
)
from .show import part_heading, shape_text

_PASSED_OVER = (
    "permute",
    "t",
    "split_with_sizes",
    "split",
    "reshape",
    "view",
    "unsqueeze",
    "squeeze",
    "expand",
    "getitem",
)


def draw_programs(programs: Mapping[str, Program], derivative: bool) -> Picture:
    """A panel for each part of each method."""
    panels = []
    for method, program in programs.items():
        prefix = "" if len(programs) == 1 else f"{method} · "
        for name, part in program.parts.items():
            if derivative or not name.startswith("grad_"):
                panels.append(Panel(prefix + part_heading(name), _boxes(part, program)))
    return draw(panels, "the parts of a vertex function")


def _boxes(part: Part, program: Program) -> list[Box]:
    originals = part.placeholders
    results = dict(zip(part.results, part.outputs, strict=True))  # with the nodes of the joint graph
    trace = program.trace
    ends = (("scatter", {*trace.scatters.values()}), ("push", {*trace.pushes.values()}))
    boxes: list[Box] = []
    stands_for: dict[fx.Node, tuple[int, ...]] = {}
    for node in part.graph.nodes:
        reads = tuple(dict.fromkeys(at for read in node.all_input_nodes for at in stands_for.get(read, ())))
        is_named = "name" in node.meta
        if node.op == "placeholder":
            if node not in originals:
                continue  # how many rows and edges there are
            role = role_of(originals[node])
            boxes.append(Box(node.name, _given(role), _words(node, program, "given"), GIVEN, is_named, ()))
        elif node.op == "call_function":
            operation = _operation(node)
            if operation in _PASSED_OVER and not is_named and node not in results:
                stands_for[node] = reads
                continue
            below = " → ".join([operation, *(word for word, nodes in ends if results.get(node) in nodes)])
            role_name = RETURNED if node in results else COMPUTED
            boxes.append(Box(node.name, below, _words(node, program, operation), role_name, is_named, reads))
        else:
            continue
        stands_for[node] = (len(boxes) - 1,)
    return boxes


def _words(node: fx.Node, program: Program, operation: str) -> str:
    line = f", line {node.meta['line']}" if node.meta.get("line") else ""
    return f"{node.name}: {shape_text(node, program.trace)}, {operation}{line}"


def _operation(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target)).split(".")[0]


def _given(role: Role | None) -> str:
    """How a part comes by a value."""
    match role:
        case Param():
            return "parameter"
        case Pull(name, per_edge):
            return f"pull {name!r}{' of edges' if per_edge else ''}"
        case Gather(state, slot):
            where = {CHILDREN: "all children", ALL_SLOTS: "all slots"}.get(
                slot, f"slot {slot}" if slot >= 0 else f"position {position_of(slot)} of arcs"
            )
            return f"gather {state}, {where}"
        case Grad(Scatter(state)):
            return f"gradient of state {state}"
        case Grad(Push(name)):
            return f"gradient of output {name}"
        case Counts() | NumChildren():
            return "number of children"
        case Slots():
            return "slot of each edge"
    return "from another part"
