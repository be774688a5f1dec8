"""Cut a core into kernels: what one launch computes, and what lies in memory between launches.

A kernel stores values of one shape, over tiles of rows and columns, and computes in registers everything that leads to them:
matrix products, which are stored only if something else needs them, sums over edges, gathered rows. Kernels have *levels*: those
of one level do not depend on each other. A value is stored if it is an output, if a product reads it, or if a later level needs
it and cannot compute it again from what lies in memory.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, fx

from ...graph import segments
from ...graph.symbolic.nodes import has_rows, on_edges, operands
from ...graph.symbolic.program import Part
from ..lower.calls import Called, calls_of
from ..lower.elements import check_known, check_rows, is_reduction
from ..lower.views import VIEWS, vertex_shape
from ..operations import CONSTANT, PRODUCTS, SEGMENTS, SPLIT, Unsupported, integer
from .tiles import ACROSS
from .turns import MOST_TURNS, Turns, turns_of

aten = torch.ops.aten

FEW = 4  # elements that are summed without a loop
FREE = {*VIEWS, operator.getitem, SPLIT, aten.clone.default, aten._to_copy.default}

Space = tuple[bool, tuple[int, ...]]  # whether rows are edges, and the shape of a row


@dataclass(frozen=True)
class ColumnStore:
    """Elements of a value, from column `first` on, written to `target` from column `offset` on."""

    value: fx.Node
    target: fx.Node
    offset: int = 0
    first: int = 0


@dataclass
class Kernel:
    """Stores of one shape, computed by one launch."""

    level: int
    space: Space
    stores: list[ColumnStore] = field(default_factory=list)


@dataclass
class Plan:
    """The kernels of a part, in the order of their launches, and the values that lie in memory while they run."""

    part: Part
    kernels: list[Kernel]
    stored: dict[fx.Node, fx.Node | None]  # a value -> the output of the part that it is, or None: scratch
    ready: dict[fx.Node, int]  # the first level at which a stored value is in memory
    calls: dict[int, Part] = field(
        default_factory=dict
    )  # by level: what PyTorch computes before the kernels of the level


class MustBeStored(Exception):  # noqa: N818 - a request to plan again, not a failure
    """A product is read in a way that its accumulators do not allow: its result must be stored first."""

    def __init__(self, product: fx.Node) -> None:
        super().__init__(product.name)
        self.product = product


def plan_part(part: Part, called: Called, received: Mapping[fx.Node, bool], stored_first: Collection[fx.Node]) -> Plan:
    """The kernels of a part. `called` is what is left to PyTorch. `received` has the placeholders, of the part's or the joint
    graph, that are gradients received from parents, and whether they are to be stored. The results of the products in
    `stored_first` are stored before they are read.

    Raises:
        Unsupported: an operation, a dtype or a layout that there are no kernels for; the message says which.
    """
    return _Planner(part, called, received, stored_first).plan()


def sole_rows(node: fx.Node) -> bool:
    """Whether the value has one row for each vertex or edge, in dimension 0."""
    layout = node.meta.get("rows")
    return layout is not None and layout.dim == 0 and layout.per_vertex == 1


def space_of(node: fx.Node) -> Space:
    """The space of a value's elements."""
    if node.meta.get("rows") is None or node.meta.get("interleaved"):
        raise Unsupported(f"{node.name} does not have its vertices one beside the other")
    return on_edges(node), tuple(vertex_shape(node))


def is_fused(product: fx.Node) -> bool:
    """Whether a product is computed in tiles, by `tl.dot`; others, and narrow ones, are sums over elements of their factors."""
    if product.target not in PRODUCTS or not sole_rows(product):
        return False
    a, b, bias = factors(product)
    if not has_rows(a) or has_rows(b) or (bias is not None and has_rows(bias)):
        return False
    summed, columns = b.meta["val"].shape
    return int(summed) > FEW and int(columns) > 1


def source_of(node: fx.Node) -> fx.Node:
    """The first value that an operation reads."""
    return node.all_input_nodes[0]


def is_sum(node: fx.Node) -> bool:
    """Whether each element is a sum, maximum or the like over elements of a row, or over its edges."""
    return is_reduction(node) or node.target in SEGMENTS


def is_free(node: fx.Node) -> bool:
    """Whether a value only moves or converts elements of another."""
    return node.target in FREE


def factors(node: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node | None]:
    """The operands a, b and bias (or None) of a product."""
    a, b = node.args[-2:]
    bias = node.args[0] if node.target is aten.addmm.default else None
    return cast("tuple[fx.Node, fx.Node, fx.Node | None]", (a, b, bias))


class _Planner:
    def __init__(
        self, part: Part, called: Called, received: Mapping[fx.Node, bool], stored_first: Collection[fx.Node]
    ) -> None:
        self.part, self.called, self.received, self.stored_first = part, called, received, stored_first
        self.level: dict[fx.Node, int] = {}
        self.fresh: set[fx.Node] = set()  # values computed from accumulators of products
        self.heavy: set[fx.Node] = set()  # values computed from other sums, which take time
        self.turns: dict[fx.Node, Turns] = {}
        self.stored: dict[fx.Node, fx.Node | None] = {}
        self.crossed: set[fx.Node] = set()  # stored values that later levels read

    def plan(self) -> Plan:
        nodes = [node for node in self.part.graph.nodes if node.op in ("placeholder", "call_function")]
        copies = self._outputs()
        self.stored.update(dict.fromkeys(node for node, is_kept in self.received.items() if is_kept))
        self.stored.update(dict.fromkeys(self.called.copies))
        self.crossed |= self.called.copies
        for node in dict.fromkeys([*self.received, *nodes]):
            if node in self.called.nodes:
                levels = [self.level[source] for source in node.all_input_nodes if source in self.level]
                levels_after_copies = [
                    self.level[source] + 1 for source in node.all_input_nodes if source in self.called.copies
                ]
                self.level[node] = max([1, *levels, *levels_after_copies])
            elif isinstance(node.meta.get("val"), Tensor):
                self._place(node)
        calls = calls_of(self.part, self.called, self.level)
        called = {node: level for level, call in calls.items() for node in call.outputs}
        self.stored.update(dict.fromkeys(called))
        stores = [store for node in self.stored if node not in called for store in self._stores(node)]
        stores += [ColumnStore(value, output) for value, output in copies if math.prod(space_of(value)[1])]
        kernels = self._kernels(stores)
        ready: dict[fx.Node, int] = {}
        for kernel in kernels:
            for store in kernel.stores:
                ready[store.target] = max(ready.get(store.target, 0), kernel.level + 1)
        ready.update(called)
        return Plan(self.part, kernels, self.stored, {node: ready.get(node, 0) for node in self.stored}, calls)

    def _kernels(self, stores: list[ColumnStore]) -> list[Kernel]:
        """One kernel for the stores of one level and shape. A value that needs no sums, and that no later level reads, joins any
        kernel of its shape that is late enough. So does a single element a row in a kernel of any shape, unless it is a sum,
        which each of several programs across a row would compute again."""
        kernels: dict[tuple[int, Space], Kernel] = {}
        stores = sorted(stores, key=lambda store: (self._is_narrow(store), self._is_light(store)))
        for store in stores:
            level, space = self.level[store.value], space_of(store.value)
            fitting = [key for key in kernels if key[0] >= level and key[1] == space]
            if self._is_narrow(store):
                widest = ACROSS if store.value in self.heavy else math.inf
                wide_enough = [key for key in kernels if key[1][0] == space[0] and math.prod(key[1][1]) <= widest]
                fitting += [key for key in wide_enough if key[0] >= level]
            if not self._is_light(store):
                fitting = [key for key in fitting if key[0] == level]
            key = fitting[-1] if fitting else (level, space)
            kernels.setdefault(key, Kernel(*key)).stores.append(store)
        return sorted(kernels.values(), key=lambda kernel: kernel.level)

    def _is_light(self, store: ColumnStore) -> bool:
        return store.value not in self.fresh | self.heavy and store.target not in self.crossed

    def _is_narrow(self, store: ColumnStore) -> bool:
        return store.value not in self.fresh and store.offset == 0 and math.prod(space_of(store.value)[1]) == 1

    def _stores(self, node: fx.Node) -> list[ColumnStore]:
        if not math.prod(space_of(node)[1]):
            return []
        if node.target is not aten.cat.default or not _joins_columns(node):
            return [ColumnStore(node, node)]
        start, stores = 0, []
        for operand in operands(node):
            if operand.target is not aten.empty.memory_format:  # nobody reads it
                stores.append(ColumnStore(operand, node, start))
            start += int(operand.meta["val"].shape[1])
        return stores

    def _outputs(self) -> list[tuple[fx.Node, fx.Node]]:
        """Note the outputs in `stored`; returns those that are copies of other values: pairs (value, output)."""
        copies = []
        for output, result in zip(self.part.outputs, self.part.results, strict=True):
            if not has_rows(result):
                raise Unsupported(f"{output.name} has no rows")
            check_rows(output, result)
            is_elsewhere = result.op == "placeholder" or result in self.called.nodes or result in self.stored
            if is_elsewhere or is_free(result) or result.target is CONSTANT:
                copies.append((result, output))
            else:
                self.stored[result] = output
        return copies

    def _place(self, node: fx.Node) -> None:
        """Find the first level at which a value can be computed."""
        if node.op == "placeholder":
            self.level[node] = 0
            if node in self.received:
                self.heavy.add(node)
        elif is_fused(node):
            self._place_product(node)
        elif node.target is aten.cat.default and node in self.stored:
            self.level[node] = max(map(self._level_of, operands(node)))
            for marked in (self.fresh, self.heavy):
                if any(operand in marked for operand in operands(node)):
                    marked.add(node)
        else:
            self._place_computed(node)

    def _place_product(self, node: fx.Node) -> None:
        a, b, bias = factors(node)
        self.level[node] = max(self._level_of(source) for source in (a, b, bias) if source is not None)
        if not self._is_read_in_place(a):
            self._store(a)
            self.level[node] = max(self.level[node], self._ready(a))
        self.fresh.add(node)
        if node in self.stored_first:
            self.stored.setdefault(node, None)
            self.crossed.add(node)

    def _place_computed(self, node: fx.Node) -> None:
        sources, is_expand = self._sources(node), node.target is segments.EXPAND
        levels = [self._level_of(source) for source in sources]
        if is_sum(node) or is_expand:
            for source in sources:
                if source in self.fresh or (source in self.heavy and is_expand):
                    self._cross(source)
                    levels.append(self._ready(source))
            if not is_expand:
                self.heavy.add(node)
        if sum(turns_of(node, sources, self.turns).values()) > MOST_TURNS:
            for source in sources:
                if sum(self.turns.get(source, {}).values()) > FEW:
                    self._cross(source)
                    levels.append(self._ready(source))
        level = self.level[node] = max(levels, default=0)
        in_registers = [source for source in sources if not self._in_memory(source, level)]
        self.turns[node] = turns_of(node, in_registers, self.turns)
        for source in sources:
            if self._level_of(source) < level:
                self._cross(source)
            elif not self._in_memory(source, level):
                self.fresh |= {node} if source in self.fresh else set()
                self.heavy |= {node} if source in self.heavy else set()

    def _level_of(self, node: fx.Node) -> int:
        """The first level at which other values can read a value."""
        base = viewed(node)
        is_stored_first = base in self.stored_first or (
            base.target is aten.cat.default
            and base in self.stored
            and len({self.level.get(operand) for operand in operands(base)}) > 1
        )
        return self._ready(base) if is_stored_first else self.level.get(node, 0)

    def _ready(self, node: fx.Node) -> int:
        """The first level at which a stored value is in memory."""
        base = viewed(node)
        if base.op == "placeholder" and base not in self.received:
            return 0
        return self.level[base] + (base not in self.called.nodes)

    def _in_memory(self, node: fx.Node, level: int) -> bool:
        base = viewed(node)
        return base in self.stored and self._ready(base) <= level

    def _is_read_in_place(self, node: fx.Node) -> bool:
        """Whether a product reads an operand from where it lies: it is columns of placeholders side by side."""
        if node.target is aten.cat.default and _joins_columns(node):
            return all(map(self._is_read_in_place, operands(node)))
        if is_free(node):
            return self._is_read_in_place(viewed(node))
        is_in_memory = node.op == "placeholder" and node not in self.received
        return is_in_memory or node in self.called.nodes or node.target is CONSTANT

    def _store(self, node: fx.Node) -> None:
        """Store a value, for later levels to read."""
        base = viewed(node)
        if base.op == "placeholder" and base not in self.received:
            return
        space_of(base)
        self.stored.setdefault(base, None)
        self.crossed.add(base)

    def _cross(self, node: fx.Node) -> None:
        """Make a value available to later levels: stored, or computed again from stored values."""
        if self._is_made_again(node):
            self._mark_crossed(node)
        else:
            self._store(node)

    def _is_made_again(self, node: fx.Node) -> bool:
        if node in self.stored or node not in self.fresh | self.heavy:
            return True
        if node.op == "placeholder" or is_sum(node):
            return False
        return all(map(self._is_made_again, self._sources(node)))

    def _mark_crossed(self, node: fx.Node) -> None:
        if node in self.stored:
            self.crossed.add(node)
        elif node.op != "placeholder":
            for source in self._sources(node):
                self._mark_crossed(source)

    def _sources(self, node: fx.Node) -> list[fx.Node]:
        """The values that an operation reads."""
        sources = [source_of(source) if source.target is SPLIT else source for source in node.all_input_nodes]
        return [source for source in sources if source in self.level]


def viewed(node: fx.Node) -> fx.Node:
    """The value whose elements a node moves or converts; the node itself if it computes some."""
    while is_free(node):
        node = looked_through(node)
    return node


def looked_through(view: fx.Node) -> fx.Node:
    """The value that a view reads."""
    source = source_of(view)
    return source_of(source) if source.target is SPLIT else source


def _joins_columns(cat: fx.Node) -> bool:
    return sole_rows(cat) and cat.meta["val"].dim() == 2 and integer(cat, 1) == 1


def check(node: fx.Node, part: str) -> None:
    """Raise `Unsupported` for an operation that there are no kernels for."""
    if isinstance(node.meta.get("val"), (int, torch.SymInt)) or node.target is operator.mul:
        return
    check_known(node, part)
    if is_reduction(node) and not has_rows(node):
        raise Unsupported(f"{node.name} sums over rows")
