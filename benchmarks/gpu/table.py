"""What `make gpu` found, in at most 60 lines, from the files that its parts left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .parts import ONE_LAUNCH_TESTS, TESTS

LINES, WIDTH = 60, 160
MOST_FAILURES = 10
OURS, FLOOR = "vertexflow", "floor"  # as in benchmarks.harness, which cannot be imported before the build


def table(results: Path, parts: list[dict[str, Any]], total: float, since: float = 0.0) -> list[str]:
    """The lines; `parts` say of each its name, how it ended, and its seconds. Files written before the time `since`, by
    an earlier run, are left out."""
    new = {path.name: path for path in sorted(results.glob("*.json*")) if path.stat().st_mtime >= since}
    lines = _machine(new["ceilings.json"]) if "ceilings.json" in new else ["no ceilings were measured"]
    lines += _tests(new[TESTS]) if TESTS in new else ["no tests were run"]
    lines += _tests(new[ONE_LAUNCH_TESTS]) if ONE_LAUNCH_TESTS in new else []
    lines += [line for name in ("launches.json", "one-launch.json") if name in new for line in _launches(new[name])]
    lines += [line for name, path in new.items() if "-cuda-" in name for line in _workload(path)]
    ends = [f"{part['name']:40}{part['seconds']:6.0f} s  {part['ended']}" for part in parts]
    ends.append(f"{'all of it':40}{total:6.0f} s  files in {results}")
    room = LINES - len(ends)
    if len(lines) > room:
        lines = [
            *lines[: room - 1],
            f"... and {len(lines) - room + 1} lines more, which do not fit here: see the files",
        ]
    return [line[:WIDTH] for line in [*lines, *ends]][:LINES]


def _read(path: Path) -> Any:
    """A file of a part; None if it is half of one, of a part that was stopped."""
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError:
        return None


def _machine(path: Path) -> list[str]:
    ceilings = _read(path)
    if ceilings is None:
        return ["half of a file of ceilings was written"]
    machine, versions = ceilings["machine"], ceilings["versions"]
    rates = [
        f"{name} {rate['operations_per_second'] / 1e12:.0f} TFLOP/s, {rate['bytes_per_second'] / 1e12:.2f} TB/s"
        for name, rate in ceilings["dtypes"].items()
    ]
    return [
        f"{machine.get('gpu', 'no GPU')}, {machine.get('multiprocessors', 0)} multiprocessors; commit {ceilings['commit']}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"at best: {'; '.join(rates)}; a launch {ceilings['launch_us']:.1f} us",
    ]


def outcomes(path: Path) -> tuple[int, list[dict[str, Any]]]:
    """The number of tests collected, and the records of those that ran; a line cut short when a run was stopped is skipped."""
    count, finished = 0, []
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if "collected" in line:
            count = max(count, line["collected"])
        else:
            finished.append(line)
    return count, finished


def _tests(path: Path) -> list[str]:
    count, finished = outcomes(path)
    by_outcome = {kind: [one for one in finished if one["outcome"] == kind] for kind in ("passed", "failed", "skipped")}
    lines = [
        f"{path.stem}: {count} collected, {', '.join(f'{len(tests)} {kind}' for kind, tests in by_outcome.items())}"
    ]
    if by_outcome["skipped"]:
        lines[0] += f" ({by_outcome['skipped'][0]['reason']})"
    worst: dict[str, tuple[float, str]] = {}
    for one in finished:
        kind, difference = one["properties"].get("kind"), one["properties"].get("difference")
        if kind is not None and difference is not None:
            worst[kind] = max(worst.get(kind, (0.0, "")), (difference, one["test"].split("::")[-1]))
    lines += [f"  furthest from float64, {kind}: {value:.1e} ({test})" for kind, (value, test) in worst.items()]
    lines += [f"  FAILED {one['test'].split('/')[-1]}: {one['reason']}" for one in by_outcome["failed"][:MOST_FAILURES]]
    if len(by_outcome["failed"]) > MOST_FAILURES:
        lines.append(f"  and {len(by_outcome['failed']) - MOST_FAILURES} failed ones more, in {path.name}")
    return lines


def _launches(path: Path) -> list[str]:
    batches = _read(path) or {}
    lines = []
    for name, one in batches.items():
        times = "; ".join(f"{way} {_times(summary)}" for way, summary in one["ways"].items())
        differing = "" if one["is_same"] else "; GRADIENTS DIFFER"
        lines.append(f"{path.stem}, {name} ({one['launches']} a training step): {times}{differing}")
    return lines


def _times(summary: dict[str, float]) -> str:
    return f"{summary['median_ms']:.3f} ms ({summary['quartile_1_ms']:.3f}-{summary['quartile_3_ms']:.3f})"


def _workload(path: Path) -> list[str]:
    """Two lines of a result: its own time against the bound and the floor, and each peer as a multiple of it."""
    result = _read(path)
    if not result or "figures" not in result or OURS not in result["figures"]:
        return []
    figures, ours = result["figures"], result["figures"][OURS]
    bound = result.get("bound_ms")
    line = (
        f"{result['workload']} {result['mode']} {result['dtype']} h{result['hidden']} b{result['batch']}: {OURS} {_times(ours)}"
        f", x{ours['x_floor']:.2f} of the floor"
    )
    line += f", x{ours['median_ms'] / bound:.2f} of the bound" if bound else ""
    peers = [f"{name} x{peer['x_vertexflow']:.2f}" for name, peer in figures.items() if name not in (OURS, FLOOR)]
    return [line, f"  {'; '.join(peers)}"]
