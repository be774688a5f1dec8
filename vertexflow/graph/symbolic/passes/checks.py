"""Graph in, graph out: operations that only check, which nothing depends on, become operations that something depends on.

PyTorch records `torch.linalg.cholesky` as a factorisation and a check of what it says about each matrix. As a value that goes
through the check, the factor is used only where the check has passed.
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
    """`value`, once `tested` is what it must be: without errors, of `call` in torch.linalg, or true without a call.

    Raises:
        LinAlgError: as torch.linalg has it, with the line of the vertex function.
        VertexFunctionError: an assertion of the vertex function does not hold.
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
CHECK = torch.ops.vertexflow.check.default


def is_passing() -> bool:
    """Whether checks pass, whatever they check."""
    return _passing.get()


@contextmanager
def all_pass() -> Iterator[None]:
    """In here, checks pass: on numbers that nobody gave."""
    token = _passing.set(True)
    try:
        yield
    finally:
        _passing.reset(token)


def keep_checks(trace: Trace) -> None:
    """Rewrite `trace.graph` in place; the tables of `trace` follow."""
    place = {node: at for at, node in enumerate(trace.graph.nodes)}
    for node in list(trace.graph.nodes):
        tested: Any = node.args[0] if node.args else None
        if node.target is aten._linalg_check_errors.default and isinstance(tested, fx.Node):
            value = _factor(tested, node, place)
            if value is not None:
                new = insert(node, CHECK, value, tested, node.args[1], "", trace.where(node), val=value.meta["val"])
                place[new] = place[node]
                before = [user for user in value.users if user is new or place[user] < place[node]]
                replace(trace, value, new)
                for user in before:
                    user.replace_input_with(new, value)
            else:
                _attach(trace, node, tested, str(node.args[1]), "")
        elif node.target in _ASSERTS and isinstance(tested, fx.Node):
            if tested.target in _ALL:  # of all rows of a step, where the trace has all rows
                tested = tested.args[0]
            _attach(trace, node, tested, "", str(node.args[1]) if len(node.args) > 1 else "a value is zero, or false")


def _factor(tested: fx.Node, node: fx.Node, place: dict[fx.Node, int]) -> fx.Node | None:
    """What was computed beside the errors that are checked, and is used afterwards."""
    if tested.target is not operator.getitem:
        return None
    results = [item for item in tested.all_input_nodes[0].users if item is not tested and place[item] < place[node]]
    return next((item for item in results if any(place[user] > place[node] for user in item.users)), None)


def _attach(trace: Trace, node: fx.Node, tested: fx.Node, call: str, message: str) -> None:
    """Let an output of the vertex function wait for a check."""
    table = trace.pushes or trace.scatters
    name, value = next(iter(table.items()))
    last = next(reversed(trace.graph.nodes))
    new = insert(last, CHECK, value, tested, call, message, trace.where(node), val=value.meta["val"])
    new.meta["line"] = node.meta.get("line")
    table[name] = new
