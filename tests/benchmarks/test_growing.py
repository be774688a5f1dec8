"""What is timed of runs that grow: contestants give the same loss, which the command checks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.growing import Spinn, extension, main, parse_growing, parse_lists


@pytest.mark.slow
def test_an_extension():
    assert 0 < extension(hidden=4, rows=2, rounds=1, extensions=3) < 10


@pytest.mark.slow
def test_an_extension_by_two_kinds(capsys):
    main(["--extend", "4", "--hidden", "4", "--rounds", "1", "--kinds"])
    assert "extension by   4 of two kinds, hidden    4" in capsys.readouterr().out


@pytest.mark.slow
def test_contestants_agree(capsys):
    main(["--hidden", "8", "--rounds", "1"])
    printed = capsys.readouterr().out
    assert "parser hidden    8: growing" in printed
    assert "beam   hidden    8: growing" in printed


@pytest.mark.slow
def test_a_parser_that_grows_has_the_gradients_of_lists():
    torch.manual_seed(0)
    model, lengths = Spinn(8, 4).double(), np.array([3, 5, 8])
    words, gradients = torch.randn(16, 16, dtype=torch.float64, requires_grad=True), []
    for parse in (parse_growing, parse_lists):
        roots, scores = parse(model, words, lengths)
        loss = roots.square().mean() + torch.logsumexp(scores, -1).mean()
        gradients.append(torch.autograd.grad(loss, [*model.parameters(), words]))
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
