"""Ways in which a model is changed, called with the same batch, and changed back: what was is not what is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

from .call import Call


def _attempt(call: Call, backend: str) -> dict[str, torch.Tensor] | Exception:
    before, call.model.backend = call.model.backend, backend
    try:
        return call.run()
    except Exception as error:
        return error
    finally:
        call.model.backend = before


Change = Callable[[Call], AbstractContextManager[None]]


def changed_between(change: Change) -> Callable[[Call], None]:
    """A way: right, then changed, where it must be as the method itself says, then right again."""

    def way(call: Call) -> None:
        if call.rng.random() < 0.5:
            call.check_values(call.run())
        with change(call):
            changed, wanted = _attempt(call, call.model.backend), _attempt(call, "eager")
        if isinstance(changed, Exception):
            if not isinstance(wanted, Exception):
                raise changed
        elif call.function.is_exact and not call.sample.special:
            if isinstance(wanted, Exception):  # the method itself, or a refusal, which is counted
                raise wanted
            for name, value in wanted.items():
                assert (
                    (changed[name] - value).abs().max() <= 1e-8 * (1 + value.abs().max())
                    if value.is_floating_point() and value.numel()
                    else True
                ), f"{name} after a change: {changed[name]} instead of {value}"
        call.check(call.run())

    return way


@contextmanager
def parameters(call: Call) -> Iterator[None]:
    """In place, as an optimiser does."""
    own = {name: value.detach().clone() for name, value in call.model.named_parameters()}
    with torch.no_grad():
        for value in call.model.parameters():
            value.add_(0.5)
    yield
    with torch.no_grad():
        for name, value in call.model.named_parameters():
            value.copy_(own[name])


@contextmanager
def buffers(call: Call) -> Iterator[None]:
    """In place, those of real numbers."""
    own = {name: value.clone() for name, value in call.model.named_buffers() if value.is_floating_point()}
    for name in own:
        call.model.get_buffer(name).mul_(-1.5)
    yield
    for name, value in own.items():
        call.model.get_buffer(name).copy_(value)


@contextmanager
def attributes(call: Call) -> Iterator[None]:
    model, sample = call.model, call.sample
    model.gain, model.flag = 3.0, not sample.flag
    model.train(not sample.training)
    yield
    model.gain, model.flag = sample.gain, sample.flag
    model.train(sample.training)


@contextmanager
def submodules(call: Call) -> Iterator[None]:
    """Each is another object with other numbers; or does nothing at all."""
    model = call.model
    own = dict(model.named_children())
    for name, module in own.items():
        other = copy.deepcopy(module)
        with torch.no_grad():
            for value in other.parameters():
                value.mul_(-0.7)
        setattr(model, name, nn.Identity() if isinstance(module, (nn.LayerNorm, nn.PReLU)) else other)
    yield
    for name, module in own.items():
        setattr(model, name, module)


@contextmanager
def replaced_parameters(call: Call) -> Iterator[None]:
    """Other objects in their places."""
    own = [
        (module, name, value)
        for module in call.model.modules()
        for name, value in module.named_parameters(recurse=False)
    ]
    for module, name, value in own:
        setattr(module, name, nn.Parameter(value.detach() * 0.3, requires_grad=not value.requires_grad))
    yield
    for module, name, value in own:
        setattr(module, name, value)


@contextmanager
def wanted_gradients(call: Call) -> Iterator[None]:
    leaves = [value for value in call.leaves().values() if value.is_floating_point()]
    own = [value.requires_grad for value in leaves]
    for value in leaves:
        value.requires_grad_(not value.requires_grad)
    yield
    for value, wants in zip(leaves, own, strict=True):
        value.requires_grad_(wants)


@contextmanager
def hooks(call: Call) -> Iterator[None]:
    """What submodules return is changed on its way."""
    taken = [
        module.register_forward_hook(lambda module, given, value: value * 0.5)
        for module in call.model.children()
        if isinstance(module, (nn.Linear, nn.LayerNorm, nn.Embedding, nn.PReLU, nn.Sequential))
    ]
    yield
    for hook in taken:
        hook.remove()


@contextmanager
def autocast(call: Call) -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16, enabled=not call.function.autocast):
        yield


CHANGES: dict[str, Change] = {
    "parameters": parameters,
    "buffers": buffers,
    "attributes": attributes,
    "submodules": submodules,
    "replaced parameters": replaced_parameters,
    "wanted gradients": wanted_gradients,
    "hooks": hooks,
    "autocast": autocast,
}
