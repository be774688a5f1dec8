"""The language model: the same parameters and sums, with the LSTM of vertexflow or with PyTorch's, packed or padded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import vertexflow as vf


class LanguageModel(nn.Module):
    """Scores for the next word at every vertex: embedding, LSTM layers, softmax over the embedding (Press and Wolf 2017).

    All that is random, the initial parameters and dropout, is drawn in one order whichever LSTM is chosen: with the same
    seed all train alike, to rounding.

    Args:
        lstm: a name in `LSTMS`.
        words: size of the vocabulary.
        hidden: units of every layer, and columns of the embedding.
        layers: LSTM layers.
        dropout: of the embeddings and of the outputs of every layer, in training.
    """

    def __init__(self, lstm: str, words: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        make, self.run_layer = LSTMS[lstm]
        self.embed = nn.Embedding(words, hidden)
        self.layers = nn.ModuleList(make(hidden, hidden) for _ in range(layers))
        self.bias = nn.Parameter(torch.zeros(words))
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embed.weight, std=hidden**-0.5)

    def forward(self, batch: vf.GraphBatch, tokens: Tensor) -> Tensor:
        """Scores [V, words] from the words read, int64 [V], rows in the batch's own vertex order."""
        x = self.dropout(self.embed(tokens))
        for layer in self.layers:
            x = self.dropout(self.run_layer(layer, batch, x))
        return linear(x, self.embed.weight, self.bias)


def run_vertexflow(layer: nn.Module, batch: vf.GraphBatch, x: Tensor) -> Tensor:
    """A layer of `vf.nn.LSTM` over the chains of a batch."""
    return layer(batch, x).h  # type: ignore[no-any-return]


def run_packed(layer: nn.Module, batch: vf.GraphBatch, x: Tensor) -> Tensor:
    """A layer of `torch.nn.LSTM` on a packed sequence of the same rows."""
    rows, places = packed_rows(batch, x.device)
    packed, _ = layer(PackedSequence(x.index_select(0, rows.data), *rows[1:]))
    return packed.data.index_select(0, places)  # type: ignore[no-any-return]


def run_padded(layer: nn.Module, batch: vf.GraphBatch, x: Tensor) -> Tensor:
    """A layer of `torch.nn.LSTM` on the same rows in `[longest, sentences]`, zeros after the shorter ones."""
    longest, places = padded_places(batch, x.device)
    padded = x.new_zeros(longest * len(batch), x.shape[1]).index_copy(0, places, x)
    out, _ = layer(padded.view(longest, len(batch), -1))
    return out.flatten(0, 1).index_select(0, places)  # type: ignore[no-any-return]


def packed_rows(batch: vf.GraphBatch, device: torch.device) -> tuple[PackedSequence, Tensor]:
    """The batch's row numbers as a packed sequence, and the place of each row in it; made once a batch, as a schedule is."""
    if "packed" not in batch.cache:
        lengths = np.diff(batch.graph_offset).tolist()
        numbers = torch.arange(batch.num_vertices, device=device)
        rows = pack_sequence(numbers.split(lengths), enforce_sorted=False)  # type: ignore[no-untyped-call]
        batch.cache["packed"] = rows, rows.data.argsort()
    return batch.cache["packed"]  # type: ignore[no-any-return]


def padded_places(batch: vf.GraphBatch, device: torch.device) -> tuple[int, Tensor]:
    """The length of the longest sentence, and the place of each row among the padded ones; made once a batch."""
    if "padded" not in batch.cache:
        sentence = batch.graph_of_vertex.numpy()
        step = np.arange(batch.num_vertices) - batch.graph_offset[sentence]
        batch.cache["padded"] = int(step.max()) + 1, torch.from_numpy(step * len(batch) + sentence).to(device)
    return batch.cache["padded"]  # type: ignore[no-any-return]


Run = Callable[[nn.Module, vf.GraphBatch, Tensor], Tensor]
LSTMS: dict[str, tuple[Callable[[int, int], nn.Module], Run]] = {
    "vertexflow": (vf.nn.LSTM, run_vertexflow),
    "torch": (nn.LSTM, run_packed),
    "torch-padded": (nn.LSTM, run_padded),
}
