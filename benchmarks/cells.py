"""What is in the core, and what it costs: an sLSTM beside its loop in PyTorch, a TreeLSTM with and without LayerNorm and dropout.

    python -m benchmarks.cells [--hidden 128] [--graphs 64] [--repeat 15] [--threads N]

prints medians of training steps (forward, backward) in one process, by turns, and the ratios that matter. The numbers of both
sLSTMs are compared first.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import vertexflow as vf

from .graphs import random_tree

HEADS = 4
LENGTH = 60


class SLSTM(vf.VertexFunction):
    """An sLSTM (Beck et al., "xLSTM", NeurIPS 2024, section 2.2): exponential gates with a stabiliser, weights by head."""

    def __init__(self, embed_dim: int, hidden: int):
        super().__init__(state={"h": hidden, "c": hidden, "n": hidden, "m": hidden})
        size = hidden // HEADS
        self.w = nn.Linear(embed_dim, 4 * hidden)
        self.r = nn.Parameter(torch.randn(HEADS, size, 4 * size) / size**0.5)

    def cell(self, x: Tensor, h: Tensor, c: Tensor, n: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The next state of each row, given the projected input `x` [rows, 4 * hidden]."""
        heads = h.view(-1, HEADS, h.shape[-1] // HEADS)
        by_head = x.view(-1, HEADS, 4 * heads.shape[-1]) + torch.einsum("nhd,hde->nhe", heads, self.r)
        i, f, z, o = (part.reshape(h.shape) for part in by_head.chunk(4, -1))
        kept = nn.functional.logsigmoid(f) + m
        top = torch.maximum(kept, i)
        keep, write = torch.exp(kept - top), torch.exp(i - top)
        c = keep * c + write * torch.tanh(z)
        n = keep * n + write
        return torch.sigmoid(o) * c / n.clamp(min=1e-6), c, n, top

    def vertex(self, v: vf.Vertex) -> None:
        before = v.gather(0)
        h, c, n, m = self.cell(self.w(v.pull("x")), before.h, before.c, before.n, before.m)
        v.scatter(h=h, c=c, n=n, m=m)
        v.push(h=h)

    def loop(self, x: Tensor) -> Tensor:
        """The same for sequences of one length, [graphs, length, embed_dim], as people write it."""
        projected = self.w(x)
        state = [x.new_zeros(x.shape[0], self.r.shape[1] * HEADS) for _ in range(4)]
        outputs = []
        for t in range(x.shape[1]):
            state = list(self.cell(projected[:, t], *state))
            outputs.append(state[0])
        return torch.stack(outputs, 1)


class TreeLSTM(vf.VertexFunction):
    """A binary TreeLSTM; `richer`: with LayerNorm of the cell and dropout of what goes into it; or it `sorts` that, which loops
    do not know."""

    def __init__(self, embed_dim: int, hidden: int, richer: bool = False, sorts: bool = False, backend: str = "auto"):
        super().__init__(state={"h": hidden, "c": hidden}, backend=backend)
        self.sorts = sorts
        self.w = nn.Linear(embed_dim, 3 * hidden)
        self.u = nn.Linear(2 * hidden, 5 * hidden, bias=False)
        self.norm = nn.LayerNorm(hidden) if richer else nn.Identity()
        self.drop = nn.Dropout(0.2 if richer else 0.0)

    def vertex(self, v: vf.Vertex) -> None:
        left, right = v.gather(0), v.gather(1)
        i, o, u, f, g = self.u(torch.cat([left.h, right.h], -1)).chunk(5, -1)
        xi, xo, xu = self.w(v.pull("x")).chunk(3, -1)
        new = self.drop(torch.tanh(u + xu))
        new = new.sort(-1).values if self.sorts else new
        c = torch.sigmoid(i + xi) * new + torch.sigmoid(f) * left.c + torch.sigmoid(g) * right.c
        h = torch.sigmoid(o + xo) * torch.tanh(self.norm(c))
        v.scatter(h=h, c=c)
        v.push(h=h)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cells", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=128, help="hidden and embedding size, a multiple of 4")
    parser.add_argument("--graphs", type=int, default=64, help=f"trees of 5 to 35 leaves, sequences of {LENGTH}")
    parser.add_argument("--repeat", type=int, default=15, help="steps of each")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    sequences(options.hidden, options.graphs, options.repeat)
    trees(options.hidden, options.graphs, options.repeat)
    return 0


def sequences(hidden: int, count: int, repeat: int) -> None:
    """An sLSTM over sequences of one length, and its loop."""
    model = SLSTM(hidden, hidden)
    batch = vf.pack([vf.chain(LENGTH)] * count)
    x = torch.randn(count, LENGTH, hidden)
    ours = model(batch, x=x.flatten(0, 1)).h.view(count, LENGTH, hidden)
    torch.testing.assert_close(ours, model.loop(x), rtol=1e-4, atol=1e-4)
    took = by_turns(
        {
            "vertexflow": lambda: step(model, lambda: model(batch, x=x.flatten(0, 1)).h),
            "loop in PyTorch": lambda: step(model, lambda: model.loop(x)),
        },
        repeat,
    )
    print(f"sLSTM, {count} sequences of {LENGTH}, hidden {hidden}, {HEADS} heads")
    show(took, "vertexflow")
    print(model.explain().splitlines()[1])


def trees(hidden: int, count: int, repeat: int) -> None:
    """A TreeLSTM with and without more between its products."""
    rng = random.Random(0)
    batch = vf.pack([vf.tree(random_tree(rng, rng.randint(5, 35))) for _ in range(count)])
    x = torch.randn(batch.num_vertices, hidden)
    models = {
        "plain": TreeLSTM(hidden, hidden),
        "with LayerNorm and dropout": TreeLSTM(hidden, hidden, richer=True),
        "with a sort": TreeLSTM(hidden, hidden, sorts=True),
        "the same, backend torch": TreeLSTM(hidden, hidden, sorts=True, backend="torch"),
    }
    took = by_turns({name: lambda m=model: step(m, lambda: m(batch, x=x).h) for name, model in models.items()}, repeat)
    print(f"TreeLSTM, {count} trees, {batch.num_vertices} vertices, hidden {hidden}")
    show(took, "plain")


def step(model: nn.Module, outputs: Callable[[], Tensor]) -> None:
    """A training step without the optimiser's."""
    model.zero_grad()
    outputs().square().mean().backward()


def by_turns(contestants: dict[str, Callable[[], None]], repeat: int) -> dict[str, float]:
    """Medians in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(repeat + 2):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if number >= 2:  # compiled, and memory there
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(each) for name, each in times.items()}


def show(took: dict[str, float], first: str) -> None:
    """A line each, with the ratio to the first."""
    for name, milliseconds in took.items():
        print(f"    {name:28} {milliseconds:8.2f} ms   {milliseconds / took[first]:5.2f}")


if __name__ == "__main__":
    raise SystemExit(main())
