"""Results as files, and the page and the plots that are made of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from .harness import FLOOR, OURS

Result = dict[str, Any]
MODES = {
    "step": "a training step",
    "forward": "the forward pass alone",
    "step-processor": "a training step, time of the processor",
    "forward-processor": "the forward pass alone, time of the processor",
}
COLUMNS = "hidden", "batch", "threads"
SVG = {"svg.hashsalt": "vertexflow", "svg.fonttype": "none"}  # the same file from the same results, with words as words
HEAD = """# Benchmarks

vertexflow and its peers, in one process and in turns, after they agreed on the loss and on all gradients. Figures are
multiples of the *floor*, the matrix products that any implementation must do: medians, with the quartiles beside them. The
fastest of a row is set in bold. Memory is the peak of a training step above what the process held before it; "kept" is what
must be there between forward and backward pass (states and gates), and the gradients of the weights.
How it is measured, and what to beware of: [benchmarks/BENCHMARKING.md](../benchmarks/BENCHMARKING.md).

The time of the fastest peer as a multiple of vertexflow's, over hidden and batch sizes (`python -m benchmarks.ahead`; the table
is [ahead.csv](../benchmarks/results/ahead.csv)):

![the time of the fastest peer as a multiple of vertexflow's, for each workload and size](plots/ahead.svg)

The first tables are time of the processor on one thread (`--threads 1 --processor-time`), which other work on the machine
hardly changes. Those after them are time of the clock on two threads. All are of three hours on one machine; the version
stands below each.

This page is made from [benchmarks/results](../benchmarks/results) by `python -m benchmarks report`.
"""


def write_result(result: Result, folder: Path) -> Path:
    """One file for each workload, mode and setting; a later result takes the place of an earlier one.

    The rounds themselves, which no table shows, go to a folder `rounds` beside it, which is not kept in the repository.
    """
    (folder / "rounds").mkdir(parents=True, exist_ok=True)
    setting = "-".join(f"{name[0]}{result[name]}" for name in COLUMNS)
    if result["device"] != "cpu":
        setting += f"-{result['device']}-{result['dtype']}"
    name = f"{result['workload']}-{result['mode']}-{setting}.json"
    rounds = {one: figures["rounds_ms"] for one, figures in result["figures"].items()}
    (folder / "rounds" / name).write_text(_written(rounds, 1) + "\n")
    figures = {
        one: {key: value for key, value in values.items() if key != "rounds_ms"}
        for one, values in result["figures"].items()
    }
    path = folder / name
    path.write_text(_written({**result, "figures": figures}, 2) + "\n")
    return path


def _written(content: Any, depth: int, indent: str = "") -> str:
    """JSON with a line for each entry, so many dicts deep."""
    if depth == 0 or not isinstance(content, dict) or not content:
        return json.dumps(content)
    inner = (
        f"{indent} {json.dumps(key)}: {_written(value, depth - 1, indent + ' ')}" for key, value in content.items()
    )
    return "{\n" + ",\n".join(inner) + f"\n{indent}}}"


def read_results(folder: Path) -> list[Result]:
    """All results of a folder, by workload, mode and setting; other files are left alone."""
    candidates = [
        {"device": "cpu", "dtype": "float32", **json.loads(path.read_text())} for path in sorted(folder.glob("*.json"))
    ]
    results = [result for result in candidates if "workload" in result and "figures" in result]
    return sorted(results, key=lambda result: (*_place(result), *(result[name] for name in COLUMNS)))


def write_report(results: Sequence[Result], docs: Path) -> Path:
    """`benchmarks.md` in `docs`, and a plot for each workload and mode with more than one setting."""
    (docs / "plots").mkdir(parents=True, exist_ok=True)
    parts = [HEAD]
    for (device, dtype, workload, mode), group in groupby(results, _section):
        of_section = list(group)
        on = "" if device == "cpu" else f", {of_section[0]['machine']['gpu']}, {dtype}"
        plot = f"{workload}-{mode}.svg" if device == "cpu" else f"{workload}-{mode}-{device}-{dtype}.svg"
        parts.append(f"## {workload}: {MODES[mode]}{on}\n")
        if draw(of_section, docs / "plots" / plot):
            parts.append(f"![{workload}: multiples of the floor](plots/{plot})\n")
        parts.append(_times(of_section) + "\n")
        parts.append(_memory(of_section) + "\n")
        parts.append("\n".join(_notes(of_section)) + "\n")
    path = docs / "benchmarks.md"
    path.write_text("\n".join(parts))
    return path


def number(value: float | None, unit: float = 1.0) -> str:
    """A number for a table, with three digits at most where it is below 1000; a dash for none."""
    if value is None:
        return "-"
    value /= unit
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def largest_difference(result: Result) -> float:
    """Of any contestant from the first, relative; in the loss or in a gradient."""
    return max(figures["difference"] or 0.0 for figures in result["figures"].values())


def draw(results: Sequence[Result], path: Path) -> bool:
    """Multiples of the floor over the batch size, and over the hidden size; False if there is nothing to draw."""
    panels = []
    for across, fixed in (("batch", "hidden"), ("hidden", "batch")):
        value = Counter(result[fixed] for result in results).most_common(1)[0][0]
        threads = Counter(result["threads"] for result in results).most_common(1)[0][0]
        line = [result for result in results if (result[fixed], result["threads"]) == (value, threads)]
        if len({result[across] for result in line}) > 1:
            panels.append((across, f"{fixed} {value}", line))
    if not panels:
        return False
    with plt.rc_context(SVG):
        figure, axes = plt.subplots(
            1, len(panels), figsize=(4 * len(panels) + 3, 3.6), layout="constrained", squeeze=False
        )
        for axis, (across, title, line) in zip(axes[0], panels, strict=True):
            _panel(axis, across, title, line)
        axes[0][0].set_ylabel("multiples of the floor")
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return True


def _panel(axis: Axes, across: str, title: str, results: Sequence[Result]) -> None:
    for at, name in enumerate(_contestants(results)):
        points = [(result[across], result["figures"][name]) for result in results if name in result["figures"]]
        heights = [figures["x_floor"] for _, figures in points]
        floors = [figures["median_ms"] / figures["x_floor"] for _, figures in points]
        low, high = (
            [abs(figures[f"quartile_{q}_ms"] / floor - height)
             for (_, figures), floor, height in zip(points, floors, heights, strict=True)]
            for q in (1, 3)
        )  # fmt: skip
        width = 2.2 if name == OURS else 1.2
        axis.errorbar(
            [x for x, _ in points], heights, (low, high), label=name, color=f"C{at}", marker="o", markersize=3, lw=width
        )
    axis.set(title=title, xlabel=f"{across} size", xscale="log", yscale="log")
    axis.axhline(1, color="black", lw=0.8, ls=":")
    axis.xaxis.set_major_locator(FixedLocator(sorted({result[across] for result in results})))
    axis.xaxis.set_minor_locator(NullLocator())
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.grid(alpha=0.3)


def _place(result: Result) -> tuple[bool | str, ...]:
    """The place of a section on the page: time of the processor first."""
    return not result["mode"].endswith("-processor"), *_section(result)


def _section(result: Result) -> tuple[str, ...]:
    return result["device"], result["dtype"], result["workload"], result["mode"]


def _contestants(results: Iterable[Result]) -> list[str]:
    """In the order in which they first appear."""
    return list(dict.fromkeys(name for result in results for name in result["figures"] if name != FLOOR))


def _times(results: Sequence[Result]) -> str:
    names = _contestants(results)
    rows = []
    for result in results:
        figures = result["figures"]
        best = min(names, key=lambda name: figures[name]["median_ms"] if name in figures else float("inf"))
        row = [str(result[name]) for name in COLUMNS] + [number(figures[FLOOR]["median_ms"])]
        floor = figures[FLOOR]["median_ms"]
        row += [_multiple(figures[name], floor, name == best) if name in figures else "-" for name in names]
        rows.append(row)
    return _table([*COLUMNS, "floor, ms", *names], rows)


def _multiple(figures: Result, floor: float, best: bool) -> str:
    middle, low, high = (figures[key] / floor for key in ("median_ms", "quartile_1_ms", "quartile_3_ms"))
    bold = "**" if best else ""
    return f"{bold}{number(middle)}{bold} ({number(low)}-{number(high)})"


def _memory(results: Sequence[Result]) -> str:
    names = _contestants(results)
    rows = [
        [str(result[name]) for name in COLUMNS]
        + [number(result["kept_bytes"] or None, 2**20)]
        + [number(result["figures"].get(name, {}).get("peak_bytes"), 2**20) for name in names]
        for result in results
    ]
    return "Peak memory, MiB:\n\n" + _table([*COLUMNS, "kept", *names], rows)


def _notes(results: Sequence[Result]) -> list[str]:
    """What was run, on what; each line once."""
    lines = []
    for result in results:
        on = f"{result['machine']['cpu']}, {result['machine']['cores']} cores, {result['machine']['vectors']}"
        packages = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        lines.append(f"- {result['title']}.")
        lines += [f"- Without {name}: {reason}." for name, reason in result["skipped"].items()]
        if result["device"] != "cpu":
            on = f"{result['machine']['gpu']}, CUDA {result['machine']['cuda']}; {on}"
        lines.append(f"- {result['date'][:10]}, commit {result['commit']}, {result['dtype']}; {on}; {packages}.")
    lines.append(f"- Losses and gradients agree to {max(map(largest_difference, results)):.0e}, relative.")
    return sorted(dict.fromkeys(lines), key=lambda line: line.startswith("- 20"))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---:"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
