"""The schedule of a batch: the order of all its vertices, cut into steps, and the index arrays of the executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from .. import _core
from ..errors import BackendError, GraphError, InputError, InputTypeError
from .fsm import FSM
from .policies import POLICIES, Ints, Policy, Structure

if TYPE_CHECKING:
    from ..pictures.svg import Picture


class Group(NamedTuple):
    """The rows of one kind: [start, inner) are its vertices without children, [inner, stop) the others. Each of these has
    `slots` entries in the flat `child_rows`, which begin at `position`."""

    start: int
    inner: int
    stop: int
    slots: int
    position: int


@dataclass(frozen=True, eq=False)
class Schedule:
    """The rows of every buffer, and the steps that compute them.

    Rows are grouped by kind, in the order of `kinds`. In a group, the vertices without children come first, then the
    others, both sorted by step, so that every step is a slice of rows. A step holds vertices of one kind that do not depend
    on each other, and either leaves only or inner vertices only. Inside a step, the children of a vertex are neighbours, in
    the order in which they are read. V vertices, X external ones (computed before; rows V .. V + X - 1), E edges, S steps,
    P places for children: of each kind, slots times inner vertices. All arrays are int32.

    Attributes:
        policy: its name.
        num_vertices, num_external: V and X.
        kinds: of the batch, or None.
        groups: the rows of each kind; one group if there are no kinds.
        is_tree: whether no vertex is consumed more than once.
        order: [V], the vertex of each row; `row`: [V], the row of each vertex.
        steps: [S, 2], first row and end of each step, in the order of execution; `step_kinds`: [S], the group of each.
        reads_from: [S], where a step's children are consecutive rows, in the order of `child_rows`, the first of them,
            so that nothing needs to be gathered; else -1.
        read_at: [S], if `is_tree` and where a step's rows are read at consecutive positions of `child_rows`, the first of
            them; else -1.
        child_rows: [P], for each inner row the row of the child in each slot, V + X where there is none.
        parent_edge_of_row: [V + X], if `is_tree`: the position in `child_rows` at which each row is read, P for a root; else
            None.
        parent_offset, parent_edge: [V + X + 1], [E], unless `is_tree`; row r is read at the positions
            `parent_edge[parent_offset[r]:parent_offset[r + 1]]` of `child_rows`, in ascending order.
        arrays, table: the memory that these are views of.
    """

    policy: str
    num_vertices: int
    num_external: int
    kinds: tuple[Any, ...] | None
    groups: tuple[Group, ...]
    is_tree: bool
    arrays: Ints = field(repr=False)
    table: Ints = field(repr=False)

    @property
    def num_leaves(self) -> int:
        return sum(group.inner - group.start for group in self.groups)

    @property
    def num_slots(self) -> tuple[int, ...]:
        """How many slots the vertices of each kind read."""
        return tuple(group.slots for group in self.groups)

    @property
    def num_positions(self) -> int:
        """P: the length of `child_rows`."""
        last = self.groups[-1]
        return last.position + (last.stop - last.inner) * last.slots

    @property
    def num_steps(self) -> int:
        return len(self.table)

    @property
    def steps(self) -> Ints:
        return self.table[:, :2]

    @property
    def reads_from(self) -> Ints:
        return self.table[:, 2]

    @property
    def read_at(self) -> Ints:
        return self.table[:, 3]

    @property
    def step_kinds(self) -> Ints:
        return self.table[:, 4]

    @property
    def order(self) -> Ints:
        return self.arrays[: self.num_vertices]

    @property
    def row(self) -> Ints:
        return self.arrays[self.num_vertices : 2 * self.num_vertices]

    @property
    def child_rows(self) -> Ints:
        return self.arrays[2 * self.num_vertices : self._end_of_children]

    @property
    def parent_edge_of_row(self) -> Ints | None:
        return self.arrays[self._end_of_children :] if self.is_tree else None

    @property
    def parent_offset(self) -> Ints | None:
        return None if self.is_tree else self.arrays[self._end_of_children : self._start_of_edges]

    @property
    def parent_edge(self) -> Ints | None:
        return None if self.is_tree else self.arrays[self._start_of_edges :]

    @property
    def _end_of_children(self) -> int:
        return 2 * self.num_vertices + self.num_positions

    @property
    def _start_of_edges(self) -> int:
        return self._end_of_children + self.num_vertices + self.num_external + 1

    def plot(self, batch: Structure | None = None) -> Picture:
        """The schedule as a picture: a column for each step, as tall as it has vertices, in the colour of its kind, or, with the
        `batch` that was scheduled, of the graphs of its rows. The grey below a column are gaps: work that the widest step does at
        the same time, and this one does not have.

        Returns:
            A picture, which notebooks show; `.save("steps.svg")` writes it.

        Raises:
            InputError: `batch` has another number of vertices.

        Example:
            >>> batch = vf.pack([vf.tree(((0, 1), 2)), vf.chain(5)])
            >>> vf.schedule(batch).plot(batch).save("steps.svg")
        """
        from ..pictures.steps import plot

        return plot(self, None if batch is None else self._graph_of_row(batch))

    def _repr_svg_(self) -> str:
        return self.plot().svg

    def _graph_of_row(self, batch: Structure) -> Ints:
        offset = getattr(batch, "graph_offset", None)
        sizes = [batch.num_vertices] if offset is None else np.diff(offset)
        count = int(np.sum(sizes))
        if count != self.num_vertices:
            raise InputError(
                f"the batch has {count} vertices, the schedule {self.num_vertices}; give the batch that was scheduled"
            )
        graphs: Ints = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        return graphs[self.order]

    def __str__(self) -> str:
        widths = self.steps[:, 1] - self.steps[:, 0]
        slices = int((self.reads_from >= 0).sum())
        kinds = [""] * len(widths) if self.kinds is None else [f"{self.kinds[at]} " for at in self.step_kinds]
        shown = [f"{kind}{width}" for kind, width in zip(kinds[:40], widths[:40], strict=True)]
        return (
            f"policy {self.policy}: {self.num_vertices} vertices ({self.num_leaves} without children) in "
            f"{self.num_steps} steps of {', '.join(shown)}{' ...' if len(widths) > 40 else ''}; "
            f"{slices} read a slice of rows"
        )


def schedule(
    batch: Structure,
    policy: str | Policy = "depth",
    num_slots: int | Sequence[int] | None = None,
    ragged: bool | Sequence[bool] = False,
) -> Schedule:
    """Put the vertices of a batch in order and cut them into steps.

    Args:
        batch: a `GraphBatch`, or anything with its arrays.
        policy: a name (`"depth"`, `"height"`, `"agenda"`, `"fsm"`, `"optimal"`), or an object with a method
            `steps(structure)`, as described in `vertexflow/scheduler/policies.py`. `"fsm"` learns from this batch alone;
            `vf.FSM.learn` does so once for many.
        num_slots: how many slots the vertex function gathers, or how many for each of `batch.kinds`; by default as many
            as the batch uses, of each kind.
        ragged: vertices (of each kind) may have children in further slots, which `child_rows` leaves out; `edge_lists`
            has them all.

    Raises:
        GraphError: a cycle, a vertex with more children than slots gathered, arrays that describe no structure, or a
            policy that does not put children first.
        BackendError: there is no policy of that name.
        InputTypeError: the policy is neither a name nor such an object, or an array is not of int32.

    Example:
        >>> vf.schedule(vf.pack([vf.tree(((0, 1), 2))])).steps
        array([[0, 3],
               [3, 4],
               [4, 5]], dtype=int32)
    """
    if not batch.num_vertices and not len(batch.child):
        raise GraphError("the batch is empty: there is nothing to schedule, and models need no schedule for it")
    if not isinstance(batch.kinds, (tuple, list, type(None))):
        raise InputTypeError(f"kinds must be a tuple or None, not {type(batch.kinds).__name__}")
    num_kinds = 1 if batch.kinds is None else len(batch.kinds)
    slots = _slots_by_kind(batch.num_slots if num_slots is None else num_slots, num_kinds)
    at_most = num_slots is None and batch.kinds is not None
    ragged_kinds = [ragged] * num_kinds if isinstance(ragged, bool) else list(ragged)
    structure = batch.child, batch.slot, batch.offset, batch.kind_index, num_kinds, batch.num_external
    name = policy if isinstance(policy, str) else type(policy).__name__
    is_native = isinstance(policy, str) and policy in ("depth", "height")
    try:
        if not is_native:
            _core.check(*structure)  # a policy may trust what it is given
            _require_size(batch)
    except (_core.Malformed, TypeError, ValueError) as error:
        _explain(error, batch, name, slots)
    # Outside the blocks around: an exception of the policy's own stays what it is.
    steps = name if is_native else _steps_of(name, _resolve_policy(policy, batch), batch)
    try:
        arrays, table, group_rows, is_tree = _core.schedule(
            *structure, slots, steps, batch.graph_offset, ragged_kinds, at_most
        )
        _require_size(batch)
    except (_core.Malformed, TypeError, ValueError) as error:
        _explain(error, batch, name, slots)
    groups = tuple(Group._make(row) for row in group_rows.tolist())
    return Schedule(name, batch.num_vertices, batch.num_external, batch.kinds, groups, is_tree, arrays, table)


def _slots_by_kind(num_slots: int | Sequence[int], num_kinds: int) -> list[int]:
    slots = [num_slots] * num_kinds if isinstance(num_slots, (int, np.integer)) else num_slots
    if not isinstance(slots, (list, tuple)) or not all(isinstance(count, (int, np.integer)) for count in slots):
        raise InputTypeError(f"num_slots is {num_slots!r}; give an integer, or one for each kind")
    if len(slots) != num_kinds:
        raise GraphError(f"num_slots has {len(slots)} entries for {num_kinds} kinds; give one for each")
    wrong = next((count for count in slots if not 0 <= count < 2**31), None)
    if wrong is not None:
        raise GraphError(f"num_slots is {wrong}; give how many slots the vertex function gathers")
    return [int(count) for count in slots]


def _require_size(batch: Structure) -> None:
    if batch.num_vertices != len(batch.offset) - 1:
        raise _core.Malformed("num_vertices", len(batch.offset) - 1, -1)


def _resolve_policy(policy: str | Policy, batch: Structure) -> Policy:
    if isinstance(policy, str):
        if policy == "fsm":
            return FSM.learn([batch])
        if policy not in POLICIES:
            known = ", ".join(repr(name) for name in [*POLICIES, "fsm"])
            raise BackendError(
                f"there is no policy {policy!r}; choose one of {known}, or give an object with a method steps(structure)"
            )
        return POLICIES[policy]
    if not callable(getattr(policy, "steps", None)):
        raise InputTypeError(
            f"a policy is a name or an object with a method steps(structure), not {type(policy).__name__}"
        )
    return policy


def _steps_of(name: str, policy: Policy, batch: Structure) -> Ints:
    """The policy's step of each vertex, renumbered where that is needed for all numbers to be below V."""
    answer = policy.steps(batch)
    try:
        step = np.asarray(answer)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GraphError(
            f"policy {name!r} must return one integer for each of {batch.num_vertices} vertices: {error}"
        ) from error
    if step.shape != (batch.num_vertices,) or step.dtype.kind not in "iu":
        raise GraphError(
            f"policy {name!r} must return one integer for each of {batch.num_vertices} vertices, "
            f"not an array of shape {step.shape} and dtype {step.dtype}"
        )
    negative = np.flatnonzero(step < 0)
    if len(negative):
        where = _locate(batch, int(negative[0]))
        raise GraphError(f"policy {name!r} puts {where} in step {step[negative[0]]}; steps count from 0")
    if int(step.max()) >= batch.num_vertices:
        step = np.unique(step, return_inverse=True)[1]
    return np.ascontiguousarray(step, np.int32)


def _explain(error: Exception, batch: Structure, policy: str, num_slots: list[int]) -> NoReturn:
    """Turn what the core refused about a structure, or about a policy's steps, into an error of ours."""
    if not isinstance(error, _core.Malformed):
        names = ("child", "slot", "offset", "kind_index", "graph_offset")
        wrong = [name for name in names if not isinstance(getattr(batch, name), (np.ndarray, type(None)))]
        wrong += [name for name in names[:3] if getattr(batch, name) is None]
        detail = f"{' and '.join(wrong)}: give NumPy arrays of int32" if wrong else str(error).splitlines()[0]
        error_class = InputTypeError if isinstance(error, TypeError) else GraphError
        raise error_class(f"the structure's arrays cannot be used: {detail}") from error
    problem, index, vertex = error.args
    if problem == "cycle":
        raise GraphError(
            f"a cycle: {_locate(batch, index)} depends on itself or on a cycle and is never ready"
        ) from None
    if problem == "slots":
        slots = num_slots[0 if batch.kind_index is None else int(batch.kind_index[vertex])]
        gathered = f"gathers slots 0 to {slots - 1}" if slots else "gathers no child"
        raise GraphError(
            f"more children than slots gathered: {_locate(batch, vertex)} has a child in slot {batch.slot[index]}, but "
            f"the vertex function {gathered}; gather that slot too, or give graphs with fewer children"
        ) from None
    if problem == "step order":
        child = int(batch.child[index])
        raise GraphError(
            f"policy {policy!r} puts {_locate(batch, vertex)} no later than its child, {_locate(batch, child)}; "
            "children come first"
        ) from None
    if problem == "too many slots":
        raise GraphError(
            f"the slots that are gathered make {index} places for children; at most 2**31 - 1 are possible"
        ) from None
    if problem == "child":
        detail = f"child[{index}] is {batch.child[index]}, which is out of range"
    elif problem == "slot order":
        detail = f"slot[{index}] is {batch.slot[index]}; a vertex's slots must rise from 0, none twice"
    elif problem == "offset":
        detail = f"offset falls at vertex {index}, or does not run from 0 to {len(batch.child)}"
    elif problem == "kind" and batch.kind_index is not None:
        num_kinds = 1 if batch.kinds is None else len(batch.kinds)
        detail = f"kind_index of vertex {index} is {batch.kind_index[index]}, which is out of range; there are {num_kinds} kinds"
    elif problem == "kinds":
        detail = "kinds is empty; where there are no kinds, it is None"
    elif problem == "graph_offset":
        detail = f"graph_offset must rise from 0 to {len(batch.offset) - 1}"
    elif problem == "num_vertices":
        detail = f"num_vertices is {batch.num_vertices}, but offset is that of {index} vertices"
    else:
        detail = f"{problem} ({index})"
    raise GraphError(f"the structure's arrays are inconsistent: {detail}") from None


def _locate(batch: Structure, vertex: int) -> str:
    try:
        return batch.locate(vertex)
    except (TypeError, ValueError, IndexError):  # the arrays that it looks into may be what is wrong
        return f"vertex {vertex}"
