"""What both commands can be told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


def parser(program: str, description: str, precisions: Sequence[str]) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--hidden", type=int, default=48, metavar="N", help="size of a state")
    parser.add_argument("--formulas", type=int, default=2000, metavar="N", help="how many to train on")
    parser.add_argument("--most", type=int, default=12, metavar="N", help="values in a formula to train on, at most")
    parser.add_argument("--epochs", type=int, default=4, metavar="N", help="passes over the formulas")
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="formulas a step, of all processes together"
    )
    parser.add_argument("--lr", type=float, default=2e-3, metavar="X", help="learning rate of AdamW")
    parser.add_argument("--precision", choices=precisions, default=precisions[0], help="of what is computed")
    parser.add_argument("--seed", type=int, default=0, help="of formulas, weights and their order")
    parser.add_argument("--out", type=Path, default=Path("runs") / program.rpartition(".")[2], metavar="DIR",
                      help="where the weights go")  # fmt: skip
    return parser


def check(options: argparse.Namespace) -> None:
    """Exits with 2, and a line, where they cannot be followed."""
    if min(options.hidden, options.formulas, options.epochs, options.batch_size) < 1 or options.most < 2:
        refuse("--hidden, --formulas, --epochs and --batch-size are at least 1, --most is at least 2")
    if not 0 < options.lr <= 1:
        refuse("--lr is above 0, up to 1")


def refuse(message: str) -> NoReturn:
    """Leave with one line that says what is wrong."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
