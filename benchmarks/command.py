"""vertexflow and its peers on the same tasks.

    python -m benchmarks list
    python -m benchmarks run [NAME ...] [--hidden 256 ...] [--batch 64 ...] [--rounds 9] [--threads 2] [--forward]
    python -m benchmarks run [NAME ...] --device cuda [--dtype bfloat16] [--tf32]
    python -m benchmarks report

`run` writes a file for each workload and setting; `report` makes docs/benchmarks.md and its plots of all of them. How to
measure, and what the figures mean: benchmarks/BENCHMARKING.md.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from .harness import DisagreementError, Settings, measure, without_slow
from .machine import commit, machine, versions
from .report import MODES, largest_difference, number, read_results, write_report, write_result
from .workloads import WORKLOADS

HERE = Path(__file__).parent
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
console = Console(width=120)


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0; 1 if contestants disagree; 2 for what cannot be run."""
    options = _parser().parse_args(arguments)
    return _guarded({"list": _list, "run": _run, "report": _report}[options.command], options)


def _guarded(command: Callable[..., int], *arguments: Any) -> int:
    try:
        return command(*arguments)
    except (UnusableError, FileNotFoundError) as error:
        print(f"python -m benchmarks: {error}", file=sys.stderr)
        return 2


class UnusableError(Exception):
    """Options that cannot be followed."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the workloads")
    run = commands.add_parser("run", help="measure", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    run.add_argument("names", nargs="*", metavar="NAME", help="workloads; all that can run, if none is named")
    run.add_argument("--hidden", type=_positive, nargs="+", default=[256], help="hidden sizes, and sizes of the inputs")
    run.add_argument("--batch", type=_positive, nargs="+", default=[64], help="graphs in a batch")
    run.add_argument("--rounds", type=_positive, default=9, help="rounds of all contestants in turns")
    run.add_argument("--threads", type=_positive, default=2, help="PyTorch's threads")
    run.add_argument(
        "--processor-time", action="store_true", help="of one thread, where others use the machine as well"
    )
    run.add_argument("--seed", type=int, default=0, help="of the graphs and the numbers")
    run.add_argument("--forward", action="store_true", help="time the forward pass alone")
    run.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where")
    run.add_argument("--dtype", choices=list(DTYPES), default="float32", help="of everything; half precision on a GPU")
    run.add_argument("--tf32", action="store_true", help="let a GPU multiply float32 in TF32")
    run.add_argument(
        "--batched", action="store_true", help="without contestants that go vertex by vertex, which take long"
    )
    run.add_argument("--compile", action="store_true", help="with torch.compile among the peers; it takes a while")
    run.add_argument("--data", type=Path, help="a folder of real data; else that of VERTEXFLOW_DATA")
    run.add_argument("--results", type=Path, default=HERE / "results", help="where the files go")
    report = commands.add_parser("report", help="tables and plots", formatter_class=run.formatter_class)
    report.add_argument("--results", type=Path, default=HERE / "results", help="where the files are")
    report.add_argument("--docs", type=Path, default=HERE.parent / "docs", help="where benchmarks.md goes")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 on")
    return int(text)


def _list(options: argparse.Namespace) -> int:
    for name, workload in WORKLOADS.items():
        console.print(f"{name:15}{workload.what}{' (needs --data)' if workload.needs_data else ''}")
    return 0


def _run(options: argparse.Namespace) -> int:
    unknown = [name for name in options.names if name not in WORKLOADS]
    if unknown:
        raise UnusableError(f"there is no workload {unknown[0]!r}; choose of {', '.join(WORKLOADS)}")
    data = options.data or (Path(os.environ["VERTEXFLOW_DATA"]) if os.environ.get("VERTEXFLOW_DATA") else None)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UnusableError("PyTorch finds no GPU here (torch.cuda.is_available()); leave --device cuda away")
    if options.device == "cpu" and (options.dtype != "float32" or options.tf32):
        raise UnusableError("--dtype and --tf32 are for --device cuda: a CPU is measured in float32")
    if options.processor_time and (options.device != "cpu" or options.threads != 1):
        raise UnusableError(
            "--processor-time is of one thread of a CPU: give --threads 1; time of several would be added up"
        )
    names = options.names or list(WORKLOADS)
    without = [name for name in names if WORKLOADS[name].needs_data and data is None]
    if without and options.names:
        raise UnusableError(
            f"{without[0]} is of real data: give --data DIR, or set VERTEXFLOW_DATA (docs/environment.md)"
        )
    if without:
        console.print(f"[yellow]skipped, for want of --data: {', '.join(without)}[/]")
    cases = [case for case in itertools.product(names, options.hidden, options.batch) if case[0] not in without]
    if len(cases) == 1:
        return _run_one(options, data, *cases[0])
    codes = []
    for case in cases:  # in a process of its own: what it leaves behind must not matter to the next
        process = multiprocessing.get_context("spawn").Process(target=_exit_with_run, args=(options, data, *case))
        process.start()
        process.join()
        codes.append(process.exitcode or 0)
    return max(codes, key=abs)


def _exit_with_run(*arguments: Any) -> None:
    sys.exit(_guarded(_run_one, *arguments))


def _run_one(options: argparse.Namespace, data: Path | None, name: str, hidden: int, batch: int) -> int:
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.processor_time else time.perf_counter
    torch.manual_seed(options.seed)
    if options.device == "cuda":  # cuDNN would take TF32 by itself
        torch.set_float32_matmul_precision("high" if options.tf32 else "highest")
        torch.backends.cudnn.rnn.fp32_precision = "tf32" if options.tf32 else "ieee"
    settings = Settings(hidden, batch, options.seed, DTYPES[options.dtype], data, options.compile, options.device)
    case = WORKLOADS[name].make(settings)
    if options.batched:
        case = without_slow(case, "vertex by vertex it takes long (--batched)")
    try:
        measured = measure(case, options.rounds, options.forward, clock)
    except DisagreementError as error:
        console.print(f"[red]{name}, hidden {hidden}, batch {batch}: {error}[/]")
        return 1
    result = {
        "workload": name,
        "mode": ("forward" if options.forward else "step") + ("-processor" if options.processor_time else ""),
        "hidden": hidden,
        "batch": batch,
        "threads": options.threads,
        "device": options.device,
        "dtype": "tf32" if options.tf32 else options.dtype,
        "seed": options.seed,
        "rounds": options.rounds,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        **measured,
    }
    write_result(result, options.results)
    _show(result)
    return 0


def _show(result: dict[str, Any]) -> None:
    what = MODES[result["mode"]]
    table = Table(title=f"{result['workload']}, {what}, hidden {result['hidden']}: {result['title']}")
    for column in ("", "median ms", "quartiles", "x floor", "x vertexflow", "peak MiB", "rounds"):
        table.add_column(column, justify="right" if column else "left")
    for name, figure in result["figures"].items():
        times = (number(figure["median_ms"]), f"{number(figure['quartile_1_ms'])}-{number(figure['quartile_3_ms'])}")
        ratios = (number(figure["x_floor"]), number(figure["x_vertexflow"]))
        table.add_row(name, *times, *ratios, number(figure["peak_bytes"], 2**20), str(len(figure["rounds_ms"])))
    console.print(table)
    if result["kept_bytes"]:
        console.print(f"to be kept (states, gates, gradients of weights): {number(result['kept_bytes'], 2**20)} MiB")
    if "bound_ms" in result:
        console.print(f"at this device's best rates: {number(result['bound_ms'])} ms")
    console.print(f"losses and gradients agree to {largest_difference(result):.0e}")
    for name, reason in result["skipped"].items():
        console.print(f"[yellow]without {name}: {reason}[/]")


def _report(options: argparse.Namespace) -> int:
    results = read_results(options.results)
    if not results:
        raise UnusableError(f"{options.results} has no results yet; make some with: python -m benchmarks run")
    console.print(f"wrote {write_report(results, options.docs)}", soft_wrap=True)
    return 0
