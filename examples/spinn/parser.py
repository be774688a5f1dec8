"""The shift-reduce loop: all sentences of a batch advance together, over one frontier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

import vertexflow as vf

from .data import Ints, Sentences

SHIFT, REDUCE = 0, 1
Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class States:
    """States of sentences, one row each; what actions are chosen from.

    Attributes:
        sentence: int64 [n], whose state it is.
        items: int64 [n, 3], vertices: the top of the stack, the one below, the front of the buffer; -1 where there is none.
        allowed: bool [n, 2], whether there is something to shift, and whether there are two to reduce.
        begin, end: int64 [n], the tokens below the top of the stack, if it has one. The gold tree is asked about them.
    """

    sentence: Ints
    items: Ints
    allowed: Bools
    begin: Ints
    end: Ints

    @property
    def free(self) -> Bools:
        """Where both actions are allowed, [n]."""
        return self.allowed[:, SHIFT] & self.allowed[:, REDUCE]

    def where(self, rows: Bools) -> States:
        """Only these states."""
        return States(*(getattr(self, field.name)[rows] for field in fields(self)))


Choose = Callable[[vf.Frontier, States], Ints]  # an action for each state; it counts where both are allowed


@dataclass(frozen=True)
class Parse:
    """Parsed sentences.

    Attributes:
        run: the frontier, with a vertex for each token and then one for each REDUCE.
        root: int64 [B], the vertex of each whole sentence.
        begin, end: int64 [V], the tokens below each vertex.
        states, action: the states in which an action was chosen, in the order in which it happened, and the action.
    """

    run: vf.Frontier
    root: Ints
    begin: Ints
    end: Ints
    states: States
    action: Ints


def parse(compose: vf.VertexFunction, sentences: Sentences, choose: Choose) -> Parse:
    """Parse all sentences, one action of each at a time. `choose` has the last word where both actions are allowed.

    The gold tree in `sentences` is not looked at.
    """
    run = compose.start(token=torch.from_numpy(sentences.token))
    words, count = len(sentences.token), len(sentences)
    begin, end = np.zeros((2, 2 * words - count), np.int64)
    begin[:words], end[:words] = np.arange(words), np.arange(1, words + 1)
    front, stop = sentences.offset[:-1].copy(), sentences.offset[1:]
    stack = np.full((count, int((stop - front).max()) + 2), -1)  # the two lowest stand for what is missing
    height = np.full(count, 2)
    live = np.arange(count)
    history: list[tuple[States, Ints]] = []
    while len(live):
        top, below = stack[live, height[live] - 1], stack[live, height[live] - 2]
        more = front[live] < stop[live]
        items = np.stack([top, below, np.where(more, front[live], -1)], 1)
        states = States(live, items, np.stack([more, below >= 0], 1), begin[top], front[live])
        action = np.where(states.free, choose(run, states), states.allowed[:, REDUCE])
        history.append((states, action))

        shift, reduce = live[action == SHIFT], live[action == REDUCE]
        stack[shift, height[shift]] = front[shift]
        height[shift] += 1
        front[shift] += 1
        pair = items[action == REDUCE, 1::-1]  # from left to right
        new = run.extend(pair).numpy()
        begin[new], end[new] = begin[pair[:, 0]], end[pair[:, 1]]
        height[reduce] -= 1
        stack[reduce, height[reduce] - 1] = new
        live = live[(front[live] < stop[live]) | (height[live] > 3)]
    joined = States(*(np.concatenate([getattr(part, field.name) for part, _ in history]) for field in fields(States)))
    return Parse(run, stack[:, 2], begin, end, joined, np.concatenate([action for _, action in history]))


def gold(sentences: Sentences, states: States) -> Ints:
    """The best action in any state, also one that the gold tree never comes to.

    SHIFT if a gold span begins with the top of the stack and goes on beyond it: REDUCE would lose it. Otherwise REDUCE:
    no gold span is lost. In the states of the gold tree this is its one transition.
    """
    return np.where(sentences.reach[states.begin] > states.end, SHIFT, REDUCE)


def follow_gold(sentences: Sentences) -> Choose:
    """Choose what the gold tree says."""
    return lambda _, states: gold(sentences, states)


def random_actions(rng: np.random.Generator) -> Choose:
    """Choose without looking."""
    return lambda _, states: rng.integers(0, 2, len(states.sentence))


def mixed(one: Choose, other: Choose, probability: float, rng: np.random.Generator) -> Choose:
    """Choose as `one` does with the given probability, for each action anew, and otherwise as `other` does."""

    def choose(run: vf.Frontier, states: States) -> Ints:
        drawn = rng.random(len(states.sentence)) < probability
        return np.where(drawn, one(run, states), other(run, states))

    return choose if probability > 0 else other
