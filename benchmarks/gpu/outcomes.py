"""A plugin of pytest that writes the outcome of each test at once, so that it is kept if the run is stopped.

Lines of JSON: `{"collected": number}`; and `{"test", "outcome", "seconds", "reason", "properties"}` for each test.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", type=Path, help="where the outcome of each test is written, a line of JSON each")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--outcomes")
    if path is not None and not hasattr(config, "workerinput"):  # of several processes, the one that hears of all tests
        config.pluginmanager.register(Outcomes(path))


class Outcomes:
    """Writes to one file."""

    def __init__(self, path: Path) -> None:
        self.path, self.collected = path, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._note_collected(len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self._note_collected(len(ids))

    def _note_collected(self, count: int) -> None:
        if count > self.collected:
            self.collected = count
            self._write({"collected": count})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":  # of setting up, only what went wrong, or was skipped
            self._write(
                {
                    "test": report.nodeid,
                    "outcome": report.outcome,
                    "seconds": round(report.duration, 3),
                    "reason": _reason(report),
                    "properties": dict(report.user_properties),
                }
            )

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:  # a file that cannot be imported, for want of a package perhaps
            self._write(
                {"test": report.nodeid, "outcome": "failed", "seconds": 0, "reason": _reason(report), "properties": {}}
            )

    def _write(self, line: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test failed or was skipped, in a line."""
    if report.outcome == "passed":
        return ""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message) if crash is not None else str(report.longrepr)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if crash is not None else lines[-1])[:300] if lines else ""
