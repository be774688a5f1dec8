"""What the generated Triton kernels of the ready-made models take, compiled ahead of time: no GPU is needed for that.

    python -m benchmarks.registers [MODEL ...] [--hidden 256] [--target sm_90 ...] [--dtype float32] [--dag]

prints a line for each kernel: rows and columns of a program, registers of a thread, bytes that spill, and bytes of shared
memory, as NVIDIA's assembler, which comes with Triton, or AMD's compiler tells them.
Exit code 1 if a kernel spills, 2 for what cannot be done.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch

from vertexflow.graph.symbolic.program import Program
from vertexflow.kernels.triton.ahead import TARGETS, Resources, TypedKernel, compile_ahead, kernels_of

from .zoo import ZOO

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
SMALL = {"MVRNN": 32, "RNTN": 32}  # a matrix, or a tensor, for each vertex


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.registers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"some of {', '.join(ZOO)}; by default all")
    parser.add_argument(
        "--hidden", type=int, default=256, help="hidden size; that of models with matrices is 32 at most"
    )
    parser.add_argument("--target", nargs="+", choices=list(TARGETS), default=list(TARGETS), help="by default all")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32", help="of parameters, inputs and states")
    parser.add_argument("--dag", action="store_true", help="as for vertices with several parents")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.models if name not in ZOO]
    if unknown:
        return _refuse(f"there is no model {unknown[0]!r}; choose of {', '.join(ZOO)}")
    if os.environ.get("TRITON_INTERPRET", "0") == "1":
        return _refuse("compiling ahead of time needs Triton's compiler: unset TRITON_INTERPRET")
    os.environ["VERTEXFLOW_BACKEND"] = "torch"  # models are called to be traced
    kernels: dict[tuple[str, TypedKernel], str] = {}
    for model in options.models or ZOO:
        for kernel in _kernels(
            model, min(options.hidden, SMALL.get(model, options.hidden)), DTYPES[options.dtype], options.dag
        ):
            kernels.setdefault((kernel.name, kernel.source), (model, kernel))
    with ProcessPoolExecutor() as pool:
        tasks = [
            (model, pool.submit(compile_ahead, kernel, target))
            for model, kernel in kernels.values()
            for target in options.target
        ]
        compiled = [(model, _shown(model, task.result())) for model, task in tasks]
    if options.json is not None:
        options.json.write_text(
            json.dumps([{"model": model, **asdict(one)} for model, one in compiled], indent=1) + "\n"
        )
    spilling = sum(one.spills > 0 for _, one in compiled)
    print(f"{len(compiled)} kernels compiled, of which {spilling} spill")
    return 1 if spilling else 0


def _refuse(why: str) -> int:
    print(f"python -m benchmarks.registers: {why}", file=sys.stderr)
    return 2


def _kernels(name: str, hidden: int, dtype: torch.dtype, dag: bool) -> Iterator[TypedKernel]:
    """The kernels of a model, with gradients of everything."""
    for program in programs_of(name, hidden, dtype):
        yield from kernels_of(program, dag)


def programs_of(name: str, hidden: int, dtype: torch.dtype) -> Iterator[Program]:
    """The programs of a model of the zoo, which is called once to be traced."""
    animal = ZOO[name](hidden)
    animal.model.to(dtype)
    animal.model(animal.graphs, **animal.inputs(dtype))
    for function in animal.functions():
        for kept in function._programs.versions.values():
            for compiled in kept.compiled.values():
                yield from (one.program for one in compiled.values())


def _shown(model: str, one: Resources) -> Resources:
    print(
        f"{model:18}{one.kernel:20}{one.target:8}{one.rows:4} x{one.columns:4}{one.registers:5} registers{one.spills:6} spilled"
        f"{one.shared:8} shared",
        flush=True,
    )
    return one


if __name__ == "__main__":
    sys.exit(main())
