"""The computation of one rank, where ranks share the columns of a vertex function: found from the trace of the whole one.

From the columns of the states that a rank scatters it goes backwards: what is read element by element is needed for the same
columns; of a product of a weight, the columns of the weight; what a product multiplies is needed whole, and is gathered from the
ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from ..graph.symbolic.nodes import ancestors, descendants
from ..graph.symbolic.passes.stops import STOP
from ..graph.symbolic.retrace import choose_edges, leaf
from ..graph.symbolic.roles import ALL_SLOTS, Gather, Param, role_of
from ..graph.symbolic.trace import Trace
from ..graph.symbolic.vertex import Vertex
from . import collectives
from .columns import Columns, own
from .division import Ranks, Step, Use, divided, extent_of, whole

aten = torch.ops.aten
_PRODUCTS = (aten.mm.default, aten.addmm.default)

StateColumns = Mapping[str, Columns | None]  # of a row: dimension 0 is the first of the state's shape


@dataclass(frozen=True)
class LocalProgram:
    """What a rank computes of a method.

    Attributes:
        steps: in order, what each value is made by.
        leaves: the values that are read from outside: parameters, inputs, states of children.
        scatters, pushes: by name.
        params: how each parameter is read: by which columns, or whole.
    """

    trace: Trace
    ranks: Ranks
    steps: list[tuple[Use, Step]]
    leaves: list[Use]
    scatters: dict[str, Use]
    pushes: dict[str, Use]
    params: dict[str, set[Columns | None]]

    @property
    def num_products(self) -> int:
        """How many products of weights each rank has its columns of."""
        return sum(use.columns is not None and use.node.target in _PRODUCTS for use, _ in self.steps)


def state_columns(name: str, shape: tuple[int, ...], ranks: int) -> Columns | None:
    """The dimension of a state that is divided: the last that the ranks divide evenly."""
    for dim in range(len(shape) - 1, -1, -1):
        if shape[dim] % ranks == 0:
            return Columns(dim, 1, shape[dim], 1)
    return None


class Divider:
    """Divides the methods of a vertex function."""

    def __init__(self, trace: Trace, states: StateColumns, ranks: Ranks) -> None:
        self.trace = trace.with_stops or trace
        self.states, self.ranks = states, ranks
        forward = ancestors([*self.trace.scatters.values(), *self.trace.pushes.values()])
        self.nodes = [node for node in self.trace.graph.nodes if node in forward]
        self.after_gather = descendants(self.trace.graph, self.trace.gathers.values())
        self.products = {node for node in self.nodes if node.target in _PRODUCTS}
        self.natural: dict[fx.Node, Columns | None] = {}
        for node in self.nodes:
            self.natural[node] = self._natural(node)

    def push_columns(self, name: str) -> Columns | None:
        """The columns by which an output is best made."""
        node = self.trace.pushes[name]
        columns = self.natural[node]
        return columns if columns is not None and node in self.after_gather else None

    def program(self, pushes: Mapping[str, Columns | None]) -> LocalProgram:
        """What this rank computes, with outputs of these columns."""
        wanted: dict[fx.Node, dict[Columns | None, None]] = {node: {} for node in self.nodes}
        scatters = {name: Use(node, _of_rows(self.states[name])) for name, node in self.trace.scatters.items()}
        outputs = {name: Use(node, pushes[name]) for name, node in self.trace.pushes.items()}
        for use in (*scatters.values(), *outputs.values()):
            wanted[use.node][use.columns] = None
        steps: list[tuple[Use, Step]] = []
        leaves: list[Use] = []
        for node in reversed(self.nodes):
            of_node = self._steps_for(node, wanted[node], leaves)
            for _, step in of_node:
                for use in step.uses:
                    if use.node is not node:
                        wanted[use.node][use.columns] = None
            steps += reversed(of_node)
        params: dict[str, set[Columns | None]] = {}
        for use in leaves:
            if isinstance(role := role_of(use.node), Param):
                params.setdefault(role.name, set()).add(use.columns)
        return LocalProgram(self.trace, self.ranks, steps[::-1], leaves, scatters, outputs, params)

    def _steps_for(
        self, node: fx.Node, wanted: Mapping[Columns | None, None], leaves: list[Use]
    ) -> list[tuple[Use, Step]]:
        """The steps that make a value in the ways that are wanted, in order."""
        if not wanted:
            return []
        if node.op != "call_function":
            return self._read(node, list(wanted), leaves)
        size = node.meta.get("val")
        if isinstance(size, torch.SymInt) and size.node.expr in (self.trace.rows, self.trace.edges):
            return [(Use(node), Step(_num_rows if size.node.expr == self.trace.rows else _num_edges))]
        by_columns: dict[Columns | None, Step] = {}
        cut: list[Columns] = []
        for columns in wanted:
            if columns is not None:
                step = self._divided(node, columns)
                if step is None:
                    cut.append(columns)
                else:
                    by_columns[columns] = step
        steps = [(Use(node, columns), step) for columns, step in by_columns.items()]
        if None in wanted or cut:
            columns = next(iter(by_columns), None) or self.natural[node]
            if columns is not None and node in self.after_gather and isinstance(node.meta["val"], Tensor):
                if columns not in by_columns:
                    step = self._divided(node, columns)
                    assert step is not None  # else they were not its natural columns
                    steps.append((Use(node, columns), step))
                steps.append((Use(node), self._gather(Use(node, columns))))
            else:
                steps.append((Use(node), whole(node)))
        return [*steps, *((Use(node, columns), self._cut(node, columns)) for columns in cut)]

    def _read(self, node: fx.Node, wanted: list[Columns | None], leaves: list[Use]) -> list[tuple[Use, Step]]:
        """The steps that make what is wanted of a placeholder out of what there is of it."""
        role, natural = role_of(node), self.natural[node]
        if isinstance(role, Param):  # what a rank has of it is decided when all that read it are known
            leaves += [Use(node, columns) for columns in wanted]
            return []
        steps: list[tuple[Use, Step]] = []
        leaves.append(Use(node, natural))
        if natural is not None and any(columns != natural for columns in wanted):
            steps.append((Use(node), self._gather(Use(node, natural))))
        steps += [(Use(node, each), self._cut(node, each)) for each in wanted if each is not None and each != natural]
        return steps

    def _divided(self, node: fx.Node, columns: Columns) -> Step | None:
        step = divided(node, columns, self.ranks)
        if step is None or node.target not in _PRODUCTS or columns.dim != 1:
            return step
        *bias, a, b = step.args
        natural = self.natural[a.node]
        is_alone = len(self.products & a.node.users.keys()) == 1  # else it is gathered once, and kept whole
        if natural is None or natural.dim != 1 or a.node not in self.after_gather or not is_alone:
            return step
        if a.node.op == "call_function" and divided(a.node, natural, self.ranks) is None:
            return step
        columns_of_a = (1, natural.outer, natural.size, natural.inner, self.ranks.group, self.ranks.count)
        args = [Use(a.node, natural), b, *columns_of_a]
        return Step(_with_bias, [*bias, *args]) if bias else Step(collectives.product, args)

    def _gather(self, use: Use) -> Step:
        c = use.columns
        assert c is not None
        return Step(collectives.gather, [use, c.dim, c.outer, c.size, c.inner, self.ranks.group, self.ranks.count])

    def _cut(self, node: fx.Node, columns: Columns) -> Step:
        return Step(own, [Use(node), columns, self.ranks.rank, self.ranks.count])

    def _natural(self, node: fx.Node) -> Columns | None:
        """The columns by which a value is best made, if it is needed whole, or by columns that nobody asks for."""
        role = role_of(node)
        if isinstance(role, Gather):
            columns = _of_rows(self.states[role.state])
            if columns is None or role.slot != ALL_SLOTS:
                return columns
            return columns.along(1, node.meta["val"].shape[1] // columns.block)
        if node.op != "call_function" or not isinstance(node.meta.get("val"), Tensor):
            return None
        if node.target in _PRODUCTS:
            extent = extent_of(node, 1)
            is_even = extent is not None and extent % self.ranks.count == 0 and not node.kwargs
            return Columns(1, 1, extent, 1) if is_even and extent is not None else None
        for candidate in self._candidates(node):
            step = divided(node, candidate, self.ranks)
            if step is not None and any(use.columns is not None for use in step.uses):
                return candidate
        return None

    def _candidates(self, node: fx.Node) -> list[Columns]:
        """Columns that operands have, as columns of the result; those that come of states first."""
        rank = node.meta["val"].dim()
        operands = [each for each in node.all_input_nodes if self.natural.get(each) is not None]
        operands.sort(key=lambda each: each.target in _PRODUCTS)
        candidates = []
        for each in operands:
            columns = self.natural[each]
            assert columns is not None
            dim = columns.dim + rank - each.meta["val"].dim()
            extent = extent_of(node, dim)
            if extent is not None and extent % columns.block == 0:
                candidates.append(columns.along(dim, extent // columns.block))
        return candidates


def _of_rows(columns: Columns | None) -> Columns | None:
    """Columns of a state, behind the dimension of the rows."""
    return None if columns is None else columns.along(columns.dim + 1)


def _with_bias(bias: Tensor, *args: Any) -> Tensor:
    product: Tensor = collectives.product(*args)
    return product + bias


def _num_rows() -> None:
    """Stands for the number of vertices of a step."""


def _num_edges() -> None:
    """Stands for the number of edges to their children."""


def run(program: LocalProgram, v: Vertex, param: Callable[[str, Columns | None], Tensor]) -> None:
    """The method of this rank, while it is traced."""
    choose_edges(program.trace, v)
    values: dict[Use, Any] = {}
    for use in program.leaves:
        values[use] = leaf(program.trace, use.node, v, partial(_columns_of, param, use.columns))
    for use, step in program.steps:
        args, kwargs = _mapped((step.args, step.kwargs), values)
        if step.target is STOP:
            values[use] = args[0].detach()
        elif step.target in (_num_rows, _num_edges):
            values[use] = v._rows if step.target is _num_rows else v._edges
        else:
            values[use] = step.target(*args, **kwargs)
    v.scatter(**{name: values[use] for name, use in program.scatters.items() if name not in program.trace.left_out})
    v.push(**{name: values[use] for name, use in program.pushes.items()})


def _columns_of(param: Callable[[str, Columns | None], Tensor], columns: Columns | None, name: str) -> Tensor:
    return param(name, columns)


def _mapped(tree: Any, values: Mapping[Use, Any]) -> Any:
    """Nested arguments with values in the place of uses."""
    if isinstance(tree, Use):
        return values[tree]
    if isinstance(tree, (list, tuple)):
        return type(tree)(_mapped(item, values) for item in tree)
    return {name: _mapped(item, values) for name, item in tree.items()} if isinstance(tree, dict) else tree
