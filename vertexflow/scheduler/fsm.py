"""A policy that is learned: a finite state machine whose state is which kinds are ready, the most numerous first.

After ED-Batch (Chen et al., ICML 2023, arXiv 2302.03851): tabular Q-learning on sample batches. A vertex is unblocked if
it waits for no other vertex of its own kind. Where all unblocked vertices of a kind are ready, some shortest schedule runs
them now, and so does the machine, without asking its table. Any other choice has the reward -1, plus a part of
`ready_weight`: the part of the unblocked vertices that is ready.
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
        fewest = sum(_num_steps(best, batch) for batch in samples)
        for episode in range(episodes if runs else 0):
            exploration = 0.5 * (1 - episode / episodes)
            runs[episode % len(runs)].play(values, random, exploration, learning_rate, discount, ready_weight)
            if episode % 10 == 9 or episode == episodes - 1:
                machine = cls({state: _best(kind_values) for state, kind_values in values.items() if len(state) > 1})
                count = sum(_num_steps(machine, batch) for batch in samples)
                if count < fewest:
                    best, fewest = machine, count
        return best

    def steps(self, structure: Structure) -> Ints:
        kinds = structure.kinds
        if kinds is None:
            return greedy(structure, None)
        if kinds not in self._tables:
            number_of = {kind: number for number, kind in enumerate(kinds)}
            self._tables[kinds] = {
                tuple(number_of[kind] for kind in state): number_of[action]
                for state, action in self.actions.items()
                if number_of.keys() >= {*state, action}
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
        is_here = batch.child < batch.num_vertices  # others were computed before: nobody waits for them
        offset = np.concatenate([np.zeros(1, np.int32), np.cumsum(is_here, dtype=np.int32)])[batch.offset]
        self.run = _core.Simulation(
            batch.child[is_here], batch.slot[is_here], offset, batch.kind_index, len(self.kinds)
        )

    def play(
        self,
        values: dict[State, dict[Any, float]],
        random: np.random.Generator,
        exploration: float,
        learning_rate: float,
        discount: float,
        ready_weight: float,
    ) -> None:
        """One episode of Q-learning: the value of each choice moves towards its reward plus the best value after it."""
        self.run.reset()
        previous: tuple[dict[Any, float], Any] | None = None
        reward = 0.0
        while True:
            while (certain_kind := self.run.complete()) >= 0:
                self.run.run(certain_kind)
                reward -= 1
            is_done = self.run.done()
            state = self._state()
            kind_values = values.setdefault(state, dict.fromkeys(state, 0.0)) if not is_done else {}
            if previous is not None:
                previous_values, action = previous
                future = 0.0 if is_done else max(kind_values.values())
                previous_values[action] += learning_rate * (reward + discount * future - previous_values[action])
            if is_done:
                return
            explores = random.random() < exploration
            chosen = state[random.integers(len(state))] if explores else _best(kind_values)
            action_number = self.kinds.index(chosen)
            previous, reward = (kind_values, chosen), -1 + ready_weight * self.run.part_ready(action_number)
            self.run.run(action_number)

    def _state(self) -> State:
        return tuple(self.kinds[number] for number in self.run.state())


def _best(kind_values: Mapping[Any, float]) -> Any:
    return max(kind_values, key=kind_values.__getitem__)  # of equal ones the first, which is the most numerous


def _num_steps(policy: FSM, batch: Structure) -> int:
    return int(policy.steps(batch).max()) + 1
