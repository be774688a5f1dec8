"""What a state takes that few vertices have: a training step, seen from outside, as in `benchmarks.memory`.

    python -m benchmarks.partial_states [--graphs 400] [--words 20] [--size 2048] [--backend native] [--steps 15]

Words, a sequence, have a small state; every sentence has a large one, which only the next sentence reads. *Left out*: the method
of words does not scatter it. *Zeros*: it scatters zeros, so that the state has a row for each word as well. Each has a process of
its own: MiB above what that held before its first step, `estimated` by `model.estimate_memory`, and the median time of the steps
after it. Linux only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

import vertexflow as vf

from .device import size_in, status
from .memory import MIB, trim

WORD = 8  # the size of the small state


class Sentences(vf.VertexFunction):
    """Words are a sequence with a small state; sentences have a memory, which only the next sentence reads."""

    def __init__(self, size: int, leaves_out: bool, backend: str = "native") -> None:
        super().__init__(state={"h": WORD, "memory": size}, backend=backend)
        self.leaves_out, self.size = leaves_out, size
        self.read, self.join, self.up = nn.Linear(WORD, WORD), nn.Linear(WORD, WORD), nn.Linear(WORD, size)

    @vf.vertex("word")
    def word(self, v: vf.Vertex) -> None:
        h = torch.tanh(self.read(v.pull("x")) + self.join(v.gather(0).h))
        v.scatter(h=h)
        if not self.leaves_out:
            v.scatter(memory=h.new_zeros(h.shape[0], self.size))

    @vf.vertex("sentence")
    def sentence(self, v: vf.Vertex) -> None:
        memory = torch.tanh(self.up(v.gather(0).h) + v.gather(1).memory)
        v.scatter(h=v.gather(0).h, memory=memory)
        v.push(memory=memory.sum(-1))


def text(sentences: int, words: int) -> vf.InputGraph:
    """A graph of sentences of so many words: the words of each are a sequence, of which its sentence reads the last."""
    kinds: list[str] = []
    edges: list[tuple[int, int]] = []
    slots: list[int] = []
    for number in range(sentences):
        first, sentence = len(kinds), len(kinds) + words
        kinds += ["word"] * words + ["sentence"]
        edges += [(at, at + 1) for at in range(first, sentence)]
        slots += [0] * words
        if number:
            edges.append((first - 1, sentence))
            slots.append(1)
    return vf.graph(len(kinds), edges, kind=kinds, slots=slots)


def measure(graphs: int, words: int, size: int, backend: str, steps: int, leaves_out: bool) -> dict[str, float]:
    """The peak of a first step in bytes, what was estimated, and the median time of the other steps in seconds."""
    model = Sentences(size, leaves_out, backend)

    def step(batch: vf.GraphBatch, x: torch.Tensor) -> None:
        model(batch, x=x).memory.square().mean().backward()

    small = vf.pack([text(4, words)] * 2)
    step(small, torch.randn(8 * words, WORD))
    torch.manual_seed(1)
    batch, x = vf.pack([text(4, words)] * graphs), torch.randn(4 * words * graphs, WORD)
    trim()
    start = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark begins again
    step(batch, x)
    peak, seconds = size_in(Path("/proc/self/status").read_text(), "VmHWM") - start, []
    for _ in range(steps):
        begin = time.perf_counter()
        step(batch, x)
        seconds.append(time.perf_counter() - begin)
    estimated = model.estimate_memory(batch, x=x, loss=lambda outputs: outputs.memory.square().mean())
    return {"peak": peak, "estimated": estimated.peak, "seconds": statistics.median(seconds)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.partial_states",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, default in (("graphs", 400), ("words", 20), ("size", 2048), ("steps", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--backend", default="native", choices=["native", "torch"])
    parser.add_argument("--only", choices=["left out", "zeros"], help="this alone, in this process; prints JSON")
    options = parser.parse_args(arguments)
    given = (options.graphs, options.words, options.size, options.backend, options.steps)
    if options.only:
        print(json.dumps(measure(*given, options.only == "left out")))
        return 0
    print(f"{4 * options.graphs} sentences of {options.words} words, a memory of {options.size}, {options.backend}")
    print(" " * 12, *(f"{column:>10}" for column in ("peak MiB", "estimated", "ms")))
    for contestant in ("left out", "zeros"):
        command = [
            sys.executable,
            "-m",
            "benchmarks.partial_states",
            "--only",
            contestant,
            "--backend",
            options.backend,
        ]
        for name in ("graphs", "words", "size", "steps"):
            command += [f"--{name}", str(getattr(options, name))]
        figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        cells = (figures["peak"] / MIB, figures["estimated"] / MIB, figures["seconds"] * 1e3)
        print(f"    {contestant:8}", *(f"{cell:>10.1f}" for cell in cells))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
