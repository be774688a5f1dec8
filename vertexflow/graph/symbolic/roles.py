"""The roles of the placeholders and outputs of a joint graph; a placeholder's is its `node.meta["role"]`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

CHILDREN = -2  # the slot of a gather of all children, with a row for each edge; those below are positions in arcs
ALL_SLOTS = -1  # the slot of a gather of all slots side by side


@dataclass(frozen=True)
class Param:
    """A parameter or a buffer, by its qualified name; or a tensor that all vertices share, by its `shared_key`."""

    name: str


@dataclass(frozen=True)
class Pull:
    """An input, with a row for each vertex, or for each edge to a child."""

    name: str
    per_edge: bool = False


@dataclass(frozen=True)
class Counts:
    """How many edges each vertex has, of those that are read: the children from `first_slot` on, or arcs."""


@dataclass(frozen=True)
class NumChildren:
    """How many children each vertex has, where only some are read over edges, or arcs are; else `Counts` is that."""


@dataclass(frozen=True)
class Slots:
    """The slot of each edge."""


@dataclass(frozen=True)
class Gather:
    """A state of the child in a slot, of the children in all slots side by side (`ALL_SLOTS`), of all children (`CHILDREN`), or
    of those at one position of all arcs (`arc_slot`)."""

    state: str
    slot: int


@dataclass(frozen=True)
class Scatter:
    """A state of the vertex."""

    state: str


@dataclass(frozen=True)
class Push:
    """An output."""

    name: str


@dataclass(frozen=True)
class Grad:
    """The gradient of one of these: a placeholder for what is scattered or pushed, an output for the others."""

    value_role: Param | Pull | Gather | Scatter | Push


Role = Param | Pull | Counts | NumChildren | Slots | Gather | Scatter | Push | Grad


def shared_key(name: str) -> str:
    """What stands for the qualified name of a parameter, for the shared tensor of this name."""
    return f"v.shared({name!r})"


def arc_slot(position: int) -> int:
    """What stands for a slot where the children at this position of arcs are gathered."""
    return CHILDREN - 1 - position


def is_over_edges(slot: int) -> bool:
    """Whether what is gathered from a slot has a row for each edge, or arc."""
    return slot <= CHILDREN


def position_of(slot: int) -> int:
    """The position in an arc of what is gathered over edges; an edge is an arc of one child."""
    return 0 if slot == CHILDREN else CHILDREN - 1 - slot


def role_of(node: fx.Node) -> Role | None:
    """The role of a placeholder; None for other nodes, and for the two placeholders that only tell how many rows and edges."""
    role: Role | None = node.meta.get("role")
    return role


def is_per_edge(role: Role | None) -> bool:
    """Whether a value has a row for each edge to a child."""
    match role:
        case Pull(_, per_edge):
            return per_edge
        case Gather(_, slot):
            return is_over_edges(slot)
    return isinstance(role, Slots)


def comes_from_caller(role: Role | None) -> bool:
    """Whether a value is the gradient of an output. Its rows may all be the same memory: an expanded row of zeros."""
    return isinstance(role, Grad) and isinstance(role.value_role, Push)


def name_of(role: Role) -> str:
    """A Python name: `gather_h_0`, `gather_h_children`, `grad_push_h`."""
    match role:
        case Param(name):
            return f"param_{name.removeprefix('v.').replace('.', '_')}"
        case Pull(name, per_edge):
            return f"{'edge' if per_edge else 'pull'}_{name}"
        case Counts():
            return "counts"
        case NumChildren():
            return "num_children"
        case Slots():
            return "slots"
        case Gather(state, slot):
            if slot < CHILDREN:
                return f"gather_{state}_arc_{position_of(slot)}"
            return f"gather_{state}_{'children' if slot == CHILDREN else slot}"
        case Scatter(state):
            return f"scatter_{state}"
        case Push(name):
            return f"push_{name}"
        case Grad(value_role):
            return f"grad_{name_of(value_role)}"
