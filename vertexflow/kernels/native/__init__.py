"""Cores as native code: generated from the symbolic graph, compiled once, run over all steps without Python in between."""

from .build import compiler
from .loop import loops_of

__all__ = ["compiler", "loops_of"]
