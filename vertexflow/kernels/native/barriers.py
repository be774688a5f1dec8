"""Where the threads of a team wait for each other in one step: in front of what reads the results of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import fx

from ..lower.loops import Outer, Product, Statement, SumOfRows, reads, writes

BARRIER = "meeting.wait(team);"


def phases_of(statements: Sequence[Statement], arriving: Mapping[fx.Node, str]) -> dict[fx.Node, tuple[int, int]]:
    """The first and the last phase of a step in which each value is written or read; between phases all threads meet."""
    phases: dict[fx.Node, tuple[int, int]] = {}
    phase = 0
    for statement, barrier in zip(statements, barriers(statements, arriving), strict=True):
        phase += barrier == [BARRIER]
        for node in reads(statement) | writes(statement):
            phases[node] = phases.get(node, (phase, phase))[0], phase
    return phases


def barriers(statements: Sequence[Statement], arriving: Mapping[fx.Node, str]) -> Iterator[list[str]]:
    """The lines in front of each statement at which threads wait for what others compute."""
    unseen = dict(arriving)  # values that other threads may not see yet, and how the threads divided their computation
    for statement in statements:
        split = split_of(statement)
        awaited = {unseen[value] for value in reads(statement) if value in unseen and not _is_own(unseen[value], split)}
        if awaited == {"gathered"}:
            yield ["if (reads_from < 0) {", BARRIER, "}"]
            unseen = {value: known_split for value, known_split in unseen.items() if known_split != "gathered"}
        elif awaited:
            yield [BARRIER]
            unseen.clear()
        else:
            yield []
        unseen.update(dict.fromkeys(writes(statement), split))


def _is_own(split_before: str, split: str) -> bool:
    """Whether each thread reads only what it computed itself: rows, or edges, are always divided in the same way."""
    return (split_before, split) in (("rows", "rows"), ("edges", "edges"), ("gathered", "rows"))


def split_of(statement: Statement) -> str:
    """What threads divide among them: rows, edges or elements, or columns of a result."""
    return "columns" if isinstance(statement, (Product, Outer, SumOfRows)) else statement.over.value
