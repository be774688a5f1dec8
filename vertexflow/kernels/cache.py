"""Where generated code is kept on disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from .. import log

_SEAL = b"\n# whole: "  # and a hash of what stands before it; a comment in Python, behind what is loaded of a library


def cache_folder() -> Path:
    """The environment variable `VERTEXFLOW_CACHE`, or the user's cache folder."""
    asked = os.environ.get("VERTEXFLOW_CACHE")
    return Path(asked) if asked else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vertexflow"


def kept(name: str, make: Callable[[Path], object]) -> Path:
    """The file of this name, made unless it has been before: in the cache folder, or where there is no writing to that, in a
    temporary one. It appears whole, or not at all; one that was damaged since is made again.

    Raises:
        OSError: there is no writing to a temporary folder either.
    """
    try:
        return _made(cache_folder(), name, make)
    except OSError:
        return kept_aside(name, make)


def kept_aside(name: str, make: Callable[[Path], object]) -> Path:
    """As `kept`, in a temporary folder of this process."""
    return _made(Path(_private_folder()), name, make)


def _made(folder: Path, name: str, make: Callable[[Path], object]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if not _is_whole(path):
        log.show("kernels", f"making {path}")
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            new = Path(beside) / name
            make(new)
            with new.open("ab") as file:
                file.write(_seal(new.read_bytes()))
            os.replace(new, path)  # not written over: a library that is in use must not change
    return path


def _is_whole(path: Path) -> bool:
    if not path.exists():
        return False
    content, seal, _ = (data := path.read_bytes()).rpartition(_SEAL)
    return bool(seal) and data == content + _seal(content)


def _seal(content: bytes) -> bytes:
    return _SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n"


@cache
def _private_folder() -> str:
    return tempfile.mkdtemp(prefix="vertexflow-")
