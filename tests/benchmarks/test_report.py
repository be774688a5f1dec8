"""The command line, result files, and the page that is made of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import command, report
from benchmarks.harness import FLOOR, OURS, Case, Contestant, DisagreementError
from benchmarks.report import number, read_results, write_report, write_result
from benchmarks.workloads import WORKLOADS


def result(hidden: int, batch: int, mode: str = "step") -> dict[str, Any]:
    def figures(ms: float, peak: int | None) -> dict[str, Any]:
        quartiles = {"quartile_1_ms": ms * 0.9, "quartile_3_ms": ms * 1.2}
        ratios = {"x_floor": ms / 10, "x_vertexflow": ms / 13}
        return {
            "median_ms": ms, **quartiles, **ratios, "peak_bytes": peak, "difference": 3e-7 if peak else None,
            "rounds_ms": [ms] * 9,
        }  # fmt: skip

    return {
        "workload": "treelstm", "mode": mode, "hidden": hidden, "batch": batch, "threads": 2, "seed": 0, "rounds": 9,
        "device": "cpu", "dtype": "float32",
        "date": "2026-01-02T03:04:05+00:00", "commit": "abcdef0", "versions": {"python": "3.11", "torch": "2.13"},
        "machine": {"cpu": "a CPU", "cores": 2, "vectors": "AVX2", "OMP_NUM_THREADS": ""},
        "title": f"{batch} trees", "kept_bytes": 3 * 2**20, "floor_operations": 1,
        "figures": {FLOOR: figures(10, None), OURS: figures(13, 5 * 2**20), "peer": figures(2000, 9 * 2**20)},
        "skipped": {"DGL": "absent"},
    }  # fmt: skip


def test_files(tmp_path):
    for hidden, batch in ((256, 64), (64, 1), (64, 16)):
        write_result(result(hidden, batch), tmp_path)
    path = write_result({**result(64, 1), "commit": "later"}, tmp_path)
    assert path.name == "treelstm-step-h64-b1-t2.json"
    (tmp_path / "scheduler-cpu.json").write_text(json.dumps({"speed": {}}))
    results = read_results(tmp_path)
    assert [(one["hidden"], one["batch"], one["commit"]) for one in results] == [
        (64, 1, "later"), (64, 16, "abcdef0"), (256, 64, "abcdef0"),
    ]  # fmt: skip


def test_the_rounds_are_in_a_file_of_their_own(tmp_path):
    """What is kept of a result has a line for each contestant, and nothing that only the rounds tell."""
    original = result(64, 1)
    path = write_result(original, tmp_path)
    (kept,) = read_results(tmp_path)
    assert "rounds_ms" not in path.read_text()
    assert kept == {**original, "figures": {
        name: {key: value for key, value in figure.items() if key != "rounds_ms"} for name, figure in original["figures"].items()
    }}  # fmt: skip
    assert sum('"median_ms"' in line for line in path.read_text().split("\n")) == len(original["figures"])
    rounds = json.loads((tmp_path / "rounds" / path.name).read_text())
    assert rounds == {name: figure["rounds_ms"] for name, figure in original["figures"].items()}


@pytest.mark.slow
def test_what_is_kept_makes_the_page_that_is_kept(tmp_path):
    """docs/benchmarks.md is of the results in the repository, to the last character."""
    root = Path(report.__file__).parents[1]
    page = write_report(read_results(root / "benchmarks" / "results"), tmp_path)
    assert page.read_text() == (root / "docs" / "benchmarks.md").read_text()


def on_gpu(hidden: int, batch: int) -> dict[str, Any]:
    base = result(hidden, batch)
    base["machine"] |= {"gpu": "a GPU", "multiprocessors": 132, "cuda": "13.0"}
    return {**base, "device": "cuda", "dtype": "tf32"}


def test_results_of_a_gpu_stand_apart(tmp_path):
    """In files, tables and plots of their own; results from before there were any are those of a CPU."""
    assert write_result(on_gpu(64, 1), tmp_path).name == "treelstm-step-h64-b1-t2-cuda-tf32.json"
    write_result(on_gpu(64, 16), tmp_path)
    earlier = result(64, 1)
    del earlier["device"], earlier["dtype"]
    (tmp_path / "earlier.json").write_text(json.dumps(earlier))
    results = read_results(tmp_path)
    assert [(one["device"], one["batch"]) for one in results] == [("cpu", 1), ("cuda", 1), ("cuda", 16)]
    text = write_report(results, tmp_path).read_text()
    assert text.index("## treelstm: a training step\n") < text.index("## treelstm: a training step, a GPU, tf32\n")
    assert "(plots/treelstm-step-cuda-tf32.svg)" in text
    assert "tf32; a GPU, CUDA 13.0; a CPU" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_that_is_said(capsys):
    assert command.main(["run", "varlstm", "--device", "cuda"]) == 2
    assert "PyTorch finds no GPU here" in capsys.readouterr().err


@pytest.mark.slow
def test_contestants_that_go_vertex_by_vertex_are_left_out_where_that_is_asked_for(tmp_path):
    options = ["--hidden", "8", "--batch", "2", "--rounds", "1", "--threads", "1", "--results", str(tmp_path)]
    assert command.main(["run", "varlstm", "--batched", *options]) == 0
    (run,) = read_results(tmp_path)
    assert "per vertex" not in run["figures"]
    assert "--batched" in run["skipped"]["per vertex"]
    assert {"vertexflow", "by hand, autograd"} <= set(run["figures"])


@pytest.mark.parametrize("option", [["--dtype", "bfloat16"], ["--tf32"]])
def test_a_cpu_is_measured_in_float32(option, capsys):
    assert command.main(["run", "varlstm", *option]) == 2
    assert "for --device cuda" in capsys.readouterr().err


def test_time_of_the_processor_is_that_of_one_thread(capsys):
    """Of several it would be added up."""
    assert command.main(["run", "varlstm", "--processor-time"]) == 2
    assert "--threads 1" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: make test-gpu")
@pytest.mark.parametrize("kind", [[], ["--tf32"], ["--dtype", "bfloat16"]])
@pytest.mark.parametrize("name", ["treelstm", "childsum", "treefc", "varlstm", "customlstm", "circuits"])
def test_a_run_on_a_gpu(name, kind, tmp_path):
    """With all peers that are there, CUDA graphs among them."""
    options = ["--device", "cuda", "--hidden", "64", "--batch", "4", "--rounds", "2", "--results", str(tmp_path)]
    precision = torch.get_float32_matmul_precision()
    assert command.main(["run", name, *options, *kind]) == 0
    torch.set_float32_matmul_precision(precision)
    (run,) = read_results(tmp_path)
    assert any("CUDA graph" in contestant for contestant in run["figures"])
    assert 0 < run["bound_ms"] < run["figures"][OURS]["median_ms"]


@pytest.mark.slow
def test_page(tmp_path):
    results = [result(64, 1), result(64, 16), result(256, 16), result(256, 16, "forward")]
    path = write_report(results, tmp_path)
    text = path.read_text()
    assert "## treelstm: a training step" in text
    assert "| 64 | 1 | 2 | 10.0 | **1.30** (1.17-1.56) | 200 (180-240) |" in text
    assert "| 64 | 1 | 2 | 3.00 | 5.00 | 9.00 |" in text
    assert "(plots/treelstm-step.svg)" in text
    assert "(plots/treelstm-forward.svg)" not in text  # of one setting
    assert text.count("- Without DGL: absent.") == 2
    assert "- Losses and gradients agree to 3e-07" in text
    first = (tmp_path / "plots" / "treelstm-step.svg").read_bytes()
    assert b"<svg" in first
    write_report(results, tmp_path)
    assert (tmp_path / "plots" / "treelstm-step.svg").read_bytes() == first
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.004, "0.00"), (9.994, "9.99"), (9.996, "10.0"), (99.96, "100"), (1234.5, "1234")],
)
def test_number(value, text):
    assert number(value) == text


def test_list(capsys):
    assert command.main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in WORKLOADS)


def test_run_and_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VERTEXFLOW_BACKEND", "torch")  # nothing to compile
    arguments = ["varlstm", "--hidden", "4", "--batch", "2", "--rounds", "2", "--threads", "1"]
    assert command.main(["run", *arguments, "--results", str(tmp_path)]) == 0
    assert "x floor" in capsys.readouterr().out
    (written,) = read_results(tmp_path)
    assert (written["workload"], written["hidden"], written["batch"]) == ("varlstm", 4, 2)
    assert written["machine"]["cores"] >= 1
    assert {"python", "torch", "vertexflow"} <= written["versions"].keys()
    assert command.main(["report", "--results", str(tmp_path), "--docs", str(tmp_path)]) == 0
    assert "varlstm" in (tmp_path / "benchmarks.md").read_text()


@pytest.mark.slow
def test_each_setting_is_a_process(tmp_path):
    """Both cannot be run here, and both say so: the first does not end the run."""
    run = [sys.executable, "-m", "benchmarks", "run", "treelstm-sst", "childsum-ud", "--data", str(tmp_path)]
    ended = subprocess.run(run, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    first, second = ended.stderr.splitlines()
    assert "sst" in first
    assert "ud_english_ewt" in second


def test_exit_codes(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("VERTEXFLOW_DATA", raising=False)
    assert command.main(["run", "nothing"]) == 2
    assert "there is no workload 'nothing'; choose of treelstm" in capsys.readouterr().err
    assert command.main(["run", "treelstm-sst"]) == 2
    assert "give --data DIR" in capsys.readouterr().err
    assert command.main(["run", "treelstm-sst", "--data", str(tmp_path)]) == 2
    assert "sst" in capsys.readouterr().err
    assert command.main(["report", "--results", str(tmp_path)]) == 2
    assert "no results yet" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit:
        command.main(["run", "--batch", "0"])
    assert exit.value.code == 2
    assert "0 is no number from 1 on" in capsys.readouterr().err


def test_a_disagreement_fails_the_run_and_writes_nothing(tmp_path, monkeypatch, capsys):
    def measure(case: Case, rounds: int, forward: bool, clock: Callable[[], float]) -> dict[str, Any]:
        assert isinstance(case.contestants[0], Contestant)
        raise DisagreementError("'peer' and 'vertexflow' differ")

    monkeypatch.setattr(command, "measure", measure)
    arguments = ["treelstm", "--hidden", "4", "--batch", "2", "--threads", "1", "--results", str(tmp_path)]
    assert command.main(["run", *arguments]) == 1
    assert "treelstm, hidden 4, batch 2: 'peer' and 'vertexflow' differ" in capsys.readouterr().out
    assert not read_results(tmp_path)
