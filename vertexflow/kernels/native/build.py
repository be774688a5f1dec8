"""Compile generated C++ once, and keep it on disk by its content."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from functools import cache, partial
from pathlib import Path

from ...errors import BackendError
from ..cache import cached_file, temporary_file

FLAGS = ("-std=c++17", "-O2", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")


def compiler() -> str | None:
    """The command of the C++ compiler: the environment variable `CXX`, which may have options, or else one on the PATH."""
    return os.environ.get("CXX", "").strip() or _find_compiler(os.environ.get("PATH", ""))


def load(source: str, contract: bool = False) -> ctypes.CDLL:
    """`source` as a library, compiled unless it was before.

    With `contract`, a product and the sum that it is added to are rounded once: faster, but not bit for bit what PyTorch
    computes.

    Raises:
        BackendError: there is no compiler, or it failed, or what it made cannot be loaded.
    """
    command = compiler()
    if command is None:
        raise BackendError(
            'backend "native" needs a C++ compiler (g++ or clang++; CXX names one); or use backend="torch"'
        )
    extra_flags = [] if contract else shlex.split(os.environ.get("VERTEXFLOW_CXXFLAGS", ""))
    flags = (*FLAGS, f"-ffp-contract={'fast' if contract else 'off'}", *extra_flags)
    name = hashlib.sha256("\0".join((source, command, *flags, _machine())).encode()).hexdigest()[:32]
    make = partial(_compile, command, flags, source)
    try:
        return ctypes.CDLL(str(cached_file(f"{name}.so", make)))
    except OSError:  # a folder that no code may run from, a library that was made on another system
        path = temporary_file(f"{name}.so", make)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BackendError(
            f"what {command} makes of generated code cannot be loaded: {error}; let CXX name another compiler, TMPDIR a folder "
            'that code may run from, or use backend="torch"'
        ) from error


def address_of(library: ctypes.CDLL, name: str) -> int:
    """The address of a function in a library."""
    return ctypes.cast(library[name], ctypes.c_void_p).value or 0


def _compile(command: str, flags: tuple[str, ...], source: str, to: Path) -> None:
    code = to.with_suffix(".cpp")
    code.write_text(source, encoding="utf-8")
    words = [*words_of(command), *flags, str(code), "-o", str(to)]
    try:
        result = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise BackendError(
            f"the C++ compiler {words[0]!r} cannot be run ({error.strerror}); let CXX name one that is there (and its "
            'options), or unset it, or use backend="torch"'
        ) from error
    if result.returncode:
        raise BackendError(f"{command} could not compile generated code:\n{result.stderr[:2000]}")


def words_of(command: str) -> list[str]:
    """A command and its options; or a path that may have spaces in it."""
    if shutil.which(command):
        return [command]
    try:
        return shlex.split(command)
    except ValueError as error:
        raise BackendError(f"CXX is {command!r}, which is no command: {error}") from error


@cache
def _find_compiler(path: str) -> str | None:
    return next(filter(None, (shutil.which(name, path=path) for name in ("g++", "clang++", "c++"))), None)


@cache
def _machine() -> str:
    """A description of this machine, different for machines that might not run its code."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = ""
    return f"{platform.machine()} {flags}"
