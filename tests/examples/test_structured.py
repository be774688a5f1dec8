"""The example of structured prediction against the enumeration of all structures."""

from __future__ import annotations

import itertools

import pytest
import torch

import vertexflow as vf
from examples.structured import compare, graphs
from examples.structured.inputs import positions_of, spread
from examples.structured.models import Alignment, LinearChain, Parses, SemiMarkov
from examples.structured.picture import letter_marginals, tag_marginals
from examples.structured.problems import PROBLEMS
from examples.structured.semirings import LogSum, Max

SEMIRINGS = pytest.mark.parametrize("semiring", [LogSum(), Max()], ids=["sum", "max"])


def total(semiring, scores):
    """The sum over the scores of all structures."""
    return semiring.over(torch.stack(list(scores)), 0)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def with_weights(model, **weights):
    model = model.double()
    for name, value in weights.items():
        getattr(model, name).data.copy_(value)
    return model


@SEMIRINGS
def test_tags_of_a_sentence(semiring, eager):
    scores, transition = normal(4, 3), normal(3, 3)
    model = with_weights(LinearChain(3, semiring), transition=transition)
    batch = vf.pack([graphs.sentence(4)])
    expected = total(
        semiring,
        (
            sum(scores[at, tag] for at, tag in enumerate(tags))
            + sum(transition[a, b] for a, b in itertools.pairwise(tags))
            for tags in itertools.product(range(3), repeat=4)
        ),
    )
    torch.testing.assert_close(model(batch, score=scores).total[batch.roots], expected[None])


def segmentations(words, longest):
    """All ways to cut words into segments, as lists of (begin, end)."""
    if not words:
        return [[]]
    return [
        [*before, (words - size, words)]
        for size in range(1, min(words, longest) + 1)
        for before in segmentations(words - size, longest)
    ]


@SEMIRINGS
def test_segments_of_a_sentence(semiring, eager):
    words, longest, tags = 5, 3, 2
    graph = graphs.segments(words, longest)
    number_of = {tuple(pair): at for at, pair in enumerate(graph.edge_index.T.tolist())}
    scores, transition, begin = normal(graph.num_edges, tags), normal(tags, tags), normal(1, tags)
    model = with_weights(SemiMarkov(tags, semiring), transition=transition)
    batch = vf.pack([graph])
    expected = total(
        semiring,
        (
            begin[0, first]
            + sum(scores[number_of[segment], tag] for segment, tag in zip(segments, labels, strict=True))
            + sum(transition[a, b] for a, b in itertools.pairwise((first, *labels)))
            for segments in segmentations(words, longest)
            for first in range(tags)
            for labels in itertools.product(range(tags), repeat=len(segments))
        ),
    )
    torch.testing.assert_close(model(batch, score=begin, segment=scores).total[batch.roots], expected[None])


@SEMIRINGS
def test_alignments_of_a_text(semiring, eager):
    texts, frames, letters = [torch.tensor([1, 1]), torch.tensor([2])], [5, 3], 3
    scores = [normal(count, letters).log_softmax(-1) for count in frames]
    batch = vf.pack(list(map(graphs.sentence, frames)))
    inputs = spread(texts, frames).read(torch.cat(scores))
    totals = Alignment(positions_of(texts), semiring).double()(batch, **inputs).total[batch.roots]

    def read(path):
        """The text of a path: repeated letters are one, and blanks are left out."""
        return [letter for letter, _ in itertools.groupby(path) if letter]

    expected = [
        total(
            semiring,
            (
                sum(score[at, letter] for at, letter in enumerate(path))
                for path in itertools.product(range(letters), repeat=len(score))
                if read(path) == text.tolist()
            ),
        )
        for score, text in zip(scores, texts, strict=True)
    ]
    torch.testing.assert_close(totals, torch.stack(expected))


@SEMIRINGS
def test_parses_of_a_sentence(semiring, eager):
    words, symbols = 4, 2
    scores, rules = normal(words, symbols), normal(symbols, symbols, symbols)
    model = with_weights(Parses(symbols, semiring), rules=rules)
    batch = vf.pack([graphs.chart(words)])

    def derivations(first, end, symbol):
        """The scores of all parses of words [first, end) from a symbol."""
        if end - first == 1:
            return [scores[first, symbol]]
        return [
            rules[symbol, left, right] + one + other
            for split in range(first + 1, end)
            for left, right in itertools.product(range(symbols), repeat=2)
            for one in derivations(first, split, left)
            for other in derivations(split, end, right)
        ]

    expected = total(semiring, derivations(0, words, 0))
    torch.testing.assert_close(model(batch, score=scores).total[batch.roots], expected[None])


@pytest.mark.parametrize("name", PROBLEMS)
def test_both_ways_agree(name, eager):
    torch.manual_seed(0)
    compare.check(PROBLEMS[name](3, torch.float64, None, 6, 3))


def test_marginals_are_distributions_and_the_best_is_one_structure(eager):
    scores, transition, text = normal(5, 3), normal(3, 3), torch.tensor([1, 2])
    for semiring in (LogSum(), Max()):
        for marginals in (
            tag_marginals(scores, transition, semiring),
            letter_marginals(normal(7, 4), text, semiring),
        ):
            torch.testing.assert_close(marginals.sum(1), torch.ones(len(marginals), dtype=torch.float64))
            if isinstance(semiring, Max):
                assert set(marginals.unique().tolist()) == {0.0, 1.0}


def test_the_command_compares_and_draws(tmp_path, capsys, eager):
    picture = tmp_path / "marginals.png"
    command = ["--problems", "tagging", "--samples", "2", "--rounds", "1", "--threads", "1"]
    ratios = compare.main([*command, "--picture", str(picture)])
    assert list(ratios) == ["tagging"]
    assert picture.stat().st_size > 1000
    assert "linear-chain CRF, 16 tags" in capsys.readouterr().out
