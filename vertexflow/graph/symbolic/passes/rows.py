"""A check, by running it, that every operation of a graph computes each vertex by itself, and all vertices alike."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from ....errors import VertexFunctionError
from ..isolation import generators_in, seed
from ..nodes import ARANGES, ancestors, is_view
from ..sizes import is_size, sizes_as_values
from .closeness import agree, magnitude, same, tolerance
from .hidden import alike_nodes, compares_places, drawn, takes_values_of_rows, weights_of_neighbours
from .row_layout import RowLayout, blocks, divisors, joined, layout_of, take
from .samples import BOLDNESS, Samples
from .widened import in_float64, means_the_same, run_as_traced, run_in_float64

if TYPE_CHECKING:
    from ..trace import Trace

Values = dict[fx.Node, Any]

# The rows that are computed again, without the others and in other places: two rows with several children, moved; a row
# without children; a row with one child.
_SELECTIONS = ((2, 0), (1,), (3,))
_FRESH = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided")
# How many random numbers these take from the generator depends on values, and so does what later rows get.
_UNSTEADY = ("poisson", "binomial", "_standard_gamma", "_sample_dirichlet", "rrelu_with_noise_functional")


def check_rows(trace: Trace, inputs: Mapping[str, Tensor], constants: Mapping[str, Tensor]) -> None:
    """Refuse a vertex function that mixes rows, naming the line; note every value's `RowLayout` in `meta["rows"]`.

    Shapes alone cannot tell `x.flip(0)` from `x`, nor `x / x.shape[0]` from `x / 2`. So the graph is run on a few rows, and
    then every operation again on some of these rows in other places: its result must be the same rows of its first result.
    The result of an operation that reads other rows, their number or their positions differs.
    `constants` are the parameters and buffers. Values in which the entries of a vertex lie interleaved with those of others
    (after a copying transpose) get `meta["interleaved"]` and are kept out of buffers.
    """
    for node in trace.graph.nodes:
        if isinstance(node.meta.get("val"), Tensor):
            node.meta["rows"] = _layout(node, trace)
    forward = ancestors([*trace.scatters.values(), *trace.pushes.values()])
    wanted = ancestors([node for node in trace.graph.nodes if node.meta.get("rows") is not None]) | forward
    order = [node for node in trace.graph.nodes if node in wanted | ancestors(list(trace.param_grads.values()))]
    _refuse_sizes(trace, [node for node in order if node in forward])
    _seed(order)
    _check(_Check(trace, order, forward), inputs, constants)
    _refuse_sizes(trace, order)


def _check(check: _Check, inputs: Mapping[str, Tensor], constants: Mapping[str, Tensor]) -> None:
    """Refuse a graph that mixes rows, or that fails on all samples."""
    samples = Samples(check.trace, inputs, constants, check.run)
    complete, failure = False, None
    for boldness in BOLDNESS:
        try:
            base = check.run(samples.draw(boldness), check.order)
        except VertexFunctionError as error:
            failure = error  # it does not accept such numbers; the next ones are more like the user's
            continue
        check.compare(base)
        if complete or not any(_has_nan(value) for value in base.values()):
            return
        complete = True
    if failure is not None and not complete:
        raise failure


def _layout(node: fx.Node, trace: Trace) -> RowLayout | None:
    try:
        return layout_of(node.meta["val"], trace.rows, trace.edges)
    except ValueError:
        raise VertexFunctionError(_mixing(trace, node, f"a value of shape {trace.shape(node)}")) from None


def _refuse_sizes(trace: Trace, nodes: Iterable[fx.Node]) -> None:
    for node in sizes_as_values(nodes):
        sizes = [source.meta["val"].node.expr for source in node.all_input_nodes if is_size(source)]
        edges = any(trace.edges in size.free_symbols for size in sizes)
        remedy = (
            "v.num_children is how many children each vertex has, a row a vertex"
            if edges
            else "compute each row from its own row only, as if there were one (v.num_children is how many children it has)"
        )
        raise VertexFunctionError(
            f"the vertex function makes values of the number of {'edges' if edges else 'vertices'} in a step, or of their "
            f"places (`{node.target}` of a size, such as x.shape[0]), which differ from step to step; {remedy}"
            f"\n  in the vertex function, {trace.where(node)}"
        )


def _mixing(trace: Trace, node: fx.Node, result: str) -> str:
    return (
        f"the vertex function mixes rows: `{node.target}` makes {result}. Dimension 0 holds the vertices of a step, which "
        "must not see each other; reduce or normalise over other dimensions (dim=-1), and gather what comes from children"
        f"\n  in the vertex function, {trace.where(node)}"
    )


class _Check:
    """One graph, run on all rows and then, operation by operation, on some of them.

    It runs in float64 where that is possible, so that rows are told apart whose difference float32 would round away.
    """

    def __init__(self, trace: Trace, order: list[fx.Node], forward: set[fx.Node]) -> None:
        self.trace, self.order, self.forward = trace, order, forward
        self.as_traced = {node for node in order if not means_the_same(node)}  # operations that run in their own dtypes
        # Random numbers are not drawn again, nor is memory allocated again: the first run's values are reused.
        self.reused = {node for node in order if _is_random(node) or _name(node) in _FRESH}
        self.reused |= {node for node in order if node.target is operator.getitem and node.args[0] in self.reused}
        # Positions of rows may serve as indices (`x[torch.arange(len(x)), k]`): there, the rows that are read are compared.
        self.places = {node for node in order if node.target in ARANGES and node.meta["rows"] is not None}
        for node in order:
            source = node.all_input_nodes[0] if node.all_input_nodes else None
            if is_view(node) and source in self.places:
                self.places.add(node)
            elif (
                node.target is operator.getitem and source and self.places & {*source.all_input_nodes} and _counts(node)
            ):
                self.places.add(node)  # such as the number of each entry's bag, for the derivative of an EmbeddingBag
                node.meta["places"] = True
        self.outer: dict[fx.Node, int | None] = {}  # how the several entries of a vertex are arranged, see `take`
        self.new_numbers: Values = {}  # random numbers in place of values that are equal in all rows

    def run(self, leaves: Mapping[fx.Node, Any], wanted: list[fx.Node]) -> Values:
        """All values of the graph that `wanted` need."""
        needed, values = ancestors(wanted), dict[fx.Node, Any]()
        with torch.no_grad():
            for node in self.order:
                if node in needed:
                    values[node] = in_float64(leaves[node]) if node.op == "placeholder" else self._compute(node, values)
                    if _name(node) in _FRESH:
                        values[node].zero_()
        return values

    def compare(self, base: Values) -> None:
        """Refuse an operation whose rows differ when it runs on some of the rows only, in other places."""
        self.outer.clear()
        with torch.no_grad():
            alike = alike_nodes(base, lambda value, node: blocks(value, node.meta["rows"], 1))
            alike |= weights_of_neighbours(self.order)
            self.new_numbers = {node: drawn(base[node].cpu()) for node in alike - self.places}
            parts = [self._on_rows(base, selection) for selection in _SELECTIONS]
            outputs = {*self.trace.scatters.values(), *self.trace.pushes.values()}
            for node in outputs & self.places:
                raise VertexFunctionError(_mixing(self.trace, node, "values of the rows' places"))
            for node in self.reused:
                self._check_random(node, base)
            for node in self.trace.param_grads.values():
                total = torch.stack([part[node] for part in parts]).sum(0)
                if node.meta["rows"] is None and not agree(
                    total, base[node], self._coarsest, magnitude(_summed(node), base)
                ):
                    raise VertexFunctionError(
                        _mixing(self.trace, node, "a gradient of a parameter that is no sum over the vertices")
                    )

    def _on_rows(self, base: Values, selection: tuple[int, ...]) -> Values:
        values: Values = {}
        for node in self.order:
            if node.op == "placeholder" or node in self.reused:
                self._arrange(node)
                values[node] = self._expected(node, base, selection)
                continue
            value = self._compute(node, values)
            is_from_sums = isinstance(value, Tensor) and node.meta["rows"] is None and node not in self.forward
            if not isinstance(value, Tensor) or is_from_sums or node in self.places:
                values[node] = value  # a size, several results, a sum over rows or a value computed from one
                continue
            expected = self._match(node, base, value, selection, values)
            expected = expected or self._rearranged(node, base, values, selection)
            in_forward = node in self.forward
            if expected is None or (in_forward and takes_values_of_rows(node, value)):
                without = node.meta["rows"] is None
                fault = (
                    "without a row for each vertex" if without else "that depends on other rows, their number or place"
                )
                raise VertexFunctionError(_mixing(self.trace, node, f"a value {fault}"))
            is_hidden = in_forward and self._is_hidden(node, base, values, selection, self.outer.get(node, 1))
            if is_hidden or (in_forward and compares_places(node, self.places)):
                raise VertexFunctionError(_mixing(self.trace, node, "a value that depends on other rows, or on places"))
            values[node] = expected[
                0
            ]  # from the first run: rounding does not add up, and each operation is judged alone
        return values

    def _compute(self, node: fx.Node, values: Values) -> Any:
        if node.op == "get_attr":
            return in_float64(node.meta["constant"])
        try:
            if node not in self.as_traced:
                with contextlib.suppress(Exception):  # not implemented in float64, or it fails on such numbers
                    return run_in_float64(node, values)
            result = run_as_traced(node, values)
            self.as_traced.add(node)
            return result
        except Exception as error:
            raise VertexFunctionError(
                f"the vertex function failed: {type(error).__name__}: {error}\n"
                f"  in the vertex function, {self.trace.where(node)}"
            ) from error

    def _tolerance(self, node: fx.Node) -> float:
        producer = node.all_input_nodes[0] if node.target is operator.getitem else node
        nodes = [node, *node.all_input_nodes, *producer.all_input_nodes]
        return tolerance(nodes, (lambda dtype: dtype) if producer in self.as_traced else in_float64)

    def _expected(self, node: fx.Node, base: Values, selection: tuple[int, ...]) -> Any:
        value, layout = base[node], node.meta.get("rows")
        if layout is None or not isinstance(value, Tensor):
            return value
        return take(value, layout, selection, self.outer.get(node) or 1)

    def _match(
        self, node: fx.Node, base: Values, value: Tensor, selection: tuple[int, ...], values: Values
    ) -> tuple[Tensor] | None:
        """The selected rows of the first run's value, if `value` equals them; notes how entries are arranged.

        Where all rows are equal, any arrangement fits these numbers, so that new numbers decide.
        """
        layout = node.meta["rows"]
        several = layout is not None and layout.per_vertex > 1
        arrangements = (
            divisors(layout.per_vertex) if several and node not in self.outer else [self.outer.get(node) or 1]
        )
        fitting = {}
        for outer in arrangements:
            expected = base[node] if layout is None else take(base[node], layout, selection, outer)
            if same(value, expected) or agree(  # the rest takes longer, and is hardly ever asked for
                value, expected, self._tolerance(node), magnitude(node.all_input_nodes, base)
            ):
                fitting[outer] = expected
                if len(arrangements) == 1 or not self._is_hidden(node, base, values, selection, outer):
                    break
        else:
            outer = next(iter(fitting), 0)
        if outer not in fitting:
            return None
        if several:
            self._note(node, outer)
        return (fitting[outer],)

    def _rearranged(
        self, node: fx.Node, base: Values, values: Values, selection: tuple[int, ...]
    ) -> tuple[Tensor] | None:
        """`_match`, trying other arrangements of the random numbers that the operation reads: any of them is right."""
        free = [source for source in node.all_input_nodes if self.outer.get(source, 1) is None]
        for outer in divisors(max((source.meta["rows"].per_vertex for source in free), default=1)):
            if all(source.meta["rows"].per_vertex % outer == 0 for source in free):
                values.update({source: take(base[source], source.meta["rows"], selection, outer) for source in free})
                expected = self._match(node, base, self._compute(node, values), selection, values)
                if expected is not None:
                    for source in free:
                        self._note(source, outer)
                    return expected
        return None

    def _is_hidden(
        self, node: fx.Node, base: Values, values: Values, selection: tuple[int, ...], outer: int | None
    ) -> bool:
        """Whether an operation that read equal rows mixes rows when these get new numbers, on which it may fail (an index, a
        factor); `outer` is the arrangement of its result."""
        reader = node.all_input_nodes[0] if node.target is operator.getitem else node
        new_numbers = {
            source: self.new_numbers[source] for source in reader.all_input_nodes if source in self.new_numbers
        }
        layout = node.meta["rows"]
        arranged = [self.outer.get(source, 1) for source in reader.all_input_nodes]
        if not new_numbers or layout is None or outer is None or None in arranged:
            return False
        part = {
            s: take(x, s.meta["rows"], selection, self.outer.get(s) or 1) if s.meta["rows"] else x
            for s, x in new_numbers.items()
        }
        results = []
        for numbers in ({**base, **new_numbers}, {**values, **part}):
            on_cpu = {s: x.cpu() if isinstance(x := numbers[s], Tensor) else x for s in reader.all_input_nodes}
            try:  # on the CPU: on a GPU a number out of range would be fatal
                result = self._compute(reader, on_cpu)
            except VertexFunctionError:
                return False
            results.append(result if reader is node else result[node.args[1]])
        expected = take(results[0], layout, selection, outer)
        return not agree(results[1], expected, self._tolerance(node))

    def _arrange(self, node: fx.Node) -> None:
        """Arrange random numbers like the operand they are drawn for; without one, the first operation that reads them does."""
        layout = node.meta.get("rows")
        if layout is not None and layout.per_vertex > 1 and node not in self.outer:
            self.outer[node] = None
            for source in node.all_input_nodes:
                if source.meta.get("rows") == layout and self.outer.get(source) is not None:
                    self._note(node, self.outer[source] or 1)

    def _note(self, node: fx.Node, outer: int) -> None:
        self.outer[node] = outer
        if outer > 1:
            node.meta.update(interleaved=True, outer=outer)

    def _check_random(self, node: fx.Node, base: Values) -> None:
        """Refuse random numbers of a row that depend on other rows."""
        name, value = _name(node), node.meta.get("val")
        sources = [source for source in node.all_input_nodes if source.meta.get("rows") is not None]
        if name == "randperm" and node.meta["rows"] is not None:
            raise VertexFunctionError(_mixing(self.trace, node, "a permutation of the rows"))
        if name in _FRESH or name in _UNSTEADY or node.target is operator.getitem or not sources:
            return
        if isinstance(value, Tensor) and node.meta["rows"] is None:
            raise VertexFunctionError(_mixing(self.trace, node, "a value without a row for each vertex"))
        results = []
        for first in (0, -1):  # once as they are, once with another first row
            values = dict(base)
            for source in sources:
                arranged = self.outer.get(source) or 1
                rows = blocks(base[source], source.meta["rows"], arranged)
                values[source] = joined(torch.cat([rows[[first]], rows[1:]]), source.meta["rows"], arranged)
            _seed(self.order)
            results.append(self._compute(node, values))
        items = [node] if isinstance(value, Tensor) else [user for user in node.users if user in self.reused]
        for item in items:
            pair = [result if item is node else result[item.args[1]] for result in results]
            layout = item.meta["rows"]
            arranged = self.outer.get(item) or 1
            first_result, second_result = (blocks(result, layout, arranged)[1:] for result in pair) if layout else pair
            if layout is None or not agree(first_result, second_result, self._tolerance(node)):
                raise VertexFunctionError(_mixing(self.trace, node, "random numbers that depend on other rows"))

    @cached_property
    def _coarsest(self) -> float:
        return max(map(self._tolerance, self.order))


def _summed(node: fx.Node) -> list[fx.Node]:
    """The values with rows that a gradient of a parameter, which has none, is computed from."""
    seen, stack = {node}, [node]
    sources: list[fx.Node] = []
    while stack:
        for source in stack.pop().all_input_nodes:
            if source not in seen:
                seen.add(source)
                (sources if source.meta.get("rows") is not None else stack).append(source)
    return sources


def _has_nan(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and bool(torch.isnan(value).any())


def _counts(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and not value.is_floating_point() and node.meta.get("rows") is not None


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _name(node: fx.Node) -> str:
    return str(getattr(getattr(node.target, "overloadpacket", None), "__name__", ""))


def _seed(order: list[fx.Node]) -> None:
    """Let the check draw the same random numbers every time; the caller restores the generators."""
    device = next(node.meta["val"].device for node in order if isinstance(node.meta.get("val"), Tensor))
    seed(device, generators_in(order))
