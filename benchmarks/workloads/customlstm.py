"""An LSTM with peepholes over sequences of 5 to 60 steps: a cell that no library offers, with the products of an LSTM.

Gers & Schmidhuber, *Recurrent Nets that Time and Count*, 2000: the gates also see the cell, each number its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

import vertexflow as vf

from ..floor import Product
from ..harness import OURS, Case, Contestant, Settings
from .lstm import VARIED

Cell = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class PeepholeLSTM(vf.VertexFunction):
    """A step, from the states before and the projected input; `cell` has its equations."""

    def __init__(self, embed_dim: int, hidden: int) -> None:
        super().__init__(state={"h": hidden, "c": hidden})
        self.w = nn.Linear(embed_dim, 4 * hidden)
        self.u = nn.Linear(hidden, 4 * hidden, bias=False)
        self.peepholes = nn.Parameter(torch.randn(3, hidden) / hidden**0.5)

    def vertex(self, v: vf.Vertex) -> None:
        before = v.gather(0)
        h, c = cell(self.w(v.pull("x")) + self.u(before.h), before.c, self.peepholes)
        v.scatter(h=h, c=c)
        v.push(h=h)


def cell(gates: Tensor, c: Tensor, peepholes: Tensor) -> tuple[Tensor, Tensor]:
    """h and c of a step. Gates [rows, 4 * hidden] are the products; i and f see c as it was, o as it is."""
    i, f, g, o = gates.chunk(4, -1)
    of_i, of_f, of_o = peepholes
    c = torch.sigmoid(f + of_f * c) * c + torch.sigmoid(i + of_i * c) * torch.tanh(g)
    return torch.sigmoid(o + of_o * c) * torch.tanh(c), c


def varied(settings: Settings) -> Case:
    rng = random.Random(settings.seed)
    lengths = [rng.randint(*VARIED) for _ in range(settings.batch)]
    batch = vf.pack([vf.chain(length) for length in lengths]).to(settings.device)
    size, count = settings.hidden, batch.num_vertices
    model = settings.place(PeepholeLSTM(size, size))
    x = settings.randn(count, size)
    sequences = x.split(lengths)
    packed = pack_sequence(sequences, enforce_sorted=False)
    widths = packed.batch_sizes.tolist()
    contestants = [
        Contestant(OURS, lambda: model(batch, x=x).h),
        Contestant("by hand, autograd", lambda: by_hand(model, packed.data, widths, cell), by_graph=True),
        Contestant("per vertex", lambda: per_vertex(model, sequences), every=5),
    ]
    if settings.compile:
        compiled = torch.compile(cell, dynamic=True)
        contestants.append(
            Contestant("by hand, torch.compile", lambda: by_hand(model, packed.data, widths, compiled), by_graph=True)
        )
    inner = count - len(lengths)
    return Case(
        title=f"{settings.batch} sequences of {VARIED[0]} to {VARIED[1]} steps, {count:,} in all",
        model=model,
        contestants=contestants,
        products=[Product(count, size, 4 * size, sends=0), Product(inner, size, 4 * size, sends=inner)],
        kept=6 * count * size,  # h, c, and four gates
    )


def by_hand(model: Any, x: Tensor, widths: Sequence[int], step: Cell) -> Tensor:
    """Longest first and step after step, as in `lstm.by_hand`."""
    hidden = model.u.weight.t()
    first, *projected = model.w(x).split(list(widths))
    h, c = step(first, first.new_zeros(len(first), len(hidden)), model.peepholes)
    outputs = [h]
    for rows in projected:
        h, c = step(torch.addmm(rows, h[: len(rows)], hidden), c[: len(rows)], model.peepholes)
        outputs.append(h)
    return torch.cat(outputs)


def per_vertex(model: Any, sequences: Sequence[Tensor]) -> Tensor:
    """What people write first: plain PyTorch, one step of one sequence at a time."""
    outputs = []
    for sequence in sequences:
        h = c = sequence.new_zeros(model.u.in_features)
        for x in sequence:
            h, c = cell(model.w(x) + model.u(h), c, model.peepholes)
            outputs.append(h)
    return torch.stack(outputs)
