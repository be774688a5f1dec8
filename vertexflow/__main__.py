"""`python -m vertexflow`: versions, backends, compiler and cache, to paste into an issue."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata

import torch

from . import __version__
from .kernels import native, triton
from .kernels.cache import cache_folder
from .kernels.compile import choose_backend
from .kernels.native.build import words_of

_PACKAGES = ("torch", "numpy", "sympy", "triton")


def lines() -> Iterator[tuple[str, str]]:
    """What there is, by name."""
    yield "vertexflow", __version__
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()}), {platform.platform()}"
    for name in _PACKAGES:
        try:
            yield name, torch.__version__ if name == "torch" else metadata.version(name)  # which says +cpu, +cu130
        except metadata.PackageNotFoundError:
            yield name, "not installed"
    yield "CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of PyTorch"
    yield "GPU", _gpus()
    yield "compiler", _compiler()
    yield 'backend "auto"', _automatic()
    yield "cache", _cache()
    for name in sorted(
        name for name in os.environ if name.startswith("VERTEXFLOW_") or name in ("CXX", "TRITON_INTERPRET")
    ):
        yield name, os.environ[name]


def _gpus() -> str:
    if not torch.cuda.is_available():
        return f"none (PyTorch {'has no CUDA' if torch.version.cuda is None else f'was built for CUDA {torch.version.cuda}'})"
    names = [torch.cuda.get_device_name(device) for device in range(torch.cuda.device_count())]
    return f"{', '.join(names)}; Triton kernels {'can' if triton.is_available() else 'cannot'} be made"


def _compiler() -> str:
    command = native.compiler()
    if command is None:
        return 'none: backend "native" cannot be used (g++, clang++ or c++ on the PATH, or CXX)'
    try:
        said = subprocess.run(
            [*words_of(command), "--version"], capture_output=True, text=True, check=False, timeout=20
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command}, which cannot be run: {error}"
    return f"{command}: {said.splitlines()[0] if said else 'says nothing of its version'}"


def _automatic() -> str:
    on_cpu = choose_backend("auto")
    return (
        on_cpu
        if not torch.cuda.is_available()
        else f"{on_cpu}; on a GPU {choose_backend('auto', torch.device('cuda'))}"
    )


def _cache() -> str:
    folder = cache_folder()
    try:
        sizes = [entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()]
    except FileNotFoundError:
        return f"{folder}, which is not there yet"
    except OSError as error:
        return f"{folder}, which cannot be read: {error.strerror}"
    writable = "" if os.access(folder, os.W_OK) else ", which cannot be written: code is compiled anew in every process"
    return f"{folder}: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB{writable}"


def main() -> int:
    """Print them."""
    for name, value in lines():
        print(f"{name:<16} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
