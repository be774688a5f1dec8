"""The backend `native`: parts as C++, generated from the symbolic graph, compiled once, and run over all steps by one call."""

from .build import compiler
from .loop import loops_of

__all__ = ["compiler", "loops_of"]
