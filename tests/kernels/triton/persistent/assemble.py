"""Persistent kernels of some models, compiled for two GPUs that are not there.

    python -m tests.kernels.triton.persistent.assemble SIZE DTYPE MODEL ... [--debug]

prints, as JSON, a list of [model, kernel, target, registers, bytes of spills, PTX]. `--debug`: as TRITON_DEBUG=1.
"""

from __future__ import annotations

import json
import os
import sys

os.environ.pop("TRITON_INTERPRET", None)  # before Triton is imported
os.environ["VERTEXFLOW_BACKEND"] = "torch"  # models are called to be traced

import torch

from benchmarks.registers import programs_of
from vertexflow.kernels.triton.persistent.ahead import compile_persistent, persistent_kernels_of


def main(size: int, dtype: torch.dtype, models: list[str], debug: bool) -> None:
    rows = []
    for name in models:
        for program in programs_of(name, size, dtype):
            for kernel in persistent_kernels_of(program):
                for target in ("sm_80", "sm_90"):
                    compiled = compile_persistent(kernel, target, debug)
                    rows.append([name, compiled.kernel, target, compiled.registers, compiled.spills, compiled.text])
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--debug"]
    main(int(words[0]), getattr(torch, words[1]), words[2:], "--debug" in sys.argv)
