"""Write the C++ of the ready-made models anew: `python -m tests.kernels.golden`; then `git diff` shows what has changed."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.zoo import ZOO
from vertexflow.graph.symbolic.program import Program
from vertexflow.kernels.native.source import write_part

FOLDER = Path(__file__).parent
TORCH = "2.13"  # whose traces these are
SIZE = 6


def source(name: str) -> str:
    """The functions that native code has for a model, without what stands in front of all of them."""
    animal = ZOO[name](SIZE)
    for function in animal.functions():
        function.backend = "torch"
    animal.model(animal.graphs, **animal.inputs(torch.float32))
    return "\n".join(
        f"// {function.__class__.__name__}, method {method}\n\n{_parts(program)}"
        for function in animal.functions()
        for method, program in function.symbolic_graph.programs.items()
    )


def _parts(program: Program) -> str:
    return "\n".join(write_part(program, part).text for part in program.parts if not part.endswith("_leaf"))


if __name__ == "__main__":
    for name in ZOO:
        FOLDER.joinpath(f"{name}.cpp").write_text(source(name), encoding="utf-8")
