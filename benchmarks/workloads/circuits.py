"""A DAG neural network over logic circuits: random ones, or cones of those of EPFL. Every gate reads two vertices."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

import vertexflow as vf
from examples.circuits.circuit import cone
from examples.circuits.data import read_folder

from ..floor import Product
from ..graphs import random_circuit
from ..harness import OURS, Case, Contestant, Settings, mean_square
from ..levels import Levels, levels
from ..over_jax import Array, Parameters, contestant
from ..peers import MissingError, import_pyg

GATES = (20, 300)


def random_dags(settings: Settings) -> Case:
    rng = random.Random(settings.seed)
    graphs = [random_circuit(rng, rng.randint(8, 32), rng.randint(*GATES)) for _ in range(settings.batch)]
    return _case(settings, graphs, f"random circuits of {GATES[0]} to {GATES[1]} gates")


def epfl(settings: Settings) -> Case:
    assert settings.data is not None
    rng = random.Random(settings.seed)
    whole = list(read_folder(settings.data).values())
    graphs = []
    for _ in range(settings.batch):
        circuit = rng.choice(whole)
        cut = cone(circuit, rng.randrange(len(circuit)), rng.randint(*GATES))
        parents = np.repeat(len(cut.source) + np.arange(len(cut)), 2)
        graphs.append(vf.graph(cut.graph.num_vertices, np.stack([cut.operands.ravel(), parents])))  # without kinds
    return _case(settings, graphs, f"cones of up to {GATES[1]} gates from the circuits of EPFL")


def _case(settings: Settings, graphs: list[vf.InputGraph], what: str) -> Case:
    batch = vf.pack(graphs).to(settings.device)
    size, count = settings.hidden, batch.num_vertices
    model = settings.place(vf.nn.DAGNN(size, size, num_layers=1))
    layer = model.layers[0]
    x = settings.randn(count, size)
    by_depth = levels(batch)
    ordered = x[by_depth.order]
    tapes = Tapes(layer, ordered, by_depth)
    contestants = [
        Contestant(OURS, lambda: model(batch, x).h),
        Contestant("by hand, a tape a level", tapes.forward, tapes.train),
        Contestant("by hand, autograd", lambda: in_levels(layer, ordered, by_depth), by_graph=True),
    ]
    skipped = {}
    try:
        contestants.append(Contestant("PyTorch Geometric", message_passing(layer, ordered, by_depth)))
    except MissingError as missing:
        skipped["PyTorch Geometric"] = str(missing)
    try:
        contestants.append(contestant("JAX, levels", layer, ordered, lambda *arguments: over_jax(*arguments, by_depth)))
    except MissingError as missing:
        skipped["JAX"] = str(missing)
    inner, edges = count - by_depth.bounds[0][1], batch.num_edges
    read = len(by_depth.child.unique())
    return Case(
        title=f"{settings.batch} {what}, {count:,} vertices in {vf.schedule(batch).num_steps} steps",
        model=model,
        contestants=contestants,
        products=[
            Product(count, size, 3 * size, sends=0),
            Product(inner, size, 3 * size, sends=inner),
            Product(read, size, 1, sends=read),
        ],
        kept=size * (5 * count + inner) + edges,  # h, r, z, n, what r is multiplied with; messages; attention
        num_indices=2 * (batch.num_vertices + batch.num_edges),
        estimate=lambda: layer.estimate_memory(batch, x=x, loss=lambda out: mean_square(out.h), holds_outputs=False),
        skipped=skipped,
    )


def source(layer: Any, projected: Tensor) -> Tensor:
    """h of what reads nothing."""
    return update(layer, projected, layer.gru.bias_hh.expand_as(projected), projected.new_zeros(()))


def update(layer: Any, projected: Tensor, recurrent: Tensor, message: Tensor) -> Tensor:
    """A GRU with the message in the place of the state before."""
    xr, xz, xn = projected.chunk(3, -1)
    mr, mz, mn = recurrent.chunk(3, -1)
    n = torch.tanh(xn + torch.sigmoid(xr + mr) * mn)
    return n + torch.sigmoid(xz + mz) * (message - n)


def gate(layer: Any, projected: Tensor, kids: Tensor) -> Tensor:
    """h of gates from those of their two operands, one after the other: attention is a softmax over two columns."""
    share = layer.attention(kids).view(-1, 2).softmax(1)
    message = torch.bmm(share.unsqueeze(1), kids.view(len(projected), 2, -1)).squeeze(1)
    return update(layer, projected, linear(message, layer.gru.weight_hh, layer.gru.bias_hh), message)


def in_levels(layer: Any, x: Tensor, by_depth: Levels) -> Tensor:
    """Levels by depth, with autograd: operands are gathered from all levels before."""
    sizes = [stop - start for start, stop in by_depth.bounds]
    first, *projected = linear(x, layer.gru.weight_ih, layer.gru.bias_ih).split(sizes)
    h = source(layer, first)
    for rows, edges in zip(projected, by_depth.edges[1:], strict=True):
        h = torch.cat([h, gate(layer, rows, h.index_select(0, by_depth.child[slice(*edges)]))])
    return h


class Tapes:
    """Levels by depth, where each is differentiated by itself: what goes from one level to another is passed by hand.

    All of autograd's copies of h are gone, and gradients of h are added to one buffer in place.
    """

    def __init__(self, layer: Any, x: Tensor, by_depth: Levels) -> None:
        self.layer, self.x, self.by_depth = layer, x, by_depth

    @torch.no_grad()
    def forward(self) -> Tensor:
        layer, by_depth = self.layer, self.by_depth
        projected = linear(self.x, layer.gru.weight_ih, layer.gru.bias_ih)
        h = self.x.new_empty(len(self.x), layer.gru.hidden_size)
        for (start, stop), edges in zip(by_depth.bounds, by_depth.edges, strict=True):
            rows = projected[start:stop]
            kids = h.index_select(0, by_depth.child[slice(*edges)])
            h[start:stop] = gate(layer, rows, kids) if start else source(layer, rows)
        return h

    def train(self) -> Tensor:
        layer, by_depth = self.layer, self.by_depth
        joined = linear(self.x, layer.gru.weight_ih, layer.gru.bias_ih)
        projected = joined.detach()
        h, tapes = self.x.new_empty(len(self.x), layer.gru.hidden_size), []
        for (start, stop), edges in zip(by_depth.bounds, by_depth.edges, strict=True):
            rows = projected[start:stop].requires_grad_()
            kids = h.index_select(0, by_depth.child[slice(*edges)]).requires_grad_()
            out = gate(layer, rows, kids) if start else source(layer, rows)
            h[start:stop] = out.detach()
            tapes.append((rows, kids, out))
        dh, dprojected = h * (2 / h.numel()), torch.empty_like(projected)
        for (start, stop), edges in zip(reversed(by_depth.bounds), reversed(by_depth.edges), strict=True):
            rows, kids, out = tapes.pop()
            out.backward(dh[start:stop])
            dprojected[start:stop] = rows.grad
            if start:
                dh.index_add_(0, by_depth.child[slice(*edges)], kids.grad)
        joined.backward(dprojected)
        return h


def message_passing(layer: Any, x: Tensor, by_depth: Levels) -> Callable[[], Tensor]:
    """`MessagePassing` from all levels before to the next one, with a softmax over the edges to each gate.

    Raises:
        MissingError: there is no PyTorch Geometric.
    """
    library = import_pyg()
    softmax = library.utils.softmax

    class Attention(library.nn.MessagePassing):  # type: ignore[name-defined, misc]
        def forward(self, h: Tensor, score: Tensor, index: Tensor, rows: int) -> Tensor:
            return self.propagate(index, h=(h, None), score=(score, None), size=(len(h), rows))

        def message(self, h_j: Tensor, score_j: Tensor, index: Tensor, size_i: int) -> Tensor:
            return softmax(score_j, index, num_nodes=size_i) * h_j

    attention = Attention(aggr="sum")
    sizes = [stop - start for start, stop in by_depth.bounds]
    edges = [
        torch.stack([by_depth.child[begin:end], by_depth.parent[begin:end] - start])
        for (start, _), (begin, end) in zip(by_depth.bounds[1:], by_depth.edges[1:], strict=True)
    ]

    def forward() -> Tensor:
        first, *projected = linear(x, layer.gru.weight_ih, layer.gru.bias_ih).split(sizes)
        h = source(layer, first)
        score = layer.attention(h)
        for rows, index in zip(projected, edges, strict=True):
            message = attention(h, score, index, len(rows))
            new = update(layer, rows, linear(message, layer.gru.weight_hh, layer.gru.bias_hh), message)
            h, score = torch.cat([h, new]), torch.cat([score, layer.attention(new)])
        return h

    return forward


def over_jax(jax: Any, parameters: Parameters, x: Array, by_depth: Levels) -> Array:
    """`in_levels`: the levels of this batch, unrolled, and compiled for it alone; states of all levels in one array."""
    numpy, sigmoid = jax.numpy, jax.nn.sigmoid
    weight, bias = parameters["gru.weight_hh"].T, parameters["gru.bias_hh"]
    projected = x @ parameters["gru.weight_ih"].T + parameters["gru.bias_ih"]
    h = numpy.zeros((len(x), len(weight)), x.dtype)
    for (start, stop), edges in zip(by_depth.bounds, by_depth.edges, strict=True):
        if start:
            kids = h[by_depth.child[slice(*edges)].numpy()]
            scores = (kids @ parameters["attention.weight"].T).reshape(-1, 2)
            message = (jax.nn.softmax(scores, 1)[:, :, None] * kids.reshape(stop - start, 2, -1)).sum(1)
        else:
            message = numpy.zeros((stop, len(weight)), x.dtype)
        xr, xz, xn = numpy.split(projected[start:stop], 3, -1)
        mr, mz, mn = numpy.split(
            message @ weight + bias if start else numpy.broadcast_to(bias, (stop, len(bias))), 3, -1
        )
        n = numpy.tanh(xn + sigmoid(xr + mr) * mn)
        h = h.at[start:stop].set(n + sigmoid(xz + mz) * (message - n))
    return h
