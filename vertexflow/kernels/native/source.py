"""The C++ functions that run a part over steps, and what PyTorch computes between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import torch
from torch import fx

from ...graph.symbolic.program import CORES, Part, Program
from ..arguments import Argument, Scratch
from ..lower.decompose import decomposed
from ..lower.verify import verify
from ..memory import room_of
from ..operations import Unsupported
from ..torch.between import Between
from .blocks import Blocks
from .cpp import TYPES
from .plan import Plan, plan, work_of
from .statements import statements_of

NUMBERS = (torch.float32, torch.float64)
MOST_CUMULATED = 12  # elements that loops sum so far, each anew, in less time than a call of PyTorch takes


@dataclass(frozen=True)
class Source:
    """A function in C++, and what it is called with, in that order."""

    part: str
    name: str
    text: str
    arguments: list[Argument]


@dataclass(frozen=True)
class Sources:
    """A part as functions that are called for each step, one after the other; of a core, together with its variant for leaves.

    Between two of them stands what PyTorch computes for vertices with children, and for leaves.
    """

    functions: list[Source]
    inner: list[Between]
    leaf: list[Between]
    reasons: list[str]  # for that


def products_source(dtype: torch.dtype) -> str:
    """The library of matrix products, which all generated code calls."""
    return _join(dtype, "product.hpp", "product.cpp")


def company_source() -> str:
    """The library that knows of other processes, for all generated code together."""
    return _join(torch.float32, "product.hpp", "team.hpp", "company.cpp")


def preamble(dtype: torch.dtype) -> str:
    """What stands in front of all functions of one file."""
    return _join(dtype, "product.hpp", "team.hpp", "runtime.hpp")


def _join(dtype: torch.dtype, *names: str) -> str:
    parts = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in names)
    return "\n".join([f"using T = {TYPES[dtype]};", *parts])


def write_part(program: Program, name: str) -> Sources:
    """A part as functions over steps; of a core, together with its variant for vertices without children.

    Raises:
        Unsupported: it has something that native code has not, and that PyTorch cannot be called for in between; the message
            says what.
    """
    dtype = program.trace.widest_dtype
    for other in program.trace.state_dtypes.values():
        if other not in TYPES:
            raise Unsupported(f"states are of {str(other)[6:]}")
    if dtype not in NUMBERS:
        raise Unsupported(f"states are of {str(dtype)[6:]}")
    if name not in CORES and set(program.parts[name].outputs).intersection(program.gather_grads.values()):
        raise Unsupported("it sends gradients to children")
    names = (name, f"{name}_leaf") if name in CORES else (name,)
    parts = [program.parts.get(part, Part(part, fx.Graph(), [], [])) for part in names]
    plans = [plan(decomposed(part, program.trace, MOST_CUMULATED), name in CORES, dtype) for part in parts]
    statements = [statements_of(made) for made in plans]
    for groups in statements:
        verify([statement for group in groups for statement in group])
    rooms: dict[fx.Node, Scratch] = {}
    count = max(map(len, statements))
    functions = []
    for number in range(count):
        writer = Blocks(program, name, rooms, number)
        blocks = [
            _indented(writer.block(made, groups[number], leaf, count > 1), 12 + 4 * len(plans))
            if number < len(groups)
            else ""
            for made, groups, leaf in zip(plans, statements, (False, True), strict=False)
        ]
        functions.append(
            Source(name, writer.function, _function(writer, blocks, max(map(work_of, plans))), writer.arguments)
        )
    inner, leaf = (
        [call for made in some for call in _calls(program, name, made, rooms)] for some in (plans[:1], plans[1:])
    )
    return Sources(functions, inner, leaf, [reason for made in plans for reason in made.reasons])


def _calls(program: Program, name: str, made: Plan, rooms: dict[fx.Node, Scratch]) -> list[Between]:
    """What PyTorch computes in a plan, in its order."""
    part = made.part
    placeholders = [
        node for node in part.graph.nodes if node.op == "placeholder" and node.name not in ("rows", "edges")
    ]
    origins = dict(zip(placeholders, part.inputs, strict=True))

    def place(node: fx.Node) -> fx.Node | Scratch:
        return origins.get(node) or room_of(node, rooms, name)

    return [
        Between.of(program, stage.call, {node: place(node) for node in (*stage.call.inputs, *stage.call.outputs)})
        for stage in made.stages
        if stage.call is not None
    ]


def _function(writer: Blocks, blocks: list[str], work: int) -> str:
    """A function that runs a block for each step: of vertices with children, or of leaves if there is one for these."""
    body = blocks[0]
    if len(blocks) == 2:
        body = _indented(["if (start >= num_leaves) {", blocks[0], "} else {", blocks[1], "}"], 16, but=blocks)
    declared = _indented(writer.declarations, 4)
    packed = [f"pack({weight});" for weight in writer.weights.values()]
    first = _indented(["if (must_pack && first == steps) {", *(f"    {line}" for line in packed), "}"], 12) + "\n" if packed else ""
    return f"""extern "C" void {writer.function}(Long* a, const Step* steps, Long count) {{
{declared}
    for (const Step *first = steps, *last; first < steps + count; first = last) {{
        const bool pays = pays_threads(*first, {work});
        for (last = first + 1; last < steps + count && pays_threads(*last, {work}) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays)
        {{
            const int team = omp_get_num_threads();
{first}            for (const Step* at = first; at < last; ++at) {{
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
{body}
            }}
        }}
    }}
}}
"""


def _indented(lines: Sequence[str], by: int, but: Sequence[str] = ()) -> str:
    """Lines as text; those in `but` stay where they are."""
    return "\n".join(line if line in but else " " * by + line for line in lines)
