"""All steps of a core in one launch: a kernel whose programs share the tiles of each stage, and meet between dependent stages.

Never run on a GPU until now, and off: the environment variable `VERTEXFLOW_ONE_LAUNCH=1` asks for it.
"""

from .launch import Persistent, is_asked_for

__all__ = ["Persistent", "is_asked_for"]
