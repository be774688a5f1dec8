"""A policy that is learned: a finite state machine whose state is which kinds are ready, the most numerous first.

After ED-Batch (Chen et al., ICML 2023, arXiv 2302.03851): tabular Q-learning on sample batches. A vertex is unblocked if
it waits for no other of its own kind. Where all unblocked vertices of a kind are ready, some shortest schedule runs them
now, and so does the machine, without asking its table; elsewhere a choice costs one step, and less the larger the part of
the unblocked vertices that is ready.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .. import _core
from .policies import Ints, Structure, greedy

State = tuple[Any, ...]  # the kinds of which some vertex is ready, the most numerous first


class FSM:
    """For the kinds that are ready, which of them to run; learned once for a model and its data.

    A kind whose unblocked vertices are all ready is run first. Where the table says nothing (an unseen state; a machine
    that has learned nothing), the agenda decides.

    Attributes:
        actions: the ready kinds, the one with most ready vertices first (equals sorted) -> the kind to run.

    Example:
        >>> model.policy = vf.FSM.learn([vf.pack(graphs) for graphs in samples], seed=0)  # saved in model.state_dict()
    """

    def __init__(self, actions: Mapping[State, Any] | None = None) -> None:
        self.actions: dict[State, Any] = dict(actions or {})
        self._tables: dict[tuple[Any, ...], dict[tuple[int, ...], int]] = {}

    @classmethod
    def learn(
        cls,
        batches: Iterable[Structure],
        seed: int = 0,
        episodes: int = 400,
        learning_rate: float = 0.2,
        discount: float = 0.95,
        ready_weight: float = 0.5,
    ) -> FSM:
        """Learn from sample batches. The same batches and seed give the same machine, bit for bit.

        Args:
            batches: samples of what the model will see; a few are enough. Batches without kinds teach nothing.
            seed: of the exploration.
            episodes: how many times a batch is scheduled, in turns.
            learning_rate, discount: of Q-learning.
            ready_weight: the reward of a step is -1 + ready_weight * (ready vertices / unblocked vertices of its kind).

        Returns:
            The machine that needed the fewest steps for all the batches together, among them one with an empty table.

        Raises:
            GraphError: a batch has a cycle.
        """
        samples = [batch for batch in batches if batch.kinds is not None and len(batch.kinds) > 1]
        runs = [_Run(batch) for batch in samples]
        random = np.random.default_rng(seed)
        values: dict[State, dict[Any, float]] = {}
        best = cls()
        fewest = sum(_count(best, batch) for batch in samples)
        for episode in range(episodes if runs else 0):
            exploring = 0.5 * (1 - episode / episodes)
            runs[episode % len(runs)].play(values, random, exploring, learning_rate, discount, ready_weight)
            if episode % 10 == 9 or episode == episodes - 1:
                found = cls({state: _best(of_kind) for state, of_kind in values.items() if len(state) > 1})
                count = sum(_count(found, batch) for batch in samples)
                if count < fewest:
                    best, fewest = found, count
        return best

    def steps(self, structure: Structure) -> Ints:
        kinds = structure.kinds
        if kinds is None:
            return greedy(structure, None)
        if kinds not in self._tables:
            number = {kind: at for at, kind in enumerate(kinds)}
            self._tables[kinds] = {
                tuple(number[kind] for kind in state): number[action]
                for state, action in self.actions.items()
                if number.keys() >= {*state, action}
            }
        return greedy(structure, self._tables[kinds])

    def dump(self) -> bytes:
        """The machine as JSON, equal for equal machines."""
        rows = [[state, action] for state, action in self.actions.items()]
        return json.dumps(sorted(rows, key=str)).encode()

    @classmethod
    def load(cls, dumped: bytes) -> FSM:
        """The machine that `dump` wrote."""
        return cls({tuple(state): action for state, action in json.loads(dumped)})


class _Run:
    """One batch, scheduled again and again."""

    def __init__(self, batch: Structure) -> None:
        self.kinds = batch.kinds or ()
        self.run = _core.Simulation(batch.child, batch.slot, batch.offset, batch.kind_index, len(self.kinds))

    def play(
        self,
        values: dict[State, dict[Any, float]],
        random: np.random.Generator,
        exploring: float,
        learning_rate: float,
        discount: float,
        ready_weight: float,
    ) -> None:
        """One episode: the value of each choice moves towards its reward and what could be had afterwards."""
        self.run.reset()
        before: tuple[dict[Any, float], Any] | None = None
        reward = 0.0
        while True:
            while (certain := self.run.complete()) >= 0:
                self.run.run(certain)
                reward -= 1
            done = self.run.done()
            state = self._state()
            of_kind = values.setdefault(state, dict.fromkeys(state, 0.0)) if not done else {}
            if before is not None:
                then, action = before
                ahead = 0.0 if done else max(of_kind.values())
                then[action] += learning_rate * (reward + discount * ahead - then[action])
            if done:
                return
            explore = random.random() < exploring
            chosen = state[random.integers(len(state))] if explore else _best(of_kind)
            number = self.kinds.index(chosen)
            before, reward = (of_kind, chosen), -1 + ready_weight * self.run.part_ready(number)
            self.run.run(number)

    def _state(self) -> State:
        return tuple(self.kinds[number] for number in self.run.state())


def _best(of_kind: Mapping[Any, float]) -> Any:
    return max(of_kind, key=of_kind.__getitem__)  # the most numerous of equals


def _count(policy: FSM, batch: Structure) -> int:
    return int(policy.steps(batch).max()) + 1
