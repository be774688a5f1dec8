"""What packing and scheduling cost: time and memory a vertex, and the steps that each policy takes.

    python -m benchmarks.scheduler [--data DIR] [--threads 1] [--json FILE] [speed] [scale] [policies] [slices]

speed     pack + schedule batches of trees, against NumPy and, where it is installed, DGL; and the share of a training step
scale     the same up to ten million vertices in one batch, with the peak of memory on top of the input graphs
policies  the number of steps of each policy on graphs of several kinds, with the lower bound and the optimum
slices    what is saved where steps read consecutive rows and nothing needs to be gathered

Contenders run in one process, in turns. DIR has `train.txt` of the Stanford Sentiment Treebank; without, trees are random.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import vertexflow as vf
from vertexflow.function import cached_schedule
from vertexflow.scheduler import FSM, POLICIES, cache
from vertexflow.scheduler.optimal import lower_bound

from . import structures
from .graphs import random_tree
from .machine import commit, machine, versions
from .numpy_scheduler import pack_and_schedule
from .workloads.treelstm import BinaryTreeLSTM

Result = dict[str, Any]
console = Console(width=130)


def trees(data: Path | None, count: int) -> list[vf.InputGraph]:
    """Trees of the Stanford Sentiment Treebank, or random ones of 5 to 35 leaves (the workload of DESIGN)."""
    if data is None:
        rng = random.Random(0)
        return [vf.tree(random_tree(rng, rng.randint(5, 35))) for _ in range(count)]
    treebank = vf.from_ptb(data / "train.txt", num_labels=5)[:count]
    return [vf.InputGraph(tree.structure) for tree in treebank]


def medians(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of each, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def dgl_contender(batches: list[list[vf.InputGraph]]) -> Callable[[], object] | None:
    """`dgl.batch` and its generator of topological fronts; a newer PyTorch lacks what dgl.graphbolt wants."""
    sys.modules.setdefault("dgl.graphbolt", types.ModuleType("dgl.graphbolt"))
    try:
        import dgl
    except ImportError:
        return None
    graphs_by_batch = []
    for batch in batches:
        graphs_by_batch.append([])
        for tree in batch:
            parent = np.repeat(np.arange(tree.num_vertices), np.diff(tree.offset))
            edges = torch.from_numpy(tree.child).long(), torch.from_numpy(parent)
            graphs_by_batch[-1].append(dgl.graph(edges, num_nodes=tree.num_vertices))
    return lambda: [dgl.topological_nodes_generator(dgl.batch(graphs)) for graphs in graphs_by_batch]


def speed(data: Path | None) -> Result:
    """Batches of 256 trees, structure only; then the share of a training step with 64 random trees."""
    graphs = trees(data, 8192)
    batches = [graphs[at : at + 256] for at in range(0, len(graphs), 256)]
    arrays = [[tuple(a.astype(np.int64) for a in (g.child, g.slot, g.offset)) for g in batch] for batch in batches]
    vertices = sum(graph.num_vertices for graph in graphs)
    contenders: dict[str, Callable[[], object]] = {
        "pack": lambda: [vf.pack(batch) for batch in batches],
        "pack + schedule": lambda: [vf.schedule(vf.pack(batch), num_slots=2) for batch in batches],
        "pack + schedule, seen before": lambda: [cached_schedule(vf.pack(batch), num_slots=2) for batch in batches],
        "NumPy": lambda: [pack_and_schedule(batch, 2) for batch in arrays],
    }
    cache.clear_cache()
    with_dgl = dgl_contender(batches)
    if with_dgl is not None:
        contenders["DGL: batch + topological fronts"] = with_dgl
    seconds = medians(contenders, rounds=9)
    table = Table("batches of 256 trees", "million vertices/s", "ns a vertex")
    for name, value in seconds.items():
        table.add_row(name, f"{vertices / value / 1e6:.2f}", f"{value / vertices * 1e9:.1f}")
    console.print(table)

    batch64 = trees(None, 64)
    model = BinaryTreeLSTM(256, 256)
    x = torch.randn(vf.pack(batch64).num_vertices, 256)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimiser.zero_grad()
        batch = vf.pack(batch64)
        model(batch, x=x).h[batch.roots].square().mean().backward()
        optimiser.step()

    step()
    parts = medians({"step": step, "pack": lambda: vf.schedule(vf.pack(batch64), num_slots=2)}, rounds=15)
    share = parts["pack"] / parts["step"]
    console.print(
        f"64 random trees, hidden 256: pack + schedule {parts['pack'] * 1e6:.0f} us of a training step of "
        f"{parts['step'] * 1e3:.1f} ms: {share:.2%}"
    )
    return {"vertices": vertices, "seconds": seconds, "share_of_step": share}


def scale(data: Path | None) -> Result:
    """One batch of ever more vertices. Memory is the peak of the process above what it held with the input graphs."""
    some = trees(data, 8192)
    rows: list[Result] = []
    table = Table("one batch", "vertices", "pack ns/vertex", "schedule ns/vertex", "peak bytes/vertex")
    cases: list[tuple[str, list[vf.InputGraph]]] = [("trees", some * times) for times in (1, 3, 10, 31)]
    cases += [("a chain", [vf.chain(10**power)]) for power in (5, 6, 7)]
    for name, graphs in cases:
        before = _memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        start = time.perf_counter()
        batch = vf.pack(graphs)
        middle = time.perf_counter()
        vf.schedule(batch)
        end = time.perf_counter()
        n = batch.num_vertices
        row = {
            "name": name, "vertices": n, "pack": (middle - start) / n * 1e9, "schedule": (end - middle) / n * 1e9,
            "bytes": (_memory("VmHWM") - before) / n,
        }  # fmt: skip
        rows.append(row)
        table.add_row(name, f"{n:,}", f"{row['pack']:.1f}", f"{row['schedule']:.1f}", f"{row['bytes']:.0f}")
        del batch
    console.print(table)
    return {"rows": rows}


def _memory(field: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) * 1024


def policies(data: Path | None) -> Result:
    """Steps for a batch, summed over four batches; `fsm` learned from eight others."""
    table = Table("graphs", "batch", "lower bound", "optimal", "fsm", "agenda", "depth", "height", "fsm learned in s")
    rows: list[Result] = []
    for workload in (structures.kind_trees, structures.tagged_trees, structures.lattice, structures.encoder_decoder):
        for size in (1, 4, 16, 64):
            rng = np.random.default_rng(0)
            learn, count = [[vf.pack([workload(rng) for _ in range(size)]) for _ in range(n)] for n in (8, 4)]
            start = time.perf_counter()
            learned = FSM.learn(learn)
            row: Result = {"graphs": workload.__name__, "batch": size, "learning": time.perf_counter() - start}
            row["lower bound"] = sum(lower_bound(b.num_vertices, b.child, b.offset, b.kind_index) for b in count)
            try:
                row["optimal"] = sum(_steps(POLICIES["optimal"], batch) for batch in count)
            except vf.GraphError:
                row["optimal"] = None  # too large to search
            for name, policy in {"fsm": learned, **{n: POLICIES[n] for n in ("agenda", "depth", "height")}}.items():
                row[name] = sum(_steps(policy, batch) for batch in count)
            rows.append(row)
            names = ("graphs", "batch", "lower bound", "optimal", "fsm", "agenda", "depth", "height")
            cells = ["-" if row[name] is None else str(row[name]) for name in names]
            table.add_row(*cells, f"{row['learning']:.2f}")
    console.print(table)
    return {"rows": rows}


def _steps(policy: Any, batch: vf.GraphBatch) -> int:
    """Pairs of step and kind: what is computed at once."""
    assert batch.kind_index is not None
    return len(np.unique(np.stack([policy.steps(batch), batch.kind_index]), axis=1).T)


class ChainLSTM(vf.VertexFunction):
    """An LSTM over sequences, for `slices`."""

    def __init__(self, size: int) -> None:
        super().__init__(state={"h": size, "c": size})
        self.x, self.h = nn.Linear(size, 4 * size), nn.Linear(size, 4 * size, bias=False)

    def vertex(self, v: vf.Vertex) -> None:
        before = v.gather(0)
        i, f, o, g = (self.x(v.pull("x")) + self.h(before.h)).chunk(4, -1)
        c = torch.sigmoid(f) * before.c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        v.scatter(h=h, c=c)
        v.push(h=h)


def slices(data: Path | None) -> Result:
    """A schedule whose marks are taken away gathers at every step; the rest is the same."""
    rng = random.Random(0)

    def complete(leaves: int) -> Any:
        return None if leaves == 1 else (complete(leaves // 2), complete(leaves // 2))

    workloads = {
        "LSTM over 5 to 60 steps": (ChainLSTM, [vf.chain(rng.randint(5, 60)) for _ in range(64)]),
        "LSTM over 64 steps": (ChainLSTM, [vf.chain(64)] * 64),
        "TreeLSTM, complete trees of 64 leaves": (
            lambda size: BinaryTreeLSTM(size, size),
            [vf.tree(complete(64))] * 16,
        ),
        "TreeLSTM, random trees": (lambda size: BinaryTreeLSTM(size, size), trees(None, 64)),
    }
    table = Table(
        "workload", "hidden", "steps that read slices", "forward, slices / gathered", "step, slices / gathered"
    )
    rows: list[Result] = []
    for name, (make, graphs) in workloads.items():
        for size in (64, 256):
            model, batch = make(size), vf.pack(graphs)
            schedule = vf.schedule(batch)
            bare = vf.Schedule(
                **{**vars(schedule), "table": np.where([True, True, False, False, True], schedule.table, -1)}
            )
            x = torch.randn(batch.num_vertices, size)
            cases = {"slices": batch.with_schedule(schedule), "gathered": batch.with_schedule(bare)}

            def forward(batch: vf.GraphBatch, model: Any = model, x: torch.Tensor = x) -> None:
                with torch.no_grad():
                    model(batch, x=x)

            def train(batch: vf.GraphBatch, model: Any = model, x: torch.Tensor = x) -> None:
                model(batch, x=x).h.square().mean().backward()

            row: Result = {"workload": name, "hidden": size, "share": float((schedule.reads_from[1:] >= 0).mean())}
            for kind, run in (("forward", forward), ("step", train)):
                for case in cases.values():
                    run(case)
                median = medians(
                    {key: (lambda run=run, case=case: run(case)) for key, case in cases.items()}, rounds=15
                )
                row[kind] = median["slices"] / median["gathered"]
            rows.append(row)
            table.add_row(name, str(size), f"{row['share']:.0%}", f"{row['forward']:.2f}", f"{row['step']:.2f}")
    console.print(table)
    return {"rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"speed": speed, "scale": scale, "policies": policies, "slices": slices}
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}; all by default")
    parser.add_argument("--data", type=Path, help="a folder with train.txt in PTB brackets")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's threads")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    unknown = set(options.parts) - parts.keys()
    if unknown:
        parser.error(f"there is no part {sorted(unknown)[0]!r}; choose of {', '.join(parts)}")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    results = {name: parts[name](options.data) for name in options.parts or parts}
    if options.json:
        where = {**machine(), **versions(), "commit": commit()}
        written = {"machine": where, "threads": options.threads, **results}
        options.json.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
