"""Values for the placeholders of a graph, a few rows each, on which the graph can be run to see what it does with rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from ..nodes import ancestors
from ..roles import Counts, Gather, Param, Pull, is_of_edges, role_of

if TYPE_CHECKING:
    from ..trace import Trace

COUNTS = (2, 0, 3, 1)  # the children of each of the rows: none, one and many
OWNER = tuple(row for row, count in enumerate(COUNTS) for _ in range(count))  # the vertex of each edge
BOLDNESS = RANDOM, MIXED, GIVEN = "random", "mixed", "given"  # how bold values are; later ones are more like the user's

Run = Callable[[Mapping[fx.Node, Any], list[fx.Node]], Mapping[fx.Node, Any]]

aten = torch.ops.aten
# What they are given must be probabilities, rates, scales or numbers in a range; on a GPU it is fatal if it is not.
_CHOOSY = {"bernoulli", "multinomial", "normal", "poisson", "binomial", "_standard_gamma", "_sample_dirichlet"}


@dataclass
class Samples:
    """Draws rows for the inputs, states and gradients of `trace`; `inputs` and `constants` are the first call's.

    Boldness `RANDOM` draws floats from a normal distribution, which lets no two rows agree by accident; `MIXED` draws
    positive combinations of the user's rows (and of the states that the function makes of them), which keeps numbers
    positive, below a limit, or positive definite; `GIVEN` draws those rows as they are. Integers are always given ones.
    """

    trace: Trace
    inputs: Mapping[str, Tensor]
    constants: Mapping[str, Tensor]
    run: Run

    def draw(self, boldness: str) -> dict[fx.Node, Any]:
        """A value for each placeholder: `len(COUNTS)` rows, `len(OWNER)` edges."""
        placeholders = [node for node in self.trace.graph.nodes if node.op == "placeholder"]
        choosy = _before_choosy(self.trace)
        values: dict[fx.Node, Any] = {}
        states = []
        for node in placeholders:
            # On a GPU a number out of range is fatal, so that it must not be tried.
            exact = node in choosy and (boldness != RANDOM or node.meta["val"].device.type != "cpu")
            how = GIVEN if exact else boldness
            match role_of(node):
                case Gather(state, _):
                    states.append((state, node, how))
                case Counts():
                    values[node] = torch.tensor(COUNTS, device=node.meta["val"].device)
                case Param(name):
                    value = self.constants[name].detach()
                    # A weight of zeros would hide what depends on it.
                    values[node] = torch.randn_like(value) if value.is_floating_point() and not value.any() else value
                case Pull(name):
                    values[node] = _draw(node.meta["val"], self.inputs[name].detach(), _length(node, self.trace), how)
                case _:
                    values[node] = _draw(node.meta["val"], None, _length(node, self.trace), RANDOM)
        made: Mapping[str, Tensor] = {}
        if any(how != RANDOM or not _is_float(node) for _, node, how in states):
            made = self._states_of_leaves(values, [node for _, node, _ in states])
        for state, node, how in states:
            rows, shape = made.get(state), self.trace.state[state]
            length, like = _length(node, self.trace), node.meta["val"]
            slots = like.shape[1] // shape[0] if len(shape) == 1 and like.dim() == 2 else 1  # several, side by side
            drawn = _draw(like.new_empty(0, *shape), rows, length * slots, how)
            values[node] = drawn.reshape(length, *like.shape[1:])
        return values

    def _states_of_leaves(self, values: Mapping[fx.Node, Any], gathers: list[fx.Node]) -> dict[str, Tensor]:
        """What vertices without children scatter: states as the function makes them. Nothing where it fails on zeros."""
        zeros = {
            node: torch.zeros(
                _length(node, self.trace), *node.meta["val"].shape[1:], dtype=node.meta["val"].dtype,
                device=node.meta["val"].device,
            )
            for node in gathers
        }  # fmt: skip
        try:
            results = self.run({**values, **zeros}, list(self.trace.scatters.values()))
        except Exception:
            return {}
        return {name: results[node] for name, node in self.trace.scatters.items()}


def _draw(like: Tensor, given: Tensor | None, count: int, how: str) -> Tensor:
    """`count` rows with the shape and dtype of the rows of `like`."""
    shape, dtype, device = like.shape[1:], like.dtype, like.device
    rows = None if given is None else _finite(given)
    if dtype.is_floating_point or dtype.is_complex:
        if rows is None or how == RANDOM or not rows.any():
            return torch.randn(count, *shape, dtype=dtype, device=device) * 2
        if how == MIXED:
            one, other = (rows[torch.randint(len(rows), (count,), device=device)] for _ in range(2))
            size = (count, *[1] * len(shape))
            share, scale = torch.rand(size, device=device), torch.rand(size, device=device) / 2 + 0.5
            return ((share * one + (1 - share) * other) * scale).to(dtype)
    if rows is None:  # of a state: what it will hold is not known, but 0 and 1 are mostly in range
        return torch.randint(2, (count, *shape), device=device).to(dtype)
    if not len(rows):  # of a batch without edges
        return torch.zeros(count, *shape, dtype=dtype, device=device)
    return rows[torch.randint(len(rows), (count,), device=device)]


def _finite(rows: Tensor) -> Tensor:
    """The rows without those that are NaN or infinite somewhere, if any remain."""
    if not rows.is_floating_point() or not len(rows):
        return rows
    kept = rows[torch.isfinite(rows).flatten(1).all(1)] if rows.dim() > 1 else rows[torch.isfinite(rows)]
    return kept if len(kept) else torch.nan_to_num(rows)


def _before_choosy(trace: Trace) -> set[fx.Node]:
    """What decides the operands of operations that take only some numbers, such as an index that was a float."""
    choosy = []
    for node in trace.graph.nodes:
        operands = [operand for operand in node.all_input_nodes if isinstance(operand.meta.get("val"), Tensor)]
        name = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
        value = node.meta.get("val")
        to_integer = (
            isinstance(value, Tensor)
            and not value.is_floating_point()
            and value.dtype != torch.bool
            and name in ("_to_copy", "convert_element_type")
            and any(operand.meta["val"].is_floating_point() for operand in operands)
        )
        if to_integer or (name in _CHOOSY and operands) or "_assert" in name:
            choosy.append(node)
    return ancestors(choosy)


def _is_float(node: fx.Node) -> bool:
    dtype = node.meta["val"].dtype
    return bool(dtype.is_floating_point or dtype.is_complex)


def _length(node: fx.Node, trace: Trace) -> int:
    if is_of_edges(role_of(node)):
        return len(OWNER)
    size = node.meta["val"].shape[0]
    return len(OWNER) if isinstance(size, torch.SymInt) and size.node.expr == trace.edges else len(COUNTS)
