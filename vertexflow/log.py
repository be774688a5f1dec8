"""`VERTEXFLOW_LOG=trace,passes,schedule,kernels` prints what vertexflow makes of a vertex function and a batch, to stderr."""

from __future__ import annotations

import os
import sys

TOPICS = ("trace", "passes", "schedule", "kernels")


def show(topic: str, what: object) -> None:
    """Print `what` if the environment variable asks for `topic`; it is only turned into text then."""
    if topic in os.environ.get("VERTEXFLOW_LOG", "").split(","):
        print(f"[vertexflow {topic}]\n{what}", file=sys.stderr)
