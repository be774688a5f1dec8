"""The backend `torch`, the reference: each part as calls of PyTorch, on any device, and parts that other backends cannot run."""

from .loop import loops_of

__all__ = ["loops_of"]
