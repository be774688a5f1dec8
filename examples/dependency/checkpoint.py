"""Checkpoints, the same in every example: whoever is killed while writing one, or loses power, has the old one or the new."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all. What an interrupted save leaves beside it, the next one writes over."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())  # or the new name might be on the disk before the content is
    os.replace(partial, path)
    if os.name == "posix":  # elsewhere folders cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def load(path: Path, device: torch.device | str = "cpu") -> Any:
    """Read a checkpoint: tensors and plain values, no code that a file could bring along.

    Raises:
        OSError: there is no such file, or no reading it.
        Exception: of any other class, for a file that is no checkpoint.
    """
    return torch.load(path, map_location=device, weights_only=True)
