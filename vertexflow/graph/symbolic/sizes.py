"""The numbers of vertices and edges of a step as symbols, and what Python may ask of them: nothing that differs between steps."""

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

# Python of these may ask: PyTorch's is right for tensors of any size, and this package's own checks are.
_TRUSTED = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))
_VALUES = ("Tensor", "number", "float")  # types of arguments that say what is in a tensor, not how long it is
# Where Python asks a symbolic number for its truth or its value; PyTorch's C++ asks a `SymNode` at once.
_ASKS: set[int] = {  # by identity: the hash of code is slow
    id(method.__code__)
    for kind in (torch.SymInt, torch.SymFloat, torch.SymBool)
    for name in ("__bool__", "__int__", "__index__", "__float__")
    if (method := getattr(kind, name, None)) is not None and hasattr(method, "__code__")
}
_LAYOUT = fake_impls.conv.__code__  # asks which library convolves, for the strides of the result alone
_VERTICES = (1, 2, 3, 4, 5, 13, 64, 1_000_003)  # a step has a vertex at least
_EDGES = (0, 1, 2, 3, 4, 7, 29, 1_000_033)
_USUAL = [
    (n, e) for n in (2, 3, 64, 1_000_003) for e in (5, 7, 1_000_033)
]  # PyTorch itself asks whether a size is 0 or 1


class StepSizes(ShapeEnv):
    """A `ShapeEnv` for one number of vertices and one of edges, both of a step.

    PyTorch's own Python may look at them: what it decides is right for any size of a tensor. Where the user's looks, and
    the answer is not the same for every step, a `VertexFunctionError` is raised at once.
    """

    def __init__(self) -> None:
        super().__init__(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)
        self.rows: sympy.Symbol | None = None
        self.edges: sympy.Symbol | None = None
        self._answers: dict[tuple[Any, ...], sympy.Basic] = {}  # PyTorch asks the same again and again

    def create_symbol(self, *args: Any, **options: Any) -> sympy.Expr:
        """The first symbol is the number of vertices; the second that of edges, of which there may be none."""
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
        """PyTorch would look for the user's, and import its compilers to tell their files apart: half a second for a note."""
        return sys._getframe()

    def evaluate_sym_node(self, sym_node: SymNode, *args: Any, **options: Any) -> sympy.Basic:
        expression = sym_node.expr
        if expression is sympy.true or expression is sympy.false:
            return expression
        if expression.free_symbols and _asked_for_layout():  # by one thread, PyTorch convolves few rows in another way
            return expression.subs({self.rows: 64, self.edges: 64})
        if expression.free_symbols and _asked_by_user() and not self._is_constant(expression):
            raise VertexFunctionError(self._refusal(expression))
        key = (expression, args, *sorted(options.items()), self._suppress_guards_tls())
        if key not in self._answers:
            before = len(self.guards)
            self._answers[key] = super().evaluate_sym_node(sym_node, *args, **options)
            self.check_guards(before)
        return self._answers[key]

    def check_guards(self, start: int = 0) -> None:
        """Refuse what holds for this number of rows or edges only: PyTorch took the number as a plain one."""
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
    """Whether PyTorch asks in order to lay out the result of a convolution, which any step may have as any other."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(_TRUSTED[0]):
        if frame.f_code is _LAYOUT:
            return True
        frame = frame.f_back
    return False


def _asked_by_user() -> bool:
    """Whether the symbolic number is being asked for by Python outside PyTorch."""
    frame: FrameType | None = sys._getframe(2)
    asked = False
    while frame is not None:
        if id(frame.f_code) in _ASKS:
            asked = True
        elif asked:
            return not frame.f_code.co_filename.startswith(_TRUSTED)
        elif not frame.f_code.co_filename.startswith(_TRUSTED):
            return False
        frame = frame.f_back
    return False


def sizes_as_values(nodes: Iterable[fx.Node]) -> Iterator[fx.Node]:
    """The operations that compute values from a number of rows: `x * x.shape[0]`, `torch.full((3,), x.shape[0])`.

    A size says how long a tensor is; PyTorch's operators take such a number as an `int`, and what is in a tensor as a
    `Scalar`, a float or a tensor. What becomes of `torch.arange(x.shape[0])` is seen when it runs.
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
