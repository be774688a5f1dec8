"""Message passing with gates over graphs that may have cycles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..call.kinds import vertex
from ..function import VertexFunction
from ..graph.symbolic.vertex import Vertex


class GGNN(VertexFunction):
    """Gated graph neural network (Li, Tarlow, Brockschmidt and Zemel, ICLR 2016, arXiv 1511.05493) over `vf.unroll`ed graphs.

    In each round, with the states h_u of the round before and the relation k of each edge from u to v, equations 2 to 6:

        a_v = sum over edges (u, k, v) of A_k h_u + b_k
        z_v = sigmoid(W_z a_v + U_z h_v),    r_v = sigmoid(W_r a_v + U_r h_v)
        n_v = tanh(W a_v + U (r_v ⊙ h_v)),   h_v <- (1 - z_v) ⊙ h_v + z_v ⊙ n_v

    The paper also sends messages against the edges: give these as edges of further relations.

    Inputs:
        x: the states before the first round, `[vertices of all graphs, hidden_size]`.
        relation: if there are several, int64 `[num_edges]`, the number of each edge's, in the order of `batch.edge_index`;
            any other number, such as -1, for the edges that carry a vertex's own state on (`vf.unrolled_edges`).

    Outputs:
        h: the states after each round, `[num_vertices, hidden_size]`; those of the last are `h[batch.roots]`.

    Args:
        hidden_size: columns of x and h.
        num_relations: how many relations edges may have.
        bias: of messages and gates.
        backend: as of `vf.VertexFunction`.

    Example:
        >>> ring = vf.unroll((3, [(0, 1), (1, 2), (2, 0)]), rounds=4)
        >>> batch = vf.pack([ring])
        >>> out = vf.nn.GGNN(8)(batch, x=torch.randn(3, 8))
        >>> out.h[batch.roots].shape
        torch.Size([3, 8])
    """

    relations: Tensor

    def __init__(self, hidden_size: int, num_relations: int = 1, bias: bool = True, *, backend: str = "auto") -> None:
        super().__init__(state={"h": hidden_size, "message": num_relations * hidden_size}, backend=backend)
        self.num_relations = num_relations
        self.message = nn.Linear(hidden_size, num_relations * hidden_size, bias)
        self.w = nn.Linear(hidden_size, 3 * hidden_size, bias)
        self.u_gates = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.u = nn.Linear(hidden_size, hidden_size, bias=False)
        self.register_buffer("relations", torch.arange(num_relations), persistent=False)

    @vertex("start")
    def begin(self, v: Vertex) -> None:
        self._publish(v, v.pull("x"))

    @vertex("round")
    def update(self, v: Vertex) -> None:
        before = v.gather(0)
        a = self._received(v)
        wz, wr, wn = self.w(a).chunk(3, -1)
        uz, ur = self.u_gates(before.h).chunk(2, -1)
        z, r = torch.sigmoid(wz + uz), torch.sigmoid(wr + ur)
        n = torch.tanh(wn + self.u(r * before.h))
        self._publish(v, (1 - z) * before.h + z * n)

    def _publish(self, v: Vertex, h: Tensor) -> None:
        v.scatter(h=h, message=self.message(h))  # here, once a vertex, instead of once an edge
        v.push(h=h)

    def _received(self, v: Vertex) -> Tensor:
        """The sum of the messages of all children but the first, which is the vertex itself."""
        kids = v.children
        if self.num_relations == 1:
            return v.sum(kids.message) - v.gather(0).message
        chosen = (kids.pull("relation")[:, None] == self.relations).to(kids.message.dtype)
        messages = kids.message.reshape(-1, self.num_relations, self.u.in_features)
        return v.sum((messages * chosen[:, :, None]).sum(1))
