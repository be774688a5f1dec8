"""The object `v` that a vertex function sees while it is traced: one vertex, seen as the rows of a step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError, InputTypeError, VertexFunctionError
from .. import segments
from .children import Arcs, Children, Gathered, listed, type_of
from .method import check_returned
from .reserved import check_input_name, check_output_name
from .roles import CHILDREN, Counts, Gather, NumChildren, Pull, Role, Slots, arc_slot
from .states import STATES, Shape, StateDtypes, as_state

# The dtypes for which PyTorch can select rows.
_SELECTED = frozenset({*STATES, torch.complex32, torch.complex64, torch.complex128})
MOST_SLOTS = 1 << 10  # each slot takes memory for every vertex


class Vertex:
    """One vertex, as a vertex function sees it: the `v` of `vertex(self, v)`. Models make it; nobody else needs to.

    Its tensors have a leading dimension, the vertices that are computed together (rows), or the edges to their children; write
    what happens in one row, and mix no rows.

        v.gather(0).h             [rows, ...]   the state `h` of the child in slot 0; zeros where it is missing
        v.pull("x")               [rows, ...]   the vertex's row of the input `model(batch, x=x)`
        v.shared("W")                           a tensor that all vertices share, `model(batch, shared={"W": W})`
        kids = v.children                       all children; `v.children[k:]`: those in slots k and later
        kids.h                    [edges, ...]  their states
        kids.pull("weight")       [edges, ...]  an input with a row an edge
        kids.slot                 [edges]       the slot of each edge
        kids.expand(t)            [edges, ...]  a vertex's value for each of its edges
        v.sum(e), v.mean(e), v.max(e), v.min(e), v.logsumexp(e)    [edges, ...] -> [rows, ...]
        v.softmax(e)              [edges, ...]  over the children of each vertex
        v.num_children            [rows]
        v.scatter(h=h)                          publish the state, to parents
        v.push(h=h)                             publish an output, `out.h`, a row a vertex or a row an edge

    Example:
        >>> def vertex(self, v):
        ...     kids = v.children
        ...     h = torch.tanh(self.w(v.pull("x")) + v.sum(v.softmax(self.score(kids.h)) * kids.h))
        ...     v.scatter(h=h)
        ...     v.push(h=h)
    """

    __signature__ = inspect.Signature()  # what `help` shows: users make none

    # `leaf(role, shape, dtype)` makes the tensor that a gather or a pull returns; `rows` is the number of vertices, symbolic
    # while a method is traced, and `edges` gives that of the edges to their children, of those in a slot and later.
    def __init__(
        self,
        state: Mapping[str, Shape],
        state_dtypes: StateDtypes,
        inputs: Mapping[str, Tensor],
        leaf: Callable[[Role, Shape, torch.dtype], Tensor],
        rows: int | torch.SymInt,
        edges: Callable[[int], int | torch.SymInt],
        shared: Mapping[str, Tensor],
    ) -> None:
        self._state = state
        self._shared = shared
        self._state_dtypes = state_dtypes
        self._inputs = inputs
        self._leaf = leaf
        self._rows = rows
        self._edges_from = edges
        self._per_edge: dict[Role, Tensor] = {}  # what is known of edges, and how many each vertex has
        self.first_slot: int | None = None  # of the children that are read over edges; None: none are
        self.arc_size: int | None = None  # how many children of each arc are read; None: no arcs are
        self._gathered: dict[int, Gathered] = {}
        self._pulled: dict[str, Tensor] = {}
        self._is_per_edge: dict[str, bool] = {}  # what is pulled
        self.shared_names: set[str] = set()  # of what is shared, and read
        self.scattered: dict[str, Tensor] = {}
        self.left_out: frozenset[str] = frozenset()  # the states that were not scattered, once the method has run
        self.pushed: dict[str, Tensor] = {}
        # Whether what is pushed may have a row a vertex (False), or a row an edge (True): both, where there are as many of each.
        self.push_sorts: dict[str, set[bool]] = {}

    def __bool__(self) -> bool:
        raise VertexFunctionError(
            "`if` on the vertex itself: the method runs once for all vertices, so that it is always true"
        )

    def __len__(self) -> int:
        raise VertexFunctionError(
            "len(v): the method runs once for any number of vertices; v.num_children is how many children each has"
        )

    def __iter__(self) -> Iterator[Any]:
        raise VertexFunctionError(
            "iterating over the vertex itself: v.gather(slot) is the child in a slot, v.children are all children at once"
        )

    def gather(self, slot: int) -> Gathered:
        """The state of the child in `slot` (0, 1, ...); zeros, never None, where it is missing."""
        if not isinstance(slot, int) or isinstance(slot, bool) or slot < 0:
            raise VertexFunctionError(f"v.gather takes the number of a slot (0, 1, ...), not {slot!r}")
        if slot >= MOST_SLOTS:
            raise VertexFunctionError(
                f"v.gather({slot}): slots up to {MOST_SLOTS - 1} can be gathered by number; v.children are all children, "
                "however many"
            )
        if self.arc_size is not None:
            raise _arcs_and(f"v.gather({slot})")
        return self._gather(slot)

    def _gather(self, slot: int) -> Gathered:
        if slot not in self._gathered:
            leaves = {
                name: (Gather(name, slot), shape, self._state_dtypes[name]) for name, shape in self._state.items()
            }
            self._gathered[slot] = Gathered({name: self._leaf(*leaf) for name, leaf in leaves.items()})
        return self._gathered[slot]

    def pull(self, name: str) -> Tensor:
        """The row of the input passed to the model as `name=`, `[rows, ...]`."""
        return self._pull(name, per_edge=False)

    def shared(self, name: str) -> Tensor:
        """The tensor that all vertices share, passed to the model as `shared={name: ...}`, as it is: without rows.

        >>> torch.tanh(v.gather(0).h @ v.shared("W"))
        """
        if name not in self._shared:
            given = listed(self._shared) if self._shared else "none"
            raise InputError(
                f"v.shared({name!r}): the model was not given this tensor (given: {given}); call "
                f"model(batch, shared={{{name!r}: ...}}, ...)"
            )
        self.shared_names.add(name)
        return self._shared[name]

    @property
    def children(self) -> Children:
        """All children, any number of them, with a row for each edge to a child; `v.children[k:]` those in slots k and later."""
        return Children(self, 0)

    @property
    def arcs(self) -> Arcs:
        """All arcs, tuples of children that belong together (`vf.hypergraph`), with a row for each arc."""
        return Arcs(self)

    @property
    def num_arcs(self) -> Tensor:
        """How many arcs each vertex has, int64 `[rows]`."""
        self._choose_arcs()
        return self._of_edges(Counts()).clone()  # which the user may change in place

    @property
    def num_children(self) -> Tensor:
        """How many children each vertex has, int64 `[rows]`; what `initial` gives to a vertex counts as a child.

        >>> v.sum(kids.h) / v.num_children.clamp(min=1)[:, None].sqrt()
        """
        return self._of_edges(NumChildren()).clone()  # which the user may change in place

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the children of each vertex, `[edges, ...]` -> `[rows, ...]`; no children: zeros.

        Of integers and booleans it is int64, as in `Tensor.sum`.
        """
        self._check_edges("v.sum(...)", values, floating=False)
        return segments.segment_sum(values if values.is_floating_point() else values.long(), self._counts())

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the children of each vertex, `[edges, ...]` -> `[rows, ...]`; no children: zeros."""
        self._check_edges("v.mean(...)", values)
        return segments.segment_sum(values, self._counts()) / segments.column(self._counts().clamp(min=1), values)

    def max(self, values: Tensor) -> Tensor:
        """The maximum over the children of each vertex, `[edges, ...]` -> `[rows, ...]`; no children: zeros.

        Children that share the maximum share its gradient, as in `Tensor.amax`.
        """
        self._check_edges("v.max(...)", values, floating=False)
        return segments.segment_max(values, self._counts())

    def min(self, values: Tensor) -> Tensor:
        """The minimum over the children of each vertex, `[edges, ...]` -> `[rows, ...]`; no children: zeros.

        Children that share the minimum share its gradient, as in `Tensor.amin`.
        """
        self._check_edges("v.min(...)", values, floating=False)
        return segments.segment_min(values, self._counts())

    def logsumexp(self, values: Tensor) -> Tensor:
        """The log of the sum of exponentials over the children of each vertex, `[edges, ...]` -> `[rows, ...]`.

        No children, or only children of -inf: -inf, with gradients of zero (those of `Tensor.logsumexp` are NaN there).
        """
        self._check_edges("v.logsumexp(...)", values)
        return segments.segment_logsumexp(values, self._counts(), self._edges)

    def softmax(self, values: Tensor) -> Tensor:
        """The softmax over the children of each vertex, `[edges, ...]` -> `[edges, ...]`."""
        self._check_edges("v.softmax(...)", values)
        return segments.segment_softmax(values, self._counts(), self._edges)

    def _pull(self, name: str, per_edge: bool) -> Tensor:
        call, owner = ("v.pull", "vertex")
        if per_edge:
            call, owner = ("v.children.pull", "edge") if self.arc_size is None else ("v.arcs.pull", "arc")
        check_input_name(call, name)
        if name not in self._inputs:
            available = listed(self._inputs) if self._inputs else "none"
            raise InputError(
                f"{call}({name!r}): the model was not given this input (given: {available}); call model(batch, {name}=...)"
            )
        if self._is_per_edge.setdefault(name, per_edge) != per_edge:
            raise VertexFunctionError(
                f"{call}({name!r}): this input is pulled for vertices and for edges; give two inputs of two names"
            )
        if name not in self._pulled:
            value = self._inputs[name]
            if value.dtype not in _SELECTED:
                raise InputTypeError(_not_selected(f"input {name!r}", value.dtype))
            if value.dim() == 0:
                raise InputError(
                    f"input {name!r} has no dimension; give one row {'a' if owner[0] == 'v' else 'an'} {owner}"
                )
            shape = tuple(value.shape[1:])
            self._pulled[name] = self._leaf(Pull(name, per_edge), shape, value.dtype)
        return self._pulled[name]

    @property
    def _edges(self) -> Any:
        """How many edges are read."""
        return self._edges_from(self.first_slot or 0)

    @property
    def _edge_noun(self) -> str:
        return "edge to a child" if self.arc_size is None else "arc"

    def _choose(self, first_slot: int) -> None:
        """Read children over edges, those in this slot and later: all of them are these from now on."""
        if self.arc_size is not None:
            raise _arcs_and(f"v.children[{first_slot}:]" if first_slot else "v.children")
        if self.first_slot is None:
            self.first_slot = first_slot
        if self.first_slot != first_slot:
            names = [f"v.children[{slot}:]" if slot else "v.children" for slot in (self.first_slot, first_slot)]
            raise VertexFunctionError(
                f"the vertex function reads {names[0]} and {names[1]}: they have different edges, and a vertex function reads "
                "its children over edges in one way; read the children in single slots with v.gather(slot) beside v.children[k:]"
            )

    def _choose_arcs(self) -> None:
        """Read arcs over edges from now on."""
        if self.arc_size is None and (self.first_slot is not None or self._gathered):
            slots = [*self._gathered]
            raise _arcs_and(f"v.gather({slots[0]})" if slots else "v.children")
        self.first_slot, self.arc_size = 0, self.arc_size or 0

    def _gather_at(self, position: int) -> Gathered:
        """The state of the child at a position of each arc."""
        if not isinstance(position, int) or isinstance(position, bool) or not 0 <= position < MOST_SLOTS:
            raise VertexFunctionError(
                f"v.arcs.gather takes a position in arcs (0, 1, ..., at most {MOST_SLOTS - 1}), not {position!r}"
            )
        self._choose_arcs()
        self.arc_size = max(self.arc_size or 0, position + 1)
        return self._gather(arc_slot(position))

    def _children_from(self, first_slot: int) -> dict[str, Tensor]:
        """The states of the children in this slot and later, by name."""
        self._choose(first_slot)
        roles = {name: Gather(name, CHILDREN) for name in self._state}
        return {name: self._of_edges(role, self._state[name], self._state_dtypes[name]) for name, role in roles.items()}

    def _slots_from(self, first_slot: int) -> Tensor:
        """int64 [edges]: the slot of each child in this slot and later."""
        self._choose(first_slot)
        return self._of_edges(Slots()).clone()  # which the user may change in place

    def _counts(self) -> Tensor:
        """int64 [rows]: how many edges each vertex has."""
        if self.first_slot is None:
            self._choose(0)
        return self._of_edges(Counts())

    def _of_edges(self, role: Role, shape: Shape = (), dtype: torch.dtype = torch.int64) -> Tensor:
        if role not in self._per_edge:
            self._per_edge[role] = self._leaf(role, shape, dtype)
        return self._per_edge[role]

    def scatter(self, *unnamed: Tensor, **state: Tensor) -> None:
        """Publish this vertex's state to the vertices that gather it; every state once, by its name: `v.scatter(h=h)`.

        Where there are several kinds, a state that a kind leaves out is zero there.
        """
        _refuse_unnamed("v.scatter", unnamed, next(iter(self._state), "h"))
        for name, value in state.items():
            if name not in self._state:
                raise VertexFunctionError(
                    f"v.scatter({name}=...): there is no state of this name; the states are {listed(self._state)}"
                )
            if name in self.scattered:
                raise VertexFunctionError(f"v.scatter({name}=...): state {name!r} is scattered twice")
            shape = self._state[name]
            self._check_rows(f"v.scatter({name}=...)", value)
            if tuple(value.shape[1:]) != shape:
                raise VertexFunctionError(
                    f"v.scatter({name}=...): one vertex's {name!r} has shape {tuple(value.shape[1:])}, "
                    f"but the state was declared with shape {shape}"
                )
            self.scattered[name] = as_state(name, value, self._state_dtypes)

    def push(self, *unnamed: Tensor, **outputs: Tensor) -> None:
        """Publish outputs to the caller, entries, and attributes, of what `model(...)` returns: tensors with a row a vertex,
        `[rows, ...]`, or with a row for each edge to a child, `[edges, ...]`.

        >>> v.push(h=h, attention=v.softmax(scores))
        """
        _refuse_unnamed("v.push", unnamed, "h")
        for name, value in outputs.items():
            check_output_name(name)
            if name in self.pushed:
                raise VertexFunctionError(f"v.push({name}=...): output {name!r} is pushed twice")
            self.push_sorts[name] = self._sorts(f"v.push({name}=...)", value)
            self.pushed[name] = value

    def finish(self, returned: object) -> None:
        """Check what the method returned, and note the states that it left out: methods of other kinds may scatter them."""
        check_returned(returned, bool(self.scattered or self.pushed))
        self.left_out = frozenset(self._state) - frozenset(self.scattered)

    def _check_edges(self, call: str, value: object, floating: bool = True) -> None:
        value = _plain(call, value)
        if value.dim() == 0 or not same_size(value.shape[0], self._edges):
            raise VertexFunctionError(
                f"{call} takes one row for each {self._edge_noun}, but the shape is {tuple(value.shape)}; repeat a vertex's "
                f"value for them with {'v.children' if self.arc_size is None else 'v.arcs'}.expand(...)"
            )
        if value.is_complex() or (floating and not value.is_floating_point()):
            raise VertexFunctionError(f"{call} takes floating point values, not {value.dtype}; convert them first")

    def _sorts(self, call: str, value: object) -> set[bool]:
        """Whether a value has a row a vertex (False), or a row an edge (True)."""
        value = _plain(call, value)
        sizes = ((False, self._rows), (True, self._edges)) if value.dim() else ()
        sorts = {per_edge for per_edge, size in sizes if same_size(value.shape[0], size)}
        if not sorts:
            raise VertexFunctionError(
                f"{call} takes one row a vertex, or one for each {self._edge_noun}, but the shape is {tuple(value.shape)}: the "
                "leading dimension (the vertices of the step, or their edges) was lost or mixed"
            )
        return sorts

    def _check_rows(self, call: str, value: object) -> None:
        value = _plain(call, value)
        if value.dim() == 0 or not same_size(value.shape[0], self._rows):
            raise VertexFunctionError(
                f"{call} takes one row a vertex, but the shape is {tuple(value.shape)}: the leading dimension "
                "(the vertices of the step) was lost or mixed"
            )


def _arcs_and(other: str) -> VertexFunctionError:
    return VertexFunctionError(
        f"the vertex function reads v.arcs and {other}; a vertex function reads its children in one way: with "
        "v.arcs.gather(position) those at a position of each arc"
    )


def _refuse_unnamed(call: str, unnamed: Sequence[object], name: str) -> None:
    if unnamed:
        raise VertexFunctionError(f"{call}(...) takes values by name, such as {call}({name}={name}), not by position")


def _plain(call: str, value: object) -> Tensor:
    """The value, if it is a dense tensor with values, of a dtype whose rows can be selected."""
    if not isinstance(value, Tensor):
        raise VertexFunctionError(f"{call} takes a tensor, not {type_of(value)}")
    if value.layout != torch.strided:
        raise VertexFunctionError(f"{call} takes a dense tensor, not one of layout {value.layout}; call .to_dense()")
    if value.device.type == "meta":
        raise VertexFunctionError(f"{call} takes a tensor with values, not one on the device meta")
    if value.dtype not in _SELECTED:
        raise VertexFunctionError(_not_selected(call, value.dtype))
    return value


def _not_selected(call: str, dtype: torch.dtype) -> str:
    to = "torch.float32" if dtype.is_floating_point else "torch.int64"
    return f"{call}: the tensor is of {dtype}, of which PyTorch does not select rows; convert it, with .to({to})"


def same_size(first_size: Any, second_size: Any) -> bool:
    """Whether two sizes are the same for every step; `==` would compare symbolic sizes by their example values."""
    first, second = (size.node.expr if isinstance(size, torch.SymInt) else size for size in (first_size, second_size))
    return bool(first == second)
