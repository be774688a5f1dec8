"""Keep generated Triton source on disk by its content, and import it from there."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

from ... import log
from ...errors import BackendError
from ..native.build import cache_folder


def is_available() -> bool:
    """Whether there is a Triton to import."""
    return importlib.util.find_spec("triton") is not None


def interprets() -> bool:
    """Whether Triton's interpreter is asked for, which computes with tensors of the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def load(source: str) -> ModuleType:
    """The module made of `source`, which is written to the cache folder: Triton compiles functions that lie in files.

    Raises:
        BackendError: Triton is not installed.
    """
    if not is_available():
        raise BackendError('backend "triton" needs the package triton (pip install triton); or use backend="torch"')
    name = f"vertexflow_triton_{hashlib.sha256(source.encode()).hexdigest()[:32]}"
    if name not in sys.modules:
        path = _written(name, source)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


def _written(name: str, source: str) -> Path:
    """The file of a module, written unless it has been before."""
    for folder in (cache_folder(), Path(_private_folder())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.py"
            if not path.exists():
                log.show("kernels", f"writing {path}")
                with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".py", delete=False, encoding="utf-8") as file:
                    file.write(source)
                os.replace(file.name, path)  # whole, or not at all
            return path
        except OSError:  # no place to keep it
            continue
    raise BackendError(f"generated code can be written neither to {cache_folder()} nor to a temporary folder")


@cache
def _private_folder() -> str:
    return tempfile.mkdtemp(prefix="vertexflow-")
