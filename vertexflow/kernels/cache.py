"""Generated and compiled code, kept on disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from .. import log

# Before a hash of the file up to here: in Python a comment, in a library behind everything that is loaded.
_SEAL = b"\n# whole: "


def cache_folder() -> Path:
    """The environment variable `VERTEXFLOW_CACHE`, or the user's cache folder."""
    configured = os.environ.get("VERTEXFLOW_CACHE")
    return (
        Path(configured)
        if configured
        else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vertexflow"
    )


def cached_file(name: str, make: Callable[[Path], object]) -> Path:
    """The file of this name, made by `make` unless it was before, in the cache folder, or in a temporary one if that cannot be
    written. The file appears complete or not at all, and one that was damaged since is made again.

    Raises:
        OSError: a temporary folder cannot be written either.
    """
    try:
        return _make_once(cache_folder(), name, make)
    except OSError:
        return temporary_file(name, make)


def temporary_file(name: str, make: Callable[[Path], object]) -> Path:
    """Like `cached_file`, in a temporary folder of this process."""
    return _make_once(Path(_private_folder()), name, make)


def _make_once(folder: Path, name: str, make: Callable[[Path], object]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if not _is_whole(path):
        log.show("kernels", f"making {path}")
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            new_file = Path(temporary) / name
            make(new_file)
            with new_file.open("ab") as file:
                file.write(_seal(new_file.read_bytes()))
            os.replace(new_file, path)  # a new file: the old one, a library, may be in use
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
