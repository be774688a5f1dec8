"""First contact with a GPU, in one command and under nine minutes: build, tests, benchmarks, one table.

    make gpu                             all of it
    make gpu ARGS=tests                  all tests marked `gpu`
    make gpu ARGS="bench:treelstm"       one workload at all settings; `bench` means all benchmarks

Needs what is installed: Python, PyTorch, Triton, setuptools, pybind11, a C++ compiler; nothing is downloaded. The core is
built in place. Each part is a process of its own, ended with all that it started when its limit or the whole time is up; what
was finished is kept in benchmarks/results/gpu, and the table at the end, of at most 60 lines, says what is missing. Exit code 1
if a part failed or was stopped, 2 if it could not run at all, as without a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .limits import run
from .parts import BUILD, ONE_LAUNCH_TESTS, ROOT, TESTS, Part, all_parts, chosen
from .table import outcomes, table

SECONDS = 530.0
LEAST = 10.0  # seconds with which a part is still begun
RESULTS = Path("benchmarks/results/gpu")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="make gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="PART",
        help="tests, ceilings, bench, bench:NAME, one-launch, ...; all, if none is named",
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all of it")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the files go")
    options = parser.parse_args(arguments)
    results = (ROOT / options.results).resolve()
    try:
        parts = chosen(all_parts(results), options.names)
    except ValueError as error:
        print(f"make gpu: {error}", file=sys.stderr)
        return 2
    ended = run_all(parts, results, options.seconds)
    return max((one["code"] for one in ended), default=0)


def run_all(parts: Sequence[Part], results: Path, seconds: float) -> list[dict[str, Any]]:
    """Run parts one after the other, write parts.json after each, and print the table; how each ended, with its exit code: 0
    done, 1 failed or stopped, 2 it could not be run."""
    results.mkdir(parents=True, exist_ok=True)
    start, since, ended = time.monotonic(), time.time() - 1.0, []  # clocks of file systems are coarse
    is_built = True
    for part in parts:
        left = seconds - (time.monotonic() - start)
        if not is_built:
            one = {"code": 2, "seconds": 0.0, "ended": "not begun: the native core was not built"}
        elif missing := part.missing():
            one = {"code": 2, "seconds": 0.0, "ended": f"cannot run: {', '.join(missing)} not installed"}
        elif left < LEAST:
            one = {"code": 1, "seconds": 0.0, "ended": "not begun: the time is up"}
        else:
            print(f"{part.name} ...", flush=True)
            one = _run_one(part, results, min(part.seconds, left))
        if part.name == BUILD:
            is_built = one["code"] == 0
        ended.append({"name": part.name, **one})
        (results / "parts.json").write_text(json.dumps(ended, indent=1) + "\n")
    print("\n".join(table(results, ended, time.monotonic() - start, since)), flush=True)
    return ended


def _run_one(part: Part, results: Path, seconds: float) -> dict[str, Any]:
    log = results / "logs" / f"{part.name.replace(':', '-')}.log"
    process = run(part.command, log, seconds, part.variables)
    if process.code is None:
        code, how = 1, f"STOPPED at its limit; its last line: {process.last_line}"
    elif process.code == 0:
        code, how = 0, "done"
    elif process.code == 2:
        code, how = 2, f"cannot run: {process.last_line}"
    else:
        code, how = 1, f"FAILED ({process.code}): {process.last_line}"
    tests = {"tests": TESTS, "one-launch:tests": ONE_LAUNCH_TESTS}.get(part.name)
    if tests is not None and code == 0 and all(one["outcome"] == "skipped" for one in outcomes(results / tests)[1]):
        code, how = 2, "cannot run: every test was skipped"
    return {"code": code, "seconds": process.seconds, "ended": how}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
