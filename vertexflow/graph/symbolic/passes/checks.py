"""Graph in, graph out: checks whose result nobody reads become operations that a value passes through.

PyTorch records `torch.linalg.cholesky` as a factorisation, whose second result says whether it failed, and a check of that. Nodes
that nobody reads are dropped; so the factor goes through the check, and is used only where the check has passed.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from ....errors import LinAlgError, VertexFunctionError
from .rewrite import insert, replace

if TYPE_CHECKING:
    from ..trace import Trace

aten = torch.ops.aten

_ASSERTS = {aten._assert_async.default, aten._assert_async.msg, aten._functional_assert_async.msg}
_ALL = {aten.all.default, aten._is_all_true.default}
_passing: ContextVar[bool] = ContextVar("passing", default=False)


def check(value: Tensor, tested: Tensor, call: str, message: str, where: str) -> Tensor:
    """A copy of `value`, if the check passes. `tested` has the error codes of the function `call` of torch.linalg; with an
    empty `call`, it is an assertion's condition.

    Raises:
        LinAlgError: that of torch.linalg, with the line of the vertex function.
        VertexFunctionError: the assertion does not hold.
    """
    if is_passing():
        return value.clone()
    if call:
        try:
            aten._linalg_check_errors(tested, call, is_matrix=False)
        except RuntimeError as error:
            raise LinAlgError(f"{error} (of the vertices of one step)\n  in the vertex function, {where}") from error
    elif not bool(tested.all()):
        raise VertexFunctionError(f"an assertion failed: {message}\n  in the vertex function, {where}")
    return value.clone()


_check = torch.library.custom_op("vertexflow::check", check, mutates_args=())
torch.library.register_fake("vertexflow::check", lambda value, *others: torch.empty_like(value))
torch.library.register_autograd("vertexflow::check", lambda ctx, grad: (grad, None, None, None, None))
CHECK = torch.ops.vertexflow.check.default


def is_passing() -> bool:
    """Whether all checks pass at present, whatever they check."""
    return _passing.get()


@contextmanager
def all_pass() -> Iterator[None]:
    """Let all checks pass: the graph runs on numbers that are not the user's."""
    token = _passing.set(True)
    try:
        yield
    finally:
        _passing.reset(token)


def keep_checks(trace: Trace) -> None:
    """Rewrite `trace.graph` in place; the tables of `trace` follow."""
    position = {node: index for index, node in enumerate(trace.graph.nodes)}
    for node in list(trace.graph.nodes):
        tested: Any = node.args[0] if node.args else None
        if node.target is aten._linalg_check_errors.default and isinstance(tested, fx.Node):
            value = _factor(tested, node, position)
            if value is not None:
                new = insert(node, CHECK, value, tested, node.args[1], "", trace.where(node), val=value.meta["val"])
                position[new] = position[node]
                earlier_users = [user for user in value.users if user is new or position[user] < position[node]]
                replace(trace, value, new)
                for user in earlier_users:
                    user.replace_input_with(new, value)
            else:
                _attach(trace, node, tested, str(node.args[1]), "")
        elif node.target in _ASSERTS and isinstance(tested, fx.Node):
            if tested.target in _ALL:  # the reduction would mix rows; `check` reduces the rows of a step itself
                tested = tested.args[0]
            _attach(trace, node, tested, "", str(node.args[1]) if len(node.args) > 1 else "a value is zero, or false")


def _factor(tested: fx.Node, node: fx.Node, position: dict[fx.Node, int]) -> fx.Node | None:
    """The result of the operation whose error codes are checked that is used after the check, if there is one."""
    if tested.target is not operator.getitem:
        return None
    results = [
        item for item in tested.all_input_nodes[0].users if item is not tested and position[item] < position[node]
    ]
    return next((item for item in results if any(position[user] > position[node] for user in item.users)), None)


def _attach(trace: Trace, node: fx.Node, tested: fx.Node, call: str, message: str) -> None:
    """Send an output of the vertex function through a check."""
    table = trace.pushes or trace.scatters
    name, value = next(iter(table.items()))
    last = next(iter(reversed(trace.graph.nodes)))
    new = insert(last, CHECK, value, tested, call, message, trace.where(node), val=value.meta["val"])
    new.meta["line"] = node.meta.get("line")
    table[name] = new
