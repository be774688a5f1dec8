"""The object `v` that a vertex function sees while it is traced: one vertex, seen as the rows of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, VertexFunctionError
from . import segments
from .states import Dtypes, Shape

CHILDREN = -2  # the slot of a gather of all children


class Gathered:
    """The state of a child: one attribute for each state name, `[rows, *shape]`, zeros where that child is missing.

    >>> left = v.gather(0)
    >>> left.h + left.c
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.__dict__.update(state)

    def __getattr__(self, name: str) -> Tensor:
        states = [state for state in self.__dict__ if not state.startswith("_")]
        raise VertexFunctionError(f"a child has no state {name!r}; the states are {_listed(states)}")


class Children(Gathered):
    """All children of a vertex: one attribute for each state name, `[edges, *shape]`, a row for each edge to a child.

    >>> kids = v.children
    >>> v.sum(torch.sigmoid(kids.expand(x) + self.u(kids.h)) * kids.c)
    """

    def __init__(self, state: Mapping[str, Tensor], v: Vertex) -> None:
        super().__init__(state)
        self._v = v

    def pull(self, name: str) -> Tensor:
        """The rows of the edge input passed to the model as `name=`, `[edges, ...]`: that of each edge, whatever order it was
        given in (`batch.edge_index`)."""
        return self._v._pull(name, "edge")

    def expand(self, value: Tensor) -> Tensor:
        """A tensor of the vertex, `[rows, ...]`, repeated for each of its edges, `[edges, ...]`."""
        self._v._check_rows("kids.expand(...)", value)
        return segments.expand(value, self._v._counts(), self._v._edges)


class Vertex:
    """Records what a vertex function gathers, pulls, scatters and pushes.

    `leaf(role, shape, dtype)` makes the symbolic tensor that a gather or a pull returns; `rows` and `edges` are the
    symbolic numbers of vertices and of edges to their children.
    """

    def __init__(
        self,
        state: Mapping[str, Shape],
        state_dtypes: Dtypes,
        inputs: Mapping[str, Tensor],
        leaf: Callable[[tuple[Any, ...], Shape, torch.dtype], Tensor],
        rows: int | torch.SymInt,
        edges: int | torch.SymInt,
    ) -> None:
        self._state = state
        self._state_dtypes = state_dtypes
        self._inputs = inputs
        self._leaf = leaf
        self._rows = rows
        self._edges: Any = edges
        self._children: Children | None = None
        self._number: Tensor | None = None
        self._gathered: dict[int, Gathered] = {}
        self._pulled: dict[str, Tensor] = {}
        self._pulled_for: dict[str, str] = {}
        self.scattered: dict[str, Tensor] = {}
        self.pushed: dict[str, Tensor] = {}

    def gather(self, slot: int) -> Gathered:
        """The state of the child in `slot` (0, 1, ...)."""
        if not isinstance(slot, int) or isinstance(slot, bool) or slot < 0:
            raise VertexFunctionError(f"v.gather takes the number of a slot (0, 1, ...), not {slot!r}")
        if slot not in self._gathered:
            self._gathered[slot] = Gathered(
                {
                    name: self._leaf(("gather", name, slot), shape, self._state_dtypes[name])
                    for name, shape in self._state.items()
                }
            )
        return self._gathered[slot]

    def pull(self, name: str) -> Tensor:
        """The row of the input passed to the model as `name=`, `[rows, ...]`."""
        return self._pull(name, "pull")

    @property
    def children(self) -> Children:
        """All children, any number of them, with a row for each edge to a child."""
        if self._children is None:
            state = {
                name: self._leaf(("gather", name, CHILDREN), shape, self._state_dtypes[name])
                for name, shape in self._state.items()
            }
            self._children = Children(state, self)
        return self._children

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the children of each vertex, `[edges, ...]` -> `[rows, ...]`; no children: zeros."""
        self._check_edges("v.sum(...)", values)
        return segments.segment_sum(values, self._counts())

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the children of each vertex, `[edges, ...]` -> `[rows, ...]`; no children: zeros."""
        self._check_edges("v.mean(...)", values)
        return segments.segment_sum(values, self._counts()) / segments.column(self._counts().clamp(min=1), values)

    def max(self, values: Tensor) -> Tensor:
        """The maximum over the children of each vertex, `[edges, ...]` -> `[rows, ...]`; no children: zeros.

        Children that share the maximum share its gradient, as in `Tensor.amax`.
        """
        self._check_edges("v.max(...)", values)
        return segments.segment_max(values, self._counts())

    def softmax(self, values: Tensor) -> Tensor:
        """The softmax over the children of each vertex, `[edges, ...]` -> `[edges, ...]`."""
        self._check_edges("v.softmax(...)", values)
        return segments.segment_softmax(values, self._counts(), self._edges)

    def _pull(self, name: str, role: str) -> Tensor:
        call, each = ("v.pull", "vertex") if role == "pull" else ("v.children.pull", "edge")
        if name not in self._inputs:
            given = _listed(self._inputs) if self._inputs else "none"
            raise InputError(
                f"{call}({name!r}): the model was not given this input (given: {given}); call model(batch, {name}=...)"
            )
        if self._pulled_for.setdefault(name, role) != role:
            raise VertexFunctionError(
                f"{call}({name!r}): this input is pulled for vertices and for edges; give two inputs of two names"
            )
        if name not in self._pulled:
            given_tensor = self._inputs[name]
            if given_tensor.dim() == 0:
                raise InputError(
                    f"input {name!r} has no dimension; give one row {'a' if each[0] == 'v' else 'an'} {each}"
                )
            self._pulled[name] = self._leaf((role, name), tuple(given_tensor.shape[1:]), given_tensor.dtype)
        return self._pulled[name]

    def _counts(self) -> Tensor:
        """int64 [rows]: how many children each vertex has."""
        if self._number is None:
            self._number = self._leaf(("counts",), (), torch.int64)
        return self._number

    def scatter(self, **state: Tensor) -> None:
        """Publish this vertex's state to the vertices that gather it; every state once."""
        for name, value in state.items():
            if name not in self._state:
                raise VertexFunctionError(
                    f"v.scatter({name}=...): there is no state of this name; the states are {_listed(self._state)}"
                )
            if name in self.scattered:
                raise VertexFunctionError(f"v.scatter({name}=...): state {name!r} is scattered twice")
            want = self._state[name]
            self._check_rows(f"v.scatter({name}=...)", value)
            if tuple(value.shape[1:]) != want:
                raise VertexFunctionError(
                    f"v.scatter({name}=...): one vertex's {name!r} has shape {tuple(value.shape[1:])}, "
                    f"but the state was declared with shape {want}"
                )
            self.scattered[name] = value

    def push(self, **outputs: Tensor) -> None:
        """Publish outputs of this vertex to the caller: entries, and attributes, of what `model(...)` returns."""
        for name, value in outputs.items():
            if name in self.pushed:
                raise VertexFunctionError(f"v.push({name}=...): output {name!r} is pushed twice")
            self._check_rows(f"v.push({name}=...)", value)
            self.pushed[name] = value

    def finish(self) -> None:
        """Refuse a vertex function that left out a state."""
        for name in self._state:
            if name not in self.scattered:
                raise VertexFunctionError(f"state {name!r} was never scattered; end with v.scatter({name}=...)")

    def _check_edges(self, call: str, value: object) -> None:
        if not isinstance(value, Tensor):
            raise VertexFunctionError(f"{call} takes a tensor, not {type(value).__name__}")
        if value.dim() == 0 or (value.shape[0] is not self._edges and value.shape[0] != self._edges):
            raise VertexFunctionError(
                f"{call} takes one row for each edge to a child, but the shape is {tuple(value.shape)}; "
                "repeat a vertex's value for its edges with v.children.expand(...)"
            )
        if not value.is_floating_point():
            raise VertexFunctionError(f"{call} takes floating point values, not {value.dtype}; convert them first")

    def _check_rows(self, call: str, value: object) -> None:
        if not isinstance(value, Tensor):
            raise VertexFunctionError(f"{call} takes a tensor, not {type(value).__name__}")
        if value.dim() == 0 or (value.shape[0] is not self._rows and value.shape[0] != self._rows):
            raise VertexFunctionError(
                f"{call} takes one row a vertex, but the shape is {tuple(value.shape)}: the leading dimension "
                "(the vertices of the step) was lost or mixed"
            )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
