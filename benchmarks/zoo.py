"""Every ready-made vertex function with something to call it with: small graphs of all shapes, fresh random inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import vertexflow as vf

from .workloads.treelstm import BinaryTreeLSTM

TREES = [vf.tree((((0, 1), 2), (3, 4))), vf.tree((0, 1)), vf.tree(((0, 1), ((2, 3), 4))), vf.chain(3), vf.chain(1)]
CHAINS = [vf.chain(5), vf.chain(1), vf.chain(3)]
DAGS = [vf.graph(7, [(0, 2), (1, 2), (0, 3), (2, 3), (2, 4), (3, 5), (4, 5), (0, 5), (5, 6)]), *TREES]
ROUNDS = [vf.unroll((4, [(0, 1), (1, 2), (2, 0), (2, 2), (3, 0), (0, 1)]), 2), vf.unroll((1, []), 2)]
WORDS = [vf.nn.lattice(6, [(0, 1), (1, 3), (2, 3), (3, 5)]), vf.nn.lattice(2, [])]

Make = Callable[[int], tuple[Any, ...]]


@dataclass
class Animal:
    """A model, the batch that it is called with, and the shapes of its inputs; `kinds`: the kind that has an input."""

    model: nn.Module
    graphs: list[vf.InputGraph]
    shapes: dict[str, tuple[int, ...]]
    kinds: dict[str, str] = field(default_factory=dict)

    def inputs(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Fresh inputs, which require grad."""
        batch, tensors = vf.pack(self.graphs), {}
        for name, shape in self.shapes.items():
            rows = len(batch.of_kind(self.kinds[name])) if name in self.kinds else batch.num_vertices
            tensors[name] = torch.randn(rows, *shape, dtype=dtype, requires_grad=True)
        return tensors

    def functions(self) -> list[vf.VertexFunction]:
        """The vertex functions in it, whose backend can be chosen."""
        cell = getattr(self.model, "cell", None)
        return [part for part in [*self.model.modules(), cell] if isinstance(part, vf.VertexFunction)]


ZOO: dict[str, Callable[[int], Animal]] = {
    "README": lambda n: Animal(BinaryTreeLSTM(n, n), TREES, {"x": (n,)}),
    "NaryTreeLSTM": lambda n: Animal(vf.nn.NaryTreeLSTM(n, n, 3), TREES, {"x": (n,)}),
    "ChildSumTreeLSTM": lambda n: Animal(vf.nn.ChildSumTreeLSTM(n, n), DAGS, {"x": (n,)}),
    "TreeGRU": lambda n: Animal(vf.nn.TreeGRU(n, n), TREES, {"x": (n,)}),
    "TreeFC": lambda n: Animal(vf.nn.TreeFC(n), TREES, {"x": (n,)}),
    "LSTM": lambda n: Animal(vf.nn.LSTM(n, n), CHAINS, {"x": (n,)}),
    "GRU": lambda n: Animal(vf.nn.GRU(n, n), CHAINS, {"x": (n,)}),
    "DAGNN": lambda n: Animal(vf.nn.DAGNN(n, n, 1), DAGS, {"x": (n,)}),
    "GGNN": lambda n: Animal(vf.nn.GGNN(n), ROUNDS, {"x": (n,)}, {"x": "start"}),
    "LatticeLSTM": lambda n: Animal(
        vf.nn.LatticeLSTM(n, n, n), WORDS, {"char": (n,), "word": (n,)}, {"char": "char", "word": "word"}
    ),
    "MVRNN": lambda n: Animal(vf.nn.MVRNN(n), TREES, {"x": (n,), "matrix": (n, n)}),
    "RNTN": lambda n: Animal(vf.nn.RNTN(n), TREES, {"x": (n,)}),
}
