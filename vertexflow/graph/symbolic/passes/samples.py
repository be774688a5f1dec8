"""Sample values for the placeholders of a graph, a few rows each, on which `check_rows` runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from ..nodes import ancestors
from ..roles import Counts, Gather, NumChildren, Param, Pull, Slots, is_per_edge, role_of

if TYPE_CHECKING:
    from ..trace import Trace

COUNTS = (2, 0, 3, 1)  # how many children each row has: none, one and several
NUM_CHILDREN = (3, 0, 3, 2)  # where not all are read over edges
OWNER = tuple(row for row, count in enumerate(COUNTS) for _ in range(count))  # the vertex of each edge
BOLDNESS = RANDOM, MIXED, GIVEN = (
    "random",
    "mixed",
    "given",
)  # how unlike the user's values samples are, most unlike first

Run = Callable[[Mapping[fx.Node, Any], list[fx.Node]], Mapping[fx.Node, Any]]

aten = torch.ops.aten
# Their operands must be probabilities, rates, scales or in some range; on a GPU, others would be fatal.
_CHOOSY = {"bernoulli", "multinomial", "normal", "poisson", "binomial", "_standard_gamma", "_sample_dirichlet"}


@dataclass
class Samples:
    """Draws rows for the inputs, states and gradients of `trace`; `inputs` and `constants` are the first call's.

    Boldness `RANDOM` draws floats from a normal distribution, so that no two rows agree by accident; `MIXED` draws positive
    combinations of the user's rows (and of the states that the function computes from them), which stay positive, below a
    limit, or positive definite where these are; `GIVEN` draws the user's rows as they are. Integers are always the user's.
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
            # On a GPU a number out of range is fatal, and must not be tried.
            exact = node in choosy and (boldness != RANDOM or node.meta["val"].device.type != "cpu")
            how = GIVEN if exact else boldness
            match role_of(node):
                case Gather(state, _):
                    states.append((state, node, how))
                case Counts():
                    values[node] = torch.tensor(COUNTS, device=node.meta["val"].device)
                case NumChildren():
                    values[node] = torch.tensor(NUM_CHILDREN, device=node.meta["val"].device)
                case Slots():
                    numbers = [self.trace.first_slot + number for count in COUNTS for number in range(count)]
                    values[node] = torch.tensor(numbers, device=node.meta["val"].device)
                case Param(name):
                    value = self.constants[name].detach()
                    # A weight of zeros would hide what depends on it.
                    values[node] = torch.randn_like(value) if value.is_floating_point() and not value.any() else value
                case Pull(name):
                    values[node] = _draw(node.meta["val"], self.inputs[name].detach(), _length(node, self.trace), how)
                case _:
                    values[node] = _draw(node.meta["val"], None, _length(node, self.trace), RANDOM)
        leaf_states: Mapping[str, Tensor] = {}
        if any(how != RANDOM or not _is_float(node) for _, node, how in states):
            leaf_states = self._states_of_leaves(values, [node for _, node, _ in states])
        for state, node, how in states:
            rows, shape = leaf_states.get(state), self.trace.state[state]
            length, like = _length(node, self.trace), node.meta["val"]
            slots = like.shape[1] // shape[0] if len(shape) == 1 and like.dim() == 2 else 1  # several, side by side
            drawn = _draw(like.new_empty(0, *shape), rows, length * slots, how)
            values[node] = drawn.reshape(length, *like.shape[1:])
        return values

    def _states_of_leaves(self, values: Mapping[fx.Node, Any], gathers: list[fx.Node]) -> dict[str, Tensor]:
        """The states that vertices without children scatter, as examples of states; none if the function fails on zeros."""
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


def _draw(like: Tensor, user_rows: Tensor | None, count: int, how: str) -> Tensor:
    """`count` rows with the shape and dtype of the rows of `like`."""
    shape, dtype, device = like.shape[1:], like.dtype, like.device
    rows = None if user_rows is None else _finite(user_rows)
    if dtype.is_floating_point or dtype.is_complex:
        if rows is None or how == RANDOM or not rows.any():
            return torch.randn(count, *shape, dtype=dtype, device=device) * 2
        if how == MIXED:
            first, second = (rows[torch.randint(len(rows), (count,), device=device)] for _ in range(2))
            size = (count, *[1] * len(shape))
            share, scale = torch.rand(size, device=device), torch.rand(size, device=device) / 2 + 0.5
            return ((share * first + (1 - share) * second) * scale).to(dtype)
    if rows is None:  # an integer state, of which nothing is known: 0 and 1 are mostly in range
        return torch.randint(2, (count, *shape), device=device).to(dtype)
    if not len(rows):  # an edge input of a batch without edges
        return torch.zeros(count, *shape, dtype=dtype, device=device)
    return rows[torch.randint(len(rows), (count,), device=device)]


def _finite(rows: Tensor) -> Tensor:
    """The rows without NaN or infinity; if there are none, all rows with such entries replaced."""
    if not rows.is_floating_point() or not len(rows):
        return rows
    finite = rows[torch.isfinite(rows).flatten(1).all(1)] if rows.dim() > 1 else rows[torch.isfinite(rows)]
    return finite if len(finite) else torch.nan_to_num(rows)


def _before_choosy(trace: Trace) -> set[fx.Node]:
    """The nodes on which operations depend that accept only some numbers, such as an index converted from a float."""
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
    if is_per_edge(role_of(node)):
        return len(OWNER)
    size = node.meta["val"].shape[0]
    return len(OWNER) if isinstance(size, torch.SymInt) and size.node.expr == trace.edges else len(COUNTS)
