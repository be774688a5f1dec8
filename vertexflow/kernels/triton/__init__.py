"""The backend `triton`: cores as generated Triton kernels, a fixed number of launches for each step."""

from .build import interprets, is_available
from .loop import loops_of

__all__ = ["interprets", "is_available", "loops_of"]
