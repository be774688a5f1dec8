"""Which states send gradients back to the vertices that scattered them: those that something wanted was made into."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ..nodes import descendants

if TYPE_CHECKING:
    from ..trace import Trace


def wanted_states(
    traces: Collection[Trace], wanted_params: Iterable[str], wanted_pulls: Iterable[str]
) -> frozenset[str]:
    """The states that depend on these parameters and inputs, perhaps by way of other states, in any of the methods."""
    params, pulls = set(wanted_params), set(wanted_pulls)
    states: set[str] = set()
    before = -1
    while len(states) > before:
        before = len(states)
        for trace in traces:
            sources = [node for name, node in trace.params.items() if name in params]
            sources += [node for name, node in trace.pulls.items() if name in pulls]
            sources += [node for (state, _), node in trace.gathers.items() if state in states]
            reached = descendants(trace.graph, sources)
            states |= {state for state, node in trace.scatters.items() if node in reached}
    return frozenset(states)
