"""The backend `torch`, the reference: each part as calls of PyTorch, anywhere; and what other backends cannot do."""

from .loop import loops_of

__all__ = ["loops_of"]
