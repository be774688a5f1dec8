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
    found = _read(path)
    if found is None:
        return ["half of a file of ceilings was written"]
    machine, versions = found["machine"], found["versions"]
    rates = [
        f"{name} {of['operations_per_second'] / 1e12:.0f} TFLOP/s, {of['bytes_per_second'] / 1e12:.2f} TB/s"
        for name, of in found["dtypes"].items()
    ]
    return [
        f"{machine.get('gpu', 'no GPU')}, {machine.get('multiprocessors', 0)} multiprocessors; commit {found['commit']}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"at best: {'; '.join(rates)}; a launch {found['launch_us']:.1f} us",
    ]


def outcomes(path: Path) -> tuple[int, list[dict[str, Any]]]:
    """How many tests there are, and what was written of those that ran; half a line, of a run that was stopped, is left out."""
    count, found = 0, []
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if "collected" in line:
            count = max(count, line["collected"])
        else:
            found.append(line)
    return count, found


def _tests(path: Path) -> list[str]:
    count, found = outcomes(path)
    of = {kind: [one for one in found if one["outcome"] == kind] for kind in ("passed", "failed", "skipped")}
    lines = [f"{path.stem}: {count} collected, {', '.join(f'{len(tests)} {kind}' for kind, tests in of.items())}"]
    if of["skipped"]:
        lines[0] += f" ({of['skipped'][0]['reason']})"
    worst: dict[str, tuple[float, str]] = {}
    for one in found:
        kind, difference = one["properties"].get("kind"), one["properties"].get("difference")
        if kind is not None and difference is not None:
            worst[kind] = max(worst.get(kind, (0.0, "")), (difference, one["test"].split("::")[-1]))
    lines += [f"  furthest from float64, {kind}: {value:.1e} ({test})" for kind, (value, test) in worst.items()]
    lines += [f"  FAILED {one['test'].split('/')[-1]}: {one['reason']}" for one in of["failed"][:MOST_FAILURES]]
    if len(of["failed"]) > MOST_FAILURES:
        lines.append(f"  and {len(of['failed']) - MOST_FAILURES} failed ones more, in {path.name}")
    return lines


def _launches(path: Path) -> list[str]:
    found = _read(path) or {}
    lines = []
    for name, one in found.items():
        times = "; ".join(f"{way} {_times(of)}" for way, of in one["ways"].items())
        differing = "" if one["is_same"] else "; GRADIENTS DIFFER"
        lines.append(f"{path.stem}, {name} ({one['launches']} a training step): {times}{differing}")
    return lines


def _times(of: dict[str, float]) -> str:
    return f"{of['median_ms']:.3f} ms ({of['quartile_1_ms']:.3f}-{of['quartile_3_ms']:.3f})"


def _workload(path: Path) -> list[str]:
    """Two lines of a result: its own time against the bound and the floor, and each peer as a multiple of it."""
    found = _read(path)
    if not found or "figures" not in found or OURS not in found["figures"]:
        return []
    figures, ours = found["figures"], found["figures"][OURS]
    bound = found.get("bound_ms")
    line = (
        f"{found['workload']} {found['mode']} {found['dtype']} h{found['hidden']} b{found['batch']}: {OURS} {_times(ours)}"
        f", x{ours['x_floor']:.2f} of the floor"
    )
    line += f", x{ours['median_ms'] / bound:.2f} of the bound" if bound else ""
    peers = [f"{name} x{of['x_vertexflow']:.2f}" for name, of in figures.items() if name not in (OURS, FLOOR)]
    return [line, f"  {'; '.join(peers)}"]
