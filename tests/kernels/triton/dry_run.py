"""Training steps on a GPU that is not there: Triton compiles for it as ever, and its launches are only looked at.

    python -m tests.kernels.triton.dry_run MODEL SIZE

prints, as JSON, how many kernels the first and the second of two steps compiled, and the launches of the second: by Triton,
and once more by the native core, as the driver gets them, which refuses every seventh. Of each: name, grid, threads, bytes of
shared memory, stream, and the type and value of each argument that is passed; Triton also tells the others.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from unittest import mock

os.environ.pop("TRITON_INTERPRET", None)  # before Triton is imported

import torch
import torch.nn.functional as F
from torch import nn
from triton import compile as compile_kernel

import vertexflow as vf
from benchmarks import absent
from benchmarks.zoo import CHAINS, ZOO, Animal
from vertexflow.kernels.triton import loop

STREAM = 77
REFUSED = 201  # there is no context
launches, kernels = [], []


class Dropping(vf.VertexFunction):
    """Draws random numbers in its core."""

    def __init__(self, size):
        super().__init__(state={"h": size})
        self.linear = nn.Linear(size, size)

    def vertex(self, v):
        h = torch.tanh(F.dropout(self.linear(v.gather(0).h), 0.5) + v.pull("x"))
        v.scatter(h=h)
        v.push(h=h)


MODELS = {**ZOO, "Dropping": lambda size: Animal(Dropping(size), CHAINS, {"x": (size,)})}


class Recorder(absent.Launcher):
    """Notes launches by Triton."""

    def __init__(self, source, metadata):
        super().__init__(source, metadata)
        kernels.append((metadata.name, [kind for kind in source.signature.values() if kind != "constexpr"]))

    def __call__(self, x, y, z, stream, function, metadata, launch, enter, leave, *arguments):
        given = list(zip(self.source.signature.values(), arguments, strict=True))
        note("triton", self.metadata.name, (x, y, z), 32 * self.metadata.num_warps, self.metadata.shared, stream, given)


class Utils(absent.Utils):
    """Gives each kernel a function of its own, by which it is known."""

    def load_binary(self, *_):
        return object(), len(kernels), 0, 0, 1024


@ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    *[ctypes.c_uint] * 7,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)
def launch_kernel(function, x, y, z, threads, threads_y, threads_z, shared, stream, places, more):
    """Instead of the driver's."""
    assert (threads_y, threads_z, more) == (1, 1, None)
    if len(launches) % 7 == 6:
        return REFUSED
    name, kinds = kernels[function - 1]
    integers = {"i32": ctypes.c_int32, "i64": ctypes.c_int64}
    types = [integers.get(kind, ctypes.c_uint64) for kind in kinds]
    values = [kind.from_address(place).value for kind, place in zip(types, places[: len(kinds)], strict=True)]
    for place in places[len(kinds) : len(kinds) + 2]:  # what Triton adds
        assert ctypes.c_uint64.from_address(place).value == 0
    note("driver", name, (x, y, z), threads, shared, stream, list(zip(kinds, values, strict=True)))
    return 0


def note(by, name, grid, threads, shared, stream, arguments):
    launches.append({"by": by, "name": name, "grid": grid, "threads": threads, "shared": shared, "stream": stream,
                     "arguments": arguments})  # fmt: skip


def main(name: str, size: int) -> None:
    animal = MODELS[name](size)
    for function in animal.functions():
        function.backend = "triton"
    inputs = animal.inputs(torch.float32)
    compiled, seen = [], {"triton": [], "native": []}
    run, address = loop.TritonLoop.run, ctypes.cast(launch_kernel, ctypes.c_void_p).value

    def count(*arguments, **options):
        compiled[-1] += 1
        return compile_kernel(*arguments, **options)

    def run_twice(triton_loop, arguments, steps):
        for how, driver_address in (("triton", 0), ("native", address)):
            launches.clear()
            with mock.patch.object(loop, "driver", return_value=driver_address):
                run(triton_loop, arguments, steps)
            seen[how] += launches

    with (
        mock.patch("triton.compiler.compile", count),
        absent.absent_gpu(absent.Driver(Recorder, Utils()), STREAM),
        mock.patch.object(loop.TritonLoop, "run", run_twice),
    ):  # fmt: skip
        for _ in range(2):
            for recorded in seen.values():
                recorded.clear()
            compiled.append(0)
            animal.model(animal.graphs, **inputs).h.sum().backward()
    json.dump({"compiled": compiled, **seen}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
