"""How far ahead of the fastest peer, over all sizes, in one picture.

    python -m benchmarks run ... --results FOLDER
    python -m benchmarks.ahead FOLDER

writes a line for each setting in FOLDER to `benchmarks/results/ahead.csv` and draws `docs/plots/ahead.svg` of it: the time of the
fastest peer as a multiple of vertexflow's, below 1 where that peer is faster. Without FOLDER, it draws the file that is there.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from .harness import FLOOR, OURS
from .report import SVG, number, read_results

ROOT = Path(__file__).parents[1]
Setting = dict[str, Any]
COLUMNS = ("mode", "threads", "workload", "hidden", "batch", "floor_ms", "vertexflow_ms", "peer", "peer_ms")
KEY = ("mode", "threads", "workload", "hidden", "batch")
INTEGERS = ("threads", "hidden", "batch")
MOST = 4.0  # times as fast, beyond which colours stay the same


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ahead", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="*", type=Path, help="results of `python -m benchmarks run`")
    parser.add_argument("--table", type=Path, default=ROOT / "benchmarks" / "results" / "ahead.csv")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "plots" / "ahead.svg")
    options = parser.parse_args(arguments)
    if options.folder:
        write_table(settings_of(result for folder in options.folder for result in read_results(folder)), options.table)
    settings = read_table(options.table)
    draw(settings, options.picture)
    for setting in settings:
        if times(setting) < 1:
            place = ", ".join(f"{name} {setting[name]}" for name in KEY)
            print(f"{place}: {setting['peer']} takes {times(setting):.2f} of our time")
    print(
        f"{sum(times(setting) >= 1 for setting in settings)} of {len(settings)} settings at least as fast as every peer"
    )
    return 0


def settings_of(results: Iterable[Any]) -> list[Setting]:
    """What the table has of each result, of the last one of a setting."""
    settings = {}
    for result in results:
        median = {name: figures["median_ms"] for name, figures in result["figures"].items()}
        peer = min((name for name in median if name not in (FLOOR, OURS)), key=median.__getitem__)
        times_of = {"floor_ms": median[FLOOR], "vertexflow_ms": median[OURS], "peer": peer, "peer_ms": median[peer]}
        key = tuple(result[name] for name in KEY)
        settings[key] = {**dict(zip(KEY, key, strict=True)), **times_of}
    return [settings[key] for key in sorted(settings)]


def times(setting: Setting) -> float:
    """The time of the fastest peer as a multiple of vertexflow's."""
    return float(setting["peer_ms"]) / float(setting["vertexflow_ms"])


def write_table(settings: Iterable[Setting], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for setting in settings:
            writer.writerow(
                {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in setting.items()}
            )


def read_table(path: Path) -> list[Setting]:
    with path.open(newline="") as file:
        return [{**row, **{name: int(row[name]) for name in INTEGERS}} for row in csv.DictReader(file)]


def draw(settings: Sequence[Setting], path: Path) -> None:
    """A panel for each workload, in a row for each mode and number of threads: hidden sizes over batch sizes."""
    modes = sorted({(str(s["mode"]), s["threads"]) for s in settings}, reverse=True)
    workloads = list(dict.fromkeys(s["workload"] for s in settings))
    with plt.rc_context({**SVG, "font.size": 8}):
        size = (2.1 * len(workloads) + 0.8, 1.9 * len(modes) + 0.4)
        figure, axes = plt.subplots(len(modes), len(workloads), figsize=size, layout="constrained", squeeze=False)
        for row, (mode, threads) in zip(axes, modes, strict=True):
            for axis, workload in zip(row, workloads, strict=True):
                wanted = (mode, threads, workload)
                _panel(axis, [s for s in settings if (s["mode"], s["threads"], s["workload"]) == wanted])
            row[0].set_ylabel(f"{mode.replace('-', ', ')}, {threads} thread{'s' * (threads > 1)}\nhidden size")
        for top, bottom, workload in zip(axes[0], axes[-1], workloads, strict=True):
            top.set_title(workload)
            bottom.set_xlabel("batch size")
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _panel(axis: Axes, settings: Sequence[Setting]) -> None:
    if not settings:
        axis.set_axis_off()
        return
    hidden, batch = (sorted({setting[name] for setting in settings}) for name in ("hidden", "batch"))
    grid = [[float("nan")] * len(batch) for _ in hidden]
    for setting in settings:
        row, column = hidden.index(setting["hidden"]), batch.index(setting["batch"])
        grid[row][column] = times(setting)
        axis.text(column, row, number(times(setting)), ha="center", va="center")
    axis.imshow(grid, cmap="RdYlGn", norm=LogNorm(1 / MOST, MOST), aspect="auto", alpha=0.7)
    axis.set_xticks(range(len(batch)), [str(size) for size in batch])
    axis.set_yticks(range(len(hidden)), [str(size) for size in hidden])
    axis.tick_params(length=0)


if __name__ == "__main__":
    raise SystemExit(main())
