"""Time a training step of a binary TreeLSTM on random trees: vertexflow, its peers, and the GEMM floor.

    python -m benchmarks.treelstm [--hidden 256] [--batch 64] [--rounds 15] [--threads 2] [--json FILE]

All contenders run in one process, in turns, after they have agreed on the loss and on every gradient. A step is forward,
backward and an SGD update. The floor is the matrix products that any implementation must do, as single calls.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import vertexflow as vf


class BinaryTreeLSTM(vf.VertexFunction):
    """The example of the README."""

    def __init__(self, embed_dim: int, hidden: int) -> None:
        super().__init__(state={"h": hidden, "c": hidden})
        self.w = nn.Linear(embed_dim, 3 * hidden)
        self.u = nn.Linear(2 * hidden, 5 * hidden, bias=False)

    def vertex(self, v: vf.Vertex) -> None:
        left, right = v.gather(0), v.gather(1)
        x = self.w(v.pull("x"))
        i, o, u, fl, fr = self.u(torch.cat([left.h, right.h], -1)).chunk(5, -1)
        xi, xo, xu = x.chunk(3, -1)
        c = torch.sigmoid(i + xi) * torch.tanh(u + xu) + torch.sigmoid(fl) * left.c + torch.sigmoid(fr) * right.c
        h = torch.sigmoid(o + xo) * torch.tanh(c)
        v.scatter(h=h, c=c)
        v.push(h=h)


def random_tree(rng: random.Random, leaves: int) -> Any:
    """A random binary tree: split the leaves anywhere, again and again."""
    if leaves == 1:
        return None
    left = rng.randint(1, leaves - 1)
    return random_tree(rng, left), random_tree(rng, leaves - left)


@dataclass
class Levels:
    """The same batch for the hand-written peers, by depth: rows of a level are a slice, children are row numbers."""

    order: Tensor  # vertex of each row
    bounds: list[tuple[int, int]]
    left: Tensor  # of rows with children, from the first of them
    right: Tensor
    root_rows: Tensor
    children: list[list[int]]  # of each vertex, for the recursion


def by_level(batch: vf.GraphBatch) -> Levels:
    """Done once, outside of what is timed, in favour of the peers."""
    children = [batch.child[batch.offset[v] : batch.offset[v + 1]].tolist() for v in range(batch.num_vertices)]
    depth: list[int] = []
    for vertex in range(batch.num_vertices):  # children have smaller numbers than their parents inside a tree
        depth.append(1 + max((depth[child] for child in children[vertex]), default=-1))
    order = np.argsort(depth, kind="stable")
    row = np.argsort(order)
    counts = np.bincount(depth)
    ends = np.cumsum(counts)
    inner = order[counts[0] :]
    return Levels(
        torch.from_numpy(order),
        list(zip((ends - counts).tolist(), ends.tolist(), strict=True)),
        torch.tensor([row[children[v][0]] for v in inner], dtype=torch.int64),
        torch.tensor([row[children[v][1]] for v in inner], dtype=torch.int64),
        torch.from_numpy(row)[batch.roots],
        children,
    )


def per_vertex(model: BinaryTreeLSTM, x: Tensor, levels: Levels, roots: Tensor) -> Tensor:
    """What people write first: plain PyTorch, one vertex at a time; a vertex without children skips U."""
    h: list[Tensor] = []
    c: list[Tensor] = []
    for vertex, kids in enumerate(levels.children):
        xi, xo, xu = model.w(x[vertex]).chunk(3, -1)
        if kids:
            i, o, u, fl, fr = model.u(torch.cat([h[kids[0]], h[kids[1]]], -1)).chunk(5, -1)
            kept = torch.sigmoid(fl) * c[kids[0]] + torch.sigmoid(fr) * c[kids[1]]
            c.append(torch.sigmoid(i + xi) * torch.tanh(u + xu) + kept)
            h.append(torch.sigmoid(o + xo) * torch.tanh(c[-1]))
        else:
            c.append(torch.sigmoid(xi) * torch.tanh(xu))
            h.append(torch.sigmoid(xo) * torch.tanh(c[-1]))
    return torch.stack([h[root] for root in roots.tolist()])


def by_hand(model: BinaryTreeLSTM, x: Tensor, levels: Levels, roots: Tensor) -> Tensor:
    """Levels batched by hand, with autograd: one projection of all inputs, leaves skip U, a gather for each child."""
    projected = model.w(x.index_select(0, levels.order))
    start, stop = levels.bounds[0]
    xi, xo, xu = projected[start:stop].chunk(3, -1)
    c = torch.sigmoid(xi) * torch.tanh(xu)
    h = torch.sigmoid(xo) * torch.tanh(c)
    hs, cs = h, c
    for start, stop in levels.bounds[1:]:
        at = slice(start - levels.bounds[0][1], stop - levels.bounds[0][1])
        left, right = levels.left[at], levels.right[at]
        i, o, u, fl, fr = model.u(torch.cat([hs.index_select(0, left), hs.index_select(0, right)], -1)).chunk(5, -1)
        xi, xo, xu = projected[start:stop].chunk(3, -1)
        kept = torch.sigmoid(fl) * cs.index_select(0, left) + torch.sigmoid(fr) * cs.index_select(0, right)
        c = torch.sigmoid(i + xi) * torch.tanh(u + xu) + kept
        h = torch.sigmoid(o + xo) * torch.tanh(c)
        hs, cs = torch.cat([hs, h]), torch.cat([cs, c])
    return hs.index_select(0, levels.root_rows)


def by_hand_with_backward(model: BinaryTreeLSTM, x: Tensor, levels: Levels, roots: Tensor) -> float:
    """As `by_hand`, with the derivative written out too: buffers for everything, and one product for each weight.

    The most that a careful author does for this one model. Returns the loss, and leaves the gradients in `.grad`.
    """
    with torch.no_grad():
        count, hidden, leaves = len(x), model.state["h"][0], levels.bounds[0][1]
        rows = x.index_select(0, levels.order)
        projected = torch.addmm(model.w.bias, rows, model.w.weight.t())
        h, c, tanh_c = x.new_empty(count, hidden), x.new_empty(count, hidden), x.new_empty(count, hidden)
        gates = x.new_empty(count, 5 * hidden)  # i, o, u, left f, right f
        kids = x.new_empty(count - leaves, 2 * hidden)
        kids_c = x.new_empty(count - leaves, 2 * hidden)
        i, o, u, fl, fr = gates.chunk(5, -1)
        for start, stop in levels.bounds:
            step, at = slice(start, stop), slice(start - leaves, stop - leaves)
            if start:
                left, right = levels.left[at], levels.right[at]
                kids[at, :hidden], kids[at, hidden:] = h.index_select(0, left), h.index_select(0, right)
                kids_c[at, :hidden], kids_c[at, hidden:] = c.index_select(0, left), c.index_select(0, right)
                torch.mm(kids[at], model.u.weight.t(), out=gates[step])
                gates[step, : 3 * hidden] += projected[step]
            else:
                gates[step, : 3 * hidden] = projected[step]
            gates[step, : 2 * hidden].sigmoid_()
            u[step].tanh_()
            torch.mul(i[step], u[step], out=c[step])
            if start:
                gates[step, 3 * hidden :].sigmoid_()
                c[step].addcmul_(fl[step], kids_c[at, :hidden]).addcmul_(fr[step], kids_c[at, hidden:])
            torch.tanh(c[step], out=tanh_c[step])
            torch.mul(o[step], tanh_c[step], out=h[step])
        out = h.index_select(0, levels.root_rows)
        dh, dc = torch.zeros_like(h), torch.zeros_like(c)
        dh[levels.root_rows] = out * (2 / out.numel())
        dgates = torch.empty_like(gates)
        di, do, du, dfl, dfr = dgates.chunk(5, -1)
        for start, stop in reversed(levels.bounds):
            step, at = slice(start, stop), slice(start - leaves, stop - leaves)
            dc[step] += torch.ops.aten.tanh_backward(dh[step] * o[step], tanh_c[step])
            do[step] = torch.ops.aten.sigmoid_backward(dh[step] * tanh_c[step], o[step])
            di[step] = torch.ops.aten.sigmoid_backward(dc[step] * u[step], i[step])
            du[step] = torch.ops.aten.tanh_backward(dc[step] * i[step], u[step])
            if start:
                dfl[step] = torch.ops.aten.sigmoid_backward(dc[step] * kids_c[at, :hidden], fl[step])
                dfr[step] = torch.ops.aten.sigmoid_backward(dc[step] * kids_c[at, hidden:], fr[step])
                dkids = dgates[step] @ model.u.weight
                left, right = levels.left[at], levels.right[at]
                dh[left], dh[right] = dkids[:, :hidden], dkids[:, hidden:]
                dc[left], dc[right] = dc[step] * fl[step], dc[step] * fr[step]
        model.u.weight.grad = dgates[leaves:].t() @ kids
        model.w.weight.grad = dgates[:, : 3 * hidden].t() @ rows
        model.w.bias.grad = dgates[:, : 3 * hidden].sum(0)
        return out.square().mean().item()


def floor(model: BinaryTreeLSTM, x: Tensor, kids: Tensor) -> None:
    """The matrix products of a step as single calls; `kids` stands for the children's states of inner vertices."""
    with torch.no_grad():
        projected = torch.addmm(model.w.bias, x, model.w.weight.t())
        gates = kids @ model.u.weight.t()
        _ = gates @ model.u.weight
        _ = gates.t() @ kids
        _ = projected.t() @ x


def step_of(loss: Callable[[], Tensor | float], model: nn.Module) -> Callable[[], float]:
    """A training step: gradients from nothing, and an SGD update of every parameter."""

    def step() -> float:
        for parameter in model.parameters():
            parameter.grad = None
        value = loss()
        if isinstance(value, Tensor):
            value.backward()
            value = value.item()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(parameter.grad, alpha=1e-3)
        return value

    return step


def agree(steps: dict[str, Callable[[], float]], model: nn.Module) -> None:
    """All contenders find the same loss and the same gradients, or there is nothing to compare."""
    start = {name: value.clone() for name, value in model.state_dict().items()}
    found = {}
    for name, step in steps.items():
        model.load_state_dict(start)
        found[name] = (step(), [parameter.grad.clone() for parameter in model.parameters()])
    (first, (loss, grads)), *others = found.items()
    for name, (other_loss, other_grads) in others:
        torch.testing.assert_close(other_loss, loss, rtol=1e-4, atol=1e-7, msg=f"{name} and {first}: loss")
        for a, b in zip(other_grads, grads, strict=True):
            torch.testing.assert_close(
                a, b, rtol=1e-3, atol=1e-6, msg=lambda text, name=name: f"{name}, {first}: {text}"
            )


def measure(contenders: dict[str, Callable[[], object]], rounds: int, slow: str) -> dict[str, list[float]]:
    """Milliseconds of each contender in each round, in turns; the slow one is run in every fifth round."""
    for name, run in contenders.items():
        for _ in range(1 if name == slow else 3):
            run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, run in contenders.items():
            if name == slow and number % 5:
                continue
            begin = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - begin) * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.treelstm", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--hidden", type=int, default=256, help="hidden size, and size of the inputs")
    parser.add_argument("--batch", type=int, default=64, help="trees in the batch")
    parser.add_argument("--leaves", type=int, nargs=2, default=(5, 35), metavar=("MIN", "MAX"), help="leaves of a tree")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of all contenders in turn")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--seed", type=int, default=0, help="of the trees and the numbers")
    parser.add_argument("--json", metavar="FILE", help="also write machine, versions and figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    rng = random.Random(options.seed)
    batch = vf.pack([vf.tree(random_tree(rng, rng.randint(*options.leaves))) for _ in range(options.batch)])
    model = BinaryTreeLSTM(options.hidden, options.hidden)
    x, levels, roots = torch.randn(batch.num_vertices, options.hidden), by_level(batch), batch.roots
    losses: dict[str, Callable[[], Tensor | float]] = {
        "vertexflow": lambda: model(batch, x=x).h[roots].square().mean(),
        "levels by hand, backward by hand": lambda: by_hand_with_backward(model, x, levels, roots),
        "levels by hand, autograd": lambda: by_hand(model, x, levels, roots).square().mean(),
        "per vertex": lambda: per_vertex(model, x, levels, roots).square().mean(),
    }
    steps = {name: step_of(loss, model) for name, loss in losses.items()}
    agree(steps, model)
    kids = torch.randn(len(levels.left), 2 * options.hidden)
    contenders: dict[str, Callable[[], object]] = {"floor": lambda: floor(model, x, kids), **steps}
    times = measure(contenders, options.rounds, slow="per vertex")
    report(options, batch, times)


def report(options: argparse.Namespace, batch: vf.GraphBatch, times: dict[str, list[float]]) -> None:
    """Print the table, and write it if asked to."""
    base = statistics.median(times["floor"])
    title = (
        f"training step, hidden {options.hidden}, {options.batch} trees, {batch.num_vertices} vertices in "
        f"{vf.schedule(batch).num_steps} steps, float32, {options.threads} threads"
    )
    table = Table(title=title)
    for column in ("", "median ms", "min-max", "x floor", "rounds"):
        table.add_column(column, justify="left" if not column else "right")
    figures = {}
    for name, found in times.items():
        middle = statistics.median(found)
        figures[name] = {"median_ms": middle, "min_ms": min(found), "max_ms": max(found), "x_floor": middle / base}
        spread = f"{min(found):.1f}-{max(found):.1f}"
        table.add_row(name, f"{middle:.1f}", spread, f"{middle / base:.2f}", str(len(found)))
    Console().print(table)
    if options.json:
        content = {
            "options": {k: v for k, v in vars(options).items() if k != "json"},
            "machine": machine(),
            "figures": figures,
        }
        Path(options.json).write_text(json.dumps(content, indent=2) + "\n")


def machine() -> dict[str, str]:
    """What was measured where."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    cpu = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    return {
        "cpu": cpu, "python": platform.python_version(), "torch": torch.__version__, "vertexflow": vf.__version__,
        "commit": commit.stdout.strip(),
    }  # fmt: skip


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
