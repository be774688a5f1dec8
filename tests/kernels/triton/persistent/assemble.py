"""Persistent kernels of some models, compiled for two GPUs that are not there.

    python -m tests.kernels.triton.persistent.assemble SIZE DTYPE MODEL ... [--debug] [--keep] [--tf32]

prints, as JSON, a list of [model, kernel, target, registers, bytes of spills, PTX, bytes of shared memory, bytes of weights that
a program keeps for a kernel, which arguments are weights]. `--debug`: as TRITON_DEBUG=1; `--keep`: of kernels whose programs
keep their weights; `--tf32`: products of float32 are in TF32.
"""

from __future__ import annotations

import json
import os
import re
import sys

os.environ.pop("TRITON_INTERPRET", None)  # before Triton is imported
os.environ["VERTEXFLOW_BACKEND"] = "torch"  # models are called to be traced

import torch

from benchmarks.registers import programs_of
from vertexflow.kernels.triton.persistent.ahead import compile_persistent, persistent_kernels_of
from vertexflow.kernels.triton.persistent.keep import surely_kept


def main(size: int, dtype: torch.dtype, models: list[str], debug: bool, keeps: bool) -> None:
    rows = []
    for name in models:
        for kernel in persistent_kernels_of(list(programs_of(name, size, dtype)), keeps=keeps):
            for target in ("sm_80", "sm_90"):
                one = compile_persistent(kernel, target, debug)
                row = [name, one.kernel, target, one.registers, one.spills, one.text, one.shared]
                weights = surely_kept(kernel.source.launches, one.sizes) if keeps else 0
                rows.append([*row, weights, weights_among_arguments(kernel)])
    json.dump(rows, sys.stdout)


def weights_among_arguments(kernel) -> list[int]:
    """The numbers of the arguments that are weights: those that are read where weights are loaded."""
    of_weights = set()
    for launch in kernel.source.launches:
        lines = launch.kept.weights if launch.kept else []
        names = {name for line in lines for name in re.findall(r"tl\.load\((\w+)", line)}
        of_weights |= {pointer for pointer, name in zip(launch.pointers, launch.names, strict=True) if name in names}
    given = zip(kernel.source.pointers, kernel.source.names, strict=True)
    passed = [name for name, kind in kernel.signature.items() if kind != "constexpr"]
    return sorted(passed.index(name) for (_, pointer), name in given if pointer in of_weights)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    if "--tf32" in sys.argv:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    main(int(words[0]), getattr(torch, words[1]), words[2:], "--debug" in sys.argv, "--keep" in sys.argv)
