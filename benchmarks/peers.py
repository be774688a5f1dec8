"""Other frameworks, which run where they are installed."""

from __future__ import annotations

import os
import sys
import types
from typing import Any

import torch
from torch import Tensor

import vertexflow as vf


class MissingError(Exception):
    """A framework that cannot be imported, and why."""


def import_dgl() -> Any:
    """DGL; a newer PyTorch lacks what `dgl.graphbolt` is made of, of which nothing is needed here.

    Raises:
        MissingError: it cannot be imported.
    """
    sys.modules.setdefault("dgl.graphbolt", types.ModuleType("dgl.graphbolt"))
    try:
        import dgl
    except Exception as error:  # it fails in many ways, by what else is installed
        raise MissingError(f"DGL cannot be imported ({error}); pip install dgl==2.1.0") from error
    return dgl


def dgl_graph(dgl: Any, batch: vf.GraphBatch) -> Any:
    """The batch as one graph of DGL, with edges from children to parents."""
    offset = torch.from_numpy(batch.offset).long()
    parent = torch.repeat_interleave(torch.arange(batch.num_vertices), offset.diff())
    return dgl.graph((torch.from_numpy(batch.child).long(), parent), num_nodes=batch.num_vertices).to(batch.device)


def import_pyg() -> Any:
    """PyTorch Geometric.

    Raises:
        MissingError: it cannot be imported.
    """
    try:
        import torch_geometric
    except Exception as error:
        raise MissingError(f"PyTorch Geometric cannot be imported ({error}); pip install torch_geometric") from error
    return torch_geometric


def import_jax(x: Tensor) -> Any:
    """JAX, for tensors like `x` on a CPU, with as many threads as PyTorch has when it is first used.

    Raises:
        MissingError: it cannot be imported, or `x` is not on a CPU.
    """
    if x.device.type != "cpu":
        raise MissingError("JAX is compared on a CPU only")
    os.environ.setdefault("NPROC", str(torch.get_num_threads()))  # XLA's threads
    try:
        import jax
    except Exception as error:
        raise MissingError(f"JAX cannot be imported ({error}); pip install jax") from error
    jax.config.update("jax_enable_x64", x.dtype == torch.float64)
    return jax


def import_dynet() -> Any:
    """DyNet with autobatching, in float32.

    Raises:
        MissingError: it cannot be imported.
    """
    try:
        import dynet_config

        dynet_config.set(mem=2048, random_seed=1, autobatch=1)
        import dynet
    except Exception as error:
        raise MissingError(
            f"DyNet cannot be imported ({error}); see benchmarks/dynet.py for how it is built"
        ) from error
    return dynet
