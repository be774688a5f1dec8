"""The same sums as they are usually written: padded tensors, and loops over time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .models import IMPOSSIBLE


def linear_chain(scores: Sequence[Tensor], transition: Tensor) -> Tensor:
    """The log of the sum over all tags of each sentence, [sentences]; `scores` [words, tags] of each."""
    lengths = torch.tensor([len(score) for score in scores])
    padded = torch.nn.utils.rnn.pad_sequence(list(scores), batch_first=True)
    a = padded[:, 0]
    for t in range(1, padded.shape[1]):
        following = padded[:, t] + (a[:, :, None] + transition).logsumexp(1)
        a = torch.where((lengths > t)[:, None], following, a)
    return a.logsumexp(1)


def semi_markov(scores: Sequence[Tensor], transition: Tensor, lengths: Sequence[int], longest: int) -> Tensor:
    """The log of the sum over all segmentations of each sentence; `scores` [segments, tags] of each, in the order of
    `graphs.segments`."""
    count, most, tags = len(scores), max(lengths), transition.shape[0]
    ends = [
        [(end, end - begin) for end in range(1, n + 1) for begin in range(max(end - longest, 0), end)] for n in lengths
    ]
    sentence = torch.arange(count).repeat_interleave(torch.tensor([*map(len, ends)]))
    end, size = torch.tensor([pair for pairs in ends for pair in pairs]).T
    dense = transition.new_full((count, most + 1, longest + 1, tags), IMPOSSIBLE)
    dense = dense.index_put((sentence, end, size), torch.cat(list(scores)))
    before = [transition.logsumexp(0).expand(count, tags)]
    totals = []
    for end_ in range(1, most + 1):
        sizes = range(1, min(end_, longest) + 1)
        reached = torch.stack([before[end_ - size_] for size_ in sizes], 1)
        a = (reached + dense[:, end_, 1 : len(sizes) + 1]).logsumexp(1)
        totals.append(a.logsumexp(1))
        before.append((a[:, :, None] + transition).logsumexp(1))
    return torch.stack(totals, 1)[torch.arange(count), torch.tensor(lengths) - 1]


def alignment(scores: Sequence[Tensor], texts: Sequence[Tensor]) -> Tensor:
    """The log of the probability of each text, `F.ctc_loss`; `scores` [frames, letters] of each recording, blank is 0."""
    padded = torch.nn.utils.rnn.pad_sequence(list(scores)).log_softmax(-1)
    frames = torch.tensor([len(score) for score in scores])
    letters = torch.tensor([len(text) for text in texts])
    return -torch.nn.functional.ctc_loss(padded, torch.cat(list(texts)), frames, letters, reduction="none")


def inside(scores: Sequence[Tensor], rules: Tensor) -> Tensor:
    """The log of the sum over all parses of each sentence by a grammar in Chomsky normal form.

    `scores` [words, symbols] of each; `rules` [symbols, symbols, symbols] are log weights: parent, left, right. A chart of all
    spans of all sentences, width after width; the sum over where a span is split is one operation.
    """
    lengths = torch.tensor([len(score) for score in scores])
    words = torch.nn.utils.rnn.pad_sequence(list(scores), batch_first=True)
    count, most, symbols = words.shape
    by_first = [words]  # of each width: [sentences, first word, symbols]
    flat = rules.reshape(symbols, -1)
    for width in range(2, most + 1):
        spans = most - width + 1
        left = torch.stack([by_first[part - 1][:, :spans] for part in range(1, width)], 2)
        right = torch.stack([by_first[width - part - 1][:, part : part + spans] for part in range(1, width)], 2)
        pairs = (left[..., :, None] + right[..., None, :]).logsumexp(2).reshape(count, spans, 1, -1)
        by_first.append((pairs + flat).logsumexp(-1))
    whole = torch.stack([level[:, 0] for level in by_first], 1)[torch.arange(count), lengths - 1]
    return whole[:, 0]
