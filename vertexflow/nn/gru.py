"""GRU over sequences of any length, without padding."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from ..graph.symbolic.vertex import Vertex
from .rnn import Cell, ChainRNN


class GRU(ChainRNN):
    """Gated recurrent units (Cho et al. 2014, arXiv 1406.1078) with the equations and parameters of `torch.nn.GRU`.

    Of step t in a layer, with the outputs x_t of the layer below (the inputs, for the first):

        r_t = sigmoid(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr)
        z_t = sigmoid(W_iz x_t + b_iz + W_hz h_{t-1} + b_hz)
        n_t = tanh(W_in x_t + b_in + r_t ⊙ (W_hn h_{t-1} + b_hn))
        h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}

    States begin at zero unless they are given. A `state_dict` of `torch.nn.GRU` of the same sizes can be loaded, and the
    other way round.

    Args:
        input_size: columns of `x`.
        hidden_size: columns of h.
        num_layers: layers, each run over the outputs of the one below.
        bias: without it, all b are zero and no parameters.
        dropout: of the outputs of every layer but the last, in training.
        bidirectional: run each layer in both directions; the next gets the outputs of both.
        backend: as of `vf.VertexFunction`.
        device, dtype: of the parameters.

    Example:
        >>> model = vf.nn.GRU(8, 16)
        >>> batch = vf.pack([vf.chain(5), vf.chain(3)])
        >>> out = model(batch, torch.randn(batch.num_vertices, 8))
        >>> out.h.shape, out.h_n.shape
        (torch.Size([8, 16]), torch.Size([1, 2, 16]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            "GRU", GRUCell(hidden_size, bias, backend), input_size, hidden_size, num_layers, bias,
            dropout=dropout, bidirectional=bidirectional, device=device, dtype=dtype,
        )  # fmt: skip


class GRUCell(Cell):
    """One step of a GRU; pulls `x`, pushes `h`."""

    def __init__(self, hidden_size: int, bias: bool, backend: str) -> None:
        super().__init__({"h": hidden_size}, bias, backend)

    def vertex(self, v: Vertex) -> None:
        before = v.gather(0).h
        xr, xz, xn = linear(v.pull("x"), self.weight_ih, self.bias_ih).chunk(3, -1)
        hr, hz, hn = linear(before, self.weight_hh, self.bias_hh).chunk(3, -1)
        n = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
        h = n + torch.sigmoid(xz + hz) * (before - n)
        v.scatter(h=h)
        v.push(h=h)
