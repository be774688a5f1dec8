"""Predict the label of trees with a trained model: `python -m examples.treelstm.predict --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import vertexflow as vf

from . import listops
from .task import encode
from .train import build_model, choose_device, load_checkpoint, refuse
from .training import batches


def main(arguments: Sequence[str] | None = None) -> None:
    """Print, for each tree, its label, the confidence (the probability of that label), and the tree's text."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.predict",
        description="Print the label and the confidence of each tree. A model of ListOps reads one expression a line, "
        "`[MAX 2 9 [MIN 4 7 ] 0 ]`; a model of SST reads trees in PTB brackets, `(3 (2 It) (4 (2 's) (3 good)))`, "
        "whose own labels are ignored.",
    )
    parser.add_argument(
        "--checkpoint", metavar="RUN", required=True, help="a run's folder (its best epoch), or a .pt file"
    )
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, ...")
    parser.add_argument("file", nargs="?", default="-", help="file of trees; - (the default) reads standard input")
    options = parser.parse_args(arguments)
    path = Path(options.checkpoint)
    saved = load_checkpoint(path / "best.pt" if path.is_dir() else path, f"--checkpoint {options.checkpoint}")
    device = choose_device(options.device)
    settings = argparse.Namespace(**saved["options"])
    model = build_model(settings, len(saved["words"]), len(saved["classes"])).to(device).eval()
    model.load_state_dict(saved["model"])
    name = "standard input" if options.file == "-" else options.file
    try:
        text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text(encoding="utf-8")
        graphs = _read(text, name, settings.dataset)
        root_probabilities = _root_probabilities(model, graphs, saved["words"], device)
    except (OSError, UnicodeDecodeError, vf.GraphError) as error:
        refuse(str(error))
    for probabilities, graph in zip(root_probabilities, graphs, strict=True):
        confidence, label = probabilities.max(-1)
        words = " ".join(token for token in graph.data["token"] if token)
        print(f"{saved['classes'][int(label)]}\t{confidence:.3f}\t{words}")


def _read(text: str, name: str, dataset: str) -> list[vf.InputGraph]:
    if dataset == "sst":
        graphs = vf.from_ptb(_Lines(name, text))
        for graph in graphs:
            graph.data.pop("label")
            graph.data["token"] = np.array([token.lower() for token in graph.data["token"]], dtype=object)
        return graphs
    graphs = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                graphs.append(listops.to_graph(listops.parse(line)))
            except ValueError as error:
                raise vf.GraphError(f"{name}, line {number}: {error}") from error
            graphs[-1].data.pop("label")
    if not graphs:
        raise vf.GraphError(f"{name}: there is no tree in it")
    return graphs


class _Lines(list[str]):
    """Lines with the name of where they come from, for messages."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text.split("\n"))
        self.name = name


def _root_probabilities(
    model: torch.nn.Module, graphs: list[vf.InputGraph], words: Sequence[str], device: torch.device
) -> list[torch.Tensor]:
    probabilities: list[torch.Tensor] = []
    with torch.no_grad():
        for batch, tokens, _ in batches(encode(graphs, words), 64):
            logits = model(batch, token=tokens.to(device)).logits
            probabilities += logits[batch.roots].softmax(-1).cpu()
    return probabilities


if __name__ == "__main__":
    main()
