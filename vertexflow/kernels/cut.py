"""A core that is cut at operations that its backend does not have: loops, with calls of PyTorch between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .compiled import Loop
from .memory.layout import Buffers, size_in_a_step
from .order import Extent, Ints, RowGroup, Step
from .run import Run
from .torch.between import Between, Rows


@dataclass(frozen=True)
class CutArguments:
    """The arguments of the loops in one run, and those of the calls between them."""

    group: RowGroup
    loops: list[Any]
    inner: list[list[Rows]]
    leaf: list[list[Rows]]


@dataclass(frozen=True, eq=False)
class Cut:
    """Loops that run one after the other in each step, with a call of PyTorch between each two of them.

    A step of rows with children runs the first `len(inner) + 1` loops, a step of leaves the first `len(leaf) + 1`.
    """

    description: str  # of the code of the loops
    loops: Sequence[Loop]
    inner: Sequence[Between]
    leaf: Sequence[Between]

    @property
    def in_arenas(self) -> bool:
        """All results are written to their places in arenas."""
        return True

    @property
    def keeps(self) -> bool:
        """As its loops do."""
        return self.loops[0].keeps

    @property
    def text(self) -> str:
        """The generated code."""
        return "\n".join([*(loop.text for loop in self.loops), *(call.text for call in (*self.inner, *self.leaf))])

    def describe(self, part: str) -> str:
        """How a part runs, in a few words."""
        called = [name for call in (self.leaf if part.endswith("_leaf") else self.inner) for name in call.operations]
        if not called:
            return self.description
        return f"{self.description}, with calls of PyTorch in each step ({', '.join(dict.fromkeys(called))})"

    def scratch(self, group: RowGroup, extent: Extent) -> Buffers:
        """The further buffers that one run needs; no more than `extent` is computed at a time."""
        of_loops = {key: size for loop in self.loops for key, size in loop.scratch(group, extent).items()}
        of_calls = [scratch for call in (*self.inner, *self.leaf) for scratch in call.scratch]
        return {**of_loops, **{scratch: size_in_a_step(scratch, group, extent) for scratch in of_calls}}

    def bind(self, run: Run) -> CutArguments:
        """The arguments of one run."""
        loops = [loop.bind(run) for loop in self.loops]
        inner, leaf = ([call.bind(run) for call in calls] for calls in (self.inner, self.leaf))
        return CutArguments(run.group, loops, inner, leaf)

    def run(self, arguments: CutArguments, steps: Ints) -> None:
        """Compute these steps, one after the other."""
        for number, line in enumerate(steps.tolist()):
            step = Step._make(line)
            if step.start < step.stop:
                self._step(arguments, step, steps[number : number + 1])

    def _step(self, arguments: CutArguments, step: Step, lines: Ints) -> None:
        is_leaf = step.start < arguments.group.num_leaves
        calls, bound = (self.leaf, arguments.leaf) if is_leaf else (self.inner, arguments.inner)
        self.loops[0].run(arguments.loops[0], lines)
        for number, (call, rows) in enumerate(zip(calls, bound, strict=True), 1):
            call.run(rows, step)
            self.loops[number].run(arguments.loops[number], lines)
