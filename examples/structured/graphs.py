"""The input graphs of the models."""

from __future__ import annotations

import numpy as np

import vertexflow as vf


def sentence(words: int) -> vf.InputGraph:
    """A vertex a word, or a frame: of the kind "first", and then "next"."""
    return vf.chain(words).with_kind(["first"] + ["next"] * (words - 1))


def segments(words: int, longest: int) -> vf.InputGraph:
    """A vertex before each word and after the last; an edge for each segment of up to `longest` words.

    Edges are in the order of where segments end, and then of where they begin.
    """
    end = np.repeat(np.arange(1, words + 1), np.minimum(np.arange(1, words + 1), longest))
    first = np.maximum(np.arange(1, words + 1) - longest, 0)
    counts = np.minimum(np.arange(1, words + 1), longest)
    begin = np.arange(len(end)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    return vf.graph(words + 1, np.stack([begin, end]), kind=["first"] + ["next"] * words)


def chart(words: int) -> vf.InputGraph:
    """A vertex for each span of words, the short ones first; an arc for each place at which a span may be split."""
    starts = np.concatenate(([0], np.cumsum(np.arange(words, 0, -1))))  # the first span of each width, from 1 on
    splits = [
        (starts[part - 1] + first, starts[width - part - 1] + first + part, starts[width - 1] + first)
        for width in range(2, words + 1)
        for part in range(1, width)
        for first in (np.arange(words - width + 1),)
    ]
    arcs = np.concatenate([np.stack(split) for split in splits], 1) if splits else np.zeros((3, 0), np.int64)
    kind = ["word"] * words + ["span"] * int(starts[-1] - words)
    return vf.hypergraph(int(starts[-1]), arcs, kind=kind, arity=2)
