"""The C++ functions that run a part over steps, and what PyTorch computes between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from ...graph.symbolic.program import CORES, Part, Program
from ..arguments import Argument, Scratch
from ..lower.decompose import decomposed
from ..lower.scalar import wide
from ..lower.verify import verify
from ..memory.layout import scratch_of
from ..operations import Unsupported
from ..torch.between import Between
from .blocks import Blocks
from .cpp import TYPES
from .plan import Plan, plan_part, work_of
from .products import OF_FLOATS, joined
from .statements import statements_of

MOST_CUMULATED = 12  # up to this extent loops, which sum anew for each element, take less time than a call of PyTorch


@dataclass(frozen=True)
class Source:
    """A function in C++, and its arguments in their order."""

    part: str
    name: str
    text: str
    arguments: list[Argument]


@dataclass(frozen=True)
class Sources:
    """A part as functions that are called for each step, one after the other; a core together with its variant for leaves.

    Between two of them is a call of PyTorch: one of `inner` for vertices with children, one of `leaf` for leaves.
    """

    functions: list[Source]
    inner: list[Between]
    leaf: list[Between]
    reasons: list[str]  # why PyTorch is called


def preamble(program: Program) -> str:
    """The source in front of the functions of a program."""
    return joined(floats_of(program), "half.hpp", "product.hpp", "team.hpp", "runtime.hpp")


def company_source() -> str:
    """The library that knows of other processes, which all generated code shares."""
    return joined(torch.float32, "product.hpp", "team.hpp", "company.cpp")


def floats_of(program: Program) -> torch.dtype:
    """The dtype that the code of a program calls T."""
    return wide(program.trace.widest_dtype)


def write_part(program: Program, name: str) -> Sources:
    """A part as functions over steps; a core together with its variant for vertices without children.

    Raises:
        Unsupported: native code lacks something that the part needs, and PyTorch cannot be called for it in between; the
            message says what.
    """
    dtype = floats_of(program)
    for state_dtype in (*program.trace.state_dtypes.values(), dtype):
        if state_dtype not in TYPES:
            raise Unsupported(f"states are of {str(state_dtype)[6:]}")
    if dtype not in OF_FLOATS:
        raise Unsupported(f"states are of {str(dtype)[6:]}")
    if name not in CORES and set(program.parts[name].outputs).intersection(program.gather_grads.values()):
        raise Unsupported("it sends gradients to children")
    names = (name, f"{name}_leaf") if name in CORES else (name,)
    parts = [program.parts.get(part, Part(part, fx.Graph(), [], [])) for part in names]
    plans = [plan_part(decomposed(part, program.trace, MOST_CUMULATED), name in CORES, dtype) for part in parts]
    statements = [statements_of(plan) for plan in plans]
    for groups in statements:
        verify([statement for group in groups for statement in group])
    scratch: dict[fx.Node, Scratch] = {}
    count = max(map(len, statements))
    functions = []
    for number in range(count):
        writer = Blocks(program, name, scratch, number)
        blocks = [
            _indented(writer.block(plan, groups[number], leaf, count > 1), 12 + 4 * len(plans))
            if number < len(groups)
            else ""
            for plan, groups, leaf in zip(plans, statements, (False, True), strict=False)
        ]
        functions.append(
            Source(name, writer.function, _function(writer, blocks, max(map(work_of, plans))), writer.arguments)
        )
    inner, leaf = (
        [call for plan in some_plans for call in _calls(program, name, plan, scratch)]
        for some_plans in (plans[:1], plans[1:])
    )
    return Sources(functions, inner, leaf, [reason for plan in plans for reason in plan.reasons])


def _calls(program: Program, name: str, plan: Plan, scratch: dict[fx.Node, Scratch]) -> list[Between]:
    """The calls of PyTorch in a plan, in their order."""
    origins = plan.part.placeholders

    def place(node: fx.Node) -> fx.Node | Scratch:
        return origins.get(node) or scratch_of(node, scratch, name)

    return [
        Between.of(program, stage.call, {node: place(node) for node in (*stage.call.inputs, *stage.call.outputs)})
        for stage in plan.stages
        if stage.call is not None
    ]


def _function(writer: Blocks, blocks: list[str], work: int) -> str:
    """A function that runs a block for each step: with two blocks, the second for steps of leaves."""
    body, serial = blocks[0], "serial" if writer.name in CORES else "serial_once"
    if len(blocks) == 2:
        body = _indented(["if (start >= num_leaves) {", blocks[0], "} else {", blocks[1], "}"], 16, but=blocks)
    declared = _indented(writer.declarations, 4)
    packed = ""
    if writer.packing:
        elements = sum(n * k for _, _, n, k, _ in writer.weights)
        calls = _indented(["{", *(f"    {line}" for line in writer.packing), "}"], 4)
        packed = f"    if (must_pack)\n#pragma omp parallel if ({elements} > serial) num_threads(threads_in(company))\n{calls}\n"
    return f"""extern "C" void {writer.function}(Long* a, const Step* steps, Long count) {{
{declared}
{packed}    for (const Step *first = steps, *last; first < steps + count; first = last) {{
        const bool pays = pays_threads(*first, {work}, {serial});
        for (last = first + 1; last < steps + count && pays_threads(*last, {work}, {serial}) == pays;) ++last;
        Meeting meeting(company);
#pragma omp parallel if (pays) num_threads(threads_in(company))
        {{
            const int team = omp_get_num_threads();
            for (const Step* at = first; at < last; ++at) {{
                const Step& step = *at;
                const Long start = step.start, first_of_edges = step.edge_start, rows = step.stop - start;
                [[maybe_unused]] const Long edges = step.edge_stop - first_of_edges;
                [[maybe_unused]] const Long reads_from = step.reads_from, read_at = step.read_at;
{body}
            }}
            if (team > 1) meeting.ends();
        }}
    }}
}}
"""


def _indented(lines: Sequence[str], by: int, but: Sequence[str] = ()) -> str:
    """Lines as text, indented, except for those in `but`."""
    return "\n".join(line if line in but else " " * by + line for line in lines)
