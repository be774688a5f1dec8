"""What the vertex function of a model's last call became, for its user to read."""

from __future__ import annotations

from collections.abc import Iterable

from .call.programs import Programs
from .errors import NotTracedError, VertexFunctionError
from .graph.symbolic.show import SymbolicGraph
from .kernels.compile import choose_backend


def symbolic_graph(programs: Programs, backend: str) -> SymbolicGraph:
    """The graphs of the latest programs, by method."""
    if choose_backend(backend) == "eager":
        raise NotTracedError(
            'there is no symbolic graph: with backend="eager" the method itself runs, and nothing is traced; use '
            'backend="torch" to see what it becomes'
        )
    if programs.latest is None:
        raise NotTracedError("there is no symbolic graph yet: it is traced at the model's first call")
    return SymbolicGraph({name: compiled.program for name, compiled in programs.latest.items()})


def explain(programs: Programs, backend: str, methods: Iterable[str]) -> str:
    """A line for each part of the latest programs."""
    if choose_backend(backend) == "eager":
        return "\n".join(
            f'{name}: the method itself, once a step, on real tensors (backend "eager")'
            for name in dict.fromkeys(methods)
        )
    if programs.latest is None:
        raise VertexFunctionError("there is nothing to explain yet: the vertex function is compiled at the first call")
    lines = []
    for method, compiled in programs.latest.items():
        for name in compiled.program.parts:
            part = name.removesuffix("_leaf")
            reason = f": {compiled.reasons[part]}" if part in compiled.reasons else ""
            lines.append(f"{method}.{name}: {compiled.loops[part].describe(name)}{reason}")
    return "\n".join(lines)
