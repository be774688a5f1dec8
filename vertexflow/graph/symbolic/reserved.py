"""Names that states, inputs, outputs and attributes of a vertex function cannot have, because they mean something already."""

from __future__ import annotations

import keyword
from typing import Any

from torch import Tensor, nn

from ...errors import InputError, VertexFunctionError
from .method import without_init

# What a call takes beside inputs, and what a gathered state offers beside states.
ARGUMENTS = frozenset({"self", "graphs", "initial", "outputs", "reverse", "shared"})
_NOT_STATES = frozenset({"self", "pull", "expand", "gather"})

METHODS = frozenset({"vertex", "forward", "start", "explain", "symbolic_graph"})
SETTINGS = frozenset({"backend", "policy", "state_dtype", "max_vertices"})
ATTRIBUTES = METHODS | SETTINGS | {"state"}


def check_state_name(name: object) -> None:
    """Refuse a state that `v.gather(0).name` could not read."""
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise InputError(f"state {name!r} is not a Python name; give one that can stand behind a dot: v.gather(0).h")
    if name in _NOT_STATES or name.startswith("_"):
        why = (
            "names that begin with _ are kept for vertexflow"
            if name[0] == "_"
            else "v.children, v.gather or v.scatter has it"
        )
        raise InputError(f"a state cannot be called {name!r}: {why}; give it another name")


def check_input_name(call: str, name: object) -> None:
    """Refuse an input that cannot be passed to the model as `name=`."""
    if not isinstance(name, str):
        raise VertexFunctionError(f"{call} takes the name of an input, not {name!r}")
    if name in ARGUMENTS:
        raise VertexFunctionError(
            f"{call}({name!r}): an input cannot be called {name!r}, which is an argument of the model's call with another "
            "meaning; give it another name"
        )


def check_output_name(name: str) -> None:
    """Refuse an output that is no attribute of the mapping a call returns."""
    if hasattr(dict, name) or name.startswith("__"):
        raise VertexFunctionError(
            f"v.push({name}=...): an output cannot be called {name!r}, because what the model returns is a mapping, and "
            f"out.{name} is a method of it; give it another name"
        )


def check_attribute(owner: nn.Module, name: str, value: Any) -> None:
    """Refuse an attribute that would hide one of `VertexFunction`'s own, a change of `state`, and modules and tensors before
    `__init__`."""
    if "_parameters" not in owner.__dict__ and isinstance(value, (nn.Module, Tensor)):
        raise VertexFunctionError(without_init(owner))
    if name not in ATTRIBUTES:
        return
    is_module_or_tensor = isinstance(value, (nn.Module, Tensor)) and not (name == "policy" and hasattr(value, "steps"))
    if name == "state":
        why = "which holds the shapes of the states: they are given to super().__init__(state=...), and stay"
    elif name in SETTINGS and is_module_or_tensor:
        why = "which is a setting of every vertex function"
    elif name in METHODS and (is_module_or_tensor or not callable(value)):
        why = "which is a method or property of every vertex function"
    else:
        return
    raise VertexFunctionError(
        f"{type(owner).__name__}.{name} cannot be set to a {type(value).__name__}: it would hide `VertexFunction.{name}`, {why}; "
        f"give your attribute another name, such as `self.{name}_`"
    )
