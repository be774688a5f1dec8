"""Whether a checkpoint is of the same sort of optimizer, with the same groups of parameters: what it keeps would fit no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from .checked_files import CheckedReader

_GROUPS, _STATE = "optimizer.param_groups.", "optimizer.state."


def compare(optimizer: Mapping[str, Any], kept: Mapping[str, Any], reader: CheckedReader, folder: Any) -> None:
    """Refuse what an optimizer (its state by names, of this rank) has that the checkpoint has otherwise. `kept` is what the
    checkpoint has, by name.

    Raises:
        InputError: it is of another optimizer, or not whole.
    """
    groups = optimizer["param_groups"]
    ours = {f"{number}.{option}" for number, group in enumerate(groups) for option in group}
    theirs = {".".join(name.removeprefix(_GROUPS).split(".")[:2]) for name in kept if name.startswith(_GROUPS)}
    other = f"the checkpoint in {folder} is of another optimizer"
    count = len({name.split(".")[0] for name in theirs})
    if count != len(groups):
        raise InputError(f"{other}: it has {count} groups of parameters there, {len(groups)} here")
    if missing := sorted(ours - theirs):
        raise InputError(f"{other}: it has no option {missing[0].split('.')[1]!r} there")
    for name, state in optimizer["state"].items():
        if (keys := keys_of(name, kept)) and keys != set(state):
            raise InputError(f"{other}: for {name} it keeps {_listed(keys)} there, {_listed(state)} here")
        for key, value in state.items() if keys else ():
            there, here = _dtype_of(kept.get(f"{_STATE}{name}.{key}")), getattr(value, "dtype", None)
            if there is not None and here is not None and there != here:
                raise InputError(f"{other}: {key} of {name} is {there} there, {here} here")
    names_there = _names_of_groups(count, reader)
    for name, own in ((name, number) for number, group in enumerate(groups) for name in group["params"]):
        of_name = [number for number, names in enumerate(names_there) if name in names]
        if of_name and own not in of_name:
            raise InputError(f"{other}: {name} is in group {of_name[0]} of its parameters there, in group {own} here")


def keys_of(name: str, kept: Mapping[str, Any]) -> set[str]:
    """What was kept for a parameter."""
    prefix = f"{_STATE}{name}."
    return {each.removeprefix(prefix).split(".")[0] for each in kept if each.startswith(prefix)}


def _names_of_groups(count: int, reader: CheckedReader) -> list[list[str]]:
    """The names of the parameters of each group in the checkpoint; each rank reads them."""
    from .checked_files import read_into

    names: dict[str, Any] = {f"{_GROUPS}{number}.params": () for number in range(count)}
    read_into(names, reader, is_alone=True)
    return [names[f"{_GROUPS}{number}.params"] for number in range(count)]


def _dtype_of(entry: Any) -> Any:
    """Of a tensor in a checkpoint; None of anything else."""
    return getattr(getattr(entry, "properties", None), "dtype", None)


def _listed(keys: Any) -> str:
    return ", ".join(sorted(keys)) or "nothing"
