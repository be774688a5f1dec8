"""The C++ of one part over the rows of one step: its statements as loops, divided among the threads of a team."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import fx

from ..lower.index import ANY, Index, Var, index_of
from ..lower.loops import (
    Accumulate,
    Columns,
    Elementwise,
    Matrix,
    Nest,
    Outer,
    Over,
    Product,
    Statement,
    Store,
    SumOfRows,
    expressions,
    writes,
)
from ..lower.scalar import (
    HALVES,
    JOINED,
    Apply,
    Cast,
    Choose,
    Constant,
    Draw,
    Expression,
    Load,
    Position,
    Reduce,
    neutral,
)
from .barriers import BARRIER, barriers
from .cpp import converted, loaded, number, place, register, rounded, row_of, spell, stored
from .products import dtype_of, function_of

SHARED = "#pragma omp for schedule(static) nowait"
SIMD = "#pragma omp simd"


def write_statements(
    statements: Sequence[Statement],
    names: Mapping[fx.Node, str],
    weights: Mapping[Matrix, str],
    arriving: Mapping[fx.Node, str],
    sent: Set[fx.Node] = frozenset(),
) -> list[str]:
    """The lines that compute one step, for every thread of a team, up to a barrier.

    `names` are the C++ names of the values that lie in memory: the element in column j of row i of the value `x` is
    `x[i * x_ld + j]`; a value without rows has no `_ld`. `weights` are the names of what products read. `arriving` are values
    that earlier lines compute, and what threads divide there (as `split_of`); "gathered": rows, if they are not read where they
    were. Sums over rows are added to what is already there if the argument `adds` is true. Products that are `sent` are left
    out of steps that end before the row `first_sending`.
    """
    lines: list[str] = []
    numbers = count(1)  # all statements of a step are in one block
    for statement, barrier in zip(statements, barriers(statements, arriving), strict=True):
        lines += barrier
        if isinstance(statement, Product) and writes(statement) <= sent:
            lines.append("if (start + rows > first_sending)")
        lines += _Writer(names, weights, numbers).write(statement)
    return [*lines, BARRIER]


@dataclass
class _Scope:
    """A loop that is being written: its variable, its lines so far, and the C++ variables of expressions in it."""

    variable: Var | None = None
    lines: list[str] = field(default_factory=list)
    known: dict[Expression | Index, str] = field(default_factory=dict)


class _Writer:
    """Writes one statement: each expression as a line in the outermost loop that has all of its variables."""

    def __init__(self, names: Mapping[fx.Node, str], weights: Mapping[Matrix, str], numbers: Iterator[int]) -> None:
        self.names, self.weights, self.numbers = names, weights, numbers
        self.scopes = [_Scope()]

    def write(self, statement: Statement) -> list[str]:
        match statement:
            case Elementwise():
                self._loop(statement)
            case Accumulate():
                self._accumulate(statement)
            case SumOfRows():
                self._sum_of_rows(statement)
            case Product():
                self._product(statement)
            case Outer():
                self._outer(statement)
        return self.scopes[0].lines

    def _loop(self, loop: Elementwise) -> None:
        if loop.over is Over.ELEMENTS:
            for nest in loop.nests:
                self.line("#pragma omp single nowait")
                self.line("{")
                self._nest(nest)
                self.line("}")
            return
        has_sums = any(isinstance(expression, Reduce) for expression in expressions(loop))
        if loop.nests and not has_sums and not any(nest.variables for nest in loop.nests):
            return self._numbers(loop)
        with self._each(loop.row, loop.over.value, SHARED):
            for nest in loop.nests:
                self._nest(nest)

    def _numbers(self, loop: Elementwise) -> None:
        """Numbers, one a row: neighbouring rows fill a register. Rows are divided as everywhere, by a loop that counts those of
        this thread, which is no loop once it is compiled."""
        row = loop.row
        self.scopes[-1].lines += ["{", "Long own = 0, stop = 0;", SHARED]
        self.line(f"for (Long {row} = 0; {row} < {loop.over.value}; ++{row}) ++own, stop = {row} + 1;")
        with self._with(SIMD), self.nested(f"for (Long {row} = stop - own; {row} < stop; ++{row})", row):
            for nest in loop.nests:
                self._nest(nest)
        self.line("}")

    def _nest(self, nest: Nest) -> None:
        with self._all(nest.variables, SIMD):
            for store in nest.stores:
                value = stored(self.text(store.value), store.value.dtype)
                self.line(f"{self._target(store, index_of(Var('i')))} = {value};")

    def _accumulate(self, loop: Accumulate) -> None:
        if loop.store.value.dtype in HALVES:
            return self._accumulate_wide(loop)
        (*outer, last), store = loop.free or (None,), loop.store
        target = self._target(store, index_of(loop.row))
        kind = store.value.dtype
        if loop.is_over_edges and not loop.free and kind.is_floating_point:
            return self._accumulate_number(loop, target)
        with self._each(loop.row, loop.over.value, SHARED):
            if loop.is_over_edges:
                self._bounds_of_edges()
            with self._all(tuple(outer)):
                inner = (last,) if last is not None else ()
                start = "from" if loop.is_over_edges else "0"
                with self._all(inner, SIMD):
                    self.line(
                        f"{target} = {number(0, kind) if loop.is_over_edges else self._nothing(loop.operation, kind)};"
                    )
                with self._over(loop.reduced, start), self._all(inner, SIMD):
                    self.line(f"{target} = {self._joined(loop, target)};")

    def _accumulate_number(self, loop: Accumulate, target: str) -> None:
        """The same for one number a row, which stays in a register."""
        dtype, total = loop.store.value.dtype, self._fresh("total")
        with self._each(loop.row, loop.over.value, SHARED):
            self._bounds_of_edges()
            self.line(f"{register(dtype)} {total} = {number(0, dtype)};")
            with self._over(loop.reduced, "from"):
                self.line(f"{total} = {self._joined(loop, total)};")
            self.line(f"{target} = {total};")

    def _accumulate_wide(self, loop: Accumulate) -> None:
        """The same for half precision: 64 neighbouring columns at a time, summed in float and rounded once."""
        *outer, last = loop.free or (Var("j", 1),)
        store, dtype = loop.store, loop.store.value.dtype
        total = f"sum[{last} - first]"
        nothing = number(0, dtype) if loop.is_over_edges else self._nothing(loop.operation, dtype)
        head = f"for (Long {last} = first; {last} < stop; ++{last})"
        with self._each(loop.row, loop.over.value, SHARED):
            if loop.is_over_edges:
                self._bounds_of_edges()
            with self._all(tuple(outer)), self.nested(f"for (Long first = 0; first < {last.bound}; first += 64)"):
                self.line(f"const Long stop = std::min<Long>(first + 64, {last.bound});")
                self.line(f"{register(dtype)} sum[64];")
                with self._with(SIMD), self.nested(head, last):
                    self.line(f"{total} = {nothing};")
                start = "from" if loop.is_over_edges else "0"
                with self._over(loop.reduced, start), self._with(SIMD), self.nested(head, last):
                    self.line(f"{total} = {self._joined(loop, total)};")
                with self._with(SIMD), self.nested(head, last):
                    self.line(f"{self._target(store, index_of(loop.row))} = {stored(rounded(total, dtype), dtype)};")

    def _bounds_of_edges(self) -> None:
        self.line("const Long from = i < without ? 0 : first_edge[i] - first_edge[without];")
        self.line("const Long to = i < without ? 0 : first_edge[i + 1] - first_edge[without];")

    def _joined(self, loop: Accumulate, total: str) -> str:
        """The new total of a sum or maximum after one more element."""
        value = self.text(loop.store.value)
        text = spell(JOINED[loop.operation], loop.store.value.dtype, [total, value])
        is_first = f"{loop.reduced[0]} == from" if loop.is_over_edges and loop.operation != "sum" else ""
        return f"({is_first} ? {value} : {text})" if is_first else text

    def _sum_of_rows(self, statement: SumOfRows) -> None:
        """A sum over rows, for 64 neighbouring columns at a time."""
        dtype, column, n = statement.value.dtype, statement.column, statement.column.bound
        out = f"{self.names[statement.target]}"
        with self._with(SHARED), self.nested(f"for (Long first = 0; first < {n}; first += 64)"):
            self.line(f"const Long last = std::min<Long>(first + 64, {n});")
            self.line(f"{register(dtype)} sum[64] = {{}};")
            with self._each(statement.row, statement.over.value), self._all(statement.reduced):
                head = f"for (Long {column} = first; {column} < last; ++{column})"
                with self._with(SIMD), self.nested(head, column):
                    self.line(f"sum[{column} - first] += {self.text(statement.value)};")
            before = loaded(f"{out}[first + j]", dtype)
            self.line(f"for (Long j = 0; adds && j < last - first; ++j) sum[j] += {before};")
            if dtype not in HALVES:
                self.line(f"std::copy(sum, sum + last - first, {out} + first);")
                return
            value = stored(rounded("sum[j]", dtype), dtype)
            self.line(f"for (Long j = 0; j < last - first; ++j) {out}[first + j] = {value};")

    def _product(self, product: Product) -> None:
        bias = "nullptr" if product.bias is None else self._columns(product.bias)
        count, a, out = _rows(product), self._rows_of(product.a, product), self._rows_of(product.out, product)
        function = function_of("product", dtype_of(product)).name
        self.line(f"{function}({count}, {a}, {self.weights[product.b]}, {bias}, {out});")

    def _outer(self, outer: Outer) -> None:
        a, b = self._rows_of(outer.a, outer), self._rows_of(outer.b, outer)
        function = function_of("outer", dtype_of(outer)).name
        self.line(f"{function}({_rows(outer)}, {a}, {outer.n}, {b}, {outer.k}, {self._columns(outer.out)}, adds);")

    def _rows_of(self, columns: Columns, product: Product | Outer) -> str:
        """Two C++ arguments: the address of the first row, and the distance from one row to the next."""
        apart = f" / {product.repeat}" if product.repeat > 1 else ""
        return f"{self._columns(columns)}, {self.names[columns.array]}_ld{apart}"

    def _columns(self, columns: Columns) -> str:
        return f"{self.names[columns.array]}{f' + {columns.first}' if columns.first else ''}"

    def _target(self, store: Store, row: Index) -> str:
        name = self.names[store.target]
        if store.target.meta.get("rows") is None:
            return f"{name}[{place(store.column)}]"
        return f"{name}[{place(row)} * {name}_ld + {place(store.column)}]"

    # Expressions

    def text(self, expression: Expression) -> str:
        """An expression as C++: a variable that is computed before, or an expression as short as that."""
        match expression:
            case Constant():
                return number(expression.value, expression.dtype)
            case Load():
                name, offset = self.names[expression.array], place(expression.column)
                if expression.row is not None:
                    offset = f"{self._row(expression.row)} * {name}_ld + {offset}"
                return loaded(f"{name}[{offset}]", expression.dtype)
            case Draw():
                row, column = place(expression.row), place(expression.column)
                first = "first_of_edges" if expression.per_edge else "group_start + start"
                return f"uniform<{register(expression.dtype)}>(seed, {expression.stream}u, {first} + {row}, {column})"
            case Position():
                return f"{register(expression.dtype)}({place(expression.at)})"
        scope = self._scope_of(expression.variables)
        variables = self.scopes[scope].known
        if expression not in variables:
            inner_scopes, self.scopes = self.scopes[scope + 1 :], self.scopes[: scope + 1]
            variables[expression] = (
                self._total(expression) if isinstance(expression, Reduce) else self._named(expression)
            )
            self.scopes += inner_scopes
        return variables[expression]

    def _row(self, row: Index) -> str:
        """A row as a factor; one that is read from memory, as that of an edge's owner, is a variable in front of inner loops:
        else their vectors are gathered element by element."""
        text = row_of(row)
        if "[" not in text:
            return text
        scope = self.scopes[self._scope_of(set(row.variables()))]
        if row not in scope.known:
            scope.known[row] = self._fresh("row")
            scope.lines.append(f"const Long {scope.known[row]} = {text};")
        return scope.known[row]

    def _scope_of(self, variables: Set[Var]) -> int:
        depths = (depth for depth, scope in enumerate(self.scopes) if scope.variable in variables)
        return max(
            depths, default=next((depth for depth, scope in enumerate(self.scopes) if scope.variable is None), 0)
        )

    def _named(self, expression: Expression) -> str:
        match expression:
            case Cast():
                text = converted(self.text(expression.operand), expression.operand.dtype, expression.dtype)
            case Choose():
                text = self._choice(expression)
            case Apply():
                text = spell(
                    expression.operation, expression.operands[-1].dtype, [*map(self.text, expression.operands)]
                )
            case _:
                raise TypeError(expression)
        name = self._fresh("t")
        self.line(f"const {register(expression.dtype)} {name} = {text};")
        return name

    def _choice(self, choice: Choose) -> str:
        branches, place_text, zero = list(choice.branches), place(choice.at), number(0, choice.dtype)
        text, stop_before = "", choice.at.least
        for branch in branches:
            value = self.text(branch.value)
            if branch.start > stop_before:
                text += f"{place_text} < {branch.start} ? {zero} : "
            stop_before = branch.stop
            text += f"{place_text} < {branch.stop} ? {value} : " if choice.at.most >= branch.stop else value
        return f"({text}{zero})" if not branches or choice.at.most >= branches[-1].stop else f"({text})"

    def _total(self, reduce: Reduce) -> str:
        name, kind = self._fresh("sum" if reduce.operation == "sum" else reduce.operation), reduce.dtype
        self.line(f"{register(kind)} {name} = {self._nothing(reduce.operation, kind)};")
        sign = {"sum": "+", "prod": "*", "max": "most", "min": "least"}[reduce.operation]
        vectors = f"{SIMD} reduction({sign}:{name})" if kind.is_floating_point else ""
        with self._all(reduce.over, vectors):
            self.line(f"{name} = {spell(JOINED[reduce.operation], kind, [name, self.text(reduce.value)])};")
        return name

    @staticmethod
    def _nothing(operation: str, dtype: torch.dtype) -> str:
        """The neutral element of a sum or maximum."""
        return number(neutral(operation, dtype).value, dtype)

    def _fresh(self, name: str) -> str:
        return f"{name}{next(self.numbers)}"

    # Lines

    def line(self, text: str) -> None:
        self.scopes[-1].lines.append(text)

    @contextmanager
    def nested(self, head: str, variable: Var | None = None) -> Iterator[None]:
        """Write lines inside a loop."""
        depth = len(self.scopes)
        self.scopes.append(_Scope(variable))
        yield
        scope = self.scopes.pop()
        assert len(self.scopes) == depth
        self.scopes[-1].lines += [f"{head} {{", *(f"    {line}" for line in scope.lines), "}"]

    @contextmanager
    def _each(self, variable: Var, count: str, pragma: str = "") -> Iterator[None]:
        with (
            self._with(pragma),
            self.nested(f"for (Long {variable} = 0; {variable} < {count}; ++{variable})", variable),
        ):
            yield

    @contextmanager
    def _with(self, pragma: str) -> Iterator[None]:
        """Write a pragma directly in front of a loop, after the lines that the loop's body adds before the loop."""
        lines = self.scopes[-1].lines
        yield
        if pragma:
            head = max(number for number, line in enumerate(lines) if not line.startswith((" ", "}")))
            lines.insert(head, pragma)

    @contextmanager
    def _all(self, variables: Sequence[Var], pragma: str = "") -> Iterator[None]:
        """Write nested loops over the values of variables, the innermost with the pragma."""
        if not variables:
            yield
            return
        first, *rest = variables
        with self._each(first, str(first.bound), pragma if not rest else ""), self._all(rest, pragma):
            yield

    @contextmanager
    def _over(self, variables: Sequence[Var], start: str) -> Iterator[None]:
        if variables[0].bound < ANY:
            with self._all(variables):
                yield
            return
        (edge,) = variables
        with self.nested(f"for (Long {edge} = {start}; {edge} < to; ++{edge})", edge):
            yield


def _rows(product: Product | Outer) -> str:
    return f"{product.over.value}{f' * {product.repeat}' if product.repeat > 1 else ''}"
