"""The result of a partition: the parts of a joint graph, each a graph of its own, and the values kept between them."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import fx

from .roles import Counts, Gather, Grad, NumChildren, Param, Pull, Scatter, comes_from_caller, role_of
from .trace import Trace

FORWARD = ("eager", "core", "lazy")
BACKWARD = ("grad_eager", "grad_core", "grad_lazy")
CORES = ("core", "grad_core")


@dataclass
class Part:
    """Nodes that run together over a range of rows. `graph` takes `rows`, `edges` and then the values of `inputs`.

    `inputs` and `outputs` are nodes of the joint graph; `graph` returns the values of `outputs`.
    """

    name: str
    graph: fx.Graph
    inputs: list[fx.Node]
    outputs: list[fx.Node]

    @property
    def placeholders(self) -> dict[fx.Node, fx.Node]:
        """The placeholders of `graph`, with the node of the joint graph that each stands for."""
        nodes = [node for node in self.graph.nodes if node.op == "placeholder" and node.name not in ("rows", "edges")]
        return dict(zip(nodes, self.inputs, strict=True))

    @property
    def results(self) -> tuple[fx.Node, ...]:
        """The nodes of `graph` that are the values of `outputs`."""
        results: tuple[fx.Node, ...] = next(iter(reversed(self.graph.nodes))).args[0] if self.outputs else ()
        return results


@dataclass
class Program:
    """All parts of a vertex function for one set of wanted gradients, and the values kept between them.

    Parts are named by stage, with `_inner` for what leaves do not need and `_leaf` for the core of vertices without
    children. Inner rows are those of vertices with children.
    """

    trace: Trace
    parts: dict[str, Part] = field(default_factory=dict)
    stage_of: dict[fx.Node, str] = field(default_factory=dict)  # of each computed node
    buffered: list[fx.Node] = field(default_factory=list)  # have a buffer over all steps: another stage reads them
    # Computed values whose leaf rows are read; of other values, only the inner rows are computed.
    leaf_rows: set[fx.Node] = field(default_factory=set)
    without_rows: set[fx.Node] = field(default_factory=set)  # values computed from parameters and such values alone
    leaf_operands: dict[fx.Node, set[int]] = field(default_factory=dict)  # of a cat: those that its leaf rows need
    leaf_reads: dict[str, set[fx.Node]] = field(default_factory=dict)  # what each core reads for its leaf rows
    # What vertices with children take in a `where`, for values of such vertices alone; later parts read the state that it is.
    taken: dict[fx.Node, fx.Node] = field(default_factory=dict)
    known_as: dict[fx.Node, fx.Node] = field(default_factory=dict)
    unread: set[fx.Node] = field(
        default_factory=set
    )  # what nobody reads therefore, but perhaps leaf cores that compute it
    scatters: dict[str, fx.Node] = field(default_factory=dict)  # the states that vertices of this kind have
    partial: frozenset[str] = frozenset()  # the states that vertices of some kind lack, of this or another one
    gathers: dict[tuple[str, int], fx.Node] = field(default_factory=dict)
    gather_grads: dict[tuple[str, int], fx.Node] = field(default_factory=dict)
    state_grads: dict[str, fx.Node] = field(default_factory=dict)
    param_grads: dict[str, fx.Node] = field(default_factory=dict)
    pull_grads: dict[str, fx.Node] = field(default_factory=dict)
    saved: list[fx.Node] = field(default_factory=list)  # forward values that the backward reads
    # Parameters, buffers and other constants that the backward reads.
    read_constants: list[fx.Node] = field(default_factory=list)

    @property
    def wants_gradients(self) -> bool:
        return bool(self.param_grads or self.pull_grads or self.gather_grads)

    @property
    def receives_at_leaves(self) -> bool:
        """Whether the gradients that leaves receive from their parents are read."""
        leaf = self.parts.get("grad_core_leaf")
        return any(
            node in self.leaf_rows or (leaf is not None and node in leaf.inputs) for node in self.state_grads.values()
        )

    @property
    def leaf_inputs(self) -> set[fx.Node]:
        """The inputs that are read of vertices without children only."""
        parts = (part for name, part in self.parts.items() if not name.endswith("_leaf"))
        read = {node for part in parts for node in part.inputs}
        return {*self.trace.pulls.values()} - read - {*self.scatters.values(), *self.trace.pushes.values()}

    def has_leaf_rows(self, node: fx.Node) -> bool:
        """Whether a value has rows for all vertices, not only for those with children."""
        role = role_of(node)
        return (
            node in self.leaf_rows or isinstance(role, Pull | Counts | NumChildren | Param) or comes_from_caller(role)
        )

    def exchanged(self, core: str, node: fx.Node) -> Gather | Grad | None:
        """How a core exchanges a value with children or parents: as `Gather` (gathered), `Grad(Scatter)` (received) or
        `Grad(Gather)` (sent); None for a value that it does not exchange."""
        role = role_of(node)
        if core == "core":
            return role if isinstance(role, Gather) else None
        if core != "grad_core":
            return None
        if isinstance(role, Grad) and isinstance(role.value_role, Scatter):
            return role
        sent = next((key for key, grad in self.gather_grads.items() if grad is node), None)
        return None if sent is None else Grad(Gather(*sent))
