"""Our side of the comparison with pytorch-struct, which need not be there: the inside algorithm one span at a time."""

from __future__ import annotations

import pytest
import torch

import vertexflow as vf
from benchmarks.inside import chart
from benchmarks.torch_struct import SentenceGrammar


def log_z_of_spans(score, rules):
    """log Z of each nonterminal over the whole sentence, from scores [words, preterminals] and rules [A, B, C] in logs."""
    nonterminals, symbols = rules.shape[:2]
    words = len(score)
    none = score.new_full((symbols,), -torch.inf)
    inside = {(word, word): torch.cat([none[:nonterminals], score[word]]) for word in range(words)}
    for size in range(2, words + 1):
        for first in range(words - size + 1):
            last = first + size - 1
            ways = [inside[first, middle][:, None] + inside[middle + 1, last] + rules for middle in range(first, last)]
            weight = torch.stack(ways).flatten(2).movedim(0, 1).flatten(1).logsumexp(-1)
            inside[first, last] = torch.cat([weight, none[nonterminals:]])
    return inside[0, words - 1][:nonterminals]


@pytest.mark.slow
def test_a_grammar_in_scaled_numbers():
    torch.manual_seed(0)
    lengths = [4, 1, 6, 2]
    model = SentenceGrammar(3, 2).double()
    score = 10 * torch.randn(sum(lengths), 2, dtype=torch.float64)
    score.requires_grad_()
    batch = vf.pack([chart(length) for length in lengths])
    long = [number for number, length in enumerate(lengths) if length > 1]  # a word alone has no nonterminal
    roots = batch.roots[long]
    log_z = model(batch, score=score, outputs=roots).h
    expected = torch.stack([log_z_of_spans(score.split(lengths)[number], model.rules) for number in long])
    torch.testing.assert_close(log_z, expected, rtol=1e-10, atol=1e-10)
    wanted = [score, model.rules]
    for ours, theirs in zip(*(torch.autograd.grad(z.sum(), wanted) for z in (log_z, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
