"""How surprising each sentence of a file is to a trained model: `python -m examples.lm.score --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from .command import choose_device, load_checkpoint, refuse
from .data import batches, encode
from .model import LSTMS, LanguageModel


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the perplexity of each sentence, its end included, and the sentence."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.score",
        description="Print the perplexity of each sentence. A line is a sentence, its tokens apart: `It 's a good film .`",
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="RUN", required=True, help=f"folder of a run of {__package__}.train"
    )
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, ...")
    parser.add_argument("file", nargs="?", default="-", help="file of sentences; - (the default) reads standard input")
    options = parser.parse_args(arguments)
    path = options.checkpoint / "best.pt"
    saved = load_checkpoint(path, f"--checkpoint {options.checkpoint}")
    settings = saved["options"]
    if settings.get("model") not in LSTMS:
        refuse(f"--checkpoint {options.checkpoint}: {path} is of another program")
    device = choose_device(options.device)
    model = LanguageModel(settings["model"], len(saved["words"]), settings["hidden"], settings["layers"], 0.0)
    model.to(device).load_state_dict(saved["model"])
    try:
        text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        refuse(f"{options.file}: {error}")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        refuse(f"{options.file}: there is no sentence in it")
    for line, perplexity in zip(lines, perplexities(model.eval(), lines, saved["words"], device), strict=True):
        print(f"{perplexity:.1f}\t{line.strip()}")


@torch.no_grad()
def perplexities(model: LanguageModel, lines: Sequence[str], words: Sequence[str], device: torch.device) -> list[float]:
    """exp of the mean loss of a token in each sentence."""
    results: list[float] = []
    for batch, tokens, targets in batches(encode([line.lower().split() for line in lines], words), 64):
        losses = cross_entropy(model(batch, tokens.to(device)), targets.to(device), reduction="none").cpu()
        total = torch.zeros(len(batch)).index_add(0, batch.graph_of_vertex, losses)
        results += (total / batch.graph_of_vertex.bincount()).exp().tolist()
    return results


if __name__ == "__main__":
    main()
