"""What was measured, and where: goes into every result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

import vertexflow as vf


def machine() -> dict[str, str | int]:
    """The processor, the number of OpenMP threads in the environment (PyTorch's is a setting of the run), and the GPU."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    properties: dict[str, str | int] = {
        "cpu": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", ""),
    }
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        properties.update(gpu=device.name, multiprocessors=device.multi_processor_count, cuda=str(torch.version.cuda))
    return properties


def versions() -> dict[str, str]:
    """The versions of Python, PyTorch, vertexflow and the peers that are installed."""
    installed = {"python": platform.python_version(), "torch": torch.__version__, "vertexflow": vf.__version__}
    for peer in ("triton", "dgl", "torch_geometric", "jax"):
        try:
            installed[peer] = importlib.metadata.version(peer)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def commit() -> str:
    """The commit of the checkout, with a plus if files differ from it; empty outside of one."""
    here = Path(__file__).parent
    try:
        git = ["git", "-C", str(here), "describe", "--always", "--exclude=*", "--abbrev=7", "--dirty=+"]
        return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
