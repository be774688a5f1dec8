"""A child-sum TreeLSTM over dependency trees: random ones of 5 to 35 words, or those of UD English EWT."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import vertexflow as vf

from ..floor import Product
from ..graphs import random_dependencies
from ..harness import OURS, Case, Contestant, Settings, mean_square
from ..levels import Generations, generations
from ..over_jax import Array, Parameters, contestant
from ..peers import MissingError, dgl_graph, import_dgl

WORDS = (5, 35)


def random_trees(settings: Settings) -> Case:
    rng = random.Random(settings.seed)
    trees = [random_dependencies(rng, rng.randint(*WORDS)) for _ in range(settings.batch)]
    return _case(settings, trees, f"random dependency trees of {WORDS[0]} to {WORDS[1]} words")


def ud_english(settings: Settings) -> Case:
    assert settings.data is not None
    treebank = vf.from_conllu(settings.data / "ud_english_ewt" / "en_ewt-ud-dev.conllu")
    trees = random.Random(settings.seed).choices(treebank, k=settings.batch)
    return _case(settings, trees, "dependency trees of UD English EWT")


def _case(settings: Settings, trees: list[vf.InputGraph], what: str) -> Case:
    batch = vf.pack(trees).to(settings.device)
    size, count = settings.hidden, batch.num_vertices
    model = settings.place(vf.nn.ChildSumTreeLSTM(size, size))
    x = settings.randn(count, size)
    by_generation, roots = generations(batch), batch.roots
    ordered = x[by_generation.order]
    contestants = [
        Contestant(OURS, lambda: model(batch, x=x, outputs=roots).h),
        Contestant("by hand, autograd", lambda: by_hand(model, ordered, by_generation), by_graph=True),
    ]
    skipped = {}
    try:
        contestants.append(Contestant("DGL", dgl(model, x, batch)))
    except MissingError as missing:
        skipped["DGL"] = str(missing)
    try:
        contestants.append(
            contestant("JAX, levels", model, ordered, lambda *arguments: over_jax(*arguments, by_generation))
        )
    except MissingError as missing:
        skipped["JAX"] = str(missing)
    inner, edges = count - by_generation.num_leaves, batch.num_edges
    return Case(
        title=f"{settings.batch} {what}, {count:,} vertices in {vf.schedule(batch).num_steps} steps",
        model=model,
        contestants=contestants,
        products=[
            Product(count, size, 3 * size, sends=0),
            Product(inner, size, size, sends=0),  # leaves forget nothing
            Product(inner, size, 3 * size, sends=inner),
            Product(edges, size, size, sends=edges),
        ],
        kept=size * (5 * count + edges),  # h, c, i, o, u; f
        num_indices=2 * (batch.num_vertices + batch.num_edges),
        estimate=lambda: model.estimate_memory(
            batch, x=x, outputs=roots, loss=lambda out: mean_square(out.h), holds_outputs=False
        ),
        skipped=skipped,
    )


def leaf(projected: Tensor) -> tuple[Tensor, Tensor]:
    """h and c without children."""
    i, o, u, _ = projected.chunk(4, -1)
    c = torch.sigmoid(i) * torch.tanh(u)
    return torch.sigmoid(o) * torch.tanh(c), c


def node(model: Any, projected: Tensor, sums: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """h and c from the sums over children of h and of f ⊙ c."""
    i, o, u = (projected[:, : sums.shape[1] * 3] + model.u(sums)).chunk(3, -1)
    c = torch.sigmoid(i) * torch.tanh(u) + kept
    return torch.sigmoid(o) * torch.tanh(c), c


def by_hand(model: Any, x: Tensor, by_generation: Generations) -> Tensor:
    """Batched by distance from the root: the children of a level, in their order, are all of the level before it."""
    projected = model.w(x)
    of_leaves, *of_inner = projected.split(
        [by_generation.num_leaves, *(level.inner for level in by_generation.young_first)]
    )
    sizes = [level.leaves for level in by_generation.young_first]
    leaf_h, leaf_c = (values.split(sizes) for values in leaf(of_leaves))
    h, c = x[:0], x[:0]
    parent = by_generation.young_first[0].parent
    for level, below, h_, c_ in zip(by_generation.young_first, of_inner, leaf_h, leaf_c, strict=True):
        if len(below):
            forget = torch.sigmoid(below[:, 3 * x.shape[1] :].index_select(0, parent) + model.uf(h))
            zeros = x.new_zeros(len(below), h.shape[1])
            sums, kept = zeros.index_add(0, parent, h), zeros.index_add(0, parent, forget * c)
            inner_h, inner_c = node(model, below, sums, kept)
            h_ = torch.cat([inner_h, h_]).index_select(0, level.place)
            c_ = torch.cat([inner_c, c_]).index_select(0, level.place)
        h, c, parent = h_, c_, level.parent
    return h


def dgl(model: Any, x: Tensor, batch: vf.GraphBatch) -> Callable[[], Tensor]:
    """Message passing along the topological order; both sums over children are one built-in sum of DGL.

    Raises:
        MissingError: there is no DGL.
    """
    library = import_dgl()
    graph, roots = dgl_graph(library, batch), batch.roots
    leaves, *fronts = library.topological_nodes_generator(graph)

    def send(edges: Any) -> dict[str, Tensor]:
        h, c = edges.src["h"], edges.src["c"]
        forget = torch.sigmoid(edges.dst["x"][:, 3 * h.shape[1] :] + model.uf(h))
        return {"message": torch.cat([h, forget * c], -1)}

    def update(nodes: Any) -> dict[str, Tensor]:
        h, c = node(model, nodes.data["x"], *nodes.data["sums"].chunk(2, -1))
        return {"h": h, "c": c}

    def forward() -> Tensor:
        with graph.local_scope():
            graph.ndata["x"] = projected = model.w(x)
            h, c = leaf(projected.index_select(0, leaves))
            zeros = x.new_zeros(len(x), h.shape[1])
            graph.ndata["h"], graph.ndata["c"] = zeros.index_copy(0, leaves, h), zeros.index_copy(0, leaves, c)
            graph.prop_nodes(fronts, send, library.function.sum("message", "sums"), update)
            return graph.ndata["h"][roots]

    return forward


def over_jax(jax: Any, parameters: Parameters, x: Array, by_generation: Generations) -> Array:
    """`by_hand`: the levels of this batch, unrolled, and compiled for it alone."""
    sigmoid, tanh, numpy, size = jax.nn.sigmoid, jax.numpy.tanh, jax.numpy, x.shape[1]
    projected = x @ parameters["w.weight"].T + parameters["w.bias"]
    i, o, u, _ = numpy.split(projected[: by_generation.num_leaves], 4, -1)
    leaf_c = sigmoid(i) * tanh(u)
    leaf_h = sigmoid(o) * tanh(leaf_c)
    h, c, parent = leaf_h[:0], leaf_c[:0], by_generation.young_first[0].parent.numpy()
    leaves, inner = 0, by_generation.num_leaves
    for level in by_generation.young_first:
        h_, c_ = (values[leaves : leaves + level.leaves] for values in (leaf_h, leaf_c))
        if level.inner:
            below = projected[inner : inner + level.inner]
            forget = sigmoid(below[parent, 3 * size :] + h @ parameters["uf.weight"].T)
            sums, kept = (
                jax.ops.segment_sum(values, parent, level.inner, indices_are_sorted=True) for values in (h, forget * c)
            )
            i, o, u = numpy.split(below[:, : 3 * size] + sums @ parameters["u.weight"].T, 3, -1)
            inner_c = sigmoid(i) * tanh(u) + kept
            inner_h = sigmoid(o) * tanh(inner_c)
            place = level.place.numpy()
            h_, c_ = numpy.concatenate([inner_h, h_])[place], numpy.concatenate([inner_c, c_])[place]
        h, c, parent = h_, c_, level.parent.numpy()
        leaves, inner = leaves + level.leaves, inner + level.inner
    return h
