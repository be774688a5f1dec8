"""The generated code of the ready-made models is what it was, so that a change of a printer is read in review."""

from __future__ import annotations

import pytest
import torch

from benchmarks.zoo import ZOO

from .golden.__main__ import FOLDER, TORCH, sources


@pytest.mark.skipif(not torch.__version__.startswith(TORCH), reason=f"PyTorch {TORCH} traces in its own words")
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.cases(2)
def test_the_same_code_as_before(name):
    """If it ought to differ: `python -m tests.kernels.golden` writes it anew, and `git diff` shows it."""
    for file, text in sources(name).items():
        assert text == FOLDER.joinpath(file).read_text(encoding="utf-8"), file
