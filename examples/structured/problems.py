"""Random problems, each with what a vertex function makes of it and what is usually written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import vertexflow as vf

from . import graphs, usual
from .inputs import positions_of, spread
from .models import Alignment, LinearChain, Parses, SemiMarkov
from .semirings import Semiring

LONGEST = 8  # segments, in words


@dataclass(frozen=True)
class Problem:
    """Scores, `leaves`, and two functions that compute the log of a sum over all structures of each sample from them."""

    what: str
    usually: str  # how it is usually computed
    leaves: list[Tensor]
    ours: Callable[[], Tensor]
    usual: Callable[[], Tensor]


def _lengths(samples: int, shortest: int, longest: int) -> list[int]:
    return torch.randint(shortest, longest + 1, (samples,)).tolist()


def _scores(sizes: list[int], width: int, dtype: torch.dtype) -> list[Tensor]:
    return [torch.randn(size, width, dtype=dtype, requires_grad=True) for size in sizes]


def tagging(
    samples: int, dtype: torch.dtype, semiring: Semiring | None = None, words: int = 40, tags: int = 16
) -> Problem:
    """Tags of sentences."""
    lengths = _lengths(samples, max(words // 4, 1), words)
    model, scores = LinearChain(tags, semiring).to(dtype), _scores(lengths, tags, dtype)
    torch.nn.init.normal_(model.transition)
    batch = vf.pack(list(map(graphs.sentence, lengths)))
    return Problem(
        f"linear-chain CRF, {tags} tags",
        "a loop over words, padded",
        [*scores, model.transition],
        lambda: model(batch, score=torch.cat(scores), outputs=batch.roots).total,
        lambda: usual.linear_chain(scores, model.transition),
    )


def segmentation(
    samples: int, dtype: torch.dtype, semiring: Semiring | None = None, words: int = 40, tags: int = 16
) -> Problem:
    """Labelled segments of sentences."""
    lengths = _lengths(samples, max(words // 4, 1), words)
    structures = [graphs.segments(length, LONGEST) for length in lengths]
    model = SemiMarkov(tags, semiring).to(dtype)
    scores = _scores([structure.num_edges for structure in structures], tags, dtype)
    torch.nn.init.normal_(model.transition)
    batch, begin = vf.pack(structures), torch.zeros(samples, tags, dtype=dtype)
    return Problem(
        f"semi-Markov CRF, {tags} tags, segments of up to {LONGEST} words",
        "a loop over words, padded",
        [*scores, model.transition],
        lambda: model(batch, score=begin, segment=torch.cat(scores), outputs=batch.roots).total,
        lambda: usual.semi_markov(scores, model.transition, lengths, LONGEST),
    )


def alignment(
    samples: int, dtype: torch.dtype, semiring: Semiring | None = None, frames: int = 120, letters: int = 24
) -> Problem:
    """Texts of recordings; every letter has three frames or more."""
    sizes = _lengths(samples, max(letters // 4, 1), letters)
    texts = [torch.randint(1, 30, (size,)) for size in sizes]
    lengths = [3 * size + int(torch.randint(1, max(frames - 3 * size, 1) + 1, ())) for size in sizes]
    scores = _scores(lengths, 30, dtype)
    model = Alignment(positions_of(texts), semiring).to(dtype)
    batch = vf.pack(list(map(graphs.sentence, lengths)))

    spread_texts = spread(texts, lengths)

    return Problem(
        "CTC, 30 letters",
        "F.ctc_loss",
        scores,
        lambda: model(batch, **spread_texts.read(torch.cat(scores).log_softmax(-1)), outputs=batch.roots).total,
        lambda: usual.alignment(scores, texts),
    )


def parsing(
    samples: int, dtype: torch.dtype, semiring: Semiring | None = None, words: int = 20, symbols: int = 8
) -> Problem:
    """Parses of sentences."""
    lengths = _lengths(samples, max(words // 4, 1), words)
    model, scores = Parses(symbols, semiring).to(dtype), _scores(lengths, symbols, dtype)
    torch.nn.init.normal_(model.rules)
    batch = vf.pack(list(map(graphs.chart, lengths)))
    return Problem(
        f"PCFG, {symbols} symbols",
        "a loop over widths, padded",
        [*scores, model.rules],
        lambda: model(batch, score=torch.cat(scores), outputs=batch.roots).total,
        lambda: usual.inside(scores, model.rules),
    )


PROBLEMS = {"tagging": tagging, "segmentation": segmentation, "alignment": alignment, "parsing": parsing}
