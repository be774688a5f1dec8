"""A command with a time limit: it is ended with all that it started, and what it wrote until then is kept."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GRACE = 3.0  # seconds between being asked to end and being ended


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, or None if it was stopped at its limit; seconds; and the last line that it wrote."""

    code: int | None
    seconds: float
    last_line: str


def run(command: Sequence[str], log: Path, seconds: float, variables: Mapping[str, str] | None = None) -> Ended:
    """Run a command for at most so many seconds, in a group of processes of its own; all that it says goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(variables or {})},
            start_new_session=True,
        )
        code: int | None
        try:
            code = process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            code = None
        finally:  # also if this process is interrupted; and what the command left running
            _end(process)
    return Ended(code, time.monotonic() - start, last_line(log.read_text(errors="replace")))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        _send(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    _send(process.pid, signal.SIGKILL)
    process.wait()


def _send(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def last_line(text: str) -> str:
    """The last line with anything in it."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
