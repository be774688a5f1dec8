"""Which states need gradients: those that depend on a parameter or input whose gradient is wanted."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ..nodes import descendants

if TYPE_CHECKING:
    from ..trace import Trace


def wanted_states(
    traces: Collection[Trace], wanted_params: Iterable[str], wanted_pulls: Iterable[str]
) -> frozenset[str]:
    """The states that depend on these parameters and inputs in any of the methods, directly or through other states."""
    params, pulls = set(wanted_params), set(wanted_pulls)
    states: set[str] = set()
    num_before = -1
    while len(states) > num_before:
        num_before = len(states)
        for trace in traces:
            sources = [node for name, node in trace.params.items() if name in params]
            sources += [node for name, node in trace.pulls.items() if name in pulls]
            sources += [node for (state, _), node in trace.gathers.items() if state in states]
            reached = descendants(trace.graph, sources)
            states |= {state for state, node in trace.scatters.items() if node in reached}
    return frozenset(states)
