"""The measurement of second derivatives."""

from __future__ import annotations

import re

import pytest

from benchmarks import second_order


@pytest.mark.slow
def test_a_line_for_each_use(capsys):
    assert second_order.main(["--hidden", "8", "--batch", "2", "--repeat", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"[\d.]+", "1", line) for line in lines] == [
        "gradient penalty       vertexflow 1 ms, by hand 1 ms, ratio 1",
        "Hessian times vector   vertexflow 1 ms, by hand 1 ms, ratio 1",
    ]
