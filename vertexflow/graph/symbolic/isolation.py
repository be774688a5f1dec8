"""Tracing undisturbed by the modes that are on where a model's first call happens, and without effects on its surroundings."""

from __future__ import annotations

import linecache
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor, fx
from torch.distributions import Distribution
from torch.fx import graph_module
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import _disable_current_modes

# Held while a vertex function is looked at, traced or compiled: PyTorch's tracing is for one thread at a time.
lock = threading.RLock()


def _renew_lock() -> None:
    global lock
    lock = threading.RLock()  # the thread that held the old one is not in this process


os.register_at_fork(after_in_child=_renew_lock)


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Switch autocast off for everything but the vertex function: its casts are recorded in the graph already."""
    on = torch.is_autocast_enabled(device_type)
    return torch.amp.autocast(device_type, enabled=False) if on else nullcontext()


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Trace with the derivative even where the caller switched gradients off, and show no fake tensor to anything around.

    Switched off are inference mode, `no_grad`, anomaly detection, hooks on saved tensors (checkpointing sets them), dispatch
    modes, the cache of parametrizations, compiled submodules and the checks of distributions. Afterwards, random numbers
    continue as if none had been drawn.
    """
    cuda = [device] if device.type == "cuda" else []
    with ExitStack() as stack:
        stack.enter_context(_disable_current_modes())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.random.fork_rng(devices=cuda))
        if torch.is_anomaly_enabled():
            stack.enter_context(torch.autograd.set_detect_anomaly(False))
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(_as_it_is, _as_it_is))
        stack.enter_context(_without_cached_parametrizations())
        stack.enter_context(_distributions_unchecked())
        if "torch._dynamo" in sys.modules:  # importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            # The stance alone is not enough: PyTorch looks at this setting before.
            stack.enter_context(torch._dynamo.config.patch(error_on_nested_fx_trace=False))
        yield


def forget_sizes() -> None:
    """Empty PyTorch's caches of facts about symbolic sizes, which would keep the whole trace in memory for ever."""
    for method in vars(ShapeEnv).values():
        if hasattr(method, "cache_clear"):
            method.cache_clear()


def forget_source(module: fx.GraphModule) -> None:
    """Drop the source text that PyTorch keeps of every graph for tracebacks: the code of ours never runs, it is interpreted."""
    filename = type(module).forward.__code__.co_filename
    graph_module._loader.eval_cache.pop(filename, None)
    linecache.cache.pop(filename, None)


def generators_in(nodes: Iterable[fx.Node]) -> list[torch.Generator]:
    """The random generators that the user gave to operations."""
    constants = (node.meta.get("constant") for node in nodes)
    return [value for value in constants if isinstance(value, torch.Generator)]


@contextmanager
def restored(generators: Iterable[torch.Generator]) -> Iterator[None]:
    """Put the random generators back afterwards."""
    states = [(generator, generator.get_state()) for generator in generators]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def seed(device: torch.device, generators: Iterable[torch.Generator]) -> None:
    """Seed the CPU's generator, that of `device`, and these; no other device's, unlike `torch.manual_seed`."""
    torch.default_generator.manual_seed(0)
    for generator in generators:
        generator.manual_seed(0)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(0)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


@contextmanager
def _without_cached_parametrizations() -> Iterator[None]:
    enabled, parametrize._cache_enabled = parametrize._cache_enabled, 0
    try:
        yield
    finally:
        parametrize._cache_enabled = enabled


@contextmanager
def _distributions_unchecked() -> Iterator[None]:
    """Let distributions skip the checks of their arguments, which look at values: there are none while tracing.

    A distribution that is told to check (`validate_args=True`) fails, and the vertex function is refused.
    """
    previous = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(previous)
