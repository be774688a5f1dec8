"""What a GPU can do at best: products in each dtype, a large copy, one launch.

    python -m benchmarks.gpu.ceilings FOLDER

writes FOLDER/ceilings.json. Exit code 2 if there is no GPU.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from ..device import seconds_of
from ..floor import ceilings
from ..machine import commit, machine, versions

NO_GPU = "PyTorch finds no GPU here (torch.cuda.is_available())"
IN_A_ROW = 100  # launches that are timed together


def main(arguments: list[str]) -> int:
    if not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    record: dict[str, Any] = {"commit": commit(), "machine": machine(), "versions": versions(), "dtypes": {}}
    for name, dtype in (("float32", torch.float32), ("tf32", torch.float32), ("bfloat16", torch.bfloat16)):
        torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        record["dtypes"][name] = ceilings(dtype)
        print(name, record["dtypes"][name], flush=True)
    record["launch_us"] = launch_us()
    (Path(arguments[0]) / "ceilings.json").write_text(json.dumps(record, indent=1) + "\n")
    return 0


def launch_us() -> float:
    """Microseconds of one of many launches in a row by PyTorch, of a kernel with next to nothing to do."""
    x = torch.zeros(1, device="cuda")

    def launch() -> None:
        for _ in range(IN_A_ROW):
            x.add_(1)

    launch()
    return statistics.median(seconds_of(launch, "cuda") for _ in range(20)) / IN_A_ROW * 1e6


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
