"""A failing case made small: whatever can be left out while it still fails is left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import deepcopy

import vertexflow as vf

from ..strategies import Structure
from .cases import Case, Models, is_refusal
from .expected import UnsuitableError


def failure_of(case: Case) -> BaseException | None:
    """What a case raises, if it is neither a refusal nor a matter of rounding."""
    try:
        models = Models(case.function)
        expected = models.expect(case.sample)
        models.run(case, expected)
    except UnsuitableError:
        return None
    except AssertionError as error:
        return None if models.is_a_matter_of_rounding(case, expected) else error
    except Exception as error:
        return error if not is_refusal(error) and _runs(case) else None
    return None


def _runs(case: Case) -> bool:
    """Whether it is at least a case: what was left out was not needed to write it down."""
    try:
        Models(case.function).expect(case.sample)
        vf.pack(case.sample.graphs())
    except Exception:
        return False
    return True


def shrink(case: Case, seconds: float = 90, fails: Callable[[Case], object] = failure_of) -> Case:
    """The smallest failing case found in that time."""
    end = time.monotonic() + seconds
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(case):
            if time.monotonic() > end:
                return case
            if fails(candidate) is not None:
                case, smaller = candidate, True
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    """Cases with something left out, the largest pieces first."""
    sample = case.sample
    for change in (
        {"way": "train"},
        {"backend": "torch"},
        {"policy": "depth"},
        {"window": 0},
        {"poisoned": False},
    ):
        if any(getattr(case, name) != value for name, value in change.items()):
            yield _with(case, **change)
    plain: list[dict[str, object]] = [{"layouts": {}}, {"fixed": []}, {"special": {}}, {"aliases": {}}]
    for change in ({"reverse": False}, {"initial": False}, *plain):
        if any(getattr(sample, name) != value for name, value in change.items()):
            yield _with_sample(case, **change)
    function = case.function
    simpler: list[dict[str, object]] = [
        {"dtype": "float64", "autocast": False},
        {"autocast": False},
        {"state_dtypes": {}},
    ]
    for change in simpler:
        if any(getattr(function, name) != value for name, value in change.items()):
            smaller = deepcopy(case)
            for name, value in change.items():
                setattr(smaller.function, name, value)
            yield smaller
    for name in (*sample.layouts, *sample.special, *sample.aliases):
        smaller = deepcopy(case)
        for table in (smaller.sample.layouts, smaller.sample.special, smaller.sample.aliases):
            table.pop(name, None)
        yield smaller
    for index, part in enumerate(sample.parts):
        if len(sample.parts) > 1:
            yield _without_part(case, index)
        for vertex in range(part.num_vertices):
            if part.num_vertices > 1:
                yield _without_vertex(case, index, vertex)
    for name, method in case.function.methods.items():
        count = len(method.program)
        for size in (count // 2, 1) if count > 3 else (1,):
            for start in range(count - size, -1, -size):
                smaller = deepcopy(case)
                del smaller.function.methods[name].program[start : start + size]
                yield smaller
        for field in ("push", "inputs", "edge_inputs"):
            for at in range(len(getattr(method, field))):
                smaller = deepcopy(case)
                del getattr(smaller.function.methods[name], field)[at]
                yield smaller
        if method.lacks:
            smaller = deepcopy(case)
            smaller.function.methods[name].lacks.pop()
            yield smaller
        if method.slots and method.ragged:
            smaller = deepcopy(case)
            smaller.function.methods[name].slots = 0
            yield smaller
    for at, state in enumerate(case.function.states):
        if state != "h":
            smaller = deepcopy(case)
            smaller.function.states.remove(state)
            smaller.function.state_dtypes.pop(state, None)
            for method in smaller.function.methods.values():
                del method.scatter[at]
                method.lacks = [name for name in method.lacks if name != state]
            yield smaller
    for index, part in enumerate(sample.parts):
        for edge in range(len(part.edges)):
            smaller = deepcopy(case)
            del smaller.sample.parts[index].edges[edge]
            yield smaller


def _with(case: Case, **change: object) -> Case:
    smaller = deepcopy(case)
    for name, value in change.items():
        setattr(smaller, name, value)
    return smaller


def _with_sample(case: Case, **change: object) -> Case:
    smaller = deepcopy(case)
    for name, value in change.items():
        setattr(smaller.sample, name, value)
    return smaller


def _without_part(case: Case, index: int) -> Case:
    smaller = deepcopy(case)
    before = sum(part.num_vertices for part in case.sample.parts[:index])
    count = smaller.sample.parts.pop(index).num_vertices
    if smaller.sample.kinds is not None:
        del smaller.sample.kinds[before : before + count]
    return smaller


def _below(child: int | tuple[int, ...], vertex: int) -> int | tuple[int, ...]:
    """The number of a child, or those of an arc's, when a vertex is left out."""
    if isinstance(child, tuple):
        return tuple(one - (one > vertex) for one in child)
    return child - (child > vertex)


def _without_vertex(case: Case, index: int, vertex: int) -> Case:
    smaller = deepcopy(case)
    part = smaller.sample.parts[index]
    edges = [
        (_below(child, vertex), parent - (parent > vertex), slot)
        for child, parent, slot in part.edges
        if vertex != parent and vertex not in (child if isinstance(child, tuple) else (child,))
    ]
    smaller.sample.parts[index] = Structure(part.num_vertices - 1, edges)
    if smaller.sample.kinds is not None:
        del smaller.sample.kinds[sum(one.num_vertices for one in case.sample.parts[:index]) + vertex]
    return smaller
