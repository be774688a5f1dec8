"""From which stage of a pass to which a value is needed, so that values of other stages may lie in its memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import fx

from ...graph.symbolic.program import FORWARD, Program


class Life(NamedTuple):
    """The first and the last stage of a pass that need a value: eager 0, core 1, lazy 2.

    Of memory that one part alone needs, the part, and the first and the last of its phases; see `Scratch`.
    """

    first: int
    last: int
    part: str | None = None
    phases: tuple[int, int] = (0, 0)

    def meets(self, other: Life) -> bool:
        if self.part is not None and self.part == other.part:
            return self.phases[0] <= other.phases[1] and other.phases[0] <= self.phases[1]
        return self.first <= other.last and other.first <= self.last


class Lives:
    """The lives of values in a pass over a window; all None unless memory is `shared`."""

    def __init__(self, program: Program, stages: Sequence[str], shared: bool = True) -> None:
        self.shared, self._stages = shared, {stage: number for number, stage in enumerate(stages)}
        self._made: dict[fx.Node, int] = {}
        self._read: dict[fx.Node, list[int]] = {}
        for name, part in program.parts.items() if shared else ():
            stage = self._stages.get(_stage_of(name))
            if stage is not None:
                for node in part.outputs:
                    self._made[node] = min(stage, self._made.get(node, stage))
                for node in part.inputs:
                    self._read.setdefault(node, []).append(stage)
        trace = program.trace
        of_pass = [trace.pushes, program.scatters] if stages is FORWARD else [program.pull_grads]
        self._results = {node for nodes in of_pass for node in nodes.values()}

    def of(self, node: fx.Node, first: int | None = None) -> Life | None:
        """From the stage that computes a value, or the `first`, to the last one that reads it."""
        if not self.shared:
            return None
        first = self._made[node] if first is None else first
        return Life(first, 2 if node in self._results else max([first, *self._read.get(node, [])]))

    def of_taken(self, node: fx.Node) -> Life | None:
        """Of a value that is taken from the order of the batch, before a window or before its lazy part."""
        return self.of(node, 0 if self.is_read_early(node) else 2)

    def of_gathered(self, nodes: Sequence[fx.Node], first: int) -> Life | None:
        """Of a state that is gathered as these values, from the `first` stage on; a core may do that."""
        if not self.shared:
            return None
        return Life(first, max([first, 1, *(life.last for node in nodes if (life := self.of(node, first)))]))

    def of_part(self, part: str | None, phases: tuple[int, int] | None = None) -> Life | None:
        """Of memory that a part alone needs, in some of its phases, or in all; None: that all parts do."""
        if not self.shared:
            return None
        stage = None if part is None else self._stages[_stage_of(part)]
        if stage is None:
            return Life(0, 2)
        return Life(stage, stage) if phases is None else Life(stage, stage, part, phases)

    def is_read_early(self, node: fx.Node) -> bool:
        """Whether stages before the lazy one read a value."""
        return min(self._read.get(node, [0])) < 2


def _stage_of(part: str) -> str:
    return part.removesuffix("_inner").removesuffix("_leaf")
