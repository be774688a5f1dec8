"""What `vf.parallel` predicts, beside what is measured; and what it predicts of clusters that are not here.

    python -m benchmarks.parallel predict [--seconds 20] [--processor-time] [--cluster FILE] [--write FILE]
    python -m benchmarks.parallel ranks [--hidden 256] [--graphs 64]
    python -m benchmarks.parallel simulate [--plots FOLDER]

`predict` measures this machine (`Cluster.measure`), and then training steps of four models at three sizes each. `ranks` times
training steps of a binary TreeLSTM with one process of two threads, and with two processes of one thread under the plan that is
found for them. `simulate` plans three models for 1 to 1,024 devices of a described cluster, with all strategies, also those that
are not carried out, and says which wins and why: 4,096 graphs a step, however many devices there are.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh

import vertexflow as vf
from vertexflow.parallel.measure import time_in_turns
from vertexflow.parallel.observe import observe
from vertexflow.parallel.options import STRATEGIES
from vertexflow.parallel.predict import step_seconds
from vertexflow.parallel.search import plan_of

from .graphs import random_circuit, random_dependencies, random_tree
from .vertices import measured_by
from .workloads.treelstm import BinaryTreeLSTM

SIZES = [(64, 64), (128, 32), (256, 64), (512, 16)]  # hidden size and graphs
GRAPHS = 4096  # of all devices together in a step
DEVICES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
# By data sheets and papers, rounded: a node of eight accelerators with fast links, and a network between nodes.
LINKS = {"devices": vf.parallel.Link(3e-6, 300e9), "nodes": vf.parallel.Link(10e-6, 40e9)}
DEVICE = {"flops": 200e12, "bandwidth": 3e12, "memory": 80e9, "launch": 4e-6, "call": 2e-4}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.parallel", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["predict", "ranks", "simulate", "rank"])
    parser.add_argument("--seconds", type=float, default=20, help="of measuring the machine, and the models")
    parser.add_argument("--processor-time", action="store_true", help="of predict: where others use the machine")
    parser.add_argument("--cluster", type=Path, help="a cluster that was measured, in the place of measuring")
    parser.add_argument("--write", type=Path, help="where the measured cluster is kept")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--graphs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--plots", type=Path, help="folder for plots")
    options = parser.parse_args(arguments)
    if options.what == "predict":
        cluster = vf.parallel.Cluster.load(options.cluster) if options.cluster else None
        with measured_by(time.process_time if options.processor_time else time.perf_counter):
            predict(cluster, options.seconds, options.write)
    elif options.what == "ranks":
        ranks(options.hidden, options.graphs, options.steps)
    elif options.what == "rank":
        rank(options.hidden, options.graphs, options.steps)
    else:
        simulate(options.plots)


def models(hidden: int, count: int) -> Iterator[tuple[str, nn.Module, list[vf.InputGraph]]]:
    """The models whose times are predicted, each with graphs of its kind."""
    rng = random.Random(1)
    trees = [vf.tree(random_tree(rng, rng.randint(5, 35))) for _ in range(count)]
    yield "TreeLSTM", BinaryTreeLSTM(hidden, hidden), trees
    trees = [random_dependencies(rng, rng.randint(5, 35)) for _ in range(count)]
    yield "child-sum TreeLSTM", vf.nn.ChildSumTreeLSTM(hidden, hidden), trees
    circuits = [random_circuit(rng, rng.randint(8, 32), rng.randint(20, 300)) for _ in range(max(1, count // 2))]
    yield "circuits, DAGNN", vf.nn.DAGNN(hidden, hidden, num_layers=1), circuits
    yield "LSTM", vf.nn.LSTM(hidden, hidden), [vf.chain(rng.randint(5, 60)) for _ in range(count)]


def predict(cluster: vf.parallel.Cluster | None, seconds: float, write: Path | None) -> None:
    """Print predicted beside measured seconds."""
    names, steps, observations = [], [], []
    for hidden, count in SIZES:
        for name, model, graphs in models(hidden, count):
            batch = vf.pack(graphs)
            x = torch.randn(batch.num_vertices, hidden)

            def step(model: nn.Module = model, batch: vf.GraphBatch = batch, x: Tensor = x) -> None:
                h = model(batch, x=x).h
                h.backward(torch.ones(()).expand_as(h))

            step()
            names.append(f"{name:20} {hidden:5} {batch.num_vertices:7,}")
            steps.append(step)
            observations.append(observe(model, (batch, {"x": x})))
    cluster = vf.parallel.Cluster.measure(seconds=seconds) if cluster is None else cluster
    if write is not None:
        cluster.save(write)
    measured = time_in_turns(steps, seconds)
    predicted = np.array([step_seconds(observation, cluster) for observation in observations])
    print(f"{'':20} {'':>5} {'vertices':>7} {'measured':>10} {'predicted':>10} {'ratio':>6}")
    for name, taken, expected in zip(names, measured, predicted, strict=True):
        print(f"{name} {taken * 1e3:7.2f} ms {expected * 1e3:7.2f} ms {expected / taken:6.2f}")
    off = np.abs(predicted / measured - 1)
    print(f"largest error {off.max():.0%}, median {np.median(off):.0%}, {np.mean(off <= 0.2):.0%} within 20 %")


def a_batch(hidden: int, count: int) -> tuple[vf.GraphBatch, Tensor]:
    rng = random.Random(0)
    batch = vf.pack([vf.tree(random_tree(rng, rng.randint(5, 35))) for _ in range(count)])
    return batch, torch.randn(batch.num_vertices, hidden, generator=torch.Generator().manual_seed(0))


def ranks(hidden: int, count: int, steps: int) -> None:
    """Time one process with two threads and two processes with one thread, each beside what is predicted."""
    for processes, threads in ((1, 2), (1, 1), (2, 1)):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command += ["-m", "benchmarks.parallel", "rank", f"--hidden={hidden}", f"--graphs={count}", f"--steps={steps}"]
        completed = subprocess.run(
            command,
            env={**_environment(), "OMP_NUM_THREADS": str(threads)},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        print(f"{processes} x {threads} threads: {completed.stdout.strip()}", flush=True)


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ)


def rank(hidden: int, count: int, steps: int) -> None:
    """One of the processes of `ranks`: measures the cluster that they are, plans, trains."""
    distributed.init_process_group("gloo")
    size, number = distributed.get_world_size(), distributed.get_rank()
    mesh = init_device_mesh("cpu", (size,), mesh_dim_names=("data",))
    cluster = vf.parallel.Cluster.measure(mesh, seconds=6)
    batch, x = a_batch(hidden, count)
    torch.manual_seed(0)
    model = Trained(hidden)
    plan = vf.parallel.plan(model, [(batch, x)], cluster, optimizer=0)
    graphs = list(batch.graphs)
    sampler = vf.parallel.BalancedSampler(graphs, count, shuffle=False)
    (chosen,) = list(sampler)
    share = vf.pack([graphs[index] for index in chosen])
    bounds = batch.graph_offset
    rows = torch.cat([x[bounds[index] : bounds[index + 1]] for index in chosen])
    wrapped = plan.apply(model, mesh)
    taken = []
    for turn in range(steps + 3):
        distributed.barrier()
        begin = time.perf_counter()
        loss = vf.parallel.mean(wrapped(share, rows))
        loss.backward()
        for parameter in model.parameters():
            parameter.grad = None
        if turn >= 3:
            taken.append(time.perf_counter() - begin)
    if number == 0:
        assert plan.prediction is not None
        measured, predicted = statistics.median(taken), plan.prediction.seconds
        print(
            f"{plan.shape}; measured {measured * 1e3:.2f} ms, predicted {predicted * 1e3:.2f} ms, "
            f"ratio {predicted / measured:.2f}; limited by {plan.prediction.limited_by}"
        )
    distributed.destroy_process_group()


class Trained(nn.Module):
    """A TreeLSTM with the losses of its rows, so that these are predicted as well."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.tree = BinaryTreeLSTM(hidden, hidden)

    def forward(self, batch: vf.GraphBatch, x: Tensor) -> Tensor:
        return self.tree(batch, x=x).h.square().mean(1)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Words, trees over them, and trees over what these said, against the edges: a model of four parts."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(300, hidden), nn.Linear(hidden, 5)
        self.up, self.down = BinaryTreeLSTM(hidden, hidden), vf.nn.ChildSumTreeLSTM(hidden, hidden)

    def forward(self, batch: vf.GraphBatch, x: Tensor) -> Tensor:
        return self.out(self.down(batch, x=self.up(batch, x=self.embed(x)).h).h)  # type: ignore[no-any-return]


def simulated() -> Iterator[tuple[str, nn.Module, int, list[vf.InputGraph]]]:
    """Models, the width of their inputs, and graphs."""
    rng = random.Random(0)
    trees = [vf.tree(random_tree(rng, rng.randint(5, 35))) for _ in range(GRAPHS // 16)]
    yield "two TreeLSTMs over trees, hidden 512", Encoder(512), 300, trees
    circuits = [random_circuit(rng, 32, rng.randint(50, 500)) for _ in range(GRAPHS // 16)]
    yield "DAGNN over circuits, hidden 256", vf.nn.DAGNN(256, 256, num_layers=2), 256, circuits
    yield "LSTM over chains, hidden 2048", vf.nn.LSTM(2048, 2048), 2048, [vf.chain(rng.randint(10, 200)) for _ in trees]


def cluster_of(devices: int) -> vf.parallel.Cluster:
    """So many devices, eight in a node."""
    nodes = max(1, devices // 8)
    return vf.parallel.Cluster(nodes, devices // nodes, links=LINKS, **DEVICE)


def simulate(plots: Path | None) -> None:
    """Print and draw the predicted speed-up of the plans that are found."""
    curves: dict[str, dict[str, list[float]]] = {}
    for name, model, width, graphs in simulated():
        batch = vf.pack(graphs * 16)
        observation = observe(model, (batch, torch.empty(batch.num_vertices, width, device="meta")))
        print(f"{name}: {batch.num_graphs:,} graphs, {batch.num_vertices:,} vertices", flush=True)
        curves[name] = {}
        for label, strategies in (("carried out", STRATEGIES[:3]), ("all, simulated", STRATEGIES)):
            speed = []
            for devices in DEVICES:
                plan = plan_of([observation], cluster_of(devices), strategies=strategies)
                assert plan.prediction is not None
                speed.append(plan.prediction.graphs_per_second)
                shares = sorted(plan.prediction.shares.items(), key=lambda item: -item[1])[:3]
                shares_text = ", ".join(f"{what} {share:.0%}" for what, share in shares)
                seconds = plan.prediction.seconds
                print(
                    f"  {label:15} {devices:5} {seconds * 1e3:9.2f} ms {speed[-1] / speed[0]:7.1f} x  {plan.shape}; {shares_text}"
                )
            curves[name][label] = [value / speed[0] for value in speed]
    if plots is not None:
        draw(curves, plots)


def draw(curves: dict[str, dict[str, list[float]]], folder: Path) -> None:
    """A plot of all models."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context({"svg.hashsalt": "vertexflow"}):
        figure, all_axes = plt.subplots(1, 3, figsize=(12, 4), constrained_layout=True)
        for axes, (title, lines) in zip(all_axes.ravel(), curves.items(), strict=True):
            axes.plot(DEVICES, DEVICES, color="0.8", label="linear")
            for label, values in lines.items():
                axes.plot(DEVICES, values, marker="o", markersize=3, label=label)
            axes.set(xscale="log", yscale="log", title=title, xlabel="devices", ylabel="speed-up, predicted")
            axes.title.set_fontsize(9)
            axes.legend(fontsize=7)
        figure.savefig(folder / "parallel-simulated.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
