"""The schedule of a batch: the order of all its vertices, cut into steps, and the index arrays of the executor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..errors import BackendError, GraphError, InputTypeError
from .policies import POLICIES, Ints, Policy, depth


class Structure(Protocol):
    """What a schedule is made of; a `GraphBatch` is one."""

    @property
    def num_vertices(self) -> int: ...
    @property
    def num_slots(self) -> int: ...
    @property
    def child(self) -> Ints: ...
    @property
    def slot(self) -> Ints: ...
    @property
    def offset(self) -> Ints: ...
    @property
    def kind(self) -> np.ndarray[Any, Any] | None: ...

    def locate(self, vertex: int) -> str: ...


@dataclass(frozen=True, eq=False)
class Schedule:
    """The rows of every buffer, and the steps that compute them.

    Rows [0, num_leaves) are the vertices without children, the others follow; each group is sorted by step, so that
    every step is a slice of rows. A step holds vertices of one kind that do not depend on each other, and either leaves
    only or inner vertices only. V vertices, E edges, L leaves, K slots; all arrays are int64.

    Attributes:
        policy: its name.
        order: [V], the vertex of each row; `row`: [V], the row of each vertex.
        steps: [S, 2], first row and end of each step, in the order of execution.
        num_leaves, num_slots: L and K.
        child_rows: [V - L, K], for row L + i the row of the child in each slot, V where there is none.
        is_tree: whether no vertex is consumed more than once.
        parent_offset, parent_edge: [V + 1], [E]; row r is read at the positions
            `parent_edge[parent_offset[r]:parent_offset[r + 1]]` of the flattened `child_rows`, in ascending order.
        parent_edge_of_row: [V], if `is_tree`, that one position, (V - L) * K for a root; else None.
    """

    policy: str
    order: Ints = field(repr=False)
    row: Ints = field(repr=False)
    steps: Ints = field(repr=False)
    num_leaves: int
    num_slots: int
    child_rows: Ints = field(repr=False)
    is_tree: bool
    parent_offset: Ints = field(repr=False)
    parent_edge: Ints = field(repr=False)
    parent_edge_of_row: Ints | None = field(repr=False)

    @property
    def num_steps(self) -> int:
        return len(self.steps)

    def __str__(self) -> str:
        widths = self.steps[:, 1] - self.steps[:, 0]
        return (
            f"policy {self.policy}: {len(self.order)} vertices ({self.num_leaves} without children) in "
            f"{self.num_steps} steps of {', '.join(map(str, widths[:40]))}{' ...' if len(widths) > 40 else ''}"
        )


def schedule(batch: Structure, policy: str | Policy = "depth", num_slots: int | None = None) -> Schedule:
    """Put the vertices of a batch in order and cut them into steps.

    Args:
        batch: a `GraphBatch`, or anything with its arrays.
        policy: a name in `vertexflow.scheduler.policies.POLICIES`, or a function like those there.
        num_slots: how many slots the vertex function gathers; by default as many as the batch uses.

    Raises:
        GraphError: a cycle, a vertex with more children than slots gathered, or a policy that does not put children
            first.
        BackendError: there is no policy of that name.
        InputTypeError: the policy is neither a name nor a function.

    Example:
        >>> vf.schedule(vf.pack([vf.tree(((0, 1), 2))])).steps
        array([[0, 3],
               [3, 4],
               [4, 5]])
    """
    slots = batch.num_slots if num_slots is None else num_slots
    _check_slots(batch, slots)
    name, step = _steps(batch, policy)
    num_vertices, child_counts = batch.num_vertices, np.diff(batch.offset)
    inner = child_counts > 0
    num_leaves = num_vertices - int(inner.sum())
    keys: list[np.ndarray[Any, Any]] = [step, inner]
    if batch.kind is not None:
        keys.insert(0, np.unique(batch.kind, return_inverse=True)[1])
    order = np.lexsort(keys)
    row = np.empty_like(order)
    row[order] = np.arange(num_vertices)

    child_rows = np.full((num_vertices - num_leaves) * slots, num_vertices)
    parent_row = row[np.repeat(np.arange(num_vertices), child_counts)]
    position = (parent_row - num_leaves) * slots + batch.slot
    child_row = row[batch.child]
    child_rows[position] = child_row
    consumers = np.bincount(child_row, minlength=num_vertices)
    parent_offset = np.concatenate((np.zeros(1, np.int64), np.cumsum(consumers)))
    is_tree = int(consumers.max()) <= 1
    only_edge = None
    if is_tree:
        only_edge = np.full(num_vertices, len(child_rows))
        only_edge[child_row] = position
        parent_edge = only_edge[only_edge < len(child_rows)]
    else:
        parent_edge = position[np.lexsort((position, child_row))]
    return Schedule(
        policy=name,
        order=order,
        row=row,
        steps=_bounds(step[order], [key[order] for key in keys]),
        num_leaves=num_leaves,
        num_slots=slots,
        child_rows=child_rows.reshape(num_vertices - num_leaves, slots),
        is_tree=is_tree,
        parent_offset=parent_offset,
        parent_edge=parent_edge,
        parent_edge_of_row=only_edge,
    )


def _check_slots(batch: Structure, slots: int) -> None:
    if batch.num_slots <= slots:
        return
    edge = int(np.flatnonzero(batch.slot >= slots)[0])
    vertex = int(np.searchsorted(batch.offset, edge, side="right")) - 1
    gathered = f"gathers slots 0 to {slots - 1}" if slots else "gathers no child"
    raise GraphError(
        f"more children than slots gathered: {batch.locate(vertex)} has a child in slot {batch.slot[edge]}, but "
        f"the vertex function {gathered}; gather that slot too, or give graphs with fewer children"
    )


def _steps(batch: Structure, policy: str | Policy) -> tuple[str, Ints]:
    if isinstance(policy, str):
        if policy not in POLICIES:
            known = ", ".join(repr(name) for name in POLICIES)
            raise BackendError(f"there is no policy {policy!r}; choose one of {known}, or give a function")
        name, chosen = policy, POLICIES[policy]
    elif callable(policy):
        name, chosen = getattr(policy, "__name__", type(policy).__name__), policy
    else:
        raise InputTypeError(f"a policy is a name or a function, not {type(policy).__name__}")
    step = np.asarray(chosen(batch.num_vertices, batch.child, batch.offset, batch.kind))
    if step.shape != (batch.num_vertices,) or step.dtype.kind not in "iu":
        raise GraphError(
            f"policy {name!r} must return one integer for each of {batch.num_vertices} vertices, "
            f"not an array of shape {step.shape} and dtype {step.dtype}"
        )
    parent = np.repeat(np.arange(batch.num_vertices), np.diff(batch.offset))
    never = np.flatnonzero(step < 0)
    if len(never):
        where = batch.locate(int(never[0]))
        if chosen is not depth and (depth(batch.num_vertices, batch.child, batch.offset, batch.kind) >= 0).all():
            raise GraphError(f"policy {name!r} puts {where} in step {step[never[0]]}; steps count from 0")
        raise GraphError(f"a cycle: {where} depends on itself or on a cycle and is never ready")
    wrong = np.flatnonzero(step[batch.child] >= step[parent])
    if len(wrong):
        edge = int(wrong[0])
        raise GraphError(
            f"policy {name!r} puts {batch.locate(int(parent[edge]))} in step {step[parent[edge]]}, but its child, "
            f"{batch.locate(int(batch.child[edge]))}, in step {step[batch.child[edge]]}; children come first"
        )
    return name, step.astype(np.int64, copy=False)


def _bounds(step: Ints, keys: list[np.ndarray[Any, Any]]) -> Ints:
    """The slices of rows in which all keys are the same, sorted by step."""
    changes = np.zeros(len(step) - 1, dtype=bool)
    for key in keys:
        changes |= key[1:] != key[:-1]
    cuts = np.flatnonzero(changes) + 1
    bounds = np.stack([np.concatenate(([0], cuts)), np.concatenate((cuts, [len(step)]))], axis=1)
    return bounds[np.argsort(step[bounds[:, 0]], kind="stable")]
