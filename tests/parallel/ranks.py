"""Functions on several processes of gloo, whose failures are told in the one that started them."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing as mp


def run_on_ranks(folder: Path, count: int, function: Callable[..., None], *args: Any) -> None:
    """Call a function of a module on so many ranks, each a process with one thread and the backend torch."""
    with contextlib.suppress(mp.ProcessExitedException):  # what it says is in the files
        mp.spawn(_process, (count, folder, function, args), nprocs=count)
    files = [folder / f"rank {rank}" for rank in range(count)]
    wrong = {file.name: file.read_text() if file.exists() else "nothing" for file in files}
    wrong = {name: text for name, text in wrong.items() if text != "passed"}
    assert not wrong, "\n".join(f"{name}: {text}" for name, text in wrong.items())


def _process(rank: int, count: int, folder: Path, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ.update(GLOO_SOCKET_IFNAME="lo", VERTEXFLOW_BACKEND="torch")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    try:
        function(*args)
        dist.barrier()
        (folder / f"rank {rank}").write_text("passed")
    except BaseException:
        (folder / f"rank {rank}").write_text(traceback.format_exc())
        os._exit(1)  # the others wait for this one
    dist.destroy_process_group()
