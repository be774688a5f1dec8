"""Keep generated Triton source on disk by its content, and import it from there."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from types import ModuleType

from ...errors import BackendError
from ..cache import cached_file


def is_available() -> bool:
    """Whether the package triton is installed."""
    return importlib.util.find_spec("triton") is not None


def interprets() -> bool:
    """Whether Triton's interpreter is on, which runs kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def load(source: str) -> ModuleType:
    """`source` as a module, imported from the cache folder: Triton compiles only functions that lie in files.

    Raises:
        BackendError: Triton is not installed.
    """
    if not is_available():
        raise BackendError('backend "triton" needs the package triton (pip install triton); or use backend="torch"')
    name = f"vertexflow_triton_{hashlib.sha256(source.encode()).hexdigest()[:32]}"
    if name not in sys.modules:
        path = cached_file(f"{name}.py", lambda to: to.write_text(source, encoding="utf-8"))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]
