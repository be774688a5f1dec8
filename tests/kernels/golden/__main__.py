"""Write the code of the ready-made models anew: `python -m tests.kernels.golden`; then `git diff` shows what has changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.zoo import ZOO
from vertexflow.graph.symbolic.program import CORES, Program
from vertexflow.kernels.native.source import write_part
from vertexflow.kernels.triton.source import write_core

FOLDER = Path(__file__).parent
TORCH = "2.13"  # whose traces these are
SIZE = 6


def sources(name: str) -> dict[str, str]:
    """By file: the functions that native code has for a model, without what stands in front of all, and its Triton kernels."""
    animal = ZOO[name](SIZE)
    for function in animal.functions():
        function.backend = "torch"
    animal.model(animal.graphs, **animal.inputs(torch.float32))
    programs = [
        (f"{type(function).__name__}, method {method}", program)
        for function in animal.functions()
        for method, program in function.symbolic_graph.programs.items()
    ]
    return {
        f"{name}.cpp": "\n".join("\n".join([f"// {title}\n", *_native(program)]) for title, program in programs),
        f"{name}.triton": "\n".join("\n".join([f"# {title}\n", *_kernels(program)]) for title, program in programs),
    }


def _native(program: Program) -> Iterator[str]:
    names = [part for part in program.parts if not part.endswith("_leaf")]
    return (function.text for name in names for function in write_part(program, name).functions)


def _kernels(program: Program) -> Iterator[str]:
    cores = [core for core in CORES if core in program.parts]
    return (piece.text for core in cores for piece in write_core(program, core).pieces)


if __name__ == "__main__":
    for name in ZOO:
        for file, text in sources(name).items():
            FOLDER.joinpath(file).write_text(text, encoding="utf-8")
