"""What its programs have in common: a device that is there, a checkpoint that is one, and how they refuse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import torch

from . import checkpoint


def refuse(message: str) -> NoReturn:
    """Leave with one line that says what is wrong."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def choose_device(name: str) -> torch.device:
    """`auto` is a GPU if there is one; a device that is not there is refused."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        refuse(f"--device {name}: {str(error).splitlines()[0]}")
    return device


def load_checkpoint(path: Path, option: str) -> Any:
    """Read a checkpoint; anything else is refused with a message that begins with `option`, as given on the command line."""
    if not path.exists():
        refuse(f"{option}: there is no {path}")
    try:
        saved = checkpoint.load(path)
        saved["model"], saved["options"]
    except Exception as error:  # a damaged file can fail in any way
        refuse(f"{option}: {path} is no checkpoint of this program ({type(error).__name__})")
    return saved
