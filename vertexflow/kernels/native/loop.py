"""Parts as native code, compiled and ready to run over the steps of a batch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from ...graph.symbolic.program import CORES, Program
from ..arguments import ADDS, PACKED, Function, LoopArgument, Scratch
from ..binding import AddressedLoop, BoundArguments, Template, bind_arguments
from ..cut import Cut
from ..lower.loops import Over
from ..memory import rehearsal
from ..memory.layout import Buffers, empty_for, size_in_a_step
from ..operations import Unsupported
from ..order import Extent, Ints, RowGroup
from ..prepared.calls import MOVES
from ..run import Run
from .blocks import COMPANY
from .build import address_of, load
from .products import library_of, rows_source, source_of
from .source import Source, Sources, company_source, floats_of, preamble, write_part


@dataclass(frozen=True, eq=False)
class NativeLoop(AddressedLoop):
    """A part as a native function over steps."""

    source: Source
    function: Callable[..., None]
    templates: WeakKeyDictionary[RowGroup, Template] = field(default_factory=WeakKeyDictionary)
    in_arenas = keeps = True

    @property
    def text(self) -> str:
        return self.source.text

    def describe(self, part: str) -> str:
        """In a few words, how a part runs."""
        return "native code, over all steps" if self.source.part in CORES else "native code"

    def scratch(self, group: RowGroup, extent: Extent) -> Buffers:
        """The further buffers that one run needs; no more than `extent` is computed at a time."""
        needed = [argument for argument in self.arguments if isinstance(argument, Scratch)]
        if self.source.part in CORES:
            return {scratch: size_in_a_step(scratch, group, extent) for scratch in needed}
        counts = {Over.ELEMENTS: 1, Over.ROWS: extent.rows, Over.EDGES: extent.edges}
        return {scratch: (scratch.dtype, counts[scratch.over] * scratch.width) for scratch in needed}

    def bind(self, run: Run) -> BoundArguments:
        """The arguments of one run, with memory for the results."""
        for node, shape in self.results:
            run.values[node] = empty_for(node, shape)
        return bind_arguments(self.arguments, run, self.templates, self.loop_numbers)

    def run(self, arguments: BoundArguments, steps: Ints) -> None:
        """Compute these steps, lines [n, 7] as in `Step`, one after the other."""
        if rehearsal.current() is None:
            self.function(arguments.numbers.ctypes.data, steps.ctypes.data, len(steps))


def loops_of(program: Program) -> tuple[dict[str, NativeLoop | Cut], dict[str, str]]:
    """Loops for the parts of a program that can be native code, compiled; and why other parts cannot."""
    sources: dict[str, Sources] = {}
    reasons: dict[str, str] = {}
    for name in program.parts:
        try:
            if not name.endswith("_leaf"):
                sources[name] = write_part(program, name)
                if sources[name].reasons:
                    reasons[name] = "; ".join(dict.fromkeys(sources[name].reasons))
        except Unsupported as reason:
            reasons[name] = str(reason)
    if not sources:
        return {}, reasons
    functions = [function for part in sources.values() for function in part.functions]
    called = {callee for function in functions for callee in function.arguments if isinstance(callee, Function)} - {
        COMPANY
    }
    library = {callee: library_of(callee, floats_of(program)) for callee in called}
    with ThreadPoolExecutor(1) as pool:  # two compilers at once, the first time on a machine
        rows = pool.submit(load, rows_source())
        products = {dtype: pool.submit(load, source_of(dtype), contract=True) for dtype in set(library.values())}
        company = pool.submit(load, company_source())
        loops = load("\n".join([preamble(program), *(function.text for function in functions)]))
    addresses: dict[LoopArgument, int] = {
        callee: address_of(products[library[callee]].result(), callee.name) for callee in called
    }
    addresses |= {callee: address_of(rows.result(), callee.name) for callee in MOVES}
    addresses[COMPANY] = address_of(company.result(), COMPANY.name)
    ready: dict[str, NativeLoop | Cut] = {}
    for name, part in sources.items():
        part_loops = [_loop(function, loops, addresses, program) for function in part.functions]
        ready[name] = part_loops[0] if len(part_loops) == 1 else Cut("native code", part_loops, part.inner, part.leaf)
    return ready, reasons


def _loop(source: Source, library: ctypes.CDLL, addresses: Mapping[LoopArgument, int], program: Program) -> NativeLoop:
    function = getattr(library, source.name)
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long], None
    outputs = program.parts[source.part].outputs
    results = [(node, tuple(map(int, node.meta["val"].shape))) for node in outputs if node.meta.get("rows") is None]
    loop_numbers = {**addresses, PACKED: 0, ADDS: 0}
    return NativeLoop(address_of(library, source.name), source.arguments, loop_numbers, results, source, function)
