"""How fast a trained parser is, one sentence at a time and in batches: `python -m examples.spinn.speed RUN`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from . import checkpoint
from .data import batches, load
from .model import Parser
from .parser import parse


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse test sentences with the model's own actions, the same ones in batches of every size; print the speeds."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.speed",
        description="Sentences per second of parsing with own actions, forward only. Each batch size in turn, several "
        "times; the median counts.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help=f"folder of a run of {__package__}.train")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 64, 256], metavar="N", help="to be timed")
    parser.add_argument("--sentences", type=int, default=256, metavar="N", help="test sentences, at most all")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="times that each size is timed")
    options = parser.parse_args(arguments)
    try:
        saved = checkpoint.load(options.run / "model.pt")
    except OSError as error:
        parser.error(str(error))
    settings = argparse.Namespace(**saved["options"])
    _, _, test = load(settings.train_size, settings.max_depth, settings.max_tokens, settings.seed)
    test = test.select(np.arange(min(options.sentences, len(test))))
    model = Parser(settings.embed, settings.hidden).eval()
    model.load_state_dict(saved["model"])

    seconds: dict[int, list[float]] = {size: [] for size in options.batch_sizes}
    with torch.no_grad():
        parse(model.compose, test.select(np.arange(1)), model.choose)  # the vertex function is traced here
        for _ in tqdm(range(options.rounds), desc="rounds", leave=False):
            for size in options.batch_sizes:
                parts = list(batches(test, size))
                started = time.perf_counter()
                for part in parts:
                    model.answer(parse(model.compose, part, model.choose).run[:].h)
                seconds[size].append(time.perf_counter() - started)
    length = len(test.token) / len(test)
    print(f"{len(test)} test sentences of {length:.1f} tokens on average; {torch.get_num_threads()} CPU threads")
    for size, durations in seconds.items():
        print(f"batches of {size:4}: {len(test) / np.median(durations):8.0f} sentences/s")


if __name__ == "__main__":
    main()
