"""Where generated code is kept on disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from .. import log


def cache_folder() -> Path:
    """The environment variable `VERTEXFLOW_CACHE`, or the user's cache folder."""
    asked = os.environ.get("VERTEXFLOW_CACHE")
    return Path(asked) if asked else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vertexflow"


def kept(name: str, make: Callable[[Path], object]) -> Path:
    """The file of this name, made unless it has been before: in the cache folder, or where there is no writing to that, in a
    temporary one. It appears whole, or not at all.

    Raises:
        OSError: there is no writing to a temporary folder either.
    """
    try:
        return _made(cache_folder(), name, make)
    except OSError:
        return _made(Path(_private_folder()), name, make)


def _made(folder: Path, name: str, make: Callable[[Path], object]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if not path.exists():
        log.show("kernels", f"making {path}")
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            new = Path(beside) / name
            make(new)
            os.replace(new, path)
    return path


@cache
def _private_folder() -> str:
    return tempfile.mkdtemp(prefix="vertexflow-")
