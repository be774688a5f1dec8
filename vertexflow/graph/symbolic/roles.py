"""What the placeholders and the outputs of a joint graph are: `node.meta["role"]` of the placeholders."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

CHILDREN = -2  # the slot of a gather of all children
ALL_SLOTS = -1  # the slot of a gather of all slots side by side


@dataclass(frozen=True)
class Param:
    """A parameter or a buffer, by its qualified name."""

    name: str


@dataclass(frozen=True)
class Pull:
    """An input, with a row for each vertex, or for each edge to a child."""

    name: str
    of_edges: bool = False


@dataclass(frozen=True)
class Counts:
    """How many children each vertex has."""


@dataclass(frozen=True)
class Gather:
    """A state of the children in a slot, or of those in all slots, or of all children."""

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
    """The gradient of one of these: it comes to what is scattered and pushed, and goes to the others."""

    of: Param | Pull | Gather | Scatter | Push


Role = Param | Pull | Counts | Gather | Scatter | Push | Grad


def role_of(node: fx.Node) -> Role | None:
    """What a placeholder is; None for other nodes, and for the tensors that only tell the numbers of rows and edges."""
    role: Role | None = node.meta.get("role")
    return role


def is_of_edges(role: Role | None) -> bool:
    """Whether a value has a row for each edge to a child."""
    match role:
        case Pull(_, of_edges):
            return of_edges
        case Gather(_, slot):
            return slot == CHILDREN
    return False


def comes_from_caller(role: Role | None) -> bool:
    """Whether a value is the gradient of an output, whose rows may all be the same memory, of zeros."""
    return isinstance(role, Grad) and isinstance(role.of, Push)


def name_of(role: Role) -> str:
    """A Python name: `gather_h_0`, `gather_h_children`, `grad_push_h`."""
    match role:
        case Param(name):
            return f"param_{name.replace('.', '_')}"
        case Pull(name, of_edges):
            return f"{'edge' if of_edges else 'pull'}_{name}"
        case Counts():
            return "counts"
        case Gather(state, slot):
            return f"gather_{state}_{'children' if slot == CHILDREN else slot}"
        case Scatter(state):
            return f"scatter_{state}"
        case Push(name):
            return f"push_{name}"
        case Grad(of):
            return f"grad_{name_of(of)}"
