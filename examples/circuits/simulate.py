"""Probabilities of 1 at every gate: by random simulation, and by the rule that takes operands for independent."""

from __future__ import annotations

from typing import Any

import numpy as np

from .circuit import Circuit, Floats

Words = np.ndarray[Any, np.dtype[np.uint64]]

BLOCK = 128  # words a vertex that are simulated at once: what fits the caches
EXACT = 16  # up to so many inputs, all patterns are no more than a simulation has
ONES = np.uint64(0xFFFFFFFFFFFFFFFF)


def evaluate(circuit: Circuit, inputs: Words) -> Words:
    """The value of every vertex in 64 patterns a word, level by level: [S, n] of the sources -> [S + G, n].

    Example:
        >>> a_and_not_b = circuit("", np.array([0.5, 0.5]), np.array([[0, 1]]), np.array([[False, True]]))
        >>> evaluate(a_and_not_b, np.array([[0b1100], [0b1010]], np.uint64))[2] & np.uint64(0b1111)
        array([4], dtype=uint64)
    """
    sources = len(circuit.source)
    values = np.empty((sources + len(circuit), inputs.shape[1]), np.uint64)
    values[:sources] = inputs
    flips = np.where(circuit.inverted, ONES, np.uint64(0))[:, :, None]
    for start, stop in zip(circuit.levels[:-1], circuit.levels[1:], strict=True):
        first, second = circuit.operands[start:stop].T
        out = values[sources + start : sources + stop]
        np.bitwise_xor(values[first], flips[start:stop, 0], out=out)
        out &= values[second] ^ flips[start:stop, 1]
    return values


def probabilities(circuit: Circuit, patterns: int = 1 << 16, seed: int = 0) -> Floats:
    """The probability of 1 at each vertex under independent inputs, float64 [S + G].

    Exact for circuits of at most 16 inputs, all of whose patterns are tried; else the share among `patterns` random ones
    (rounded up to a multiple of 64), with a standard error of sqrt(p (1 - p) / patterns): at most 0.002 for 65,536.
    """
    free = np.flatnonzero(circuit.source)
    exact = len(free) <= EXACT and bool((circuit.source[free] == 0.5).all())
    words = 1 << max(len(free) - 6, 0) if exact else -(-patterns // 64)
    rng = np.random.default_rng(seed)
    total = np.zeros(len(circuit.source) + len(circuit), np.int64)
    for begin in range(0, words, BLOCK):
        block = np.arange(begin, min(begin + BLOCK, words), dtype=np.uint64)
        if exact:
            inputs = np.zeros((len(circuit.source), len(block)), np.uint64)
            inputs[free] = _all_patterns(len(free), block)
        else:
            inputs = _random(circuit.source, len(block), rng)
        total += ones(evaluate(circuit, inputs)).astype(np.int64).sum(1)
    return total / (64 * words)


def standard_error(probability: Floats, patterns: int) -> Floats:
    """Of each probability that so many random patterns gave."""
    return np.sqrt(probability * (1 - probability) / patterns)


def independent(circuit: Circuit) -> Floats:
    """The probability of 1 at each vertex if the operands of every gate were independent, float64 [S + G].

    The classical rule p = p_a p_b, with 1 - p for an inverted operand (COP: Brglez, ISCAS 1984). It is exact where no two
    paths that fork meet again.
    """
    sources = len(circuit.source)
    probability = np.concatenate([circuit.source, np.empty(len(circuit))])
    for start, stop in zip(circuit.levels[:-1], circuit.levels[1:], strict=True):
        read = probability[circuit.operands[start:stop]]
        probability[sources + start : sources + stop] = np.where(circuit.inverted[start:stop], 1 - read, read).prod(1)
    return probability


def ones(words: Words) -> Words:
    """How many bits of each word are set."""
    pairs, fours, bytes_ = (np.uint64(mask) for mask in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F))
    words = words - ((words >> np.uint64(1)) & pairs)
    words = (words & fours) + ((words >> np.uint64(2)) & fours)
    words = (words + (words >> np.uint64(4))) & bytes_
    words *= np.uint64(0x0101010101010101)  # the highest byte is now the sum of all bytes
    counts: Words = words >> np.uint64(56)
    return counts


def _all_patterns(inputs: int, block: Words) -> Words:
    """These words of the table of all patterns, [inputs, n]: bit b of word w is pattern 64 w + b.

    Below six inputs every pattern comes several times, equally often.
    """
    bits = np.arange(64, dtype=np.uint64)
    within = [np.bitwise_or.reduce((bits >> np.uint64(at) & np.uint64(1)) << bits) for at in range(min(inputs, 6))]
    rows = [np.full(len(block), word, np.uint64) for word in within]
    rows += [np.where(block >> np.uint64(at) & np.uint64(1), ONES, np.uint64(0)) for at in range(inputs - 6)]
    return np.array(rows, np.uint64).reshape(inputs, len(block))


def _random(probability: Floats, words: int, rng: np.random.Generator) -> Words:
    """Random words [S, n] whose bits are 1 with these probabilities, rounded to a multiple of 1 / 256.

    One random word a binary digit, the lowest first: OR with it where the digit is 1, AND where it is 0, halves what the
    digits below have reached and adds the digit's own half.
    """
    digits = np.round(256 * probability).astype(np.int64)
    bits = np.zeros((len(digits), words), np.uint64)
    for at in range(8):
        if (digits & ((2 << at) - 1)).any():  # nothing but zeros up to here: AND would change nothing
            drawn = rng.integers(0, 1 << 64, bits.shape, np.uint64)
            bits = np.where((digits >> at & 1 == 1)[:, None], bits | drawn, bits & drawn)
    return bits
