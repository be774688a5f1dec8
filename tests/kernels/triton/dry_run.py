"""Training steps on a GPU that is not there: Triton compiles for it as ever, and its launches are only looked at.

    python -m tests.kernels.triton.dry_run MODEL SIZE

prints, as JSON, how many kernels the first and the second of two steps compiled, and the launches of the second: name, grid,
and the place, type and value of each argument.
"""

from __future__ import annotations

import json
import os
import sys
import time
from unittest import mock

os.environ.pop("TRITON_INTERPRET", None)  # before Triton is imported

import torch
from triton import compile as compile_kernel
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from benchmarks.zoo import ZOO
from vertexflow.kernels import triton

launches = []


class Launcher:
    """Instead of the one that Triton makes for a compiled kernel."""

    def __init__(self, source, metadata):
        self.name, self.kinds = metadata.name, list(source.signature.values())

    def __call__(self, x, y, z, stream, function, metadata, launch, enter, leave, *arguments):
        launches.append(
            {"name": self.name, "grid": [x, y, z], "arguments": list(zip(self.kinds, arguments, strict=True))}
        )


class Utils:
    """What Triton asks of a device."""

    def load_binary(self, name, kernel, shared, device):
        return object(), object(), 0, 0, 1024

    def get_device_properties(self, device):
        return {"max_shared_mem": 232_448}


class Driver:
    """A GPU of compute capability 9.0."""

    utils, launcher_cls = Utils(), Launcher

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)


def main(name: str, size: int) -> None:
    driver.set_active(Driver())
    animal = ZOO[name](size)
    for function in animal.functions():
        function.backend = "triton"
    inputs = animal.inputs(torch.float32)
    compiled = []

    def count(*arguments, **options):
        compiled[-1] += 1
        return compile_kernel(*arguments, **options)

    with (
        mock.patch("triton.compiler.compile", count),
        mock.patch.object(triton, "interprets", return_value=True),  # as if, so that tensors may lie on the CPU
    ):  # fmt: skip
        for _ in range(2):
            launches.clear()
            compiled.append(0)
            start = time.perf_counter()
            animal.model(animal.graphs, **inputs).h.sum().backward()
            seconds = time.perf_counter() - start
    json.dump({"compiled": compiled, "launches": launches, "seconds": seconds}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
