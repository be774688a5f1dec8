"""`VERTEXFLOW_LOG=trace,passes,schedule,kernels` prints what vertexflow makes of a vertex function and a batch, to stderr."""

from __future__ import annotations

import os
import sys


def show(topic: str, content: object) -> None:
    """Print `content` if the environment variable `VERTEXFLOW_LOG` names `topic`; only then is it turned into text."""
    if topic in os.environ.get("VERTEXFLOW_LOG", "").split(","):
        print(f"[vertexflow {topic}]\n{content}", file=sys.stderr)
