"""`make gpu`: parts have limits, what was finished is kept, and the table says the rest. No GPU is needed for that."""

from __future__ import annotations

import json
import os
import sys
import time

import pytest

import vertexflow as vf
from benchmarks.gpu.__main__ import main, run_all
from benchmarks.gpu.launches import BATCHES, NATIVE, ONE, TRITON, measure
from benchmarks.gpu.limits import run
from benchmarks.gpu.parts import ROOT, Part, all_parts, chosen
from benchmarks.gpu.table import LINES, table


def python(text):
    return [sys.executable, "-c", text]


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process}/stat") as file:
        return file.read().split(")")[1].split()[0] != "Z"


# A command with a limit


def test_a_command_that_ends_tells_its_code_and_last_line(tmp_path):
    ended = run(python("print('one'); print('two'); print(); raise SystemExit(3)"), tmp_path / "log", 20)
    assert (ended.code, ended.last_line) == (3, "two")
    assert (tmp_path / "log").read_text() == "one\ntwo\n\n"


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    hangs = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    text = (
        f"import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', {hangs!r}]).pid); time.sleep(60)"
    )
    start = time.monotonic()
    ended = run(python(text), tmp_path / "log", 1.5)
    assert ended.code is None
    assert time.monotonic() - start < 10
    child = int(ended.last_line)  # written before it was stopped
    time.sleep(0.2)
    assert not is_running(child)


def test_what_a_command_leaves_running_is_ended_as_well(tmp_path):
    text = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    ended = run(python(text), tmp_path / "log", 20)
    assert ended.code == 0
    time.sleep(0.2)
    assert not is_running(int(ended.last_line))


# Parts, one after the other


def ends(parts, tmp_path, seconds=60):
    records = run_all(parts, tmp_path, seconds)
    assert json.loads((tmp_path / "parts.json").read_text()) == records
    return {one["name"]: (one["code"], one["ended"]) for one in records}


def test_each_part_ends_in_its_own_way(tmp_path, capsys):
    parts = [
        Part("one", python("pass"), 20),
        Part("two", python("raise ValueError('of two')"), 20),
        Part("three", python("import sys; print('no GPU'); sys.exit(2)"), 20),
        Part("four", python("import time; print('half', flush=True); time.sleep(60)"), 1.5),
        Part("five", python("pass"), 20, ["no_such_package"]),
    ]
    assert ends(parts, tmp_path) == {
        "one": (0, "done"),
        "two": (1, "FAILED (1): ValueError: of two"),
        "three": (2, "cannot run: no GPU"),
        "four": (1, "STOPPED at its limit; its last line: half"),
        "five": (2, "cannot run: no_such_package not installed"),
    }
    said = capsys.readouterr().out
    for name in ("one", "two", "three", "four", "five"):
        assert any(line.startswith(f"{name} ") and " s  " in line for line in said.splitlines())


def test_when_the_time_is_up_what_was_finished_is_kept_and_the_rest_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.__main__.LEAST", 1.0)
    parts = [
        Part("first", python(f"open({str(tmp_path / 'kept')!r}, 'w').write('kept')"), 20),
        Part("slow", python("import time; time.sleep(60)"), 60),
        Part("last", python("pass"), 20),
    ]
    start = time.monotonic()
    ended = ends(parts, tmp_path, seconds=3)
    assert time.monotonic() - start < 15
    assert ended["slow"][1].startswith("STOPPED")
    assert ended["last"] == (1, "not begun: the time is up")
    assert (tmp_path / "kept").read_text() == "kept"


def test_nothing_is_begun_without_a_core(tmp_path):
    ended = ends([Part("build", python("raise SystemExit(1)"), 20), Part("tests", python("pass"), 20)], tmp_path)
    assert ended["tests"] == (2, "not begun: the native core was not built")


# Which parts


def test_parts_are_chosen_by_name_and_the_core_is_always_built(tmp_path):
    parts = all_parts(tmp_path)
    assert chosen(parts, []) == parts
    assert [part.name for part in chosen(parts, ["tests"])] == ["build", "tests"]
    trees = [part.name for part in chosen(parts, ["bench:treelstm"])]
    assert trees[0] == "build"
    assert len(trees) > 2
    assert all(name.startswith("bench:treelstm:") for name in trees[1:])
    assert len(chosen(parts, ["bench"])) > len(trees) + 4


def test_a_part_that_does_not_exist_is_refused_with_those_that_do(capsys):
    assert main(["bench:trelstm"]) == 2
    assert (
        "no part 'bench:trelstm'; choose of build, ceilings, tests, bench:launches, bench:treelstm"
        in capsys.readouterr().err
    )


def test_all_files_with_tests_for_a_gpu_are_run(tmp_path):
    """Those of one launch by themselves and last: should a barrier hang, all else is there."""
    parts = [part for part in all_parts(tmp_path) if not part.name.startswith("bench:") or "launch" in part.name]
    assert [part.name for part in parts] == [
        "build",
        "ceilings",
        "tests",
        "bench:launches",
        "one-launch:tests",
        "one-launch:bench",
    ]
    tests, one_launch = parts[2], parts[4]
    assert tests.command[-2:] == one_launch.command[-2:]
    assert "not one_launch" in tests.command
    assert "one_launch" in one_launch.command
    assert "tests/kernels/triton/test_gpu.py" in tests.command
    assert "tests/benchmarks/test_report.py" in tests.command
    assert tests.variables["TRITON_INTERPRET"] == "0"
    assert sum(part.seconds for part in all_parts(tmp_path)[:3]) < 9 * 60


# Outcomes of tests

TESTS = """
import time
import pytest
def test_good(record_property):
    record_property("kind", "tf32")
    record_property("difference", 0.25)
def test_bad():
    assert 1 == 2
@pytest.mark.skip(reason="of no use")
def test_skipped():
    pass
def test_hangs():
    time.sleep(60)
"""


SEVERAL = pytest.param(["-n", "1"], marks=pytest.mark.slow)


@pytest.mark.parametrize("processes", [[], SEVERAL], ids=["one process", "several"])
@pytest.mark.slow
def test_outcomes_of_tests_are_kept_when_one_hangs(processes, tmp_path):
    (tmp_path / "test_some.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "benchmarks.gpu.outcomes",
        "--rootdir",
        str(tmp_path),
        *processes,
    ]
    command += [f"--outcomes={tmp_path / 'tests.jsonl'}", str(tmp_path / "test_some.py")]
    ended = run(command, tmp_path / "log", 6, {"PYTHONPATH": str(ROOT)})
    assert ended.code is None
    lines = table(tmp_path, [], 8)
    assert "tests: 4 collected, 1 passed, 1 failed, 1 skipped (Skipped: of no use)" in lines
    assert "  furthest from float64, tf32: 2.5e-01 (test_good)" in lines
    assert "  FAILED test_some.py::test_bad: assert 1 == 2" in lines


@pytest.mark.slow
def test_a_file_that_cannot_be_imported_is_a_failure_that_names_what_is_missing(tmp_path):
    (tmp_path / "test_some.py").write_text("import no_such_package\ndef test_it():\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.gpu.outcomes", "--rootdir", str(tmp_path)]
    command += [f"--outcomes={tmp_path / 'tests.jsonl'}", str(tmp_path / "test_some.py")]
    assert run(command, tmp_path / "log", 20, {"PYTHONPATH": str(ROOT)}).code == 2
    assert any("no_such_package" in line and "FAILED" in line for line in table(tmp_path, [], 8))


# Launches


@pytest.mark.parametrize("other", [TRITON, ONE])
@pytest.mark.slow
def test_ways_of_launching_agree_and_are_measured(other, interpreter, monkeypatch):
    """On the CPU, where Triton's interpreter takes the place of the device."""
    monkeypatch.setitem(BATCHES, "1 tree", ("README", lambda _: [vf.tree(((0, 1), 2))]))
    figures = measure("1 tree", 3, 1, other, device="cpu")
    assert figures["is_same"]
    assert list(figures["ways"]) == [NATIVE, other]
    assert ("core: Triton kernels, one launch for all steps" in figures["explain"]) == (other == ONE)
    assert figures["launches"] == 8  # one of leaves and two steps forward; twice two steps and one of leaves backward


# The table


def result(ours, floor, peer):
    times = {"quartile_1_ms": 1.0, "quartile_3_ms": 3.0}
    figures = {
        "floor": {**times, "median_ms": floor, "x_floor": 1.0, "x_vertexflow": floor / ours},
        "vertexflow": {**times, "median_ms": ours, "x_floor": ours / floor, "x_vertexflow": 1.0},
        "nn.LSTM, packed": {**times, "median_ms": peer, "x_floor": peer / floor, "x_vertexflow": peer / ours},
    }
    settings = {"workload": "varlstm", "mode": "step", "dtype": "tf32", "hidden": 256, "batch": 64, "bound_ms": 0.5}
    return json.dumps({**settings, "figures": figures})


def test_the_table_has_times_bounds_and_peers(tmp_path):
    (tmp_path / "varlstm-step-h256-b64-t2-cuda-tf32.json").write_text(result(2.0, 1.0, 7.0))
    ways = {"by the native core": {"median_ms": 1.5, "quartile_1_ms": 1.25, "quartile_3_ms": 2.0}}
    (tmp_path / "launches.json").write_text(json.dumps({"1 tree": {"launches": 35, "is_same": False, "ways": ways}}))
    text = "\n".join(table(tmp_path, [{"name": "tests", "seconds": 3.0, "ended": "done"}], 4.0))
    assert (
        "varlstm step tf32 h256 b64: vertexflow 2.000 ms (1.000-3.000), x2.00 of the floor, x4.00 of the bound" in text
    )
    assert "nn.LSTM, packed x3.50" in text
    assert "launches, 1 tree (35 a training step): by the native core 1.500 ms (1.250-2.000); GRADIENTS DIFFER" in text


def test_the_table_has_60_lines_at_most_and_says_what_it_leaves_out(tmp_path):
    for number in range(40):
        (tmp_path / f"w{number}-step-h256-b64-t2-cuda-tf32.json").write_text(result(2.0, 1.0, 7.0))
    lines = table(tmp_path, [{"name": f"part {n}", "seconds": 1.0, "ended": "done"} for n in range(16)], 4.0)
    assert len(lines) == LINES == 60
    assert sum("lines more" in line for line in lines) == 1
    assert sum(line.startswith("part ") for line in lines) == 16  # how parts ended always has room


def test_half_a_file_and_files_of_an_earlier_run_are_left_out(tmp_path):
    (tmp_path / "varlstm-step-h256-b64-t2-cuda-tf32.json").write_text(result(2.0, 1.0, 7.0)[:50])
    (tmp_path / "treefc-step-h256-b64-t2-cuda-tf32.json").write_text(result(2.0, 1.0, 7.0))
    os.utime(tmp_path / "treefc-step-h256-b64-t2-cuda-tf32.json", (1, 1))
    assert len(table(tmp_path, [], 4.0, since=1000)) == 3  # no ceilings, no tests, all of it
