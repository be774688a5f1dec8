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

from .task import UNLABELLED, Task, encode, vocabulary

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


def parse(line: str) -> Expression:
    """The expression that is written in a line. Raises ValueError, naming what is wrong."""
    open_: list[tuple[str, list[Expression]]] = []
    done: Expression | None = None
    for token in line.replace("]", " ] ").split():
        if done is not None:
            raise ValueError(f"{token!r} follows a complete expression")
        if token.startswith("["):
            if token[1:] not in OPERATIONS:
                raise ValueError(f"unknown operation {token!r}; there are {', '.join(f'[{n}' for n in OPERATIONS)}")
            open_.append((token[1:], []))
            continue
        if token == "]":
            if not open_ or not open_[-1][1]:
                raise ValueError("']' closes no list" if not open_ else f"[{open_[-1][0]} has no arguments")
            item: Expression = open_.pop()
        elif token.isdecimal() and len(token) == 1:
            item = int(token)
        else:
            raise ValueError(f"{token!r} is neither a digit, an operation nor ']'")
        if open_:
            open_[-1][1].append(item)
        else:
            done = item
    if open_ or done is None:
        raise ValueError(f"[{open_[-1][0]} is not closed" if open_ else "the line is empty")
    return done


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


def load(train_size: int, max_depth: int, seed: int) -> Task:
    """`train_size` training trees, and a tenth of that (at least 500) for validation and for the test, all distinct."""
    held_out = max(500, train_size // 10)
    if max_depth == 1 and train_size + 2 * held_out > 100_000:
        raise ValueError(
            "there are only 444,400 lists without lists in them; ask for fewer, or for a larger --max-depth"
        )
    stream = distinct_expressions(seed, max_depth)
    graphs = [to_graph(next(stream)) for _ in range(train_size + 2 * held_out)]
    train, valid, test = graphs[:train_size], graphs[train_size:-held_out], graphs[-held_out:]
    words = vocabulary(train)
    return Task(
        "listops", encode(train, words), encode(valid, words), encode(test, words), "test", words,
        [str(digit) for digit in range(10)],
    )  # fmt: skip
