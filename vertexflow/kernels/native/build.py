"""Compile generated C++ once, and keep it on disk by its content."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache, partial
from pathlib import Path

from ...errors import BackendError
from ..cache import kept

FLAGS = ("-std=c++17", "-O2", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")


def compiler() -> str | None:
    """The C++ compiler: the environment variable `CXX`, or one that is found."""
    return os.environ.get("CXX") or _find_compiler(os.environ.get("PATH", ""))


def load(source: str, contract: bool = False) -> ctypes.CDLL:
    """The library made of `source`, compiled unless it has been before.

    With `contract`, a product and what is added to it are rounded once: sums are faster, and not what PyTorch computes.

    Raises:
        BackendError: there is no compiler, or it failed.
    """
    found = compiler()
    if found is None:
        raise BackendError(
            'backend "compile" needs a C++ compiler (g++ or clang++; CXX names one); or use backend="torch"'
        )
    flags = (*FLAGS, f"-ffp-contract={'fast' if contract else 'off'}")
    name = hashlib.sha256("\0".join((source, found, *flags, _machine())).encode()).hexdigest()[:32]
    return ctypes.CDLL(str(kept(f"{name}.so", partial(_compile, found, flags, source))))


def address_of(library: ctypes.CDLL, name: str) -> int:
    """Where a function of a library is."""
    return ctypes.cast(library[name], ctypes.c_void_p).value or 0


def _compile(command: str, flags: tuple[str, ...], source: str, to: Path) -> None:
    code = to.with_suffix(".cpp")
    code.write_text(source, encoding="utf-8")
    done = subprocess.run([command, *flags, str(code), "-o", str(to)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackendError(f"{command} could not compile generated code:\n{done.stderr[:2000]}")


@cache
def _find_compiler(path: str) -> str | None:
    return next(filter(None, (shutil.which(name, path=path) for name in ("g++", "clang++", "c++"))), None)


@cache
def _machine() -> str:
    """What tells machines apart on which code for this one may not run."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = ""
    return f"{platform.machine()} {flags}"
