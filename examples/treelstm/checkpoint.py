"""Checkpoints: files of plain values and tensors, written whole or not at all."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

import vertexflow as vf

LAST, BEST = "last.pt", "best.pt"
FORMAT = 1


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content`; a reader sees the old file or the new one, whatever happens meanwhile."""
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("wb") as file:
        torch.save({"format": FORMAT, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint, its tensors on the CPU. No code in the file is run.

    Raises:
        vf.InputError: the file is not there, or is no checkpoint of this example.
    """
    if not path.is_file():
        raise vf.InputError(f"{path} is not there; give the folder of a run, which holds {LAST} and {BEST}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise vf.InputError(f"{path} is no checkpoint, or is damaged ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise vf.InputError(f"{path} is no checkpoint of this example, or of another version of it")
    return content
