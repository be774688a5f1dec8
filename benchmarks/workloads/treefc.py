"""Tree-FC, the benchmark of Fold and of Cavs: a fully connected layer at every inner vertex of complete binary trees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import vertexflow as vf

from ..floor import Product
from ..graphs import complete_tree
from ..harness import OURS, Case, Contestant, Settings, mean_square
from ..levels import Levels, levels
from ..over_jax import Array, Parameters, contestant
from ..peers import MissingError

LEAVES = 256


def complete_trees(settings: Settings, leaves: int = LEAVES) -> Case:
    batch = vf.pack([vf.tree(complete_tree(leaves))] * settings.batch).to(settings.device)
    size = settings.hidden
    model = settings.place(vf.nn.TreeFC(size))
    x = settings.randn(batch.num_vertices, size)
    by_depth, roots = levels(batch), batch.roots
    by_level = x[by_depth.order[: by_depth.bounds[0][1]]]
    from_left = x[batch.leaves]  # the leaves of a tree are numbered so
    inner = settings.batch * (leaves - 1)
    contestants = [
        Contestant(OURS, lambda: model(batch, x=x, outputs=roots).h),
        Contestant("by hand, reshaped", lambda: reshaped(model, from_left, settings.batch), by_graph=True),
        Contestant("by hand, autograd", lambda: in_levels(model, by_level, by_depth), by_graph=True),
    ]
    skipped = {}
    try:
        contestants.append(
            contestant("JAX, reshaped", model, from_left, lambda *arguments: over_jax(*arguments, settings.batch))
        )
    except MissingError as missing:
        skipped["JAX"] = str(missing)
    return Case(
        title=f"{settings.batch} complete binary trees of {leaves} leaves, {batch.num_vertices:,} vertices",
        model=model,
        contestants=contestants,
        products=[Product(inner, 2 * size, size, sends=inner - settings.batch * leaves // 2)],
        kept=inner * size,  # h
        num_indices=2 * (batch.num_vertices + batch.num_edges),
        estimate=lambda: model.estimate_memory(
            batch, x=x, outputs=roots, loss=lambda out: mean_square(out.h), holds_outputs=False
        ),
        skipped=skipped,
    )


def in_levels(model: Any, x: Tensor, by_depth: Levels) -> Tensor:
    """Levels with a gather of the children, as for trees of any form in which these are on the level below."""
    h = x
    for (start, _), edges in zip(by_depth.bounds[1:], by_depth.edges[1:], strict=True):
        child = by_depth.child[slice(*edges)] - (start - len(h))
        h = torch.relu(model.fc(h.index_select(0, child).view(-1, 2 * x.shape[1])))
    return h


def reshaped(model: Any, x: Tensor, trees: int) -> Tensor:
    """What can be done for complete trees alone: neighbours are the children of one vertex, and nothing is gathered."""
    h = x
    while len(h) > trees:
        h = torch.relu(model.fc(h.view(len(h) // 2, -1)))
    return h


def over_jax(jax: Any, parameters: Parameters, x: Array, trees: int) -> Array:
    """`reshaped`, compiled for trees of this size."""
    h = x
    while len(h) > trees:
        h = jax.nn.relu(h.reshape(len(h) // 2, -1) @ parameters["fc.weight"].T + parameters["fc.bias"])
    return h
