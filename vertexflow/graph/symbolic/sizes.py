"""The numbers of vertices and edges of a step as symbols. Python may ask of them only what is the same for every step."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import sympy
import torch
from torch import fx
from torch._subclasses import fake_impls
from torch.fx.experimental.sym_node import SymNode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from ...errors import VertexFunctionError
from .nodes import ARANGES

# Folders whose Python may ask anything: PyTorch's answers hold for tensors of any size, and so do this package's own.
_TRUSTED = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))
_VALUES = ("Tensor", "number", "float")  # types of arguments that say what is in a tensor, not how long it is
# The methods by which Python asks a symbolic number for its truth or value; PyTorch's C++ goes past them, to the `SymNode`.
_ASKS: set[int] = {  # by identity: the hash of code is slow
    id(method.__code__)
    for kind in (torch.SymInt, torch.SymFloat, torch.SymBool)
    for name in ("__bool__", "__int__", "__index__", "__float__")
    if (method := getattr(kind, name, None)) is not None and hasattr(method, "__code__")
}
_LAYOUT = fake_impls.conv.__code__  # asks for sizes only to choose the strides of a convolution's result
_VERTICES = (1, 2, 3, 4, 5, 13, 64, 1_000_003)  # a step has at least one vertex
_EDGES = (0, 1, 2, 3, 4, 7, 29, 1_000_033)
# Guards are tried on these: without 0 and 1, because PyTorch itself guards against them.
_USUAL = [(n, e) for n in (2, 3, 64, 1_000_003) for e in (5, 7, 1_000_033)]


class StepSizes(ShapeEnv):
    """A `ShapeEnv` with two symbols: the number of vertices of a step, and the number of edges to their children.

    PyTorch's own Python may ask for them: what it decides is right for tensors of any size. Where the user's code asks and
    the answer is not the same for every step, a `VertexFunctionError` is raised at once.
    """

    def __init__(self) -> None:
        super().__init__(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)
        self.rows: sympy.Symbol | None = None
        self.edges: sympy.Symbol | None = None
        self.refused: VertexFunctionError | None = None  # the first refusal, which ends the trace unless it is caught
        self._answers: dict[tuple[Any, ...], sympy.Basic] = {}  # PyTorch asks the same questions again and again

    def create_symbol(self, *args: Any, **options: Any) -> sympy.Expr:
        """The first symbol is the number of vertices, the second the number of edges, which may be 0."""
        if self.rows is None:
            symbol = super().create_symbol(*args, **options)
            self.rows = symbol if isinstance(symbol, sympy.Symbol) else None
        else:  # "positive" would let SymPy answer `edges > 0` by itself
            symbol = super().create_symbol(*args, **{**options, "positive": None})
            if isinstance(symbol, sympy.Symbol):
                self.edges = symbol
                self.var_to_range[symbol] = ValueRanges(0, int_oo)
        return symbol

    def _get_user_frame(self) -> FrameType:
        """Any frame: PyTorch wants the user's for its logs, and imports its compilers to find it, which takes half a second."""
        return sys._getframe()

    def evaluate_sym_node(self, sym_node: SymNode, *args: Any, **options: Any) -> sympy.Basic:
        expression = sym_node.expr
        if expression is sympy.true or expression is sympy.false:
            return expression
        if expression.free_symbols and _asked_for_layout():  # how PyTorch convolves may depend on the number of rows
            return expression.subs({self.rows: 64, self.edges: 64})
        if expression.free_symbols and _asked_by_user() and not self._is_constant(expression):
            error = VertexFunctionError(self._refusal(expression))
            self.refused = self.refused or error
            raise error
        key = (expression, args, *sorted(options.items()), self._suppress_guards_tls())
        if key not in self._answers:
            num_guards = len(self.guards)
            self._answers[key] = super().evaluate_sym_node(sym_node, *args, **options)
            self.check_guards(num_guards)
        return self._answers[key]

    def check_guards(self, start: int = 0) -> None:
        """Refuse guards that hold only for some numbers of rows or edges: PyTorch used such a number as a plain one."""
        for guard in self.guards[start:]:
            if not all(guard.expr.subs({self.rows: n, self.edges: e}) == True for n, e in _USUAL):  # noqa: E712 (SymPy)
                raise VertexFunctionError(self._refusal(guard.expr, "mixes rows, or takes"))

    def _is_constant(self, expression: sympy.Basic) -> bool:
        answers = {expression.subs({self.rows: n, self.edges: e}) for n in _VERTICES for e in _EDGES}
        return len(answers) == 1

    def _refusal(self, expression: sympy.Basic, verb: str = "takes") -> str:
        asks = "as a plain number (if, len, range, iteration, int(...), float(...)), which differs from step to step; the method"
        if self.edges in expression.free_symbols:
            return (
                f"the vertex function {verb} the number of edges in a step {asks} runs once for all. v.num_children is how many "
                "children each vertex has, a row a vertex, for torch.where(...) and arithmetic"
            )
        return (
            f"the vertex function {verb} the number of vertices in a step {asks} runs once for all. Compute each row from its "
            "own row only, as if there were one"
        )


def _asked_for_layout() -> bool:
    """Whether PyTorch asks in order to choose the memory layout of a convolution's result."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(_TRUSTED[0]):
        if frame.f_code is _LAYOUT:
            return True
        frame = frame.f_back
    return False


def _asked_by_user() -> bool:
    """Whether Python outside of PyTorch and vertexflow asks for the symbolic number."""
    frame: FrameType | None = sys._getframe(2)
    is_asking = False
    while frame is not None:
        if id(frame.f_code) in _ASKS:
            is_asking = True
        elif is_asking:
            return not frame.f_code.co_filename.startswith(_TRUSTED)
        elif not frame.f_code.co_filename.startswith(_TRUSTED):
            return False
        frame = frame.f_back
    return False


def sizes_as_values(nodes: Iterable[fx.Node]) -> Iterator[fx.Node]:
    """The operations that compute values from a number of rows: `x * x.shape[0]`, `torch.full((3,), x.shape[0])`.

    Operators declare arguments that are lengths as `int`, and arguments that are values as `Scalar`, float or tensor.
    `torch.arange(x.shape[0])` is left to `check_rows`, which runs the graph.
    """
    for node in nodes:
        schema: Any = getattr(node.target, "_schema", None)
        for position, argument in enumerate(schema.arguments if schema and node.target not in ARANGES else ()):
            value = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
            is_value = any(word in str(argument.type) for word in _VALUES) or argument.name in ("low", "high")
            if is_value and any(is_size(item) for item in (value if isinstance(value, (list, tuple)) else [value])):
                yield node
                break


def is_size(value: object) -> bool:
    """Whether a node of the graph is a symbolic number."""
    return isinstance(value, fx.Node) and isinstance(
        value.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool)
    )
