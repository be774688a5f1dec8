"""LSTM over sequences of any length, without padding."""

from __future__ import annotations

import torch
from torch.nn.functional import linear

from ..graph.symbolic.vertex import Vertex
from .rnn import Cell, ChainRNN


class LSTM(ChainRNN):
    """Long short-term memory (Hochreiter and Schmidhuber 1997) with the equations and parameters of `torch.nn.LSTM`.

    Of step t in a layer, with the outputs x_t of the layer below (the inputs, for the first):

        i_t = sigmoid(W_ii x_t + b_ii + W_hi h_{t-1} + b_hi)
        f_t = sigmoid(W_if x_t + b_if + W_hf h_{t-1} + b_hf)
        g_t = tanh(W_ig x_t + b_ig + W_hg h_{t-1} + b_hg)
        o_t = sigmoid(W_io x_t + b_io + W_ho h_{t-1} + b_ho)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        h_t = o_t ⊙ tanh(c_t)

    States begin at zero unless they are given. A `state_dict` of `torch.nn.LSTM` of the same sizes can be loaded, and the
    other way round.

    Args:
        input_size: columns of `x`.
        hidden_size: columns of h and c.
        num_layers: layers, each run over the outputs of the one below.
        bias: without it, all b are zero and no parameters.
        dropout: of the outputs of every layer but the last, in training.
        bidirectional: run each layer in both directions; the next gets the outputs of both.
        backend: as of `vf.VertexFunction`.
        device, dtype: of the parameters.

    Example:
        >>> model = vf.nn.LSTM(8, 16, num_layers=2, bidirectional=True)
        >>> batch = vf.pack([vf.chain(5), vf.chain(3)])
        >>> out = model(batch, torch.randn(batch.num_vertices, 8))
        >>> out.h.shape, out.h_n.shape, out.c_n.shape
        (torch.Size([8, 32]), torch.Size([4, 2, 16]), torch.Size([4, 2, 16]))
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
            "LSTM", LSTMCell(hidden_size, bias, backend), input_size, hidden_size, num_layers, bias,
            dropout=dropout, bidirectional=bidirectional, device=device, dtype=dtype,
        )  # fmt: skip


class LSTMCell(Cell):
    """One step of an LSTM; pulls `x`, pushes `h` and `c`."""

    def __init__(self, hidden_size: int, bias: bool, backend: str) -> None:
        super().__init__({"h": hidden_size, "c": hidden_size}, bias, backend)

    def vertex(self, v: Vertex) -> None:
        before = v.gather(0)
        bias = None if self.bias_ih is None or self.bias_hh is None else self.bias_ih + self.bias_hh
        gates = linear(v.pull("x"), self.weight_ih, bias) + linear(before.h, self.weight_hh)
        i, f, g, o = gates.chunk(4, -1)
        c = torch.sigmoid(f) * before.c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        v.scatter(h=h, c=c)
        v.push(h=h, c=c)
