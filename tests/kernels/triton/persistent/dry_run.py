"""Training steps in one launch a pass on a GPU that is not there: Triton compiles for it, and launches are only looked at.

    python -m tests.kernels.triton.persistent.dry_run MODEL SIZE OCCUPANCY [refuse] [spill]

prints, as JSON, how many kernels each of two steps compiled, and the launches of each: the kernel, its grid, whether it is
cooperative, and the numbers among its arguments by name; and what `explain` says. OCCUPANCY: how many programs fit on a
multiprocessor. refuse: the driver refuses cooperative launches; spill: kernels whose programs keep their weights spill.
"""

from __future__ import annotations

import json
import os
import sys
from unittest import mock

os.environ.pop("TRITON_INTERPRET", None)  # before Triton is imported
os.environ["VERTEXFLOW_ONE_LAUNCH"] = "1"

import torch
from triton import compile as compile_kernel

from benchmarks import absent
from benchmarks.zoo import ZOO
from vertexflow.kernels.triton import loop
from vertexflow.kernels.triton.persistent import launch

launches, options = [], []


class Recorder(absent.Launcher):
    """Notes launches."""

    def __call__(self, x, y, z, stream, function, metadata, packed, enter, leave, *arguments):
        is_cooperative = self.metadata.launch_cooperative_grid
        if is_cooperative and "refuse" in options:
            raise RuntimeError("Triton Error [CUDA]: too many blocks in cooperative launch")
        given = zip(self.source.signature, arguments, strict=True)
        numbers = {name: value for name, value in given if isinstance(value, int | str) and not name.endswith("ptr")}
        launches.append({"name": self.metadata.name, "grid": (x, y, z), "is_cooperative": is_cooperative, "stream": stream,
                         "numbers": numbers})  # fmt: skip


class Utils(absent.Utils):
    """Loads kernels, of which some spill."""

    def load_binary(self, name, *_):
        return object(), absent.FUNCTION, 0, 8 * (name.endswith("_kept") and "spill" in options), 1024


def main(name: str, size: int, occupancy: int) -> None:
    animal = ZOO[name](size)
    for function in animal.functions():
        function.backend = "triton"
    inputs = animal.inputs(torch.float32)
    compiled, seen = [], []

    def count(*arguments, **options):
        compiled[-1] += 1
        return compile_kernel(*arguments, **options)

    with (
        mock.patch("triton.compiler.compile", count),
        absent.absent_gpu(absent.Driver(Recorder, Utils())),
        mock.patch.object(loop, "driver", return_value=0),
        mock.patch.object(launch, "occupancy", return_value=occupancy),
    ):
        for _ in range(2):
            launches.clear()
            compiled.append(0)
            animal.model(animal.graphs, **inputs).h.sum().backward()
            seen.append(list(launches))
        said = animal.functions()[0].explain()
    json.dump(
        {"compiled": compiled, "launches": seen, "said": said, "multiprocessors": absent.MULTIPROCESSORS}, sys.stdout
    )


if __name__ == "__main__":
    options += sys.argv[4:]
    main(sys.argv[1], *map(int, sys.argv[2:4]))
