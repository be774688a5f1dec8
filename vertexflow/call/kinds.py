"""Vertex functions with a method for each kind of vertices."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from ..errors import GraphError, InputError, VertexFunctionError
from ..graph.inputs.kind_names import number_kinds
from ..graph.inputs.pack import GraphBatch, replaced
from ..graph.symbolic.method import without_init
from .arcs import refuse_growth

if TYPE_CHECKING:
    from torch import Tensor

Method = TypeVar("Method", bound=Callable[..., None])


class Used(Protocol):
    """What a method pulls and pushes, as its trace says or as its calls showed."""

    @property
    def filename(self) -> str: ...

    @property
    def pulls(self) -> Mapping[str, object]: ...

    @property
    def pushes(self) -> Mapping[str, object]: ...

    @property
    def shared(self) -> Collection[str]: ...

    @property
    def left_out(self) -> Collection[str] | None: ...

    @property
    def first_slot(self) -> int | None: ...

    @property
    def arc_size(self) -> int | None: ...

    def is_edge_input(self, name: str) -> bool: ...

    def is_edge_output(self, name: str) -> bool: ...

    def output(self, name: str) -> Tensor:
        """A tensor like the output of this name, with any number of rows."""


def vertex(*kinds: Any) -> Callable[[Method], Method]:
    """Mark a method of a `VertexFunction` as the computation of vertices of these kinds.

    Such methods take the place of the one method `vertex`; graphs then carry a kind for each vertex. All kinds share the
    states; where a method scatters only some of them, the others are zero for the vertices of its kinds, and take no memory
    there (in a run that grows, they have a row for every vertex). What a method pulls,
    the caller gives for vertices of its kinds only; what it pushes comes for these only.

    Args:
        kinds: one or more, as in `vf.graph(..., kind=...)`.

    Raises:
        VertexFunctionError: no kind is given, or one that is no string or number.

    Example:
        >>> class Sum(vf.VertexFunction):
        ...     def __init__(self, words, size):
        ...         super().__init__(state={"h": size})
        ...         self.embed = nn.Embedding(words, size)
        ...         self.join = nn.Linear(2 * size, size)
        ...
        ...     @vf.vertex("leaf")
        ...     def leaf(self, v):
        ...         v.scatter(h=self.embed(v.pull("word")))
        ...
        ...     @vf.vertex("node")
        ...     def node(self, v):
        ...         h = torch.tanh(self.join(torch.cat([v.gather(0).h, v.gather(1).h], -1)))
        ...         v.scatter(h=h)
        ...         v.push(h=h)
        >>> graph = vf.graph(3, [(0, 2), (1, 2)], kind=["leaf", "leaf", "node"])
        >>> Sum(10, 4)([graph], word=torch.tensor([3, 7])).h.shape      # a word for each leaf, an h for each node
        torch.Size([1, 4])
    """
    if not kinds or any(callable(kind) for kind in kinds):
        raise VertexFunctionError('name the kinds that the method computes: @vf.vertex("leaf")')
    for kind in kinds:
        if not isinstance(kind, (str, int, float, bytes, np.generic)):
            raise VertexFunctionError(
                f"@vf.vertex({kind!r}): kinds are strings or numbers, and several of them stand side by side: "
                '@vf.vertex("leaf", "node")'
            )

    def mark(method: Method) -> Method:
        method._vertexflow_kinds = kinds  # type: ignore[attr-defined]
        return method

    return mark


def methods_of(cls: type, base: type) -> dict[Any, str]:
    """The name of the method of each kind; `{None: "vertex"}` if there is one method for all."""
    methods: dict[Any, str] = {}
    names = dict.fromkeys(name for part in reversed(cls.__mro__) for name in vars(part))
    for name in names:
        for kind in getattr(inspect.getattr_static(cls, name, None), "_vertexflow_kinds", ()):
            if kind in methods:
                raise VertexFunctionError(
                    f"{cls.__name__} has two methods for vertices of kind {kind!r}, `{methods[kind]}` and `{name}`; leave one"
                )
            if name != "vertex" and hasattr(base, name):
                raise VertexFunctionError(
                    f"method `{name}` of {cls.__name__} would take the place of `VertexFunction.{name}`; give it another name"
                )
            methods[kind] = name
    common_method = getattr(cls, "vertex", None)
    if methods and common_method is not getattr(base, "vertex", None) and "vertex" not in methods.values():
        raise VertexFunctionError(
            f"{cls.__name__} has a method `vertex` for all vertices and methods for kinds ({_listed(methods)}); "
            "write one or the others"
        )
    return methods or {None: "vertex"}


def check_written(model: Any, base: type) -> None:
    """Refuse a `VertexFunction` that was not initialised, or has no method that computes a vertex."""
    if "_methods" not in model.__dict__:
        raise VertexFunctionError(without_init(model))
    if getattr(model.vertex, "__func__", None) is getattr(base, "vertex", None) and None in model._methods:
        raise VertexFunctionError(
            f"{type(model).__name__} has no method that computes a vertex; write `def vertex(self, v)`, or one method for each "
            'kind of vertices, with @vf.vertex("kind") before it'
        )


def methods_of_rows(kind: Any, count: int, methods: Mapping[Any, str]) -> tuple[tuple[str, ...], Any]:
    """The methods that compute new vertices of a run that grows, and, if they are several, the number of each vertex's method
    among them, int32. `kind` is that of all these vertices, or of each."""
    if None in methods:
        return (methods[None],), None
    if kind is None and not count:
        return (), None
    if kind is None:
        raise GraphError(
            f"the vertex function has methods for the kinds {_listed(methods)}; give the kind of the new vertices, kind=..., one "
            "for all or one for each"
        )
    is_one = isinstance(kind, (str, bytes)) or not hasattr(kind, "__iter__")
    kinds, numbers = ((kind,), None) if is_one else number_kinds(kind, count)
    for number, name in enumerate(kinds):
        if name not in methods:
            row = 0 if numbers is None else int(np.flatnonzero(numbers == number)[0])
            raise GraphError(
                f"row {row} of `children` is of kind {name!r}, for which the vertex function has no method; it has "
                f"{_listed(methods)}: write one with @vf.vertex({name!r})"
            )
    names = tuple(methods[name] for name in kinds)
    distinct = tuple(dict.fromkeys(names))
    if numbers is None or len(distinct) == 1:
        return distinct, None
    return distinct, np.array([distinct.index(name) for name in names], np.int32)[numbers]


def methods_in(batch: GraphBatch, methods: Mapping[Any, str]) -> tuple[str, ...]:
    """The method of each of `batch.kinds`; of all vertices, if there are none. An empty batch may be of any kinds."""
    if not batch.num_graphs:
        return tuple(dict.fromkeys(methods.values()))
    if None in methods:
        return (methods[None],) * len(batch.kinds or (None,))
    if batch.kinds is None or batch.kind_index is None:
        raise GraphError(
            f"the vertex function has methods for the kinds {_listed(methods)}, but the graphs have no kinds; give them "
            "with vf.graph(..., kind=[...])"
        )
    for number, kind in enumerate(batch.kinds):
        if kind not in methods:
            where = batch.locate(int(np.flatnonzero(batch.kind_index == number)[0]))
            raise GraphError(
                f"{where} is of kind {kind!r}, for which the vertex function has no method; it has {_listed(methods)}: "
                f"write one with @vf.vertex({kind!r})"
            )
    return tuple(methods[kind] for kind in batch.kinds)


def count_rows(batch: GraphBatch, methods: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """How many vertices each method computes, and how many edges, or arcs, lead to their children."""
    if not batch.num_graphs:
        return dict.fromkeys(methods, (0, 0))
    if len(set(methods)) == 1:
        return {methods[0]: (batch.num_vertices, batch.num_arcs)}
    counts = batch.derived.kind_counts
    if counts is None:
        vertex_counts = np.bincount(batch.kind_index, minlength=len(methods))  # type: ignore[arg-type]
        edge_counts = np.bincount(batch.kind_index, np.diff(batch.arcs_before), len(methods))  # type: ignore[arg-type]
        counts = batch.derived.kind_counts = vertex_counts.tolist(), edge_counts.astype(np.int64).tolist()
    sums: dict[str, tuple[int, int]] = {}
    for method, vertices, edges in zip(methods, *counts, strict=True):
        previous = sums.get(method, (0, 0))
        sums[method] = previous[0] + vertices, previous[1] + edges
    return sums


def check_together(
    used: Mapping[str, Used], inputs: Iterable[str], shared: Iterable[str], are_all: bool = True
) -> None:
    """Refuse methods that use a name in different ways, inputs that no method reads, and, if these `are_all` methods, outputs
    and states that no method makes and shared tensors that none reads."""
    if are_all:
        check_scattered(used)
    if are_all and not any(use.pushes for use in used.values()):
        raise VertexFunctionError(
            "nothing was pushed; end with v.push(name=...) to give the model an output\n"
            f"  in the vertex function, {next(iter(used.values())).filename}"
        )
    first: dict[tuple[str, str], tuple[str, Any]] = {}
    for method, use in used.items():
        outputs = {name: use.output(name) for name in use.pushes}
        uses = {("input", name): "for edges" if use.is_edge_input(name) else "for vertices" for name in use.pulls}
        uses |= {
            (
                "output",
                name,
            ): f"as {str(value.dtype)[6:]}{['e' if use.is_edge_output(name) else 'n', *map(int, value.shape[1:])]}"
            for name, value in outputs.items()
        }
        uses = {key: how.replace("'", "") for key, how in uses.items()}
        for (sort, name), how in uses.items():
            first_method, first_how = first.setdefault((sort, name), (method, how))
            if first_how != how:
                verb = "pulls" if sort == "input" else "pushes"
                raise VertexFunctionError(
                    f"method `{first_method}` {verb} {name!r} {first_how}, method `{method}` {how}; give two {sort}s of two names"
                )
    pulled = dict.fromkeys(name for use in used.values() for name in use.pulls)
    for name in inputs:
        if name not in pulled:
            raise InputError(
                f"the model was given the input {name!r}, but the vertex function never pulls it "
                f"(it pulls: {_listed(pulled) or 'nothing'}); use v.pull({name!r}) or leave it out"
            )
    read = sorted({name for use in used.values() for name in use.shared})
    for name in shared if are_all else ():
        if name not in read:
            raise InputError(
                f"the model was given the shared tensor {name!r}, but the vertex function never reads it "
                f"(it reads: {_listed(read) or 'none'}); use v.shared({name!r}) or leave it out"
            )


def check_scattered(used: Mapping[str, Used]) -> None:
    """Refuse states that none of these methods scatters."""
    first = next(iter(used.values()))
    for name in sorted(first.left_out or ()):
        if all(name in (use.left_out or ()) for use in used.values()):
            raise VertexFunctionError(
                f"state {name!r} was never scattered; end with v.scatter({name}=...)\n"
                f"  in the vertex function, {first.filename}"
            )


def count_inputs(
    used: Mapping[str, Used], names: Iterable[str], counts: Mapping[str, tuple[int, int]]
) -> dict[str, int]:
    """How many rows each of these inputs must have, given how many vertices and edges each method computes."""
    rows = {}
    for name in names:
        pulling = _pulling(used, name)
        is_edge_input = used[pulling[0]].is_edge_input(name)
        rows[name] = sum([counts.get(method, (0, 0))[is_edge_input] for method in pulling])
    return rows


def _pulling(used: Mapping[str, Used], name: str) -> list[str]:
    """The methods that pull an input."""
    return [method for method, use in used.items() if name in use.pulls]


def check_rows(
    used: Mapping[str, Used],
    inputs: Mapping[str, Tensor],
    counts: Mapping[str, tuple[int, int]],
    kinds: Mapping[Any, str],
    where: str,
) -> None:
    """Refuse inputs that do not have a row for each vertex, or edge, of the kinds that pull them."""
    for (name, value), count in zip(inputs.items(), count_inputs(used, inputs, counts).values(), strict=True):
        if value.shape[0] != count:
            pulling = _pulling(used, name)
            is_edge_input = used[pulling[0]].is_edge_input(name)
            owner, order = ("vertex", "in the order of their numbers")
            if is_edge_input:
                owner, order = ("edge", "in the order in which edges were given (batch.edge_index)")
                if used[pulling[0]].arc_size is not None:
                    owner, order = ("arc", "in the order in which arcs were given (batch.arcs)")
            pulling_kinds = [kind for kind, method in kinds.items() if method in pulling]
            kind_clause = f" of kind {_listed(pulling_kinds, ' or ')}" if len(pulling) < len(used) else ""
            if kind_clause and is_edge_input:
                kind_clause = f" to the children of vertices{kind_clause}"
            raise InputError(
                f"input {name!r} has {len(value)} rows, but {where} has {count} {f'{owner}s' if is_edge_input else 'vertices'}"
                f"{kind_clause}: give one row {'an' if is_edge_input else 'a'} {owner}, {order}"
            )


def refuse_edges(used: Mapping[str, Used]) -> None:
    """Refuse inputs and outputs of edges beside initial states, and arcs."""
    for use in used.values():
        if use.arc_size is not None:
            raise InputError(
                "initial states are what vertices without children read in slot 0, and the vertex function reads v.arcs; give "
                "such vertices a kind, or an input, of their own"
            )
        if use.first_slot:
            continue  # initial states are in slot 0
        edge_inputs = [f"input {name!r}" for name in use.pulls if use.is_edge_input(name)]
        edge_outputs = [f"output {name!r}" for name in use.pushes if use.is_edge_output(name)]
        for tensor in (*edge_inputs, *edge_outputs):
            raise InputError(
                f"initial states come by edges that have no row of the edge {tensor}; leave out one or the other"
            )


def refuse_edge_outputs(used: Mapping[str, Used]) -> None:
    """Refuse outputs of edges of a run that grows, and arcs, which it has none of."""
    refuse_growth(used)
    for use in used.values():
        for name in use.pushes:
            if use.is_edge_output(name):
                raise VertexFunctionError(
                    f"output {name!r} has a row for each edge to a child, and a run that grows is read by the numbers of "
                    f"vertices; push what each vertex makes of it, such as v.sum(...), or call the model on whole graphs"
                )


def group_by_method(batch: GraphBatch, methods: tuple[str, ...]) -> tuple[GraphBatch, tuple[str, ...]]:
    """The batch with methods in place of kinds: kinds that one method computes need no steps of their own."""
    distinct = tuple(dict.fromkeys(methods))
    if batch.kind_index is None or len(distinct) == len(methods) > 1:
        return batch, methods
    if len(distinct) == 1:
        return replaced(batch, kinds=None, kind_index=None), distinct
    number = np.array([distinct.index(name) for name in methods], np.int32)
    return replaced(batch, kinds=distinct, kind_index=number[batch.kind_index]), distinct


def _listed(names: Any, between: str = ", ") -> str:
    return between.join(repr(name) for name in names)
