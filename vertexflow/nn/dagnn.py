"""DAG neural network: attention over predecessors, and a GRU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..call.backward_hooks import ReturnsOutputs
from ..call.on_ranks import OnRanks
from ..call.outputs import Outputs
from ..call.selection import Wanted, selection_of
from ..errors import InputError
from ..function import VertexFunction
from ..graph import segments
from ..graph.inputs.build import InputGraph
from ..graph.inputs.pack import GraphBatch, pack
from ..graph.symbolic.vertex import Vertex
from ..graph.uncompiled import uncompiled


class DAGNN(ReturnsOutputs):
    """Directed acyclic graph neural network (Thost and Chen, ICLR 2021, arXiv 2101.07965, section 2).

    Attention, message and update of vertex v in layer l = 1 .. L, with h_v^0 = x_v, over its children u, the predecessors
    of the paper:

        a_vu  = softmax_u(w_1 · h_v^{l-1} + w_2 · h_u^l)
        m_v   = Σ_u a_vu h_u^l                             zero without children
        h_v^l = GRU(h_v^{l-1}, m_v)                        the input, and in the place of the state before

    The term of w_1 is the same for all u, and so the softmax does not depend on it: it is left out here. The GRU's
    equations are those of `vf.nn.GRU`. Every layer has parameters of its own, and so have, with `bidirectional`, those that
    do the same against the edges, from h~_v^0 = x_v on. The readout of a graph, over its roots v, which no vertex consumes,
    and its leaves u, which have no children, is

        h_G = W [max_v [h_v^0, .., h_v^L], max_u [h~_u^0, .., h~_u^L]] + b

    of which, in one direction, the second half is missing.

    Args:
        input_size: columns of `x`.
        hidden_size: columns of h in every layer.
        num_layers: L.
        bidirectional: run along the edges and against them.
        output_size: columns of the readout; if left out, there is none.
        backend: as of `vf.VertexFunction`.

    Example:
        >>> model = vf.nn.DAGNN(8, 16, bidirectional=True, output_size=3)
        >>> batch = vf.pack([vf.graph(4, [(0, 1), (0, 2), (1, 3), (2, 3)]), vf.chain(3)])
        >>> out = model(batch, torch.randn(batch.num_vertices, 8))
        >>> out.h.shape, out.readout.shape
        (torch.Size([7, 32]), torch.Size([2, 3]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 2,
        bidirectional: bool = False,
        output_size: int | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if not isinstance(num_layers, int) or num_layers < 1:
            raise InputError(f"num_layers is {num_layers!r}; give the number of layers, 1 or more")
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        sizes = [input_size] + [hidden_size] * (num_layers - 1)
        directions = 2 if bidirectional else 1
        self.layers = nn.ModuleList(DAGNNLayer(size, hidden_size, backend) for size in sizes * directions)
        pooled = directions * (input_size + num_layers * hidden_size)
        self.linear = None if output_size is None else nn.Linear(pooled, output_size)

    @uncompiled
    def forward(
        self, graphs: GraphBatch | Sequence[InputGraph], x: Tensor, *, outputs: Wanted | None = None
    ) -> Outputs:
        """Run over a batch of DAGs.

        Args:
            graphs: a `GraphBatch`, or a list of input graphs.
            x: `[num_vertices, input_size]`, rows in the batch's own vertex order.
            outputs: the vertices whose `h` is wanted, as of any `vf.VertexFunction`; the readout stays that of whole graphs.

        Returns:
            `Outputs` with `h`, the last layer's states, `[num_vertices, D * hidden_size]` in that order, or a row for each of
            `outputs` (D is 2 for both directions, else 1; along the edges, then against them), and, if there is an
            `output_size`, `readout`, `[num_graphs, output_size]`.

        Raises:
            as a call of any `vf.VertexFunction`.
        """
        batch: Any = graphs if isinstance(graphs, (GraphBatch, OnRanks)) else pack(graphs)
        if isinstance(batch, OnRanks) and self.linear is not None:
            raise InputError(
                "the readout of a graph reads vertices that are on several ranks; make the model without output_size, and read "
                "out.h[part.roots]"
            )
        selection = None if outputs is None else selection_of(batch, outputs)
        if selection is not None:
            selection.check_names({"h": False})
        last, pooled = [], []
        for direction, ends in enumerate((batch.roots, batch.leaves) if self.bidirectional else (batch.roots,)):
            states = [x]
            for layer in range(self.num_layers):
                states.append(self._run(batch, states[-1], layer, direction))
            last.append(states[-1])
            if self.linear is not None:
                at_ends = torch.cat([state[ends] for state in states], -1)
                counts = torch.bincount(batch.graph_of_vertex[ends], minlength=len(batch)).to(x.device)
                pooled.append(segments.segment_max(at_ends, counts))
        out = Outputs(h=torch.cat(last, -1) if self.bidirectional else last[0])  # of one, a copy
        if selection is not None:
            out = Outputs(selection.of_all(out, {"h": None}))
        if self.linear is not None:
            out.readout = self.linear(torch.cat(pooled, -1))
        return out

    def _run(self, batch: Any, x: Tensor, layer: int, direction: int) -> Tensor:
        """Run the first layer with the weights of this one, so that layers of one size share a trace."""
        weights: dict[str, Tensor] = dict(self.layers[direction * self.num_layers + layer].named_parameters())
        arguments = {"x": x, "reverse": direction == 1}
        h: Tensor = torch.func.functional_call(self.layers[0], weights, (batch,), arguments).h
        return h


class DAGNNLayer(VertexFunction):
    """One layer in one direction; pulls `x`, pushes `h`."""

    def __init__(self, input_size: int, hidden_size: int, backend: str) -> None:
        super().__init__(state={"h": hidden_size, "score": 1}, backend=backend)
        self.gru = nn.GRUCell(input_size, hidden_size)
        self.attention = nn.Linear(hidden_size, 1, bias=False)

    def vertex(self, v: Vertex) -> None:
        kids = v.children
        message = v.sum(v.softmax(kids.score) * kids.h)
        xr, xz, xn = linear(v.pull("x"), self.gru.weight_ih, self.gru.bias_ih).chunk(3, -1)
        mr, mz, mn = linear(message, self.gru.weight_hh, self.gru.bias_hh).chunk(3, -1)
        n = torch.tanh(xn + torch.sigmoid(xr + mr) * mn)
        h = n + torch.sigmoid(xz + mz) * (message - n)
        v.scatter(h=h, score=self.attention(h))  # here, once a vertex, instead of once an edge
        v.push(h=h)
