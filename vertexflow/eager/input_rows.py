"""Which rows of an input belong to which vertices, found out while `backend="eager"` runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from torch import Tensor

from ..call.kinds import check_rows, check_together
from ..errors import InputError
from ..kernels.eager import Uses
from ..kernels.order import Order

_MOST_CHOICES = 8  # methods, of which all subsets are tried to find those that pull an input


@dataclass
class InputRows:
    """Which rows of an input belong to which vertices, decided when a method first pulls it.

    An input has rows only for the vertices (or edges) of the kinds that pull it. Which kinds these are is known for certain
    when all methods have run. Before, the number of its rows tells as a rule; else every method is called once on a made-up
    vertex.
    """

    order: Order
    group_methods: tuple[str, ...]  # the method of each group of rows
    counts: Mapping[str, tuple[int, int]]  # vertices and edges of each method
    inputs: Mapping[str, Tensor]
    uses: Mapping[str, Uses]
    kinds: Mapping[Any, str]
    has_initial: bool
    probe: Callable[[str, Uses], None]
    where: str = "the batch"
    taken: dict[str, frozenset[str]] = field(default_factory=dict)  # by input: the methods that are taken to pull it
    answers: dict[str, Uses] = field(default_factory=dict)  # by method: what it used on the made-up vertex
    failed: dict[str, Exception] = field(default_factory=dict)  # by method: what it raised there

    def select(self, name: str, is_edge_input: bool, group: int) -> Tensor:
        """The rows of an input that the vertices of a group read, or the edges to their children."""
        if is_edge_input and self.has_initial and not self.uses[self.group_methods[group]].first_slot:
            raise InputError(
                f"initial states come by edges that have no row of the edge input {name!r}; leave out one or the other"
            )
        if name not in self.taken:
            self.taken[name] = self._methods_pulling(name, is_edge_input, self.group_methods[group])
        if self.group_methods[group] not in self.taken[name]:
            self._refuse(name)
        groups = [number for number, method in enumerate(self.group_methods) if method in self.taken[name]]
        rows_of_groups = self.order.batch_rows(groups, is_edge_input)
        return rows_of_groups[groups.index(group)]

    def _methods_pulling(self, name: str, is_edge_input: bool, method: str) -> frozenset[str]:
        """The methods of this batch that pull an input, as far as its number of rows tells."""
        other_methods = [other_method for other_method in dict.fromkeys(self.group_methods) if other_method != method]
        count = len(self.inputs[name])
        if len(other_methods) < _MOST_CHOICES:
            choices = [
                frozenset((method, *more))
                for size in range(len(other_methods) + 1)
                for more in itertools.combinations(other_methods, size)
                if sum(self.counts[choice][is_edge_input] for choice in (method, *more)) == count
            ]
            if not choices:
                self._refuse(name)
            if len(choices) == 1:
                return choices[0]
        for other_method in other_methods:
            self.ask(other_method)
            if other_method in self.failed:
                raise InputError(
                    f"input {name!r} has {count} rows, which fits several choices of kinds, and method `{other_method}` cannot "
                    "be asked whether it pulls it: it fails for one vertex without children"
                ) from self.failed[other_method]
        return frozenset(
            (method, *(other_method for other_method in other_methods if name in self.answers[other_method].pulls))
        )

    def ask(self, method: str) -> None:
        """Call a method on a made-up vertex to see what it uses; on other vertices it may use more."""
        if method in self.answers or method in self.failed:
            return
        use = Uses(self.uses[method].code)
        try:
            self.probe(method, use)
        except Exception as error:
            self.failed[method] = error
            return
        self.answers[method] = use
        if method not in self.group_methods:
            self.uses[method].pulls.update(use.pulls)
            self.uses[method].pushes.update(use.pushes)
            self.uses[method].push_sorts.update(use.push_sorts)
            self.uses[method].reads_edges |= use.reads_edges
            self.uses[method].shared |= use.shared

    def check(self) -> None:
        """Refuse inputs that were not pulled by just those methods that they were taken to be pulled by."""
        for name, methods in self.taken.items():
            if methods != {method for method in self.group_methods if name in self.uses[method].pulls}:
                self._refuse(name)

    def _refuse(self, name: str) -> NoReturn:
        uses = {}
        for method, use in self.uses.items():
            self.ask(method)
            answer = self.answers.get(method, use)
            uses[method] = replace(answer, pulls={**answer.pulls, **use.pulls})
        if not self.failed:
            check_together(uses, self.inputs, ())
        check_rows(uses, {name: self.inputs[name]}, self.counts, self.kinds, self.where)
        raise InputError(
            f"input {name!r} has {len(self.inputs[name])} rows, and which kinds of vertices pull it depends on values; give "
            "each kind an input of its own"
        )
