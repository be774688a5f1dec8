"""ListOps (Nangia and Bowman 2018, arXiv 1804.06028): nested operations on digits, which only the tree makes solvable.

`[MAX 2 9 [MIN 4 7 ] 0 ]` has the value 9. The operations are MAX, MIN, MED (the median, rounded down) and SM (the sum
modulo 10). As in the paper, a list is a left-branching binary tree over its tokens, the brackets among them:
`((((([MAX 2) 9) ...) 0) ])`. Every digit and every complete list is labelled with its value.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import vertexflow as vf

UNLABELLED = -1
OPERATIONS: dict[str, Callable[[list[int]], int]] = {
    "MAX": max,
    "MIN": min,
    "MED": lambda values: int(statistics.median(values)),
    "SM": lambda values: sum(values) % 10,
}
Expression = int | tuple[str, list[Any]]  # a digit, or an operation and its arguments


def random_expression(rng: random.Random, max_depth: int, max_arguments: int = 5) -> Expression:
    """A random list; an argument is a list itself with probability 0.25, down to `max_depth` levels."""

    def argument(depth: int) -> Expression:
        if depth == 0 or rng.random() >= 0.25:
            return rng.randrange(10)
        return operation(depth - 1)

    def operation(depth: int) -> Expression:
        count = rng.randint(2, max_arguments)
        return rng.choice(sorted(OPERATIONS)), [argument(depth) for _ in range(count)]

    return operation(max_depth - 1)


def value(expression: Expression) -> int:
    """What the expression evaluates to."""
    if isinstance(expression, int):
        return expression
    name, arguments = expression
    return OPERATIONS[name]([value(argument) for argument in arguments])


def text(expression: Expression) -> str:
    """The expression as it is written in the data set: `[MAX 2 9 ]`."""
    if isinstance(expression, int):
        return str(expression)
    return f"[{expression[0]} {' '.join(text(argument) for argument in expression[1])} ]"


def to_graph(expression: Expression) -> vf.InputGraph:
    """The binary tree of an expression, with tokens and values at its vertices."""
    tokens: list[str] = []
    leaf_labels: list[int] = []
    inner_labels: list[int] = []

    def leaf(token: str, label: int) -> None:
        tokens.append(token)
        leaf_labels.append(label)

    def build(item: Expression) -> Any:
        if isinstance(item, int):
            leaf(str(item), item)
            return None
        leaf(f"[{item[0]}", UNLABELLED)
        nested: Any = None
        for argument in item[1]:
            nested = (nested, build(argument))
            inner_labels.append(UNLABELLED)
        leaf("]", UNLABELLED)
        inner_labels.append(value(item))
        return (nested, None)

    graph = vf.tree(build(expression))
    graph.data["token"] = np.array(tokens + [""] * len(inner_labels), dtype=object)
    graph.data["label"] = np.array(leaf_labels + inner_labels)
    return graph


def distinct_expressions(seed: int, max_depth: int) -> Iterator[Expression]:
    """An endless stream of expressions, none twice, the same for the same seed."""
    rng = random.Random(seed)
    seen: set[str] = set()
    while True:
        expression = random_expression(rng, max_depth)
        if text(expression) not in seen:
            seen.add(text(expression))
            yield expression
