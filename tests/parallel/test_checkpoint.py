"""Runs that are continued by another number of ranks, and after a rank was killed, end with the weights of an undisturbed one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from . import continued

ROOT = Path(__file__).parents[2]
STEPS = 8
WAYS = ("whole", "sharded")


@pytest.fixture(autouse=True)
def _backend(monkeypatch):
    monkeypatch.setenv("VERTEXFLOW_BACKEND", "torch")


def launched(folder, ways, steps, processes, *more):
    """The run under torchrun, or, of one process, without."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--nproc-per-node", str(processes), "--max-restarts", "1", "--rdzv-backend", "c10d",
                    "--rdzv-endpoint", "localhost:0", "--local-addr", "localhost", "-m"]  # fmt: skip
    command += ["tests.parallel.continued", str(folder), ",".join(ways), str(steps), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "VERTEXFLOW_BACKEND": "torch"}
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # or gloo finds the addresses of ranks that were killed
    done = subprocess.run(command, env=environment, cwd=ROOT, text=True, capture_output=True, timeout=500, check=False)
    assert not done.returncode, (done.stdout + done.stderr)[-4000:]


def agree(folder, wanted):
    for (name, ours), other in zip(torch.load(folder / "weights.pt").items(), wanted.values(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-10, msg=lambda text, at=name: f"{at}: {text}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The weights of one process that was never stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERTEXFLOW_BACKEND", "torch")
        folder = tmp_path_factory.mktemp("undisturbed")
        continued.main(str(folder), "whole", STEPS)
    return torch.load(folder / "weights.pt")


def test_a_run_is_continued_where_it_stopped(tmp_path, undisturbed):
    for steps in (1, 4, STEPS):  # the first leaves nothing
        continued.main(str(tmp_path), "whole", steps)
    agree(tmp_path, undisturbed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000000008", "weights.pt"]


@pytest.mark.slow
def test_four_ranks_write_and_one_two_and_eight_go_on(tmp_path, undisturbed):
    launched(tmp_path / "four", WAYS, 4, 4)
    for processes in (1, 2, 8):
        shutil.copytree(tmp_path / "four", tmp_path / str(processes))
        launched(tmp_path / str(processes), WAYS, STEPS, processes)
        for way in WAYS:
            agree(tmp_path / str(processes) / way, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_rank_is_killed_and_torchrun_goes_on(tmp_path, undisturbed, way):
    launched(tmp_path, [way], STEPS, 2, "--kill")
    agree(tmp_path / way, undisturbed)
