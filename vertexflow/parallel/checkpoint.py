"""Checkpoints of a run of many ranks, written and read with any number of them: `torch.distributed.checkpoint`, made safe."""

from __future__ import annotations

import copy
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from ..errors import InputError
from .logical import Logical, described
from .same_optimizer import compare, keys_of

_Given = TypeVar("_Given")

_PREFIX = "step-"
_COMPLETE = ".metadata"  # what PyTorch writes last, under another name first


def save(
    folder: str | os.PathLike[str], step: int, model: nn.Module, optimizer: torch.optim.Optimizer, **more: Any
) -> None:
    """Write a checkpoint, which any number of ranks can `load`. All ranks call it.

    Each rank writes its part into `folder/step-<step>`; when all of it is on the disk it counts, and older ones are removed.
    Who is killed meanwhile, or loses power, has the one before.

    Args:
        folder: which all ranks see; made if it is not there.
        step: how many steps have been made. It tells checkpoints apart.
        model: with whole parameters (in DDP or not), sharded (`fully_shard`), or as `plan.apply` gave it. What is written is
            the state of the whole model, under the names that it has in one process.
        optimizer: of its parameters.
        more: what else has a `state_dict`, by names: a sampler, a schedule of learning rates. Ranks have the same.

    Generators of random numbers are kept as well, one for each rank: a run that is continued with as many ranks draws the same
    noise.

    Raises:
        InputError: something in `more` has no state; the optimizer keeps something of another shape for a parameter of which
            ranks have columns.
    """
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save as write

    from .checked_files import write_checksum

    _check(more)
    logical, has_state = Logical(model), bool(optimizer.state)
    with _as_before_if_it_fails(optimizer):
        state = _state(logical.model, optimizer)
    if not has_state:  # before its first step
        state["optimizer"]["state"] = {}
    state = logical.whole(state)
    state |= {name: (item.state_dict(),) for name, item in more.items()}  # a tuple is kept in one piece
    state[f"random.{_rank()}"] = _random_state()
    path = _path(folder, step)
    if _rank() == 0:
        shutil.rmtree(path, ignore_errors=True)  # what is left of an attempt to write it
    _wait()
    with _quiet(), _checksums():
        write(state, storage_writer=FileSystemWriter(path), no_dist=not _is_distributed())
    if _rank() == 0:
        write_checksum(path)
        _sync(path, path.parent)
        for other in path.parent.glob(f"{_PREFIX}*"):
            if other != path:
                shutil.rmtree(other, ignore_errors=True)
    _wait()


def load(folder: str | os.PathLike[str], model: nn.Module, optimizer: torch.optim.Optimizer, **more: Any) -> int:
    """Continue from the last checkpoint that `save` has written to its end. All ranks call it, as many as there are now.

    Args:
        folder, more: as for `save`. Checkpoints are read with pickle: only from those whom you trust.
        model, optimizer: made as for `save`. The model may be spread in another way than it was when it was saved.

    Returns:
        The number of steps that were made; 0 if there is no checkpoint.

    Raises:
        InputError: a file of it is cut short or damaged; it is of another model or optimizer, or of other dtypes; it has not what
            `more` names, or one of these refuses its state. Nothing was changed then, on any rank: all is read beside what
            there is, which takes the memory of the state of a rank once more, and is checked against its checksums.

    Example:
        >>> first = vf.parallel.load("run", model, optimizer, sampler=sampler)
        >>> for step in range(first, steps):
        ...     ...
        ...     if (step + 1) % 100 == 0:
        ...         vf.parallel.save("run", step + 1, model, optimizer, sampler=sampler)
    """
    from torch.distributed.checkpoint.state_dict import set_model_state_dict

    from .checked_files import CheckedReader, read_into

    _check(more)
    logical = Logical(model)
    latest = [max((path.name for path in Path(folder).glob(f"{_PREFIX}*") if (path / _COMPLETE).exists()), default="")]
    if _is_distributed():
        distributed.broadcast_object_list(latest)  # what one rank has seen, for all
    if not latest[0]:
        return 0
    reader = CheckedReader(Path(folder) / latest[0])
    kept = _together(reader.metadata).state_dict_metadata
    if missing := [name for name in more if name not in kept]:
        raise InputError(f"the checkpoint in {folder} has no {missing[0]!r}: it was saved without")
    with _as_before_if_it_fails(optimizer), _all_trained(optimizer):
        state = logical.room(_room(logical.model, optimizer, kept))
        _compare(logical.sizes(state["model"]), kept, folder)
        with _quiet():
            _together(lambda: compare(state["optimizer"], kept, reader, folder))
        names = [group["params"] for group in state["optimizer"]["param_groups"]]
        of_parameters = state["optimizer"]["state"]
        # Without what the run had not yet: a parameter has a state from its first gradient on.
        had_state = {name: of_one for name, of_one in of_parameters.items() if keys_of(name, kept)}
        state["optimizer"]["state"] = had_state
        state |= dict.fromkeys(more, ())
        is_of_as_many = f"random.{_count() - 1}" in kept and f"random.{_count()}" not in kept
        if is_of_as_many:
            state[f"random.{_rank()}"] = ()
        with _quiet():
            read_into(state, reader, is_alone=not _is_distributed())
        _set_all_or_none(more, {name: state[name][0] for name in more}, folder)
    ours = logical.of_rank(state)
    set_model_state_dict(logical.model, ours["model"])
    with _all_trained(optimizer):
        _set_optimizer(logical.model, optimizer, ours["optimizer"], names)
    if is_of_as_many:
        _set_random_state(state[f"random.{_rank()}"])
    return int(latest[0].removeprefix(_PREFIX))


@contextmanager
def _as_before_if_it_fails(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """The optimizer, and the gradients of its parameters, stay as they are where something fails: numbers are read into options
    that are tensors, and PyTorch sets learning rates to zero for a step that makes a state, which an optimizer may refuse."""
    state, groups = dict(optimizer.state), optimizer.param_groups
    options = [
        {name: value.clone() if isinstance(value, Tensor) else value for name, value in group.items()}
        for group in groups
    ]
    gradients = [(parameter, parameter.grad) for group in groups for parameter in group["params"]]
    try:
        yield
    except BaseException:
        optimizer.state.clear()
        optimizer.state.update(state)
        for group, before in zip(groups, options, strict=True):
            for name, value in before.items():
                if isinstance(value, Tensor) and isinstance(group[name], Tensor):
                    group[name].copy_(value)
                else:
                    group[name] = value
        optimizer.param_groups = groups
        for parameter, gradient in gradients:
            parameter.grad = gradient
        raise


@contextmanager
def _all_trained(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """PyTorch makes and reads no state of parameters that are frozen; they had one if they were frozen after some steps."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    frozen = [each for each in parameters if not each.requires_grad and each.is_floating_point()]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _set_all_or_none(more: dict[str, Any], states: dict[str, Any], folder: Any) -> None:
    """Give each of `more` its state; where one refuses it, on any rank, all have what they had."""
    before = {}
    for name, item in more.items():
        with suppress(Exception):  # what has no state yet, or none that can be copied, cannot be put back
            before[name] = copy.deepcopy(item.state_dict())

    def load_all() -> None:
        for name, item in more.items():
            try:
                item.load_state_dict(states[name])
            except Exception as error:
                raise InputError(f"{name} refuses its state in the checkpoint in {folder}: {error}") from error

    try:
        _together(load_all)
    except BaseException:
        for name, state in before.items():
            with suppress(Exception):  # the first error is the one to tell
                more[name].load_state_dict(state)
        raise


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Of the model and the optimizer, by names. PyTorch lets an optimizer without state make a step, of gradients that are zero,
    to have one; that must not count as a step."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

    has_state = bool(optimizer.state)
    state = {"model": get_model_state_dict(model), "optimizer": get_optimizer_state_dict(model, optimizer)}
    if not has_state:
        optimizer.state.clear()
    return state


def _room(model: nn.Module, optimizer: torch.optim.Optimizer, kept: dict[str, Any]) -> dict[str, Any]:
    """The state, with that of each parameter for which one was kept."""
    state = _state(model, optimizer)
    names = [name for group in state["optimizer"]["param_groups"] for name in group["params"]]
    if any(keys_of(name, kept) and name not in state["optimizer"]["state"] for name in names):
        optimizer.state.clear()
        optimizer.zero_grad()  # with gradients, PyTorch would not make a state for what is read
        state = _state(model, optimizer)
    return state


def _set_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], names: list[list[str]]
) -> None:
    """`names` are those that this rank has of each group: of all of them where ranks have other stages, and perhaps none, a group
    which PyTorch does not know."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    groups = [{**group, "params": own} for group, own in zip(state["param_groups"], names, strict=True)]
    before = optimizer.param_groups
    filled = {**state, "param_groups": [group for group in groups if group["params"]]}
    optimizer.param_groups = [group for group in before if group["params"]]
    try:
        set_optimizer_state_dict(model, optimizer, filled, options=StateDictOptions(strict=False))
    finally:  # PyTorch makes other groups, in the same order
        with_params = iter(optimizer.param_groups)
        optimizer.param_groups = [next(with_params) if group["params"] else group for group in before]
    for here, kept in zip(optimizer.param_groups, groups, strict=True):
        here.update({option: value for option, value in kept.items() if option != "params"})


def _together(action: Callable[[], _Given]) -> _Given:
    """What `action` gives on this rank; what one rank refuses, all refuse."""
    refusal: InputError | None = None
    try:
        given = action()
    except InputError as error:
        refusal = error
    refusals = [refusal and str(refusal)] * _count()
    if _is_distributed():
        distributed.all_gather_object(refusals, refusals[0])
    if refusal is not None:
        raise refusal
    for each in refusals:
        if each is not None:
            raise InputError(each)
    return given


def _compare(ours: dict[str, str], kept: dict[str, Any], folder: Any) -> None:
    theirs = {
        name[6:]: described(entry.size, entry.properties.dtype)
        for name, entry in kept.items()
        if name.startswith("model.") and hasattr(entry, "size")
    }
    for name in dict.fromkeys([*ours, *theirs]):
        if ours.get(name) != theirs.get(name):
            there, here = (of.get(name, "not") for of in (theirs, ours))
            raise InputError(f"the checkpoint in {folder} is of another model: {name} is {there} there, {here} here")


def _check(more: dict[str, Any]) -> None:
    for name, item in more.items():
        if not hasattr(item, "state_dict") or not hasattr(item, "load_state_dict"):
            raise InputError(f"{name} is a {type(item).__name__} without state_dict() and load_state_dict()")


def _path(folder: str | os.PathLike[str], step: int) -> Path:
    if isinstance(step, bool) or not isinstance(step, int) or not 0 < step < 10**12:
        raise InputError(f"step is {step!r}; give the number of steps that were made, from 1 up")
    return Path(folder) / f"{_PREFIX}{step:012}"


def _random_state() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return torch.get_rng_state(), cuda


def _set_random_state(state: tuple[Any, ...]) -> None:
    cpu, cuda = state
    torch.set_rng_state(cpu)
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)


def _sync(*folders: Path) -> None:
    """Names are on the disk; PyTorch has written the contents there."""
    if os.name != "posix":  # elsewhere folders cannot be opened
        return
    for folder in folders:
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch warns where there is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


@contextmanager
def _checksums() -> Iterator[None]:
    """By default PyTorch writes checksums of numbers; `load` looks at them."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _rank() -> int:
    return distributed.get_rank() if _is_distributed() else 0


def _count() -> int:
    return distributed.get_world_size() if _is_distributed() else 1


def _wait() -> None:
    if _is_distributed():
        distributed.barrier()
