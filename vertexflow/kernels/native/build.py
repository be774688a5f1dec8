"""Compile generated C++ once, and keep it on disk by its content."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from ... import log
from ...errors import BackendError

FLAGS = ("-std=c++17", "-O2", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp",
         "-shared", "-fPIC")  # fmt: skip


def compiler() -> str | None:
    """The C++ compiler: the environment variable `CXX`, or one that is found."""
    return os.environ.get("CXX") or _find_compiler(os.environ.get("PATH", ""))


def cache_folder() -> Path:
    """Where compiled code is kept: the environment variable `VERTEXFLOW_CACHE`, or the user's cache folder."""
    asked = os.environ.get("VERTEXFLOW_CACHE")
    return Path(asked) if asked else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vertexflow"


def load(source: str) -> ctypes.CDLL:
    """The library made of `source`, compiled unless it has been before.

    Raises:
        BackendError: there is no compiler, or it failed.
    """
    found = compiler()
    if found is None:
        raise BackendError(
            'backend "compile" needs a C++ compiler (g++ or clang++; CXX names one); or use backend="torch"'
        )
    name = hashlib.sha256("\0".join((source, found, *FLAGS, _machine())).encode()).hexdigest()[:32]
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / f"{name}.so"
        if not kept.exists():
            _compile(found, source, kept)
    except OSError:  # no place to keep it
        kept = Path(_private_folder()) / f"{name}.so"
        if not kept.exists():
            _compile(found, source, kept)
    return ctypes.CDLL(str(kept))


def address_of(library: ctypes.CDLL, name: str) -> int:
    """Where a function of a library is."""
    return ctypes.cast(library[name], ctypes.c_void_p).value or 0


def _compile(command: str, source: str, to: Path) -> None:
    log.show("kernels", f"compiling {to}")
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        code, made = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
        code.write_text(source, encoding="utf-8")
        done = subprocess.run(
            [command, *FLAGS, str(code), "-o", str(made)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BackendError(f"{command} could not compile generated code:\n{done.stderr[:2000]}")
        os.replace(made, to)  # whole, or not at all


@cache
def _find_compiler(path: str) -> str | None:
    return next(filter(None, (shutil.which(name, path=path) for name in ("g++", "clang++", "c++"))), None)


@cache
def _private_folder() -> str:
    return tempfile.mkdtemp(prefix="vertexflow-")


@cache
def _machine() -> str:
    """What tells machines apart on which code for this one may not run."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = ""
    return f"{platform.machine()} {flags}"
