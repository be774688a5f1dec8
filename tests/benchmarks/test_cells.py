"""What the benchmark of cells compares is the same computation, and its loops read neighbours."""

from __future__ import annotations

import pytest
import torch

import vertexflow as vf
from benchmarks.cells import HEADS, LENGTH, SLSTM, main
from vertexflow.kernels.native.source import write_part

SIZE = 8 * HEADS


@pytest.fixture(scope="module")
def model():
    """One, as tracing it takes longer than all else."""
    torch.manual_seed(0)
    return SLSTM(SIZE, SIZE).double()


@pytest.mark.slow
def test_an_slstm_and_its_loop_agree(model):
    batch, x = vf.pack([vf.chain(5)] * 3), torch.randn(3, 5, SIZE, dtype=torch.float64, requires_grad=True)
    both = (model(batch, x=x.flatten(0, 1)).h.view(3, 5, SIZE), model.loop(x))
    leaves = [x, *model.parameters()]
    torch.testing.assert_close(*([h, *torch.autograd.grad(h.square().sum(), leaves)] for h in both))


def test_loops_over_heads_have_no_quotients(model):
    model(vf.pack([vf.chain(3)]), x=torch.randn(3, SIZE, dtype=torch.float64))
    (program,) = model.symbolic_graph.programs.values()
    for core in ("core", "grad_core"):
        (function,) = write_part(program, core).functions
        assert not any(sign in function.text for sign in (" % ", "/ 8"))


@pytest.mark.slow
def test_the_command_shows_both(capsys):
    main(["--hidden", "16", "--graphs", "2", "--repeat", "1"])
    shown = capsys.readouterr().out
    assert f"sLSTM, 2 sequences of {LENGTH}" in shown
    assert "with LayerNorm and dropout" in shown
