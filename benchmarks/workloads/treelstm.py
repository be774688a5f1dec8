"""A binary TreeLSTM: random trees of 5 to 35 leaves, or those of the Stanford Sentiment Treebank."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import vertexflow as vf

from ..floor import Product
from ..graphs import random_tree
from ..harness import OURS, Case, Contestant, Settings, mean_square
from ..levels import Generations, Levels, children_of, generations, levels
from ..over_jax import Array, Parameters, contestant
from ..peers import MissingError, dgl_graph, import_dgl

LEAVES = (5, 35)
Node = Callable[[nn.Module, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


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


def random_trees(settings: Settings) -> Case:
    rng = random.Random(settings.seed)
    trees = [vf.tree(random_tree(rng, rng.randint(*LEAVES))) for _ in range(settings.batch)]
    return _case(settings, trees, f"random binary trees of {LEAVES[0]} to {LEAVES[1]} leaves")


def sst(settings: Settings) -> Case:
    assert settings.data is not None
    treebank = vf.from_ptb(settings.data / "sst" / "train.txt", num_labels=5)
    trees = random.Random(settings.seed).choices(treebank, k=settings.batch)
    return _case(settings, trees, "trees of the Stanford Sentiment Treebank")


def _case(settings: Settings, trees: list[vf.InputGraph], what: str) -> Case:
    batch = vf.pack(trees).to(settings.device)
    size = settings.hidden
    model = settings.place(BinaryTreeLSTM(size, size))
    x = settings.randn(batch.num_vertices, size)
    by_depth, by_generation = levels(batch), generations(batch)
    x_by_depth, x_by_generation = x[by_depth.order], x[by_generation.order]
    children, roots = children_of(batch), batch.roots
    by_hand = HandWritten(model, x_by_depth, by_depth)
    contestants = [
        Contestant(OURS, lambda: model(batch, x=x, outputs=roots).h),
        Contestant("by hand, with its derivative", by_hand.forward, by_hand.train, by_graph=True),
        Contestant(
            "by hand, autograd", lambda: in_generations(model, x_by_generation, by_generation, node), by_graph=True
        ),
        Contestant("per vertex", lambda: per_vertex(model, x, children, roots), every=5),
    ]
    skipped = {}
    if settings.compile:
        compiled = torch.compile(node, dynamic=True)
        name = "by hand, torch.compile"
        contestants.append(Contestant(name, lambda: in_generations(model, x_by_generation, by_generation, compiled)))
    try:
        contestants.append(Contestant("DGL", dgl(model, x, batch)))
    except MissingError as missing:
        skipped["DGL"] = str(missing)
    try:
        contestants.append(
            contestant("JAX, levels", model, x_by_generation, lambda *arguments: over_jax(*arguments, by_generation))
        )
    except MissingError as missing:
        skipped["JAX"] = str(missing)
    count, inner = batch.num_vertices, batch.num_vertices - by_generation.num_leaves
    return Case(
        title=f"{settings.batch} {what}, {count:,} vertices in {vf.schedule(batch).num_steps} steps",
        model=model,
        contestants=contestants,
        products=[Product(count, size, 3 * size, sends=0), Product(inner, 2 * size, 5 * size, sends=inner)],
        kept=size * (5 * count + 2 * inner),  # h, c, i, o, u; two f
        num_indices=2 * (batch.num_vertices + batch.num_edges),
        estimate=lambda: model.estimate_memory(
            batch, x=x, outputs=roots, loss=lambda out: mean_square(out.h), holds_outputs=False
        ),
        skipped=skipped,
    )


def per_vertex(model: Any, x: Tensor, children: list[list[int]], roots: Tensor) -> Tensor:
    """What people write first: plain PyTorch, one vertex at a time; a vertex without children skips U."""
    h: list[Tensor] = []
    c: list[Tensor] = []
    for vertex, kids in enumerate(children):  # which have smaller numbers than their parents
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


def node(u: nn.Module, projected: Tensor, kids_h: Tensor, kids_c: Tensor) -> tuple[Tensor, Tensor]:
    """h and c of inner vertices; the children's are side by side."""
    i, o, u_, fl, fr = u(kids_h).chunk(5, -1)
    xi, xo, xu = projected.chunk(3, -1)
    left, right = kids_c.chunk(2, -1)
    c = torch.sigmoid(i + xi) * torch.tanh(u_ + xu) + torch.sigmoid(fl) * left + torch.sigmoid(fr) * right
    return torch.sigmoid(o + xo) * torch.tanh(c), c


def in_generations(model: Any, x: Tensor, by_generation: Generations, node: Node) -> Tensor:
    """Batched by distance from the root, so that the children of a level are the one before it and nothing is searched.

    One projection of all inputs, all leaves at once and without U, and splits, whose gradients are joined once.
    """
    projected = model.w(x)
    of_leaves, *of_inner = projected.split(
        [by_generation.num_leaves, *(level.inner for level in by_generation.young_first)]
    )
    xi, xo, xu = of_leaves.chunk(3, -1)
    leaf_c = torch.sigmoid(xi) * torch.tanh(xu)
    leaf_h = torch.sigmoid(xo) * torch.tanh(leaf_c)
    sizes = [level.leaves for level in by_generation.young_first]
    h, c = x[:0], x[:0]
    for level, below, h_, c_ in zip(
        by_generation.young_first, of_inner, leaf_h.split(sizes), leaf_c.split(sizes), strict=True
    ):
        if len(below):
            inner_h, inner_c = node(model.u, below, h.view(len(below), -1), c.view(len(below), -1))
            h_ = torch.cat([inner_h, h_]).index_select(0, level.place)
            c_ = torch.cat([inner_c, c_]).index_select(0, level.place)
        h, c = h_, c_
    return h


class HandWritten:
    """Levels by depth, with the derivative written out: buffers for everything, and one product for each weight.

    The most that a careful author does for this one model.
    """

    def __init__(self, model: Any, x: Tensor, by_depth: Levels) -> None:
        self.model, self.x, self.by_depth = model, x, by_depth

    def forward(self) -> Tensor:
        return self._forward()[0]

    @torch.no_grad()
    def _forward(self) -> tuple[Tensor, ...]:
        model, x, by_depth = self.model, self.x, self.by_depth
        count, hidden, leaves = len(x), model.state["h"][0], by_depth.bounds[0][1]
        projected = torch.addmm(model.w.bias, x, model.w.weight.t())
        h, c, tanh_c = (x.new_empty(count, hidden) for _ in range(3))
        gates = x.new_empty(count, 5 * hidden)  # i, o, u, left f, right f
        kids, kids_c = (x.new_empty(count - leaves, 2 * hidden) for _ in range(2))
        i, o, u, fl, fr = gates.chunk(5, -1)
        for (start, stop), edges in zip(by_depth.bounds, by_depth.edges, strict=True):
            step, at = slice(start, stop), slice(start - leaves, stop - leaves)
            if start:
                child = by_depth.child[slice(*edges)]
                torch.index_select(h, 0, child, out=kids[at].view(-1, hidden))
                torch.index_select(c, 0, child, out=kids_c[at].view(-1, hidden))
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
        return h.index_select(0, by_depth.roots), tanh_c, gates, kids, kids_c

    @torch.no_grad()
    def train(self) -> Tensor:
        model, by_depth = self.model, self.by_depth
        out, tanh_c, gates, kids, kids_c = self._forward()
        sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
        hidden, leaves = tanh_c.shape[1], by_depth.bounds[0][1]
        i, o, u, _, _ = gates.chunk(5, -1)
        dh, dc = torch.empty_like(tanh_c), torch.zeros_like(tanh_c)
        dh[by_depth.roots] = out * (2 / out.numel())
        dgates = torch.empty_like(gates)
        di, do, du, _, _ = dgates.chunk(5, -1)
        forget, dforget = (t[:, 3 * hidden :].unflatten(1, (2, hidden)) for t in (gates, dgates))
        for (start, stop), edges in zip(reversed(by_depth.bounds), reversed(by_depth.edges), strict=True):
            step, at = slice(start, stop), slice(start - leaves, stop - leaves)
            dc[step] += tanh_backward(dh[step] * o[step], tanh_c[step])
            sigmoid_backward(dh[step] * tanh_c[step], o[step], grad_input=do[step])
            sigmoid_backward(dc[step] * u[step], i[step], grad_input=di[step])
            tanh_backward(dc[step] * i[step], u[step], grad_input=du[step])
            if start:
                above = dc[step].unsqueeze(1)
                dforget[step] = sigmoid_backward(above * kids_c[at].unflatten(1, (2, hidden)), forget[step])
                child = by_depth.child[slice(*edges)]
                dh.index_copy_(0, child, (dgates[step] @ model.u.weight).view(-1, hidden))
                dc.index_copy_(0, child, (above * forget[step]).view(-1, hidden))
        model.u.weight.grad = dgates[leaves:].t() @ kids
        model.w.weight.grad = dgates[:, : 3 * hidden].t() @ self.x
        model.w.bias.grad = dgates[:, : 3 * hidden].sum(0)
        return out


def dgl(model: Any, x: Tensor, batch: vf.GraphBatch) -> Callable[[], Tensor]:
    """Message passing along the topological order; leaves are computed at once, without U, and the order found once.

    Raises:
        MissingError: there is no DGL.
    """
    library = import_dgl()
    graph, roots = dgl_graph(library, batch), batch.roots
    leaves, *fronts = library.topological_nodes_generator(graph)

    def send(edges: Any) -> dict[str, Tensor]:
        return {"h": edges.src["h"], "c": edges.src["c"]}

    def receive(nodes: Any) -> dict[str, Tensor]:
        mailbox = nodes.mailbox
        h, c = node(model.u, nodes.data["x"], mailbox["h"].flatten(1), mailbox["c"].flatten(1))
        return {"h": h, "c": c}

    def forward() -> Tensor:
        with graph.local_scope():
            graph.ndata["x"] = projected = model.w(x)
            xi, xo, xu = projected.index_select(0, leaves).chunk(3, -1)
            c = torch.sigmoid(xi) * torch.tanh(xu)
            h = torch.sigmoid(xo) * torch.tanh(c)
            zeros = x.new_zeros(len(x), h.shape[1])
            graph.ndata["h"], graph.ndata["c"] = zeros.index_copy(0, leaves, h), zeros.index_copy(0, leaves, c)
            graph.prop_nodes(fronts, send, receive)
            return graph.ndata["h"][roots]

    return forward


def over_jax(jax: Any, parameters: Parameters, x: Array, by_generation: Generations) -> Array:
    """`in_generations`: the levels of this batch, unrolled, and compiled for it alone."""
    sigmoid, tanh, numpy = jax.nn.sigmoid, jax.numpy.tanh, jax.numpy
    projected = x @ parameters["w.weight"].T + parameters["w.bias"]
    xi, xo, xu = numpy.split(projected[: by_generation.num_leaves], 3, -1)
    leaf_c = sigmoid(xi) * tanh(xu)
    leaf_h = sigmoid(xo) * tanh(leaf_c)
    h, c = leaf_h[:0], leaf_c[:0]
    leaves, inner = 0, by_generation.num_leaves
    for level in by_generation.young_first:
        h_, c_ = (values[leaves : leaves + level.leaves] for values in (leaf_h, leaf_c))
        if level.inner:
            i, o, u, fl, fr = numpy.split(h.reshape(level.inner, -1) @ parameters["u.weight"].T, 5, -1)
            xi, xo, xu = numpy.split(projected[inner : inner + level.inner], 3, -1)
            left, right = numpy.split(c.reshape(level.inner, -1), 2, -1)
            inner_c = sigmoid(i + xi) * tanh(u + xu) + sigmoid(fl) * left + sigmoid(fr) * right
            inner_h = sigmoid(o + xo) * tanh(inner_c)
            place = level.place.numpy()
            h_, c_ = numpy.concatenate([inner_h, h_])[place], numpy.concatenate([inner_c, c_])[place]
        h, c = h_, c_
        leaves, inner = leaves + level.leaves, inner + level.inner
    return h
