"""The picture of all settings: a line and a field for each."""

from __future__ import annotations

from benchmarks import ahead
from benchmarks.harness import FLOOR, OURS
from benchmarks.report import write_result

from .test_report import result


def test_a_line_for_each_setting_names_the_fastest_peer(tmp_path, capsys):
    slower = result(64, 16)
    slower["figures"] = {**slower["figures"], "quick": {**slower["figures"]["peer"], "median_ms": 12.0}}
    for one in (result(256, 64), slower, {**result(64, 1), "mode": "forward", "threads": 1}):
        write_result(one, tmp_path)
    table, picture = tmp_path / "ahead.csv", tmp_path / "ahead.svg"
    arguments = ["--table", str(table), "--picture", str(picture)]
    assert ahead.main([str(tmp_path), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "mode step, threads 2, workload treelstm, hidden 64, batch 16: quick takes 0.92 of our time" in printed
    assert "2 of 3 settings at least as fast as every peer" in printed
    lines = [
        (s["mode"], s["threads"], s["hidden"], s["batch"], s["peer"], ahead.times(s)) for s in ahead.read_table(table)
    ]
    assert lines == [
        ("forward", 1, 64, 1, "peer", 2000 / 13),
        ("step", 2, 64, 16, "quick", 12 / 13),
        ("step", 2, 256, 64, "peer", 2000 / 13),
    ]
    before = picture.read_text()
    assert ahead.main(arguments) == 0  # from the table alone
    assert picture.read_text() == before
    assert all(f">{words}</text>" in before for words in ("treelstm", "154", "0.92"))


def test_the_last_result_of_a_setting_counts():
    later = {**result(64, 1), "figures": {**result(64, 1)["figures"], "quick": result(64, 1)["figures"][OURS]}}
    assert [setting["peer"] for setting in ahead.settings_of([result(64, 1), later])] == ["quick"]


def test_neither_floor_nor_vertexflow_is_a_peer():
    (setting,) = ahead.settings_of([result(64, 1)])
    assert setting["peer"] not in (FLOOR, OURS)
