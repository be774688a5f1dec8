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
