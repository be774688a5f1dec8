"""Whether a checkpoint is of the same sort of optimizer, with the same groups of parameters: what it keeps would fit no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_GROUPS, _STATE = "optimizer.param_groups.", "optimizer.state."


def compared(optimizer: Mapping[str, Any], kept: Mapping[str, Any], reader: Any, folder: Any) -> str | None:
    """What an optimizer (its state by names, of this rank) has that the checkpoint has otherwise; None if they are alike. `kept`
    are the names in the checkpoint."""
    groups = optimizer["param_groups"]
    ours = {f"{number}.{option}" for number, group in enumerate(groups) for option in group}
    theirs = {".".join(name.removeprefix(_GROUPS).split(".")[:2]) for name in kept if name.startswith(_GROUPS)}
    other = f"the checkpoint in {folder} is of another optimizer"
    count = len({name.split(".")[0] for name in theirs})
    if count != len(groups):
        return f"{other}: it has {count} groups of parameters there, {len(groups)} here"
    if missing := sorted(ours - theirs):
        return f"{other}: it has no option {missing[0].split('.')[1]!r} there"
    for name, state in optimizer["state"].items():
        if (keys := keys_of(name, kept)) and keys != set(state):
            return f"{other}: for {name} it keeps {_listed(keys)} there, {_listed(state)} here"
    names_there = _names_of_groups(count, reader)
    for name, here in ((name, number) for number, group in enumerate(groups) for name in group["params"]):
        there = [number for number, names in enumerate(names_there) if name in names]
        if there and here not in there:
            return f"{other}: {name} is in group {there[0]} of its parameters there, in group {here} here"
    return None


def keys_of(name: str, kept: Mapping[str, Any]) -> set[str]:
    """What was kept for a parameter."""
    prefix = f"{_STATE}{name}."
    return {each.removeprefix(prefix).split(".")[0] for each in kept if each.startswith(prefix)}


def _names_of_groups(count: int, reader: Any) -> list[list[str]]:
    """The names of the parameters of each group in the checkpoint; each rank reads them."""
    from torch.distributed.checkpoint.state_dict_loader import load as read

    names: dict[str, Any] = {f"{_GROUPS}{number}.params": () for number in range(count)}
    read(names, storage_reader=reader, no_dist=True)
    return [names[f"{_GROUPS}{number}.params"] for number in range(count)]


def _listed(keys: Any) -> str:
    return ", ".join(sorted(keys)) or "nothing"
