"""A core that is cut around what its backend does not have: loops, between which PyTorch is called in each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .compiled import Loop
from .memory import Buffers, room_of_a_step
from .order import Ints, RowGroup, Step
from .run import Run
from .torch.between import Between, Rows

Calls = tuple[Between | None, Between | None]  # of vertices with children, and of others


@dataclass(frozen=True)
class Arguments:
    """What one run gives to the loops, and to the calls between them."""

    group: RowGroup
    loops: list[Any]
    calls: list[tuple[list[Rows], list[Rows]]]


@dataclass(frozen=True, eq=False)
class Cut:
    """Loops that run one after the other in each step; behind each but the last stands what PyTorch computes."""

    what: str  # the loops are
    loops: Sequence[Loop]
    calls: Sequence[Calls]

    @property
    def in_arenas(self) -> bool:
        """All that it makes is written to its place."""
        return True

    @property
    def keeps(self) -> bool:
        """As its loops do."""
        return self.loops[0].keeps

    @property
    def text(self) -> str:
        """The generated code."""
        calls = [call.text for both in self.calls for call in both if call is not None]
        return "\n".join([*(loop.text for loop in self.loops), *calls])

    def describe(self, part: str) -> str:
        """In a few words, how a part runs."""
        which = 1 if part.endswith("_leaf") else 0
        called = [name for both in self.calls if (call := both[which]) is not None for name in call.operations]
        if not called:
            return self.what
        return f"{self.what}, with calls of PyTorch in each step ({', '.join(dict.fromkeys(called))})"

    def scratch(self, group: RowGroup) -> Buffers:
        """The further buffers that one run needs."""
        rooms = {key: size for loop in self.loops for key, size in loop.scratch(group).items()}
        calls = [call for both in self.calls for call in both if call is not None]
        return {**rooms, **{room: room_of_a_step(room, group) for call in calls for room in call.rooms}}

    def bind(self, run: Run) -> Arguments:
        """The arguments of one run."""
        loops = [loop.bind(run) for loop in self.loops]

        def bound(call: Between | None) -> list[Rows]:
            return [] if call is None else call.bind(run)

        return Arguments(run.group, loops, [(bound(inner), bound(leaf)) for inner, leaf in self.calls])

    def run(self, arguments: Arguments, steps: Ints) -> None:
        """Compute these steps, one after the other."""
        for number, line in enumerate(steps.tolist()):
            step, lines = Step._make(line), steps[number : number + 1]
            if step.start < step.stop:
                self._step(arguments, step, lines)

    def _step(self, arguments: Arguments, step: Step, lines: Ints) -> None:
        which = 1 if step.start < arguments.group.num_leaves else 0
        self.loops[0].run(arguments.loops[0], lines)
        rest = zip(self.loops[1:], arguments.loops[1:], self.calls, arguments.calls, strict=True)
        for loop, given, calls, bound in rest:
            call = calls[which]
            if call is not None:  # else nothing is left of what leaves, or others, need
                call.run(bound[which], step)
                loop.run(given, lines)
