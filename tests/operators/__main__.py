"""PyTorch's operator database through vertexflow: `python -m tests.operators --help`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ..interpreter import refuse_strangers, round_to_bfloat16
from . import table
from .samples import MIXING, Sample, operators, samples
from .vertices import WRONG, check, dtype_of, reference

TOGETHER = 8  # samples in one vertex function


def main() -> int:
    options = _options()
    done = table.read(options.results) if options.resume else []
    names = [name for name in operators() if not options.only or any(one in name for one in options.only)]
    names = names[options.part[0] :: options.part[1]]
    seen = {(line["operator"], line["dtype"], line["backend"]) for line in done}
    with options.results.open("a" if options.resume else "w", encoding="utf-8") as results:
        for line in _run(names, options, seen):
            done.append(line)
            results.write(json.dumps(line) + "\n")
            results.flush()
            if line["verdict"] == WRONG or options.verbose:
                print(table.sentence(line), flush=True)
    for (backend, kind, verdict), count in sorted(
        Counter((x["backend"], x["kind"], x["verdict"]) for x in done).items()
    ):
        print(f"{backend:8} {kind:8} {verdict:8} {count}")
    if options.table:
        options.table.write_text(table.page(done), encoding="utf-8")
    return any(line["verdict"] == WRONG for line in done)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.operators", description=__doc__)
    parser.add_argument(
        "--backend", nargs="+", default=["torch"], help="torch, native, triton (in the interpreter), eager"
    )
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no other operator after that long")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--most", type=int, help="how many samples of an operator, of each kind (default: all)")
    parser.add_argument(
        "--dtype", nargs="+", default=["float64"], help="float64 (whole numbers where there is none), float32"
    )
    parser.add_argument("--alike", action="store_true", help="leave out the samples that mix rows")
    parser.add_argument("--only", nargs="+", help="operators that have this in their names")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), help="K N: every Nth operator, from the Kth on")
    parser.add_argument(
        "--results", type=Path, default=Path("build/operators.jsonl"), help="a line for each sample and backend"
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep the results that are there, and add what is missing"
    )
    parser.add_argument("--table", type=Path, help="write the table of all results, as docs/operators.md has it")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    return options


def _run(names: list[str], options: argparse.Namespace, seen: set[tuple[str, str, str]]) -> Iterator[dict]:
    """The results of operators, each in a process of its own, which may crash or hang."""
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * options.minutes
    with pytest.MonkeyPatch.context() as patch:
        if "triton" in options.backend:
            from triton.runtime import interpreter

            round_to_bfloat16(patch, interpreter)
            refuse_strangers(patch, interpreter._interpreter)
        warm_up()
        waiting = [(name, dtype) for dtype in options.dtype for name in names][::-1]
        running: dict[int, tuple[dict, Path, float]] = {}
        while waiting or running:
            while waiting and len(running) < options.jobs and time.monotonic() < end:
                name, dtype = waiting.pop()
                backends = [backend for backend in options.backend if (name, dtype, backend) not in seen]
                if backends:
                    path = options.results.with_name(f".{os.getpid()}-{len(waiting)}.jsonl")
                    process = _start(name, dtype, backends, options, path)
                    running[process] = {"operator": name, "dtype": dtype}, path, time.monotonic()
            if not running:
                return
            for process in list(running):
                one, path, since = running[process]
                ended, status = os.waitpid(process, os.WNOHANG)
                if not ended and time.monotonic() - since > (600 if options.most else 3600):
                    os.kill(process, signal.SIGKILL)
                if ended:
                    del running[process]
                    yield from _results(one, path, status)
            time.sleep(0.01)


def warm_up() -> None:
    """What the first trace imports is imported before processes part."""
    sample = next(samples("exp"))
    check([sample], [reference(sample)], ["torch"])


def _start(name: str, dtype: str, backends: list[str], options: argparse.Namespace, path: Path) -> int:
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        with path.open("w", encoding="utf-8") as file:
            for line in results_of(name, dtype, backends, options.most, not options.alike):
                file.write(json.dumps(line) + "\n")
                file.flush()
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def _results(one: dict, path: Path, status: int) -> Iterator[dict]:
    lines = table.read(path) if path.exists() else []
    path.unlink(missing_ok=True)
    pending: dict[tuple, dict] = {}
    for line in lines:
        key = line["number"], line["backend"]
        if line["verdict"] == "begun":
            pending[key] = line
        else:
            pending.pop(key, None)
            yield line
    if status:
        detail = f"the process ended: {os.waitstatus_to_exitcode(status)}"
        lost = list(pending.values()) or [{**one, "number": -1, "kind": "", "backend": "", "how": ""}]
        yield from ({**line, "verdict": WRONG, "detail": detail} for line in lost)


def results_of(name: str, dtype: str, backends: list[str], most: int | None, mixing: bool) -> Iterator[dict]:
    """A line for each sample of an operator and each backend; before it, one with the verdict "begun"."""
    wanted = (one for one in samples(name, most, getattr(torch, dtype)) if mixing or one.kind != MIXING)
    for group in groups(wanted):
        # Mixed rows are noticed in the trace, which all backends but eager share: one of them is enough.
        chosen = backends if group[0].kind != MIXING else [one for one in backends if one != "eager"][:1]
        lines = [{"operator": name, "dtype": dtype, "number": s.number, "kind": s.kind, "how": ""} for s in group]
        yield from ({**line, "backend": b, "verdict": "begun"} for line in lines for b in chosen)
        outcomes = check(group, [reference(sample) for sample in group], chosen)
        for backend, by_sample in outcomes.items():
            for line, outcome in zip(lines, by_sample, strict=True):
                yield {**line, "backend": backend, **vars(outcome)}


def groups(all_samples: Iterator[Sample]) -> list[list[Sample]]:
    """Groups of samples that one vertex function can hold; each that mixes rows is a group of its own."""
    alike: dict[tuple, list[Sample]] = {}
    for sample in all_samples:
        alike.setdefault((sample.kind, sample.num_rows, dtype_of(sample)), []).append(sample)
    cut = []
    for (kind, *_), together in alike.items():
        size = 1 if kind == MIXING else TOGETHER
        cut += [together[at : at + size] for at in range(0, len(together), size)]
    return cut


if __name__ == "__main__":
    sys.exit(main())
